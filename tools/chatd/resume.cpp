#include "resume.hpp"

#include "chat/body.hpp"
#include "chat/replay.hpp"
#include "json_in.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"
#include "wish.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;
using messages::EventType;
using messages::EventWriter;
using Place = std::optional<std::pair<uint32_t, uint64_t>>;

namespace {

constexpr size_t kJournalRowsMax = 1000;  // at a time

ApiError failed_error() {
    ApiError error = ApiError::of(ErrorType::api_error, "the answer failed");
    error.retryable = false;
    return error;
}

ApiError moved() { return ApiError::unavailable("this answer goes on elsewhere: resume it", 1); }

// The whole journal; false when it cannot be read.
bool read_journal(store::Reader& reader, const store::Ulid& message,
                  std::vector<store::DeltaRow>& rows) {
    uint32_t epoch = 0, seq = 0;
    for (;;) {
        auto piece = reader.journal(message, epoch, seq, kJournalRowsMax);
        if (!piece) return false;
        if (piece->empty()) return true;
        epoch = piece->back().epoch;
        seq = piece->back().last_seq;
        rows.insert(rows.end(), std::make_move_iterator(piece->begin()),
                    std::make_move_iterator(piece->end()));
    }
}

// A reader of a stream that no Turn feeds.
class FollowCall : public Call, public std::enable_shared_from_this<FollowCall> {
  public:
    explicit FollowCall(ExchangePtr exchange)
        : exchange_(std::move(exchange)), app_(exchange_->app) {}
    void begin() {
        const auto weak = weak_from_this();
        const auto leave = [weak] {
            if (const auto self = weak.lock()) self->app_.let_go(self);
        };
        pump_ = std::make_shared<SsePump>(exchange_, leave, leave);
        app_.keep(shared_from_this());
    }
    SsePump& pump() { return *pump_; }
    bool attach(const std::shared_ptr<chat::Stream>& stream, std::optional<uint64_t> after) {
        return pump_->attach(stream, after);
    }
    void give_up() { app_.let_go(shared_from_this()); }
    void tick(int64_t now_ms) override { pump_->tick(now_ms); }

  protected:
    ExchangePtr exchange_;
    App& app_;
    std::shared_ptr<SsePump> pump_;
};

// The answer is made by another chatd: its journal tells the rest.
class JournalCall final : public FollowCall {
  public:
    JournalCall(ExchangePtr exchange, store::MessageRow message, uint32_t epoch,
                std::vector<store::DeltaRow> rows)
        : FollowCall(std::move(exchange)),
          message_(std::move(message)),
          replay_(epoch, std::move(rows)) {}

    void start(const Place& place) {
        begin();
        const bool exact =
            place && place->first == replay_.epoch() && replay_.covers(place->second);
        const uint64_t after = exact ? place->second : replay_.position();
        if (!exact)
            pump_->snapshot(replay_.epoch(), after,
                            snapshot_json(message_, replay_.content_json(), replay_.offset()));
        stream_ = replay_.stream(after, app_.options.stream_bytes_max, message_);
        read_seq_ = static_cast<uint32_t>(replay_.position());
        if (exact) pump_->begin();
        attach(stream_, after);
    }

    void tick(int64_t now_ms) override {
        FollowCall::tick(now_ms);
        if (stream_->ended()) return;
        store::Reader* reader = app_.store->reader();
        if (!reader) return;
        // The state is read before the journal: what stands there at the end is then all of it.
        const auto row = reader->stream(message_.id);
        if (!row) return stream_->fail(moved());
        const auto rows = reader->journal(message_.id, replay_.epoch(), read_seq_, kJournalRowsMax);
        if (!rows) return;
        for (const store::DeltaRow& delta : *rows) {
            if (delta.epoch != replay_.epoch() || !replay_.add(delta))
                return stream_->fail(moved());
            read_seq_ = delta.last_seq;
        }
        if (rows->size() == kJournalRowsMax) return;  // more of it next time
        if (row->state == "running" && row->epoch == replay_.epoch()) return;
        const auto message = reader->message(message_.conv, message_.id);
        if (!message || message->status == "streaming" || message->status == "interrupted" ||
            row->epoch != replay_.epoch())
            return stream_->fail(moved());
        replay_.end(*message, failed_error());
    }

