#include "send.hpp"

#include <fmt/format.h>

#include "base/json.hpp"
#include "base/text.hpp"
#include "conversation_json.hpp"
#include "idempotency.hpp"
#include "json_in.hpp"
#include "messages/request.hpp"
#include "resume.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"
#include "wish.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

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

// `question`: the message that gets one more answer; null when the body brings a new one.
std::optional<ApiError> read_wish(const Exchange& exchange, const store::ConvRow& conv,
                                  const store::MessageRow* question, Wish& wish) {
    const App& app = exchange.app;
    JsonIn in(exchange.request.body);
    if (in.error()) return in.error();
    if (question) {
        for (const char* name : {"content", "parent_id"})
            if (in.has(name)) return ApiError::invalid(name, "is not taken here");
        wish.content = question->content;
    } else {
        const auto content = in.raw("content");
        if (!content) return ApiError::invalid("content", "Field required");
        wish.content = *content;
        if (wish.content.front() == '"')
            if (const auto text = in.text("content", SIZE_MAX)) wish.content = text_blocks(*text);
    }
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

struct Sending {
    ExchangePtr exchange;
    store::ConvRow conv;
    Wish wish;
    std::optional<store::Ulid> parent;
    chat::Context context;
    std::shared_ptr<Ticket> ticket;
};

void replayed(const Sending& sending, const store::MessageRow& user_message,
              const store::MessageRow& message, const std::optional<store::StreamRow>& stream) {
    App& app = sending.exchange->app;
    if (const auto turn = app.turns->find(store::show_id(store::kMsg, message.id)))
        return turn->answer_to(sending.exchange, sending.wish.stream);
    if (message.status == "streaming") {
        if (sending.wish.stream) return follow_message(sending.exchange, message);
        return sending.exchange->error(
            ApiError::unavailable("another server is producing this answer", 1));
    }
    if (message.status == "interrupted" && stream)
        return continue_turn(sending.exchange, user_message, *stream,
                             sending.wish.stream ? Listen::from_start : Listen::one_object);
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
    start.ticket = std::move(sending->ticket);
    const auto turn = std::make_shared<Turn>(app, std::move(start));
    turn->prepare();
    turn->answer_to(exchange, sending->wish.stream);
    if (lost) return turn->give_up(*lost);
    turn->start();
}

// The way to the message that is answered, root first, and what the command says of its place. False:
// the refusal was answered.
bool place(Sending& sending, store::Send& command, const store::MessageRow* question,
           std::vector<store::MessageRow>& path) {
    const ExchangePtr& exchange = sending.exchange;
    const auto refuse = [&](const ApiError& error) {
        exchange->error(error);
        return false;
    };
    const ApiError no_parent =
        ApiError::of(ErrorType::not_found_error, "parent_id: no such message");
    std::optional<store::Ulid> last = sending.conv.head;
    sending.parent = sending.conv.head;
    if (question) {
        last = question->id;
        sending.parent = question->parent;
        command.parent = store::show_id(store::kMsg, question->id);
    } else {
        JsonIn in(exchange->request.body);
        if (in.is_null("parent_id")) {
            command.parent = store::Send::kRoot;
            sending.parent.reset();
        } else if (const auto parent = in.text("parent_id")) {
            sending.parent = store::parse_id(store::kMsg, *parent);
            if (!sending.parent) return refuse(no_parent);
            command.parent = *parent;
        }
        if (in.error()) return refuse(*in.error());
        last = sending.parent;
    }
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return refuse(store_away());
    if (last) {
        auto rows =
            reader->path(sending.conv.id, *last, exchange->app.options.context_messages_max);
        if (!rows)
            return refuse(rows.error().code == base::Errc::not_found
                              ? no_parent
                              : api_error_of(rows.error(), ""));
        path = std::move(rows->rows);
    }
    if (question) return true;
    store::MessageRow fresh;
    fresh.role = "user";
    fresh.status = "done";
    fresh.content = sending.wish.content;
    path.push_back(std::move(fresh));
    return true;
}

void ask_for(const ExchangePtr& exchange, const store::ConvRow& conv,
             const store::MessageRow* question) {
    App& app = exchange->app;
    const auto sending = std::make_shared<Sending>();
    sending->exchange = exchange;
    sending->conv = conv;
    if (auto error = read_wish(*exchange, conv, question, sending->wish))
        return exchange->error(*error);

    store::Send command;
    command.org = exchange->caller.org;
    command.user = exchange->caller.user;
    command.conv = conv.id;
    std::vector<store::MessageRow> path;
    if (!place(*sending, command, question, path)) return;
    auto context = context_of(app, sending->wish, std::move(path));
    if (!context) return exchange->error(context.error());
    sending->context = std::move(*context);
    if (auto error = app.cannot_ask()) return exchange->error(*error);
    if (app.answers.full()) return exchange->error(ApiError::overloaded(1));

    if (!question) command.content = sending->wish.content;
    command.model = sending->wish.model;
    command.owner = app.owner;
    command.params = sending->wish.params();
    command.fingerprint = base::hex(base::sha256(
        store::show_id(store::kConv, conv.id) +
        (question ? store::show_id(store::kMsg, question->id) : "") + exchange->request.body));
    command.idem_key = idempotency_key(*exchange, command.fingerprint);
    if (command.idem_key.size() > 512)
        return exchange->error(
            ApiError::invalid("idempotency-key", "at most 512 bytes are possible"));
    // A repeat is no new request: limits do not stand before it.
    store::Reader* reader = app.store->reader();
    const bool known =
        reader && !command.idem_key.empty() &&
        reader->idempotency(command.user, "send", command.idem_key, app.clock.wall_ms());
    if (!known) {
        const chat::Context& context = sending->context;
        auto ticket = app.gate->admit(
            *exchange, exchange->caller.user, sending->wish.model,
            context.prompt_tokens > 0 ? context.prompt_tokens : context.body.size() / 3,
            context.max_tokens);
        if (!ticket) return exchange->error(ticket.error());
        sending->ticket = std::move(*ticket);
    }
    submit_for(exchange, command.json(),
               [sending](const store::CommandReply& reply) { committed(sending, reply); });
}

}  // namespace

void send_message(const ExchangePtr& exchange, const store::ConvRow& conv) {
    ask_for(exchange, conv, nullptr);
}

void regenerate_message(const ExchangePtr& exchange, const store::ConvRow& conv,
                        const store::MessageRow& message) {
    store::MessageRow question = message;
    if (message.role == "assistant") {
        store::Reader* reader = exchange->app.store->reader();
        if (!reader) return exchange->error(store_away());
        auto parent = reader->message(conv.id, message.parent.value_or(message.id));
        if (!parent) return exchange->error(api_error_of(parent.error(), ""));
        question = std::move(*parent);
    }
    if (question.status == "blocked")
        return exchange->error(ApiError::invalid(
            "this message was refused by the filter: it cannot be answered again"));
    ask_for(exchange, conv, &question);
}

}  // namespace parley::chatd
