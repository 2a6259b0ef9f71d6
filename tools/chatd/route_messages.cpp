// POST /v1/messages and its companions: answers that belong to no conversation.
#include "asking.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "charging.hpp"
#include "chat/body.hpp"
#include "chat/context.hpp"
#include "chat/followers.hpp"
#include "idempotency.hpp"
#include "openai/chat_request.hpp"
#include "peers.hpp"
#include "routes.hpp"
#include "sse_pump.hpp"
#include "store/commands.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

// A resumed reader of an answer that runs or has just ended.
class FollowCall final : public Call, public std::enable_shared_from_this<FollowCall> {
  public:
    explicit FollowCall(ExchangePtr exchange)
        : exchange_(std::move(exchange)), app_(exchange_->app) {}
    bool start(const std::shared_ptr<chat::Stream>& stream, std::optional<uint64_t> after) {
        const auto weak = weak_from_this();
        const auto leave = [weak] {
            if (const auto self = weak.lock()) self->app_.let_go(self);
        };
        pump_ = std::make_shared<SsePump>(exchange_, leave, leave);
        return pump_->attach(stream, after);
    }
    void tick(int64_t now_ms) override { pump_->tick(now_ms); }

  private:
    ExchangePtr exchange_;
    App& app_;
    std::shared_ptr<SsePump> pump_;
};

