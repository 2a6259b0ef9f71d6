#include "chat/answer.hpp"

#include <algorithm>
#include <cassert>

#include "base/json.hpp"
#include "chat/recovery.hpp"

namespace parley::chat {

using messages::ApiError;
using messages::Event;
using messages::EventType;
using messages::EventWriter;

namespace {

constexpr int64_t kCancelWaitMs = 2500;  // the asker ends a cancelled request after 2 s by itself
constexpr int64_t kTotalSlackMs = 2000;  // the chain ends it first; this is for one that does not
constexpr int64_t kTtftSlackMs = 500;

}  // namespace

std::string_view name(Outcome::Status status) {
    switch (status) {
        case Outcome::Status::done:
            return "done";
        case Outcome::Status::blocked:
            return "blocked";
        case Outcome::Status::cancelled:
            return "cancelled";
        case Outcome::Status::interrupted:
            return "interrupted";
        case Outcome::Status::failed:
            return "failed";
    }
    return "failed";
}

Answer::Answer(AnswerOptions options, Upstream& upstream, AnswerHost& host,
               const base::Clock& clock)
    : options_(std::move(options)),
      upstream_(upstream),
      host_(host),
      clock_(clock),
      stream_(std::make_shared<Stream>(options_.stream)),
      attempt_(options_.first_attempt - 1),
      total_left_ms_(options_.total_ms),
      random_(options_.jitter_seed | 1) {}

uint64_t Answer::random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
}

void Answer::start() {
    assert(state_ == State::fresh);
    stream_->on_progress([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->grant();
    });
    begun_ms_ = clock_.mono_ms();
    if (options_.resumed && !options_.resumed->text.empty()) take_up();
    ask(begun_ms_);
}

void Answer::take_up() {
    taking_up_ = true;
    Event event;
    event.type = EventType::message_start;
    event.usage = options_.resumed->usage;
    push(event, {}, 0);
    event = {};
    event.type = EventType::content_block_start;
    push(event, {}, 0);
    event.type = EventType::content_block_delta;
    event.text = std::move(options_.resumed->text);
    push(event, options_.resumed->produced, 0);
    options_.resumed.reset();
    taking_up_ = false;
}

pipe::Envelope Answer::envelope(int64_t now_ms) const {
    pipe::Envelope envelope = options_.envelope;
    envelope.attempt = attempt_;
    envelope.unfiltered = !options_.key;
    envelope.stall_ms = options_.stall_ms;
    if (stall_from_ms_ >= 0)
        envelope.stall_ms = std::max<int64_t>(1, options_.stall_ms - (now_ms - stall_from_ms_));
    envelope.ttft_ms = 0;
    if (has_message_start())
        envelope.ttft_ms = envelope.stall_ms;
    else if (options_.ttft_ms > 0)
        envelope.ttft_ms = std::max<int64_t>(1, options_.ttft_ms - (now_ms - begun_ms_));
    envelope.total_ms = options_.total_ms > 0 ? std::max<int64_t>(1, total_left_ms_) : 0;
    envelope.continuation.reset();
    // An answer of which the client has no block is simply asked anew: its message_start is swallowed.
    if (const uint32_t blocks = folder_.order().next_index(); blocks > 0) {
        pipe::Continuation& from = envelope.continuation.emplace();
        from.produced = produced_;
        from.block = static_cast<int32_t>(blocks - 1);
        from.text = folder_.words();
        from.released = folder_.blocks().empty() ? 0 : folder_.blocks().back().text.size();
    }
    return envelope;
}

void Answer::ask(int64_t now_ms) {
    ++attempt_;
    held_stop_.reset();
    received_ = 0;
    chain_.reset();
    if (options_.key) chain_.emplace(*options_.key, options_.id, attempt_);
    pipe::Envelope envelope = this->envelope(now_ms);
    const size_t backlog = untaken();
    envelope.credit = static_cast<uint32_t>(
        std::max<size_t>(1, options_.credit - std::min<size_t>(backlog, options_.credit)));
    granted_ = envelope.credit;
    start_again_ = has_message_start() && !envelope.continuation;
    asked_ms_ = now_ms;
    state_ = State::asked;
    // The body is kept for the attempts that may follow.
    auto asked = upstream_.ask(options_.id, envelope, options_.body);
    if (asked) return;
    pipe::EndMeta end;
    end.attempt = attempt_;
    end.retryable = true;
    const bool nobody = asked.error().code != base::Errc::again;
    end.status = nobody ? "api_error" : "overloaded_error";
    end.reason = nobody ? "no_filter" : "queue_full";
    end.message = asked.error().what;
    // Nobody was asked: the number was not used.
    attempt_ended(end);
}

