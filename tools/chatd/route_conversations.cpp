// /v1/conversations and /v1/conversations/{id}: create, list, read, change, delete.
#include <charconv>

#include "conversation_json.hpp"
#include "json_in.hpp"
#include "routes.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr size_t kSystemMax = 1u << 20;

// string or blocks, as JSON; checked as far as a request's system is.
std::optional<std::string> system_of(JsonIn& in) {
    auto raw = in.raw("system");
    if (!raw) return std::nullopt;
    if (raw->size() > kSystemMax) in.refuse("system", "at most 1 MiB is possible");
    const std::string probe =
        R"({"model":"x","max_tokens":1,"messages":[{"role":"user","content":"x"}],"system":)" +
        *raw + "}";
    if (auto parsed = messages::parse_request(probe); !parsed)
        in.refuse("system", "Input should be a string or an array of text blocks");
    return raw;
}

// While no model has joined, none can be called unknown.
bool unknown_model(const App& app, const std::string& model) {
    return !model.empty() && !app.catalog->empty() && !app.catalog->find(model);
}

void reply_conversation(const ExchangePtr& exchange, int status, const store::ConvRow& row) {
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return exchange->error(store_away());
    std::string out;
    base::JsonWriter w(out);
    write_conversation(w, row, *reader);
    exchange->reply(status, std::move(out));
}

// A command whose reply is one conversation.
void change_conversation(const ExchangePtr& exchange, std::string command, int status) {
    submit_for(exchange, std::move(command), [exchange, status](const store::CommandReply& reply) {
        auto row = store::from_json<store::ConvRow>(member_json(reply.json, "conversation"));
        if (!row)
            return exchange->error(
                ApiError::of(ErrorType::api_error, "the store's reply cannot be read"));
        reply_conversation(exchange, status, *row);
    });
}

void create(const ExchangePtr& exchange) {
    JsonIn in(exchange->request.body);
    store::ConversationCreate command;
    command.org = exchange->caller.org;
    command.user = exchange->caller.user;
    command.user_name = exchange->caller.user_name;
    command.title = in.text("title").value_or("");
    command.model = in.text("model").value_or("");
    command.system = system_of(in).value_or("null");
    command.metadata = in.object("metadata").value_or("{}");
    if (in.error()) return exchange->error(*in.error());
    if (unknown_model(exchange->app, command.model))
        return exchange->error(ApiError::unknown_model(command.model));
    change_conversation(exchange, command.json(), 201);
}

void list(const ExchangePtr& exchange) {
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return exchange->error(store_away());
    const auto limit = limit_of(*exchange, 20, 200);
    if (!limit) return exchange->error(limit.error());
    const std::string cursor(exchange->request.query_value("cursor").value_or(""));
    auto page = reader->conversations(exchange->caller.user, *limit, cursor);
    if (!page) return exchange->error(api_error_of(page.error(), "cursor"));
    std::string out;
    base::JsonWriter w(out);
    w.object().key("data").array();
    for (const store::ConvRow& row : page->rows) write_conversation(w, row, *reader);
    w.end().field("has_more", page->has_more).key("next_cursor");
    if (page->next_cursor.empty())
        w.null();
    else
        w.string(page->next_cursor);
    w.end();
    exchange->reply(200, std::move(out));
}

void patch(const ExchangePtr& exchange, const store::Ulid& id) {
    JsonIn in(exchange->request.body);
    store::ConversationUpdate command;
    command.org = exchange->caller.org;
    command.user = exchange->caller.user;
    command.conv = id;
    command.title = in.is_null("title") ? std::optional<std::string>("") : in.text("title");
    command.model = in.is_null("model") ? std::optional<std::string>("") : in.text("model");
    command.system = in.is_null("system") ? std::optional<std::string>("\"\"") : system_of(in);
    command.metadata =
        in.is_null("metadata") ? std::optional<std::string>("{}") : in.object("metadata");
    command.archived = in.flag("archived");
    command.pinned = in.flag("pinned");
    if (in.error()) return exchange->error(*in.error());
    if (command.model && unknown_model(exchange->app, *command.model))
        return exchange->error(ApiError::unknown_model(*command.model));
    if (std::string_view match = exchange->request.headers.get("if-match");
        !match.empty() && match != "*") {
        if (match.size() >= 2 && match.front() == '"' && match.back() == '"')
            match = match.substr(1, match.size() - 2);
        uint64_t rev = 0;
        const auto [end, error] = std::from_chars(match.data(), match.data() + match.size(), rev);
        if (error != std::errc() || end != match.data() + match.size())
            return exchange->error(ApiError::invalid("if-match", "Input should be a rev"));
        command.rev = rev;
    }
    change_conversation(exchange, command.json(), 200);
}

void erase(const ExchangePtr& exchange, const store::Ulid& id) {
    store::ConversationDelete command{exchange->caller.org, exchange->caller.user, id};
    submit_for(exchange, command.json(), [exchange, id](const store::CommandReply&) {
        exchange->app.turns->cancel_conversation(id);
        std::string out;
        base::JsonWriter w(out);
        w.object()
            .field("id", store::show_id(store::kConv, id))
            .field("type", "conversation_deleted")
            .end();
        exchange->reply(200, std::move(out));
    });
}

}  // namespace

void conversations(const ExchangePtr& exchange) {
    if (exchange->request.method == "POST") return create(exchange);
    list(exchange);
}

void conversation(const ExchangePtr& exchange) {
    const auto id = store::parse_id(store::kConv, exchange->request.segments[2]);
    if (!id) return exchange->error(no_conversation());
    const std::string& method = exchange->request.method;
    if (method == "PATCH") return patch(exchange, *id);
    if (method == "DELETE") return erase(exchange, *id);
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return exchange->error(store_away());
    auto row = reader->conversation(exchange->caller.org, exchange->caller.user, *id);
    if (!row) return exchange->error(api_error_of(row.error(), ""));
    reply_conversation(exchange, 200, *row);
}

}  // namespace parley::chatd