class MessagesCall final : public Call,
                           public chat::AnswerHost,
                           public Joinable,
                           public std::enable_shared_from_this<MessagesCall> {
  public:
    MessagesCall(ExchangePtr exchange, bool stream, const store::Ulid& end_user,
                 std::optional<IdemKey> key)
        : exchange_(std::move(exchange)),
          app_(exchange_->app),
          stream_(stream),
          end_user_(end_user),
          key_(std::move(key)) {}

    void start(chat::AnswerOptions options, std::shared_ptr<Ticket> ticket) {
        ticket_ = std::move(ticket);
        options.stream.keep_frames = stream_;
        answer_ = std::make_shared<chat::Answer>(std::move(options), *app_.hop, *this, app_.clock);
        if (!app_.answers.add(answer_, shared_from_this(), app_.options.resume_grace_ms)) {
            app_.let_go(shared_from_this());
            ticket_->undo();
            if (key_) app_.idempotency->free(*key_);
            return exchange_->error(ApiError::overloaded(1));
        }
        if (key_) app_.idempotency->running(*key_, shared_from_this());
        if (stream_) {
            const auto weak = weak_from_this();
            pump_ = std::make_shared<SsePump>(
                exchange_,
                [weak] {
                    if (const auto self = weak.lock()) self->client_done();
                },
                [weak] {
                    if (const auto self = weak.lock()) self->client_gone();
                });
            pump_->attach(answer_->stream(), std::nullopt);
        } else {
            wait(exchange_);
        }
        answer_->start();
    }

    // The same request again, while it runs.
    void join(const ExchangePtr& other) override {
        other->note("joined", 1);
        if (exchange_->chunks) {  // the same chunks, to the byte
            other->chunks.emplace(exchange_->chunks->include_usage(), exchange_->created_s);
            if (answer_->over()) other->chunks->set_usage(usage_);
            joined_.push_back(other);
        }
        if (!stream_) return wait(other);
        const auto call = std::make_shared<FollowCall>(other);
        app_.keep(call);
        if (call->start(answer_->stream(), std::nullopt)) return;
        app_.let_go(call);
        other->error(ApiError::unavailable("this answer's start is no longer kept", 1));
    }

    void tick(int64_t now_ms) override {
        if (pump_) pump_->tick(now_ms);
        ticket_->produced(answer_->produced().size());
        // Resumed meanwhile: a reader is there, and nobody has to wait for another.
        if (grace_until_ms_ > 0 && listeners() > 0) grace_until_ms_ = 0;
        if (gone_ && grace_until_ms_ == 0 && listeners() == 0)
            grace_until_ms_ = now_ms + app_.options.resume_grace_ms;
        // Nobody may be kept out by an answer that nobody reads.
        if (gone_ && grace_until_ms_ > 0 && (now_ms >= grace_until_ms_ || ticket_->at_cap()))
            answer_->cancel("client_gone");
        finish_if_done();
    }

    void on_checked(chat::Answer& answer, const chat::Checked& checked) override {
        if (checked.event.type == messages::EventType::message_start)
            ticket_->begun(answer.folder().usage().prompt_tokens());
        if (checked.event.type != messages::EventType::content_block_delta || seen_first_) return;
        seen_first_ = true;
        app_.ttft.record(app_.clock.mono_ns() - exchange_->since_ns);
    }

    void on_attempt_broken(chat::Answer&, const pipe::EndMeta& end) override {
        app_.metrics
            .counter("chatd_attempts_broken_total", "attempts that were asked again",
                     {{"reason", end.reason.empty() ? "other" : end.reason}})
            .add();
        base::log(base::Level::warn, "chatd.attempt_broken",
                  {{"request_id", exchange_->request_id},
                   {"attempt", answer_->attempt()},
                   {"reason", end.reason},
                   {"status", end.status}});
    }

    size_t backlog(const chat::Answer& answer) override {
        // Nobody reads now and the buffer is full: nothing more is asked for.
        return gone_ && answer.stream()->full() ? answer.options().credit : 0;
    }

    void on_outcome(chat::Answer& answer, const chat::Outcome& outcome) override {
        using Status = chat::Outcome::Status;
        charge(outcome);
        ticket_->end(outcome.usage.prompt_tokens(), outcome.usage.output_tokens);
        exchange_->note("in", static_cast<double>(outcome.usage.prompt_tokens()));
        exchange_->note("out", static_cast<double>(outcome.usage.output_tokens));
        if (outcome.attempts > 1) exchange_->note("attempts", outcome.attempts);
        status_ = outcome.status;
        error_ = outcome.error;
        usage_ = outcome.usage;
        if (exchange_->chunks) exchange_->chunks->set_usage(outcome.usage);
        for (const auto& weak : std::exchange(joined_, {}))
            if (const auto other = weak.lock()) other->chunks->set_usage(outcome.usage);
        if (!key_) return tell();
        if (status_ != Status::done && status_ != Status::blocked) {
            app_.idempotency->free(*key_);
            return tell();
        }
        // A repeat must find what the client has been told: its end waits until it is kept.
        std::optional<std::string> bytes;
        if (stream_) {
            bytes = exchange_->chunks ? chunks_of(*answer.stream()) : answer.stream()->whole();
            if (bytes && !exchange_->chunks)
                answer.stream()->frame(*bytes, messages::EventType::message_stop,
                                       messages::EventWriter::message_stop());
        } else {
            answer.close();
            bytes = object();
        }
        if (!bytes) {  // longer than what readers are kept
            app_.idempotency->free(*key_);
            return tell();
        }
        app_.idempotency->keep(*key_, stream_, *bytes,
                               [self = shared_from_this()] { self->tell(); });
    }

  private:
    void tell() {
        const auto self = shared_from_this();
        told_ = true;
        using Status = chat::Outcome::Status;
        const bool failed = status_ == Status::interrupted || status_ == Status::failed;
        if (failed)
            answer_->fail(error_);
        else
            answer_->close();
        const auto waiting = std::exchange(waiting_, {});
        for (const ExchangePtr& each : waiting) {
            if (failed)
                each->error(error_);
            else if (status_ == Status::cancelled)
                each->error(ApiError::overloaded(1));
            else
                each->reply(200, object());
        }
        if (!stream_) exchange_done_ = true;
        finish_if_done();
    }

    // In the words of its route.
    std::string object() const {
        return exchange_->dialect == Dialect::openai
                   ? openai::completion_json(answer_->folder(), usage_, exchange_->created_s)
                   : answer_->message_json();
    }

    // All chunks to the last; nullopt when some of it is kept no longer.
    std::optional<std::string> chunks_of(chat::Stream& stream) const {
        const auto reader = stream.read(std::nullopt, {});
        if (!reader) return std::nullopt;
        openai::Chunks chunks(exchange_->chunks->include_usage(), exchange_->created_s);
        chunks.set_usage(usage_);
        std::string out;
        for (; const chat::Frame* frame = reader->peek(); reader->pop()) dress(chunks, *frame, out);
        messages::Event stop;
        stop.type = messages::EventType::message_stop;
        chunks.add(stop, out);
        return out;
    }

    // Of an answer that is one object.
    void wait(const ExchangePtr& other) {
        waiting_.push_back(other);
        other->writer->on_close([weak = weak_from_this(), raw = other.get()] {
            const auto self = weak.lock();
            if (!self || self->told_) return;
            std::erase_if(self->waiting_, [&](const ExchangePtr& each) {
                if (each.get() != raw) return false;
                each->gone();
                return true;
            });
            if (self->waiting_.empty()) self->client_gone();
        });
    }

    size_t listeners() const { return stream_ ? answer_->stream()->readers() : waiting_.size(); }

    void client_done() {
        exchange_done_ = true;
        finish_if_done();
    }

    void client_gone() {
        if (stream_ && (exchange_done_ || gone_)) return;
        gone_ = true;
        exchange_done_ = true;
        exchange_->gone();
        if (answer_->over()) return finish_if_done();
        const bool resumable =
            (stream_ || key_) && answer_->has_message_start() && app_.options.resume_grace_ms > 0;
        if (!resumable)
            answer_->cancel("client_gone");
        else
            grace_until_ms_ = app_.clock.mono_ms() + app_.options.resume_grace_ms;
    }

    void finish_if_done() {
        if (exchange_done_ && told_) app_.let_go(shared_from_this());
    }

    void charge(const chat::Outcome& outcome) {
        const Caller& caller = exchange_->caller;
        store::Charge who;
        who.org = caller.org;
        who.user = caller.user;
        who.end_user = end_user_;
        who.key_id = caller.key_id;
        chatd::charge(app_, std::move(who), *answer_, outcome);
    }

    ExchangePtr exchange_;
    App& app_;
    bool stream_;
    store::Ulid end_user_;
    std::optional<IdemKey> key_;
    std::shared_ptr<Ticket> ticket_;
    std::shared_ptr<chat::Answer> answer_;
    std::shared_ptr<SsePump> pump_;
    std::vector<ExchangePtr> waiting_;             // for one object
    std::vector<std::weak_ptr<Exchange>> joined_;  // to chunks
    chat::Outcome::Status status_ = chat::Outcome::Status::done;
    ApiError error_;
    messages::Usage usage_;
    bool told_ = false;
    bool exchange_done_ = false;
    bool gone_ = false;
    bool seen_first_ = false;
    int64_t grace_until_ms_ = 0;
};

