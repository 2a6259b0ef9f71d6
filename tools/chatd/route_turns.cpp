// Messages of a conversation: history, one message, following it, another answer, stop.
#include "conversation_json.hpp"
#include "json_in.hpp"
#include "resume.hpp"
#include "routes.hpp"
#include "send.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

ApiError no_message() { return ApiError::of(ErrorType::not_found_error, "no such message"); }

void list_messages(const ExchangePtr& exchange, const store::ConvRow& conv, store::Reader& reader) {
    const auto limit = limit_of(*exchange, 50, 200);
    if (!limit) return exchange->error(limit.error());
    store::MessagesQuery query;
    query.conv = conv.id;
    query.limit = *limit;
    if (const auto order = exchange->request.query_value("order")) {
        if (*order != "asc" && *order != "desc")
            return exchange->error(ApiError::invalid("order", "Input should be 'asc' or 'desc'"));
        query.ascending = *order == "asc";
    }
    const auto bound = [&](std::string_view name, std::optional<store::Ulid>& into) {
        const auto text = exchange->request.query_value(name);
        if (!text || text->empty()) return true;
        into = store::parse_id(store::kMsg, *text);
        if (!into) exchange->error(ApiError::invalid(name, "Input should be a message id"));
        return into.has_value();
    };
    if (!bound("before", query.before) || !bound("after", query.after)) return;
    std::optional<store::Ulid> cursor;
    if (!bound("cursor", cursor)) return;
    if (cursor) (query.ascending ? query.after : query.before) = cursor;
    auto page = reader.messages(query);
    if (!page) return exchange->error(api_error_of(page.error(), ""));
    std::string out;
    base::JsonWriter w(out);
    w.object().key("data").array();
    for (const store::MessageRow& row : page->rows) write_message(w, row);
    w.end().field("has_more", page->has_more).key("next_cursor");
    if (page->has_more && !page->rows.empty())
        w.string(store::show_id(store::kMsg, page->rows.back().id));
    else
        w.null();
    w.end();
    exchange->reply(200, std::move(out));
}

// The conversation of the path if it is the caller's; else the answer is given here.
std::optional<store::ConvRow> conversation_of(const ExchangePtr& exchange, store::Reader*& reader) {
    reader = exchange->app.store->reader();
    const auto id = store::parse_id(store::kConv, exchange->request.segments[2]);
    if (!id) {
        exchange->error(no_conversation());
        return std::nullopt;
    }
    if (!reader) {
        exchange->error(store_away());
        return std::nullopt;
    }
    auto row = reader->conversation(exchange->caller.org, exchange->caller.user, *id);
    if (row) return std::move(*row);
    exchange->error(row.error().code == base::Errc::not_found ? no_conversation()
                                                              : api_error_of(row.error(), ""));
    return std::nullopt;
}

std::optional<store::MessageRow> message_of(const ExchangePtr& exchange, const store::ConvRow& conv,
                                            store::Reader& reader) {
    const auto id = store::parse_id(store::kMsg, exchange->request.segments[4]);
    if (!id) {
        exchange->error(no_message());
        return std::nullopt;
    }
    auto row = reader.message(conv.id, *id);
    if (row) return std::move(*row);
    exchange->error(row.error().code == base::Errc::not_found ? no_message()
                                                              : api_error_of(row.error(), ""));
    return std::nullopt;
}

// Nobody produces it, and nobody shall go on with it: taken over, so that no other does, and ended with
// what the journal holds.
void end_interrupted(const ExchangePtr& exchange, const store::MessageRow& message,
                     store::Reader& reader) {
    const auto stream = reader.stream(message.id);
    if (!stream) return exchange->error(api_error_of(stream.error(), ""));
    store::TakeOver take;
    take.message = message.id;
    take.epoch = stream->epoch;
    take.owner = exchange->app.owner;
    submit_for(
        exchange, take.json(), [exchange, id = message.id](const store::CommandReply& reply) {
            const auto row = store::from_json<store::StreamRow>(member_json(reply.json, "stream"));
            if (!row)
                return exchange->error(
                    ApiError::of(ErrorType::api_error, "the store's reply cannot be read"));
            store::Finish finish;
            finish.message = id;
            finish.owner = exchange->app.owner;
            finish.epoch = row->epoch;
            finish.status = "cancelled";
            finish.output_tokens = row->tokens;
            finish.key_id = exchange->caller.key_id;
            finish.request_id = exchange->request_id;
            submit_for(exchange, finish.json(), [exchange](const store::CommandReply& reply) {
                const auto end =
                    store::from_json<store::MessageRow>(member_json(reply.json, "message"));
                if (!end) return exchange->error(no_message());
                exchange->reply(200, message_json(*end));
            });
        });
}