  private:
    store::MessageRow message_;
    chat::Replay replay_;
    std::shared_ptr<chat::Stream> stream_;
    uint32_t read_seq_ = 0;
};

// The message row says it all: a snapshot and how it ended.
void tell_end(const ExchangePtr& exchange, const store::MessageRow& message, uint32_t epoch) {
    const auto call = std::make_shared<FollowCall>(exchange);
    call->begin();
    const std::string text = chat::text_of(message.content);
    const uint64_t last = text.empty() ? 2 : 4;
    call->pump().snapshot(epoch, last, snapshot_json(message, message.content, text.size()));
    chat::StreamOptions options;
    options.epoch = epoch;
    options.first_seq = last + 1;
    const auto stream = std::make_shared<chat::Stream>(options);
    if (message.status == "interrupted")
        stream->close();  // as it stands: continue=false
    else
        chat::push_closing(*stream, message, text.empty() ? -1 : 0, failed_error());
    call->attach(stream, last);
}

}  // namespace

void replay_finished(const ExchangePtr& exchange, const store::MessageRow& user_message,
                     const store::MessageRow& message, uint32_t epoch, bool stream) {
    const bool failed = message.status == "failed";
    if (!stream) {
        if (failed) return exchange->error(failed_error());
        return exchange->reply(200, sent_json(user_message, message, 0));
    }
    chat::StreamOptions options;
    options.epoch = epoch;
    const auto events = std::make_shared<chat::Stream>(options);
    const std::string text = chat::text_of(message.content);
    events->push(EventType::message_accepted, accepted_json(user_message, message, 0));
    if (!failed) {
        events->push(EventType::message_start,
                     EventWriter::message_start(store::show_id(store::kMsg, message.id),
                                                message.sender, chat::usage_of(message.usage)));
        if (!text.empty()) {
            events->push(EventType::content_block_start, EventWriter::text_block_start(0));
            events->push(EventType::content_block_delta, EventWriter::text_delta(0, text, 0));
        }
    }
    chat::push_closing(*events, message, text.empty() ? -1 : 0, failed_error());
    const auto call = std::make_shared<FollowCall>(exchange);
    call->begin();
    call->attach(events, std::nullopt);
}

