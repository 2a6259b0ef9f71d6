#include "send.hpp"

#include <fmt/format.h>

#include "base/json.hpp"
#include "base/text.hpp"
#include "chat/context.hpp"
#include "conversation_json.hpp"
#include "json_in.hpp"
#include "messages/request.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;
using messages::EventType;
using messages::EventWriter;

namespace {

constexpr uint64_t kMaxTokensDefault = 4096;

// What a send asks for; also what a continuation must know, kept in the stream row (params()).
struct Wish {
    std::string content;  // JSON array of blocks
    std::string model;
    std::string system;   // JSON, "" none
    std::string members;  // sampling members of the body, JSON members
    uint64_t max_tokens = 0;
    uint64_t seed = 0;
    bool stream = true;

    std::string params() const {
        std::string out;
        base::JsonWriter w(out);
        w.object()
            .field("model", model)
            .field("max_tokens", max_tokens)
            .field("seed", std::to_string(seed));
        w.key("system")
            .raw(system.empty() ? "null" : system)
            .key("sampling")
            .raw("{" + members + "}");
        w.end();
        return out;
    }
};

std::string text_blocks(std::string_view text) {
    std::string out;
    base::JsonWriter w(out);
    w.array().object().field("type", "text").field("text", text).end().end();
    return out;
}

// The paths of the probe's body, in the words of this one.
ApiError in_our_words(ApiError error) {
    for (const std::string_view from : {"messages.0.content", "messages.0", "messages"}) {
        if (error.message.rfind(from, 0) != 0) continue;
        error.message = "content" + error.message.substr(from.size());
        break;
    }
    return error;
}

std::optional<ApiError> read_wish(const Exchange& exchange, const store::ConvRow& conv,
                                  Wish& wish) {
    const App& app = exchange.app;
    JsonIn in(exchange.request.body);
    if (in.error()) return in.error();
    const auto content = in.raw("content");
    if (!content) return ApiError::invalid("content", "Field required");
    wish.content = *content;
    if (wish.content.front() == '"')
        if (const auto text = in.text("content", SIZE_MAX)) wish.content = text_blocks(*text);
    wish.model = in.text("model").value_or(conv.model);
    if (wish.model.empty()) wish.model = "default";
    wish.system = in.raw("system").value_or(conv.system);
    if (wish.system == "null") wish.system.clear();
    wish.stream = in.flag("stream").value_or(true);
    for (const char* name : {"temperature", "top_p", "top_k", "stop_sequences"})
        if (const auto value = in.raw(name))
            wish.members +=
                fmt::format("{}\"{}\":{}", wish.members.empty() ? "" : ",", name, *value);
    if (in.error()) return in.error();

    // One reader of requests for all: the probe is what the model would be asked.
    const std::string max_tokens = in.raw("max_tokens").value_or("0");
    std::string probe;
    base::JsonWriter w(probe);
    w.object().field("model", wish.model).key("max_tokens").raw(max_tokens);
    if (!wish.system.empty()) w.key("system").raw(wish.system);
    w.key("messages")
        .array()
        .object()
        .field("role", "user")
        .key("content")
        .raw(wish.content)
        .end()
        .end();
    if (!wish.members.empty()) probe += ',' + wish.members;
    w.end();
    auto parsed = messages::parse_request(probe, parse_options(exchange, false));
    if (!parsed) return in_our_words(parsed.error());
    const auto model = app.catalog->find(wish.model);
    const uint64_t window = model->context_tokens();
    wish.max_tokens = parsed->max_tokens;
    if (wish.max_tokens == 0)
        wish.max_tokens = window > 0 ? std::min(window / 2, kMaxTokensDefault) : kMaxTokensDefault;
    wish.seed = draw_seed();
    return std::nullopt;
}

tl::expected<chat::Context, ApiError> context_of(App& app, const Wish& wish,
                                                 std::vector<store::MessageRow> path) {
    const auto model = app.catalog->find(wish.model);
    if (!model) return tl::make_unexpected(ApiError::unknown_model(wish.model));
    chat::ContextOptions options;
    options.model = app.catalog->below(wish.model);
    options.max_tokens = wish.max_tokens;
    options.system = wish.system;
    options.extra_members = wish.members;
    return chat::build_context(path, options, model->artifact.get());
}

struct Sending {
    ExchangePtr exchange;
    store::ConvRow conv;
    Wish wish;
    std::optional<store::Ulid> parent;
    chat::Context context;
};

chat::AnswerOptions answer_of(const Exchange& exchange, const Wish& wish,
                              const chat::Context& context, const store::MessageRow& message) {
    Ask ask;
    ask.id = store::show_id(store::kMsg, message.id);
    ask.model = wish.model;
    ask.body = context.body;
    ask.prompt_tokens = context.prompt_tokens > 0 ? context.prompt_tokens : context.body.size() / 3;
    ask.max_tokens = context.max_tokens;
    ask.stream = wish.stream;
    ask.seed = wish.seed;
    chat::AnswerOptions options = answer_options(exchange, std::move(ask));
    options.envelope.conversation = store::show_id(store::kConv, message.conv);
    if (context.prompt_tokens > 0)
        options.count_prompt = [tokens = context.prompt_tokens] { return tokens; };
    return options;
}

void listen(const ExchangePtr& exchange, const std::shared_ptr<Turn>& turn, bool stream) {
    if (stream)
        turn->follow(exchange);
    else
        turn->reply_to(exchange);
}

std::string text_of(const std::string& content) {
    std::string text;
    simdjson::dom::parser parser;
    simdjson::dom::array blocks;
    if (parser.parse(content).get(blocks)) return text;
    for (const simdjson::dom::element block : blocks) {
        std::string_view piece;
        if (!block["text"].get(piece)) text += piece;
    }
    return text;
}

messages::Usage usage_of(const std::string& json) {
    messages::Usage usage;
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    if (json.empty() || parser.parse(json).get(root)) return usage;
    const auto number = [&](std::string_view name, uint64_t& into) {
        if (root[name].get(into)) into = 0;
    };
    number("input_tokens", usage.input_tokens);
    number("output_tokens", usage.output_tokens);
    number("cache_read_input_tokens", usage.cache_read_input_tokens);
    number("cache_creation_input_tokens", usage.cache_creation_input_tokens);
    return usage;
}

// A finished answer, from its start, as it was streamed.
void replay_finished(const ExchangePtr& exchange, const store::MessageRow& user_message,
                     const store::MessageRow& message, uint32_t epoch, bool stream) {
    const bool failed = message.status == "failed";
    ApiError error = ApiError::of(ErrorType::api_error, "the answer failed");
    error.retryable = false;
    if (!stream) {
        if (failed) return exchange->error(error);
        return exchange->reply(200, sent_json(user_message, message, 0));
    }
    chat::StreamOptions options;
    options.epoch = epoch;
    const auto events = std::make_shared<chat::Stream>(options);
    const messages::Usage usage = usage_of(message.usage);
    const std::string text = text_of(message.content);
    events->push(EventType::message_accepted, accepted_json(user_message, message, 0));
    if (failed) {
        events->fail(error);
    } else {
        events->push(EventType::message_start,
                     EventWriter::message_start(store::show_id(store::kMsg, message.id),
                                                message.sender, usage));
        if (!text.empty()) {
            events->push(EventType::content_block_start, EventWriter::text_block_start(0));
            events->push(EventType::content_block_delta, EventWriter::text_delta(0, text, 0));
            events->push(EventType::content_block_stop, EventWriter::block_stop(0));
        }
        if (const auto reason = messages::stop_reason(message.stop_reason))
            events->push(EventType::message_delta,
                         EventWriter::message_delta({*reason, std::nullopt, ""}, usage));
        events->push(EventType::message_stop, EventWriter::message_stop());
        events->close();
    }
    const auto pump = std::make_shared<SsePump>(
        exchange, [] {}, [] {});
    pump->attach(events, std::nullopt);
    if (!pump->over()) exchange->writer->on_close([pump] {});  // a slow client: the writer keeps it
}

// An interrupted answer goes on in a new epoch, with the words it was asked with.
void continue_turn(const ExchangePtr& exchange, const store::MessageRow& user_message,
                   const store::MessageRow& message, const store::StreamRow& stream,
                   bool streamed) {
    App& app = exchange->app;
    store::TakeOver command;
    command.message = message.id;
    command.epoch = stream.epoch;
    command.owner = app.owner;
    command.resume = true;
    submit_for(
        exchange, command.json(),
        [exchange, user_message, streamed](const store::CommandReply& reply) {
            App& app = exchange->app;
            auto row = store::from_json<store::StreamRow>(member_json(reply.json, "stream"));
            auto message = store::from_json<store::MessageRow>(member_json(reply.json, "message"));
            store::Reader* reader = app.store->reader();
            if (!row || !message || !reader) return exchange->error(store_away());
            Wish wish;
            {
                simdjson::dom::parser parser;
                simdjson::dom::element params;
                std::string_view text;
                if (!parser.parse(row->params).get(params)) {
                    if (!params["model"].get(text)) wish.model = text;
                    if (params["max_tokens"].get(wish.max_tokens))
                        wish.max_tokens = kMaxTokensDefault;
                    if (!params["seed"].get(text))
                        wish.seed = std::strtoull(std::string(text).c_str(), nullptr, 10);
                }
                wish.system = member_json(row->params, "system");
                if (wish.system == "null") wish.system.clear();
                const std::string sampling = member_json(row->params, "sampling");
                if (sampling.size() > 2) wish.members = sampling.substr(1, sampling.size() - 2);
                wish.stream = streamed;
            }
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
            chat::Resumed resumed;
            bool whole = true;
            uint32_t epoch = 0, seq = 0;
            for (;;) {
                auto piece = reader->journal(message->id, epoch, seq, 1000);
                whole = whole && piece;
                if (!piece || piece->empty()) break;
                for (const store::DeltaRow& delta : *piece) {
                    resumed.text += delta.text;
                    resumed.produced.insert(resumed.produced.end(), delta.ids.begin(),
                                            delta.ids.end());
                    epoch = delta.epoch;
                    seq = delta.last_seq;
                }
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
            listen(exchange, turn, streamed);
            if (!whole || !context) return turn->give_up(context ? store_away() : context.error());
            turn->start();
        });
}

void replayed(const Sending& sending, const store::MessageRow& user_message,
              const store::MessageRow& message, const std::optional<store::StreamRow>& stream) {
    App& app = sending.exchange->app;
    if (const auto turn = app.turns->find(store::show_id(store::kMsg, message.id)))
        return listen(sending.exchange, turn, sending.wish.stream);
    if (message.status == "streaming")
        return sending.exchange->error(
            ApiError::unavailable("another server is producing this answer", 1));
    if (message.status == "interrupted" && stream)
        return continue_turn(sending.exchange, user_message, message, *stream, sending.wish.stream);
    replay_finished(sending.exchange, user_message, message, stream ? stream->epoch : 1,
                    sending.wish.stream);
}

void committed(const std::shared_ptr<Sending>& sending, const store::CommandReply& reply) {
    const ExchangePtr& exchange = sending->exchange;
    App& app = exchange->app;
    auto user_message =
        store::from_json<store::MessageRow>(member_json(reply.json, "user_message"));
    auto message = store::from_json<store::MessageRow>(member_json(reply.json, "message"));
    if (!user_message || !message)
        return exchange->error(
            ApiError::of(ErrorType::api_error, "the store's reply cannot be read"));
    if (member_json(reply.json, "replayed") == "true") {
        std::optional<store::StreamRow> stream;
        if (auto row = store::from_json<store::StreamRow>(member_json(reply.json, "stream")))
            stream = std::move(*row);
        return replayed(*sending, *user_message, *message, stream);
    }
    // Another send may have moved the head between our look and the commit: the path is read again.
    std::optional<ApiError> lost;
    if (user_message->parent != sending->parent) {
        store::Reader* reader = app.store->reader();
        tl::expected<chat::Context, ApiError> context = tl::make_unexpected(store_away());
        if (reader)
            if (auto path = reader->path(sending->conv.id, user_message->id,
                                         app.options.context_messages_max))
                context = context_of(app, sending->wish, std::move(path->rows));
        if (context)
            sending->context = std::move(*context);
        else
            lost = context.error();
    }
    TurnStart start;
    start.user_message = *user_message;
    start.message = *message;
    start.truncated_messages = sending->context.truncated_messages;
    start.key_id = exchange->caller.key_id;
    start.request_id = exchange->request_id;
    start.answer = answer_of(*exchange, sending->wish, sending->context, *message);
    const auto turn = std::make_shared<Turn>(app, std::move(start));
    turn->prepare();
    listen(exchange, turn, sending->wish.stream);
    if (lost) return turn->give_up(*lost);
    turn->start();
}

std::string idempotency_key(const Exchange& exchange, const std::string& fingerprint) {
    if (const std::string* key = exchange.request.headers.find("idempotency-key");
        key && !key->empty())
        return *key;
    if (!exchange.app.options.x_request_id_idempotency) return {};
    const std::string* id = exchange.request.headers.find("x-request-id");
    // Proxies pass it on to other requests too: another body is another key.
    return id && !id->empty() ? fmt::format("x:{}:{}", *id, fingerprint) : std::string();
}

}  // namespace

void send_message(const ExchangePtr& exchange, const store::ConvRow& conv) {
    App& app = exchange->app;
    const auto sending = std::make_shared<Sending>();
    sending->exchange = exchange;
    sending->conv = conv;
    if (auto error = read_wish(*exchange, conv, sending->wish)) return exchange->error(*error);

    store::Send command;
    command.org = exchange->caller.org;
    command.user = exchange->caller.user;
    command.conv = conv.id;
    sending->parent = conv.head;
    JsonIn in(exchange->request.body);
    if (in.is_null("parent_id")) {
        command.parent = store::Send::kRoot;
        sending->parent.reset();
    } else if (const auto parent = in.text("parent_id")) {
        sending->parent = store::parse_id(store::kMsg, *parent);
        if (!sending->parent)
            return exchange->error(
                ApiError::of(ErrorType::not_found_error, "parent_id: no such message"));
        command.parent = *parent;
    }
    if (in.error()) return exchange->error(*in.error());

    store::Reader* reader = app.store->reader();
    if (!reader) return exchange->error(store_away());
    std::vector<store::MessageRow> path;
    if (sending->parent) {
        auto rows = reader->path(conv.id, *sending->parent, app.options.context_messages_max);
        if (!rows)
            return exchange->error(
                rows.error().code == base::Errc::not_found
                    ? ApiError::of(ErrorType::not_found_error, "parent_id: no such message")
                    : api_error_of(rows.error(), ""));
        path = std::move(rows->rows);
    }
    store::MessageRow fresh;
    fresh.role = "user";
    fresh.status = "done";
    fresh.content = sending->wish.content;
    path.push_back(std::move(fresh));
    auto context = context_of(app, sending->wish, std::move(path));
    if (!context) return exchange->error(context.error());
    sending->context = std::move(*context);
    if (auto error = app.cannot_ask()) return exchange->error(*error);
    if (app.answers.full()) return exchange->error(ApiError::overloaded(1));

    command.content = sending->wish.content;
    command.model = sending->wish.model;
    command.owner = app.owner;
    command.params = sending->wish.params();
    command.fingerprint =
        base::hex(base::sha256(store::show_id(store::kConv, conv.id) + exchange->request.body));
    command.idem_key = idempotency_key(*exchange, command.fingerprint);
    if (command.idem_key.size() > 512)
        return exchange->error(
            ApiError::invalid("idempotency-key", "at most 512 bytes are possible"));
    submit_for(exchange, command.json(),
               [sending](const store::CommandReply& reply) { committed(sending, reply); });
}

}  // namespace parley::chatd
