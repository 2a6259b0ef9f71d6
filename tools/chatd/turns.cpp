#include "turns.hpp"

#include <sys/stat.h>

#include "base/json.hpp"
#include "base/log.hpp"
#include "conversation_json.hpp"
#include "json_in.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "titler.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;
using messages::EventType;
using Status = chat::Outcome::Status;

namespace {

constexpr int64_t kEndWaitMs = 60'000;  // then clients are told; the command itself stays queued

std::string error_json(const ApiError& error) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", messages::name(error.type)).field("message", error.message).end();
    return out;
}

// A conversation that is deleted takes its running answer along.
ApiError deleted() {
    return ApiError::of(ErrorType::not_found_error, "the conversation was deleted");
}

void write_pair(base::JsonWriter& w, const store::MessageRow& user_message,
                const store::MessageRow& message, uint32_t truncated) {
    w.key("user_message");
    write_message(w, user_message);
    w.key("message");
    write_message(w, message);
    if (truncated > 0) w.field("truncated_messages", truncated);
}

}  // namespace

std::string accepted_json(const store::MessageRow& user_message, const store::MessageRow& message,
                          uint32_t truncated) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "message_accepted");
    write_pair(w, user_message, message, truncated);
    w.end();
    return out;
}

std::string sent_json(const store::MessageRow& user_message, const store::MessageRow& message,
                      uint32_t truncated) {
    std::string out;
    base::JsonWriter w(out);
    w.object();
    write_pair(w, user_message, message, truncated);
    w.end();
    return out;
}

std::string snapshot_json(store::MessageRow message, std::string content, uint64_t offset) {
    message.content = std::move(content);
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "snapshot").key("message");
    write_message(w, message);
    w.field("offset", offset).end();
    return out;
}

Turn::Turn(App& app, TurnStart start)
    : app_(app),
      begin_(std::move(start)),
      id_(store::show_id(store::kMsg, begin_.message.id)),
      since_ns_(app.clock.mono_ns()) {}

void Turn::prepare() {
    const auto self = shared_from_this();
    chat::AnswerOptions options = std::move(begin_.answer);
    options.offsets = true;
    options.begun = true;
    options.readers_hold = false;  // the journal does
    options.stream.epoch = begin_.epoch;
    options.first_attempt = (begin_.epoch - 1) * 1000 + 1;
    // Answer pushes what it takes up as message_start, block_start and one delta.
    if (options.resumed && !options.resumed->text.empty()) content_seq_ = 4;
    answer_ = std::make_shared<chat::Answer>(std::move(options), *app_.hop, *this, app_.clock);

    chat::JournalOptions journal;
    journal.message = begin_.message.id;
    journal.owner = app_.owner;
    journal.epoch = begin_.epoch;
    journal.flush_ms = app_.options.journal_ms;
    journal_ = std::make_shared<chat::Journal>(journal, *app_.store, app_.clock);
    const std::weak_ptr<Turn> weak = weak_from_this();
    journal_->on_fenced([weak] {
        if (const auto self = weak.lock())
            self->answer_->abandon(
                ApiError::unavailable("another server has taken this answer over", 1));
    });
    journal_->on_progress([weak] {
        if (const auto self = weak.lock()) self->answer_->grant();
    });
    answer_->stream()->push(
        EventType::message_accepted,
        accepted_json(begin_.user_message, begin_.message, begin_.truncated_messages));
    app_.keep(self);
    app_.turns->add(id_, self);
}

void Turn::give_up(const ApiError& error) { answer_->abandon(error); }

void Turn::start() {
    const auto self = shared_from_this();
    if (!app_.answers.add(answer_, self, app_.options.resume_grace_ms))
        return answer_->abandon(ApiError::overloaded(1));
    answer_->start();
}

void Turn::follow(const ExchangePtr& exchange) {
    const auto nothing = [] {};
    auto pump = std::make_shared<SsePump>(exchange, nothing, nothing);
    if (!pump->attach(answer_->stream(), std::nullopt))
        return exchange->error(ApiError::unavailable("this answer's start is no longer kept", 1));
    pumps_.push_back(std::move(pump));
}

void Turn::resume(const ExchangePtr& exchange,
                  const std::optional<std::pair<uint32_t, uint64_t>>& after) {
    const auto& stream = answer_->stream();
    if (after && after->first != stream->epoch()) return snapshot(exchange);
    const auto nothing = [] {};
    auto pump = std::make_shared<SsePump>(exchange, nothing, nothing);
    std::optional<uint64_t> place;
    if (after) place = after->second;
    if (!pump->attach(stream, place)) return snapshot(exchange);
    pumps_.push_back(std::move(pump));
}