void Answer::on_event(const pipe::EventMeta& meta, const std::string& body) {
    if (state_ != State::asked || meta.attempt != attempt_) return;
    if (chain_ && !chain_->check(meta.seq, meta.policy, body, meta.stamp))
        return break_off("stamp", "an event came without a right stamp");
    ++received_;
    auto event = messages::parse_event(body);
    if (!event) return break_off("malformed", event.error().what);
    if (event->type == EventType::ping) return grant();  // clients get our own
    if (event->type == EventType::error || event->type == EventType::snapshot ||
        event->type == EventType::message_accepted)
        return break_off("malformed", "an event of a kind that comes from no stage below");
    if (start_again_ && event->type == EventType::message_start) {
        start_again_ = false;
        return grant();
    }
    messages::EventOrder order = folder_.order();
    base::Result<void> fits;
    if (held_stop_) fits = order.next(EventType::content_block_stop, *held_stop_);
    if (fits) fits = order.next(*event);
    if (!fits) return break_off("malformed", fits.error().what);
    deliver(*event, meta);
    if (state_ == State::asked) grant();
}

void Answer::deliver(const Event& event, const pipe::EventMeta& meta) {
    failures_ = 0;
    stall_from_ms_ = -1;
    if (event.type == EventType::content_block_stop) {
        held_stop_ = event.index;
        // Its ids end no text; a continuation finds them again.
        return;
    }
    release_held_stop();
    if (event.type == EventType::message_stop) return;  // ours goes out when the end is known
    push(event, meta.ids, meta.stamp_ns);
}

void Answer::release_held_stop() {
    if (!held_stop_) return;
    Event stop;
    stop.type = EventType::content_block_stop;
    stop.index = *held_stop_;
    held_stop_.reset();
    push(stop, {}, 0);
}

messages::Usage Answer::counted(messages::Usage usage) const {
    if (usage.prompt_tokens() == 0 && options_.count_prompt)
        usage.input_tokens =
            folder_.order().started() ? folder_.usage().prompt_tokens() : options_.count_prompt();
    return folder_.order().started() && usage.prompt_tokens() == folder_.usage().prompt_tokens()
               ? as_said(std::move(usage))
               : usage;
}

// How the prompt was counted at the start stands for the client: a later attempt finds what the
// first one kept, and END tells the accounts of reuse that the client has not asked about.
messages::Usage Answer::as_said(messages::Usage usage) const {
    messages::Usage said = folder_.usage();
    if (said.prompt_tokens() != usage.prompt_tokens()) {
        said = {};
        said.input_tokens = usage.prompt_tokens();
    }
    usage.input_tokens = said.input_tokens;
    usage.cache_read_input_tokens = said.cache_read_input_tokens;
    usage.cache_creation_input_tokens = said.cache_creation_input_tokens;
    usage.cache_creation_1h_input_tokens = said.cache_creation_1h_input_tokens;
    return usage;
}

void Answer::push(const Event& event, const std::vector<int32_t>& ids, int64_t stamp_ns) {
    std::string json;
    uint64_t offset = 0;
    Event seen = event;
    if (seen.usage) seen.usage = counted(std::move(*seen.usage));
    switch (event.type) {
        case EventType::message_start:
            json = EventWriter::message_start(options_.id, options_.model,
                                              seen.usage.value_or(messages::Usage{}));
            break;
        case EventType::content_block_start:
            json = event.block == messages::BlockType::tool_use
                       ? EventWriter::tool_block_start(event.index, event.tool_id, event.tool_name)
                       : EventWriter::text_block_start(event.index);
            break;
        case EventType::content_block_delta: {
            offset = folder_.blocks().empty() ? 0 : folder_.blocks().back().text.size();
            const auto told = options_.offsets ? std::optional<uint64_t>(offset) : std::nullopt;
            json = event.block == messages::BlockType::tool_use
                       ? EventWriter::input_delta(event.index, event.text, told)
                       : EventWriter::text_delta(event.index, event.text, told);
            break;
        }
        case EventType::content_block_stop:
            json = EventWriter::block_stop(event.index);
            break;
        case EventType::message_delta:
            json = EventWriter::message_delta(event.stop.value_or(messages::Stop{}),
                                              seen.usage.value_or(messages::Usage{}));
            break;
        default:
            return;
    }
    if (event.type == EventType::message_start) {
        seen.message_id = options_.id;
        seen.model = options_.model;
    }
    if (auto folded = folder_.add(seen); !folded)
        return break_off("malformed", folded.error().what);
    produced_.insert(produced_.end(), ids.begin(), ids.end());
    const uint64_t seq = stream_->next_seq();
    stream_->push(event.type, json, stamp_ns);
    if (!taking_up_) host_.on_checked(*this, Checked{seq, event, ids, offset});
}