// Waits for the end that another chatd was asked for.
class CancelCall final : public Call, public std::enable_shared_from_this<CancelCall> {
  public:
    CancelCall(ExchangePtr exchange, const store::MessageRow& message)
        : exchange_(std::move(exchange)), conv_(message.conv), message_(message.id) {}
    void start() {
        until_ms_ = exchange_->app.clock.mono_ms() + kCommandWaitMs;
        exchange_->app.keep(shared_from_this());
    }
    void tick(int64_t now_ms) override {
        store::Reader* reader = exchange_->app.store->reader();
        if (!reader) return;
        const auto row = reader->message(conv_, message_);
        if (row && row->status == "streaming" && now_ms < until_ms_) return;
        if (!row)
            exchange_->error(api_error_of(row.error(), ""));
        else if (row->status == "streaming")
            exchange_->error(
                ApiError::unavailable("the server that makes this answer does not stop it", 1));
        else if (row->status == "interrupted")
            end_interrupted(exchange_, *row, *reader);  // it died over it
        else
            exchange_->reply(200, message_json(*row));
        exchange_->app.let_go(shared_from_this());
    }

  private:
    ExchangePtr exchange_;
    store::Ulid conv_, message_;
    int64_t until_ms_ = 0;
};

}  // namespace

void conversation_messages(const ExchangePtr& exchange) {
    store::Reader* reader = nullptr;
    const auto conv = conversation_of(exchange, reader);
    if (!conv) return;
    if (exchange->request.method == "POST") return send_message(exchange, *conv);
    list_messages(exchange, *conv, *reader);
}

void conversation_message(const ExchangePtr& exchange) {
    store::Reader* reader = nullptr;
    const auto conv = conversation_of(exchange, reader);
    if (!conv) return;
    if (const auto row = message_of(exchange, *conv, *reader))
        exchange->reply(200, message_json(*row));
}

void conversation_stream(const ExchangePtr& exchange) {
    store::Reader* reader = nullptr;
    const auto conv = conversation_of(exchange, reader);
    if (!conv) return;
    if (const auto row = message_of(exchange, *conv, *reader)) follow_message(exchange, *row);
}

void regenerate_message_route(const ExchangePtr& exchange) {
    store::Reader* reader = nullptr;
    const auto conv = conversation_of(exchange, reader);
    if (!conv) return;
    if (const auto row = message_of(exchange, *conv, *reader))
        regenerate_message(exchange, *conv, *row);
}

void cancel_message(const ExchangePtr& exchange) {
    store::Reader* reader = nullptr;
    const auto conv = conversation_of(exchange, reader);
    if (!conv) return;
    const auto row = message_of(exchange, *conv, *reader);
    if (!row) return;
    if (const auto turn = exchange->app.turns->find(exchange->request.segments[4]))
        return turn->cancel(exchange);
    if (row->status == "interrupted") return end_interrupted(exchange, *row, *reader);
    // Running, and not here: its owner is another chatd, and hears of it by the change log.
    if (row->status == "streaming") {
        const store::CancelAsk command{exchange->caller.org, exchange->caller.user, conv->id,
                                       row->id};
        return submit_for(exchange, command.json(), [exchange, row](const store::CommandReply&) {
            std::make_shared<CancelCall>(exchange, *row)->start();
        });
    }
    // Over already: the same answer each time.
    exchange->reply(200, message_json(*row));
}

}  // namespace parley::chatd