void Turn::snapshot(const ExchangePtr& exchange) {
    const auto nothing = [] {};
    auto pump = std::make_shared<SsePump>(exchange, nothing, nothing);
    const messages::Folder& folder = answer_->folder();
    pump->snapshot(begin_.epoch, content_seq_,
                   snapshot_json(end_ ? *end_ : begin_.message, folder.content_json(),
                                 folder.blocks().empty() ? 0 : folder.blocks().back().text.size()));
    // The closing events alone follow what a snapshot holds: they are few, and kept.
    if (!pump->attach(answer_->stream(), content_seq_)) return pump->break_off();
    pumps_.push_back(std::move(pump));
}

void Turn::cancel(const ExchangePtr& exchange) {
    if (exchange) wait({exchange, true});
    answer_->cancel("asked");
}

void Turn::tick(int64_t now_ms) {
    journal_->tick();
    if (begin_.ticket) begin_.ticket->produced(answer_->produced().size());
    for (const auto& pump : pumps_) pump->tick(now_ms);
    std::erase_if(pumps_, [](const auto& pump) { return pump->over(); });
    if (end_since_ms_ > 0 && !told_ && now_ms - end_since_ms_ > kEndWaitMs)
        tell(nullptr, store_away());
    leave_if_done();
}

void Turn::on_checked(chat::Answer& answer, const chat::Checked& checked) {
    if (begin_.ticket && checked.event.type == EventType::message_start)
        begin_.ticket->begun(answer.folder().usage().prompt_tokens());
    if (!seen_first_ && checked.event.type == EventType::content_block_delta) {
        seen_first_ = true;
        app_.metrics.histogram("chatd_ttft_seconds", "request received to the first delta")
            .record(app_.clock.mono_ns() - since_ns_);
    }
    if (checked.event.type == EventType::message_start ||
        checked.event.type == EventType::content_block_start ||
        checked.event.type == EventType::content_block_delta)
        content_seq_ = checked.seq;
    journal_->add(checked);
}

void Turn::on_attempt_broken(chat::Answer& answer, const pipe::EndMeta& end) {
    app_.metrics
        .counter("chatd_attempts_broken_total", "attempts that were asked again",
                 {{"reason", end.reason.empty() ? "other" : end.reason}})
        .add();
    base::log(base::Level::warn, "chatd.attempt_broken",
              {{"message", id_},
               {"attempt", answer.attempt()},
               {"reason", end.reason},
               {"status", end.status}});
}

size_t Turn::backlog(const chat::Answer& answer) {
    return journal_->backlog(answer.options().credit);
}

void Turn::on_outcome(chat::Answer&, const chat::Outcome& outcome) {
    outcome_ = outcome;
    if (begin_.ticket) {
        begin_.ticket->end(outcome.usage.prompt_tokens(), outcome.usage.output_tokens);
        begin_.ticket.reset();
    }
    if (journal_->fenced()) {
        durable_ = true;  // by another's hand
        return tell(nullptr, why_fenced());
    }
    write_end(outcome);
}

ApiError Turn::why_fenced() const {
    // The store takes the rows of a deleted conversation away in steps: the stream may go before the message.
    if (journal_->gone()) return deleted();
    store::Reader* reader = app_.store->reader();
    if (reader) {
        const auto row = reader->message(begin_.message.conv, begin_.message.id);
        if (!row && row.error().code == base::Errc::not_found) return deleted();
    }
    return ApiError::unavailable("another server has taken this answer over", 1);
}

void Turn::write_end(const chat::Outcome& outcome) {
    end_since_ms_ = app_.clock.mono_ms();
    store::Finish finish;
    finish.status = std::string(chat::name(outcome.status));
    if (outcome.stop) finish.stop_reason = std::string(messages::name(outcome.stop->reason));
    // An interrupted answer is what the journal holds: a continuation starts from there.
    if (outcome.status != Status::interrupted) finish.content = answer_->folder().content_json();
    finish.model = outcome.version;
    finish.usage = messages::usage_json(outcome.told);
    if (outcome.status == Status::interrupted || outcome.status == Status::failed)
        finish.error = error_json(outcome.error);
    finish.input_tokens = outcome.usage.prompt_tokens();
    finish.output_tokens = outcome.usage.output_tokens;
    finish.compute_us = static_cast<uint64_t>(outcome.cost_s * 1e6);
    finish.key_id = begin_.key_id;
    finish.request_id = begin_.request_id;
    journal_->finish(std::move(finish),
                     [self = shared_from_this(), outcome](const store::CommandReply& reply) {
                         self->ended(reply, outcome);
                     });
}