// What a request asks for that its body has no word for.
struct Wanted {
    pipe::Sampling sampling;
    std::optional<uint64_t> seed;
    std::optional<IdemKey> key;  // of a chat completion: made of the body as it came
};

// A checked request on its way to the model.
struct Pending {
    ExchangePtr exchange;
    std::shared_ptr<const messages::Request> request;
    std::shared_ptr<const Model> model;
    std::string below, said;  // its names there and here
    Wanted wanted;
    uint64_t counted = 0;  // 0: not
    std::optional<IdemKey> key;
};

void begin(const std::shared_ptr<Pending>& pending) {
    const ExchangePtr& exchange = pending->exchange;
    const messages::Request& request = *pending->request;
    App& app = exchange->app;
    if (exchange->writer->closed()) return;  // left meanwhile
    if (auto error = app.cannot_ask()) return exchange->error(*error);

    const uint64_t window = pending->model->context_tokens();
    Ask ask;
    const std::string id = new_message_id();
    ask.id = id;
    ask.model = pending->said;
    ask.body = std::move(exchange->request.body);
    if (pending->below != request.model) ask.body = chat::with_model(ask.body, pending->below);
    ask.prompt_tokens = pending->counted > 0 ? pending->counted : text_bytes(request) / 3;
    ask.max_tokens = window > 0 ? std::min(request.max_tokens, window) : request.max_tokens;
    ask.stream = request.stream;
    ask.seed = pending->wanted.seed.value_or(draw_seed());
    ask.sampling = pending->wanted.sampling;
    const store::Ulid end_user = end_user_of(exchange->caller, request);
    auto admitted =
        app.gate->admit(*exchange, end_user, pending->below, ask.prompt_tokens, ask.max_tokens);
    if (!admitted) return exchange->error(admitted.error());
    auto go = [pending, end_user, ticket = std::move(*admitted), ask = std::move(ask)]() mutable {
        const ExchangePtr& exchange = pending->exchange;
        App& app = exchange->app;
        const auto call =
            std::make_shared<MessagesCall>(exchange, ask.stream, end_user, pending->key);
        app.keep(call);
        chat::AnswerOptions options = answer_options(*exchange, std::move(ask));
        // A filter that refuses has no tokenizer: its refusal is told with our count.
        if (pending->counted > 0)
            options.count_prompt = [counted = pending->counted] { return counted; };
        else if (pending->model->artifact)
            options.count_prompt = [request = pending->request,
                                    artifact = pending->model->artifact] {
                return chat::count_prompt(*request, *artifact);
            };
        call->start(std::move(options), std::move(ticket));
    };
    if (!pending->key) return go();
    app.idempotency->take(exchange, *pending->key, id, std::move(go));
}