size_t Answer::untaken() const {
    const size_t held = host_.backlog(*this);
    return options_.readers_hold ? std::max(stream_->backlog(), held) : held;
}

void Answer::grant() {
    if (state_ != State::asked) return;
    const size_t waiting = untaken();
    const uint64_t under_way = granted_ - std::min(granted_, received_);
    const uint64_t used = waiting + under_way;
    if (used >= options_.credit) return;
    const uint64_t room = options_.credit - used;
    // In quarters of the window: a message for each event would double the traffic.
    if (room < std::max<uint32_t>(1, options_.credit / 4) && under_way > 0) return;
    granted_ += room;
    upstream_.grant(options_.id, static_cast<uint32_t>(room));
}

void Answer::break_off(const std::string& reason, const std::string& what) {
    if (state_ != State::asked) return;
    pipe::EndMeta end;
    end.attempt = attempt_;
    end.status = "api_error";
    end.message = what;
    end.reason = reason;
    end.retryable = true;
    // The state changes first: the cancel may bring the END within the call.
    state_ = State::waiting;
    upstream_.cancel(options_.id, reason);
    attempt_ended(end);
}

void Answer::on_end(const pipe::EndMeta& meta) {
    if (meta.attempt != attempt_) return;
    if (state_ == State::asked || state_ == State::cancelling) attempt_ended(meta);
}

void Answer::spend(int64_t now_ms) {
    if (options_.total_ms > 0 && asked_ms_ > 0) total_left_ms_ -= now_ms - asked_ms_;
    asked_ms_ = 0;
}

void Answer::account(const pipe::EndMeta& end) {
    outcome_.cost_s += end.cost_s;
    if (!end.model.empty()) outcome_.version = end.model;
    outcome_.reason = end.reason.empty() ? end.status : end.reason;
    if (!end.usage) return;
    // An attempt's usage covers what it replayed: the greatest is the whole.
    const uint64_t cached = std::min(end.usage->cache_read_input_tokens, end.usage->input_tokens);
    if (end.usage->input_tokens >= outcome_.usage.prompt_tokens()) {
        outcome_.usage.input_tokens = end.usage->input_tokens - cached;
        outcome_.usage.cache_read_input_tokens = cached;
    }
    outcome_.usage.output_tokens = std::max(outcome_.usage.output_tokens, end.usage->output_tokens);
}

void Answer::attempt_ended(const pipe::EndMeta& end) {
    const int64_t now = clock_.mono_ms();
    spend(now);
    account(end);
    last_end_ = end;
    if (state_ == State::cancelling) {
        if (folder_.stop()) return finish(Outcome::Status::done);
        if (timed_out_) {
            if (has_message_start())
                return stop_with({messages::StopReason::max_tokens, std::nullopt,
                                  std::string(messages::kServerTimeoutDetails)});
            return finish(Outcome::Status::failed,
                          ApiError::of(messages::ErrorType::timeout_error,
                                       "the deadline passed before any output"));
        }
        return finish(Outcome::Status::cancelled);
    }
    switch (judge(end, folder_.stop().has_value(), begun())) {
        case Verdict::done:
            return finish(Outcome::Status::done);
        case Verdict::out_of_time:
            if (has_message_start())
                return stop_with({messages::StopReason::max_tokens, std::nullopt,
                                  std::string(messages::kServerTimeoutDetails)});
            return finish(Outcome::Status::failed, error_of(end));
        case Verdict::fail:
            return finish(end.retryable ? Outcome::Status::interrupted : Outcome::Status::failed,
                          error_of(end));
        case Verdict::again:
            break;
    }
    if (end.reason == "no_filter")
        --attempt_;
    else
        host_.on_attempt_broken(*this, end);
    ++failures_;
    if (stall_from_ms_ < 0) stall_from_ms_ = now;
    state_ = State::waiting;
    due_ms_ = now + backoff_ms(failures_, random());
}