void Turn::ended(const store::CommandReply& reply, const chat::Outcome& outcome) {
    durable_ = true;
    base::log(base::Level::info, "chatd.turn",
              {{"message", id_},
               {"status", chat::name(outcome.status)},
               {"attempts", outcome.attempts},
               {"in", outcome.usage.prompt_tokens()},
               {"out", outcome.usage.output_tokens},
               {"stored", reply.ok()             ? "yes"
                          : reply.reason.empty() ? "no"
                                                 : reply.reason}});
    if (told_) return leave_if_done();
    if (!reply.ok()) return tell(nullptr, api_error_of(reply));
    const auto row = store::from_json<store::MessageRow>(member_json(reply.json, "message"));
    if (row) {
        tell(&*row, outcome.error);
        app_.titler->answered(begin_.user_message, *row, answer_->options().envelope);
    } else {
        tell(nullptr, deleted());
    }
    leave_if_done();
}

bool Turn::good() const {
    return end_ && outcome_.status != Status::interrupted && outcome_.status != Status::failed;
}

void Turn::answer(const Waiter& waiter) {
    if (waiter.cancel && end_)
        waiter.exchange->reply(200, message_json(*end_));
    else if (good())
        waiter.exchange->reply(200,
                               sent_json(begin_.user_message, *end_, begin_.truncated_messages));
    else
        waiter.exchange->error(error_);
}

void Turn::wait(Waiter waiter) {
    if (told_) return answer(waiter);
    waiters_.push_back(std::move(waiter));
}

// What the clients learn; `row` is the durable message, null when there is none to show.
void Turn::tell(const store::MessageRow* row, const ApiError& error) {
    told_ = true;
    if (row) end_ = *row;
    error_ = error;
    // The store marks a blocked answer's question as well.
    if (outcome_.status == Status::blocked) begin_.user_message.status = "blocked";
    if (good())
        answer_->close();
    else
        answer_->fail(error);
    for (const Waiter& waiter : waiters_) answer(waiter);
    waiters_.clear();
}

void Turn::leave_if_done() {
    // The pumps live on by their own: they hold their stream and their exchange.
    if (!durable_ || !told_ || !pumps_.empty()) return;
    app_.turns->remove(id_);
    app_.let_go(shared_from_this());
}

std::shared_ptr<Turn> Turns::find(const std::string& id) const {
    const auto found = turns_.find(id);
    return found == turns_.end() ? nullptr : found->second;
}

void Turns::cancel_conversation(const store::Ulid& conv) {
    const auto turns = turns_;
    for (const auto& [id, turn] : turns)
        if (turn->conversation() == conv) turn->cancel(nullptr);
}

bool Turns::owner_lives(const std::string& owner) const {
    const std::string path = app_.places.run() + "/chatd-" + owner + ".lock";
    struct stat info {};
    if (owner.find('/') != std::string::npos || ::stat(path.c_str(), &info) != 0) return false;
    auto lock = base::LockFile::take(path);
    if (!lock) return true;
    ::unlink(path.c_str());
    return false;
}

void Turns::take_over_dead() {
    store::Reader* reader = app_.store->reader();
    if (!reader || !app_.store->connected()) return;
    auto running = reader->running_streams(app_.owner, 64);
    if (!running) return;
    std::map<std::string, bool> lives;
    for (const store::StreamRow& row : *running) {
        const std::string id = store::show_id(store::kMsg, row.id);
        if (asked_.count(id)) continue;
        auto known = lives.find(row.owner);
        if (known == lives.end()) known = lives.emplace(row.owner, owner_lives(row.owner)).first;
        if (known->second) continue;
        store::TakeOver command;
        command.message = row.id;
        command.epoch = row.epoch;
        command.owner = app_.owner;
        asked_[id] = true;
        auto sent = app_.store->submit(
            command.json(),
            [this, id](const store::CommandReply& reply) {
                asked_.erase(id);
                base::log(base::Level::info, "chatd.taken_over",
                          {{"message", id}, {"ok", reply.ok()}, {"reason", reply.reason}});
            },
            kCommandWaitMs);
        if (!sent) asked_.erase(id);
    }
}

}  // namespace parley::chatd