void ask(const ExchangePtr& exchange, const std::shared_ptr<const messages::Request>& request,
         const Wanted& wanted, uint64_t counted) {
    App& app = exchange->app;
    if (exchange->writer->closed()) return;  // left while we counted
    const auto pending = std::make_shared<Pending>();
    pending->exchange = exchange;
    pending->request = request;
    pending->wanted = wanted;
    Routed routed = route_by_size(app, *request, counted);
    if (!routed.model) return exchange->error(ApiError::unknown_model(request->model));
    pending->model = std::move(routed.model);
    pending->below = std::move(routed.below);
    pending->said = std::move(routed.said);
    pending->counted = routed.prompt_tokens;
    const uint64_t window = pending->model->context_tokens();
    if (pending->counted > 0 && window > 0 && pending->counted >= window)
        return exchange->error(ApiError::prompt_too_long(pending->counted, window - 1));
    if (exchange->dialect == Dialect::openai) {
        pending->key = wanted.key;
    } else {
        auto key = idem_key_of(*exchange, request->stream);
        if (!key) return exchange->error(key.error());
        pending->key = std::move(*key);
    }
    // A repeat is no new request: limits do not stand before it.
    if (!pending->key) return begin(pending);
    app.idempotency->look(exchange, *pending->key, [pending] { begin(pending); });
}

void count_and_ask(const ExchangePtr& exchange,
                   const std::shared_ptr<const messages::Request>& request, const Wanted& wanted) {
    App& app = exchange->app;
    const auto model = app.catalog->find(request->model);
    // A token is at least one byte: a text with fewer bytes than the window has tokens fits, uncounted.
    // Limits want the number.
    const bool fits =
        !app.gate->counts_input(*exchange) && !wants_count(app, *request) &&
        (model->context_tokens() == 0 ||
         text_bytes(*request) + 16 * request->turns.size() + 64 < model->context_tokens());
    if (fits) return ask(exchange, request, wanted, 0);
    const bool begun = count_then(
        app, request, model->artifact,
        [exchange, request, wanted](uint64_t tokens) { ask(exchange, request, wanted, tokens); });
    if (!begun) exchange->error(ApiError::overloaded(1));
}

}  // namespace