void Answer::tick() {
    const int64_t now = clock_.mono_ms();
    switch (state_) {
        case State::fresh:
        case State::over:
            return;
        case State::cancelling:
            if (now >= cancel_by_ms_) {
                pipe::EndMeta end;
                end.attempt = attempt_;
                end.status = "cancelled";
                end.reason = "cancel_timeout";
                attempt_ended(end);
            }
            return;
        case State::waiting: {
            const int64_t most = begun() ? options_.stall_ms : options_.patience_ms;
            if (now - stall_from_ms_ >= most)
                return finish(Outcome::Status::interrupted, error_of(last_end_));
            if (now >= due_ms_ && upstream_.up()) ask(now);
            return;
        }
        case State::asked:
            break;
    }
    // Backstops: the chain keeps these times itself.
    if (options_.total_ms > 0 && now - asked_ms_ > total_left_ms_ + kTotalSlackMs) {
        timed_out_ = true;
        state_ = State::cancelling;
        cancel_by_ms_ = now + kCancelWaitMs;
        upstream_.cancel(options_.id, "deadline");
        return;
    }
    if (!has_message_start() && options_.ttft_ms > 0 &&
        now - begun_ms_ > options_.ttft_ms + kTtftSlackMs) {
        state_ = State::waiting;
        upstream_.cancel(options_.id, "deadline");
        outcome_.reason = "deadline";
        return finish(Outcome::Status::interrupted, ApiError::overloaded(1));
    }
    if (stall_from_ms_ >= 0 && now - stall_from_ms_ >= options_.stall_ms) {
        state_ = State::waiting;
        upstream_.cancel(options_.id, "stall");
        return finish(Outcome::Status::interrupted, error_of(last_end_));
    }
}

void Answer::cancel(const std::string& reason) {
    if (state_ == State::waiting || state_ == State::fresh) {
        outcome_.reason = reason;
        return finish(Outcome::Status::cancelled);
    }
    if (state_ != State::asked || folder_.stop()) return;
    state_ = State::cancelling;
    cancel_by_ms_ = clock_.mono_ms() + kCancelWaitMs;
    upstream_.cancel(options_.id, reason);
}

void Answer::abandon(ApiError error) {
    if (state_ == State::over) return;
    const bool asked = state_ == State::asked || state_ == State::cancelling;
    state_ = State::waiting;
    if (asked) upstream_.cancel(options_.id, "abandoned");
    finish(Outcome::Status::interrupted, std::move(error));
}

// An end that we make: the open block is closed, then message_delta with the usage so far.
void Answer::stop_with(messages::Stop stop) {
    held_stop_.reset();
    if (folder_.order().block_open()) {
        held_stop_ = folder_.order().next_index() - 1;
        release_held_stop();
    }
    Event delta;
    delta.type = EventType::message_delta;
    delta.stop = std::move(stop);
    delta.usage = outcome_.usage;
    if (outcome_.usage.output_tokens == 0) delta.usage->output_tokens = produced_.size();
    push(delta, {}, 0);
    finish(Outcome::Status::done);
}

void Answer::finish(Outcome::Status status, ApiError error) {
    if (state_ == State::over) return;
    state_ = State::over;
    if (outcome_.usage.prompt_tokens() == 0) {
        const uint64_t output = outcome_.usage.output_tokens;
        outcome_.usage = folder_.usage();
        outcome_.usage.output_tokens = std::max(outcome_.usage.output_tokens, output);
    }
    // message_start of some servers says output_tokens 1 before there is any: ids are the truth then.
    if (!folder_.stop() && outcome_.usage.output_tokens <= 1)
        outcome_.usage.output_tokens = produced_.size();
    outcome_.usage.output_tokens =
        std::max<uint64_t>(outcome_.usage.output_tokens, produced_.size());
    outcome_.told = as_said(outcome_.usage);
    outcome_.stop = folder_.stop();
    if (status == Outcome::Status::done && outcome_.stop &&
        outcome_.stop->reason == messages::StopReason::refusal && folder_.text_bytes() == 0 &&
        produced_.empty() && folder_.usage().output_tokens == 0)
        status = Outcome::Status::blocked;
    outcome_.status = status;
    outcome_.error = std::move(error);
    outcome_.attempts = attempts();
    const auto self = shared_from_this();  // the host may let go of us
    host_.on_outcome(*this, outcome_);
}

void Answer::close() {
    if (stream_->ended()) return;
    if (outcome_.status == Outcome::Status::cancelled && has_message_start()) {
        if (folder_.order().block_open())
            stream_->push(EventType::content_block_stop,
                          EventWriter::block_stop(folder_.order().next_index() - 1));
        // The Messages API has no word for it: no stop reason, and a detail that says why.
        std::string json;
        base::JsonWriter w(json);
        w.object().field("type", "message_delta").key("delta").object();
        w.key("stop_reason").null().key("stop_sequence").null();
        w.key("stop_details").object().field("type", "cancelled").end().end();
        w.key("usage").raw(messages::usage_json(outcome_.usage)).end();
        stream_->push(EventType::message_delta, json);
    }
    stream_->push(EventType::message_stop, EventWriter::message_stop());
    Event stop;
    stop.type = EventType::message_stop;
    if (folder_.stop()) (void)folder_.add(stop).has_value();
    stream_->close();
}

void Answer::fail(ApiError error) { stream_->fail(std::move(error)); }

}  // namespace parley::chat