void continue_turn(const ExchangePtr& exchange, const store::MessageRow& user_message,
                   const store::StreamRow& stream, Listen listen) {
    App& app = exchange->app;
    if (auto error = app.cannot_ask()) return exchange->error(*error);
    if (app.answers.full()) return exchange->error(ApiError::overloaded(1));
    if (!app.store->connected()) return exchange->error(store_away());
    store::TakeOver command;
    command.message = stream.id;
    command.epoch = stream.epoch;
    command.owner = app.owner;
    command.resume = true;
    auto sent = app.store->submit(
        command.json(),
        [exchange, user_message, listen, id = stream.id](const store::CommandReply& reply) {
            App& app = exchange->app;
            // Another reader of it was first, and it runs by now.
            if (!reply.ok())
                if (const auto turn = app.turns->find(store::show_id(store::kMsg, id)))
                    return listen == Listen::snapshot
                               ? turn->snapshot(exchange)
                               : turn->answer_to(exchange, listen == Listen::from_start);
            if (!reply.ok() && (reply.reason == "fenced" || reply.reason == "ended"))
                return exchange->error(moved());
            if (!reply.ok()) return exchange->error(api_error_of(reply));
            auto row = store::from_json<store::StreamRow>(member_json(reply.json, "stream"));
            auto message = store::from_json<store::MessageRow>(member_json(reply.json, "message"));
            store::Reader* reader = app.store->reader();
            if (!row || !message || !reader) return exchange->error(store_away());
            Wish wish = Wish::from_params(row->params);
            wish.stream = listen != Listen::one_object;
            TurnStart start;
            start.user_message = user_message;
            start.message = *message;
            start.epoch = row->epoch;
            start.key_id = exchange->caller.key_id;
            start.request_id = exchange->request_id;
            tl::expected<chat::Context, ApiError> context = tl::make_unexpected(store_away());
            if (auto path =
                    reader->path(message->conv, user_message.id, app.options.context_messages_max))
                context = context_of(app, wish, std::move(path->rows));
            std::vector<store::DeltaRow> rows;
            const bool whole = read_journal(*reader, message->id, rows);
            chat::Resumed resumed;
            for (const store::DeltaRow& delta : rows) {
                resumed.text += delta.text;
                resumed.produced.insert(resumed.produced.end(), delta.ids.begin(), delta.ids.end());
            }
            if (context) {
                start.truncated_messages = context->truncated_messages;
                start.answer = answer_of(*exchange, wish, *context, *message);
            } else {
                start.answer = answer_of(*exchange, wish, {}, *message);
            }
            start.answer.resumed = std::move(resumed);
            const auto turn = std::make_shared<Turn>(app, std::move(start));
            turn->prepare();
            if (listen != Listen::snapshot) turn->answer_to(exchange, wish.stream);
            if (whole && context)
                turn->start();
            else
                turn->give_up(context ? store_away() : context.error());
            // Now that what is taken up stands in the stream.
            if (listen == Listen::snapshot) turn->snapshot(exchange);
        },
        kCommandWaitMs);
    if (!sent) exchange->error(api_error_of(sent.error(), ""));
}

void follow_message(const ExchangePtr& exchange, const store::MessageRow& message) {
    App& app = exchange->app;
    if (message.role != "assistant")
        return exchange->error(ApiError::of(ErrorType::not_found_error, "no such stream"));
    std::string_view position = exchange->request.headers.get("last-event-id");
    for (const std::string_view name : {"starting_after", "last_event_id"})
        if (position.empty()) position = exchange->request.query_value(name).value_or("");
    // What is no position of ours is an unknown one.
    Place place;
    if (!position.empty())
        place = chat::parse_position(position).value_or(std::make_pair(0u, 0ull));

    const std::string id = store::show_id(store::kMsg, message.id);
    if (const auto turn = app.turns->find(id)) return turn->resume(exchange, place);
    if (const auto* kept = app.answers.readable(id);
        kept && place && place->first == kept->stream->epoch() && kept->stream->ended()) {
        const auto stream = kept->stream;
        const auto call = std::make_shared<FollowCall>(exchange);
        call->begin();
        if (call->attach(stream, place->second)) return;
        call->give_up();
    }
    store::Reader* reader = app.store->reader();
    if (!reader) return exchange->error(store_away());
    const auto stream = reader->stream(message.id);
    if (message.status != "streaming" && message.status != "interrupted")
        return tell_end(exchange, message, stream ? stream->epoch : 1);
    if (!stream) return exchange->error(api_error_of(stream.error(), ""));
    if (message.status == "interrupted") {
        if (exchange->request.query_value("continue").value_or("true") == "false")
            return tell_end(exchange, message, stream->epoch);
        auto question = reader->message(message.conv, stream->user_message);
        if (!question) return exchange->error(api_error_of(question.error(), ""));
        return continue_turn(exchange, *question, *stream, Listen::snapshot);
    }
    std::vector<store::DeltaRow> rows;
    if (!read_journal(*reader, message.id, rows)) return exchange->error(store_away());
    std::make_shared<JournalCall>(exchange, message, stream->epoch, std::move(rows))->start(place);
}

}  // namespace parley::chatd