void post_messages(const ExchangePtr& exchange) {
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    auto parsed = messages::parse_request(exchange->request.body, parse_options(*exchange, newest));
    if (!parsed) return exchange->error(parsed.error());
    if (auto error = check_schema(*parsed)) return exchange->error(*error);
    count_and_ask(exchange, std::make_shared<const messages::Request>(std::move(*parsed)), {});
}

void post_chat_completions(const ExchangePtr& exchange) {
    auto chat = openai::read_chat(exchange->request.body);
    if (!chat) return exchange->error(chat.error());
    messages::ParseOptions options = parse_options(*exchange, false);
    options.check_model = [&chat, known = std::move(options.check_model)](
                              const std::string& model) -> std::optional<ApiError> {
        if (auto refused = known(model)) return refused;
        return chat->semantic;
    };
    auto parsed = messages::parse_request(chat->body, options);
    if (!parsed) return exchange->error(parsed.error());
    if (auto error = check_schema(*parsed)) return exchange->error(*error);
    Wanted wanted;
    auto key = idem_key_of(*exchange, parsed->stream);
    if (!key) return exchange->error(key.error());
    wanted.key = std::move(*key);
    exchange->request.body = std::move(chat->body);
    exchange->created_s = exchange->app.clock.wall_ms() / 1000;
    if (parsed->stream) exchange->chunks.emplace(chat->include_usage, exchange->created_s);
    wanted.seed = chat->seed;
    wanted.sampling.temperature = chat->temperature;
    wanted.sampling.stops = std::move(chat->blank_stops);
    wanted.sampling.presence_penalty = chat->presence_penalty;
    wanted.sampling.frequency_penalty = chat->frequency_penalty;
    count_and_ask(exchange, std::make_shared<const messages::Request>(std::move(*parsed)), wanted);
}

void post_count_tokens(const ExchangePtr& exchange) {
    App& app = exchange->app;
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    messages::ParseOptions options = parse_options(*exchange, newest);
    options.count_tokens = true;
    auto parsed = messages::parse_request(exchange->request.body, options);
    if (!parsed) return exchange->error(parsed.error());
    const auto request = std::make_shared<const messages::Request>(std::move(*parsed));
    const auto model = app.catalog->find(request->model);
    if (!model->artifact)
        return exchange->error(
            ApiError::unavailable("the tokenizer of this model is not here yet", 1));
    const bool begun = count_then(app, request, model->artifact, [exchange](uint64_t tokens) {
        std::string out;
        base::JsonWriter w(out);
        w.object().field("input_tokens", tokens).end();
        exchange->reply(200, std::move(out));
    });
    if (!begun) exchange->error(ApiError::overloaded(1));
}

void get_message_stream(const ExchangePtr& exchange) {
    App& app = exchange->app;
    const std::string id = exchange->request.segments[2];
    const auto gone = [exchange] {
        exchange->error(ApiError::of(ErrorType::not_found_error, "no such stream, or it is gone"));
    };
    std::optional<std::pair<uint32_t, uint64_t>> place;
    std::string_view position = exchange->request.headers.get("last-event-id");
    for (const std::string_view name : {"starting_after", "last_event_id"})
        if (position.empty()) position = exchange->request.query_value(name).value_or("");
    if (!position.empty()) {
        place = chat::parse_position(position);
        if (!place) return gone();
    }
    const auto stream =
        chat::readable(app.answers, id, exchange->caller.org_text(), exchange->caller.user_text());
    if (!stream) return app.peers->follow(exchange, id, "", place, gone);
    if (place && place->first != stream->epoch()) return gone();
    const auto call = std::make_shared<FollowCall>(exchange);
    app.keep(call);
    if (!call->start(stream, place ? std::optional(place->second) : std::nullopt)) {
        app.let_go(call);
        gone();
    }
}

}  // namespace parley::chatd
