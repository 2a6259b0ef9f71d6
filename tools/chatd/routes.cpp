#include "routes.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cors.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr uint64_t kOpenBodyMax = 8192;  // of a caller who is not known yet

const std::vector<Route>& table() {
    static const std::vector<Route> routes = {
        {"index", {}, {Served("GET", "The web page.").as("text/html")}, true, "", get_index},
        {"page_file",
         {"web", "*"},
         {Served("GET", "A file of the web page.").as("*/*")},
         true,
         "",
         get_page_file},
        {"operator_page",
         {"operator"},
         {Served("GET", "The operator's page.").as("text/html")},
         true,
         "",
         get_operator_page},
        {"operator",
         {"v1", "operator"},
         {Served("GET", "What an operator looks at: load, queues, usage of the organisations.")
              .query("days")},
         false,
         "operator",
         get_operator},
        {"events",
         {"v1", "events"},
         {Served("GET", "The live feed of the caller's user over all devices.")
              .query("since")
              .streams()},
         false,
         "conversations",
         get_events},
        {"ws",
         {"v1", "ws"},
         {Served("GET", "A WebSocket: the feed and any number of answers on one connection.")
              .as("application/websocket")},
         false,
         "conversations",
         get_ws},
        {"read",
         {"v1", "conversations", "*", "read"},
         {Served("POST", "Marks a conversation as read up to a message.").takes("ReadRequest")},
         false,
         "conversations",
         mark_read},
        {"search",
         {"v1", "search"},
         {Served("GET", "Searches the caller's messages; phrases in quotes, prefix word*.")
              .query("q limit cursor")},
         false,
         "conversations",
         get_search},
        {"notifications",
         {"v1", "notifications"},
         {Served("GET", "How the caller is told of answers while away."),
          Served("PUT", "Says how: webhook, e-mail digest, Web Push, quiet times.")},
         false,
         "conversations",
         notifications},
        {"docs",
         {"docs"},
         {Served("GET", "This interface, to be read.").as("text/html")},
         true,
         "",
         get_docs},
        {"openapi",
         {"openapi.json"},
         {Served("GET", "This interface, as an OpenAPI document.")},
         true,
         "",
         get_openapi},
        {"hello", {"api", "hello"}, {Served("GET", "A sign of life.")}, true, "", get_hello},
        {"health",
         {"health"},
         {Served("GET", "The process answers.").gives("Status")},
         true,
         "",
         get_health},
        {"health",
         {"healthz"},
         {Served("GET", "The process answers.").gives("Status")},
         true,
         "",
         get_health},
        {"ready",
         {"readyz"},
         {Served("GET", "200 when models can be asked, else 503 with what is missing.")
              .gives("Status")},
         true,
         "",
         get_ready},
        {"sessions",
         {"v1", "sessions"},
         {Served("POST", "Logs in, by password or by the link of the start.")
              .takes("LoginRequest")},
         true,
         "",
         create_session},
        {"sessions_all",
         {"v1", "sessions", "all"},
         {Served("DELETE", "Logs the user out everywhere.")},
         false,
         "",
         end_all_sessions},
        {"session",
         {"v1", "sessions", "current"},
         {Served("DELETE", "Logs out.")},
         false,
         "",
         end_session},
        {"usage",
         {"v1", "usage"},
         {Served("GET", "Requests, tokens and cost per model and day.")
              .gives("UsageOf")
              .query("from to of")},
         false,
         "",
         get_usage},
        {"export",
         {"v1", "export"},
         {Served("GET", "All conversations of the caller, as JSON Lines.")
              .as("application/x-jsonl")},
         false,
         "conversations",
         get_export},
        {"my_data",
         {"v1", "me", "data"},
         {Served("DELETE", "Erases all that the caller has written, for good.")},
         false,
         "",
         erase_my_data},
        {"me", {"v1", "me"}, {Served("GET", "Who is calling.").gives("Me")}, false, "", get_me},
        {"models",
         {"v1", "models"},
         {Served("GET", "Models and aliases; one body for both kinds of clients.")
              .gives("Models")
              .query("limit after_id before_id")},
         false,
         "",
         list_models,
         Dialect::both},
        {"model",
         {"v1", "models", "*"},
         {Served("GET", "One model or alias.").gives("Model")},
         false,
         "",
         get_model,
         Dialect::both},
        {"messages",
         {"v1", "messages"},
         {Served("POST", "One answer, whole or as a stream of events.")
              .takes("MessageRequest")
              .gives("Message")
              .streams()},
         false,
         "messages",
         post_messages},
        {"chat_completions",
         {"v1", "chat", "completions"},
         {Served("POST", "The same answers in OpenAI's shape.")
              .takes("ChatRequest")
              .gives("ChatCompletion")
              .streams()},
         false,
         "messages",
         post_chat_completions,
         Dialect::openai},
        {"count_tokens",
         {"v1", "messages", "count_tokens"},
         {Served("POST", "The exact number of prompt tokens.")
              .takes("CountRequest")
              .gives("Count")},
         false,
         "messages",
         post_count_tokens},
        {"batches",
         {"v1", "messages", "batches"},
         {Served("GET", "Message batches, newest first.")
              .gives("Batches")
              .query("limit after_id before_id"),
          Served("POST", "Makes a message batch.").takes("BatchRequest").gives("Batch")},
         false,
         "messages",
         message_batches,
         Dialect::messages,
         true},
        {"batch",
         {"v1", "messages", "batches", "*"},
         {Served("GET", "One message batch.").gives("Batch"),
          Served("DELETE", "Forgets a batch that has ended.").gives("Deleted")},
         false,
         "messages",
         message_batch},
        {"batch_cancel",
         {"v1", "messages", "batches", "*", "cancel"},
         {Served("POST", "Stops a batch; what is finished stays.").gives("Batch")},
         false,
         "messages",
         cancel_message_batch},
        {"batch_results",
         {"v1", "messages", "batches", "*", "results"},
         {Served("GET", "Results of a batch that has ended, a line of JSON each.")
              .as("application/x-jsonl")},
         false,
         "messages",
         message_batch_results},
        {"message_stream",
         {"v1", "messages", "*", "stream"},
         {Served("GET", "Takes up the stream of an answer that was cut.")
              .query("starting_after")
              .streams()},
         false,
         "messages",
         get_message_stream},
        {"conversations",
         {"v1", "conversations"},
         {Served("GET", "Conversations, newest first.").gives("List").query("limit cursor"),
          Served("POST", "Makes a conversation.")
              .takes("ConversationRequest")
              .gives("Conversation", 201)},
         false,
         "conversations",
         conversations},
        {"conversation",
         {"v1", "conversations", "*"},
         {Served("GET", "One conversation.").gives("Conversation"),
          Served("PATCH", "Changes its title, model and the like.")
              .takes("ConversationRequest")
              .gives("Conversation"),
          Served("DELETE", "Deletes a conversation with its messages.")},
         false,
         "conversations",
         conversation},
        {"conversation_messages",
         {"v1", "conversations", "*", "messages"},
         {Served("GET", "Messages of a conversation.")
              .gives("List")
              .query("limit order after before"),
          Served("POST", "Sends a message; the answer is a stream, or whole.")
              .takes("SendRequest")
              .streams()},
         false,
         "conversations",
         conversation_messages},
        {"conversation_message",
         {"v1", "conversations", "*", "messages", "*"},
         {Served("GET", "One message.").gives("Stored")},
         false,
         "conversations",
         conversation_message},
        {"cancel",
         {"v1", "conversations", "*", "messages", "*", "cancel"},
         {Served("POST", "Stops an answer.")},
         false,
         "conversations",
         cancel_message},
        {"regenerate",
         {"v1", "conversations", "*", "messages", "*", "regenerate"},
         {Served("POST", "One more answer to the same message.").takes("SendRequest").streams()},
         false,
         "conversations",
         regenerate_message_route},
        {"conversation_stream",
         {"v1", "conversations", "*", "messages", "*", "stream"},
         {Served("GET", "Follows an answer, from the start or a position.")
              .query("starting_after continue")
              .streams()},
         false,
         "conversations",
         conversation_stream},
    };
    return routes;
}

bool matches(const Route& route, const std::vector<std::string>& segments) {
    if (route.pattern.size() != segments.size()) return false;
    for (size_t i = 0; i < segments.size(); ++i)
        if (route.pattern[i] != "*" && route.pattern[i] != segments[i]) return false;
    return true;
}

bool allows(const Route& route, std::string_view method) {
    // What may be got may be asked for its head.
    if (method == "HEAD") method = "GET";
    return std::any_of(route.methods.begin(), route.methods.end(),
                       [&](const Served& served) { return served.method == method; });
}

std::vector<std::string_view> methods_of(const Route& route) {
    std::vector<std::string_view> out;
    for (const Served& served : route.methods) out.push_back(served.method);
    return out;
}

std::string allowed_of(const Route& route) {
    std::string allowed;
    for (const std::string_view method : methods_of(route)) {
        allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", method);
        if (method == "GET") allowed += ", HEAD";
    }
    return allowed;
}

http::Response refuse_method(const Route& route, std::string_view request_id) {
    const std::string allowed = allowed_of(route);
    ApiError error = ApiError::invalid(fmt::format("this path answers {} only", allowed));
    error.status = 405;
    http::Response response = error_response(error, request_id, route.dialect);
    response.header("allow", allowed);
    return response;
}

http::HeadDecision refuse(App& app, const http::Request& head, const Route* route,
                          const ApiError& error) {
    http::HeadDecision decision;
    decision.response = error_response(error, new_request_id(), dialect_of(route));
    add_cors(app.options.cors_origins, head, *decision.response);
    app.metrics
        .counter("chatd_requests_total", "requests answered",
                 {{"route", std::string(route ? route->name : "other")},
                  {"status", std::to_string(decision.response->status)}})
        .add();
    return decision;
}

}  // namespace

const std::vector<Route>& all_routes() { return table(); }

const Route* find_route(const http::Request& head) {
    for (const Route& route : table())
        if (matches(route, head.segments)) return &route;
    return nullptr;
}

Dialect dialect_of(const Route* route) { return route ? route->dialect : Dialect::both; }

http::HeadDecision decide(App& app, const http::Request& head) {
    const Route* route = find_route(head);
    if (head.method == "OPTIONS" && !app.options.cors_origins.empty()) {
        http::HeadDecision decision;
        decision.response = preflight(app.options.cors_origins, head,
                                      route ? methods_of(*route) : std::vector<std::string_view>());
        return decision;
    }
    if (!route)
        return refuse(app, head, route,
                      ApiError::of(ErrorType::not_found_error, "this path does not exist"));
    http::HeadDecision decision;
    decision.body_bytes_max = app.options.body_bytes_max;
    if (route->spool && head.method == "POST") {
        decision.body_bytes_max = app.options.batch_body_bytes_max;
        decision.body_folder = app.places.batches();
    }
    if (!allows(*route, head.method)) {
        decision.response = refuse_method(*route, new_request_id());
        add_cors(app.options.cors_origins, head, *decision.response);
        return decision;
    }
    if (route->open) {
        decision.body_bytes_max = kOpenBodyMax;
        return decision;
    }
    auto caller = app.auth->check(head, app.store->reader());
    if (!caller) return refuse(app, head, route, caller.error());
    if (!route->scope.empty() && !caller->may_use(route->scope))
        return refuse(app, head, route,
                      ApiError::of(ErrorType::permission_error, "this key may not use this path"));
    const std::string_view encoding = head.headers.get("content-encoding");
    if (!encoding.empty() && !http::equal_ignoring_case(encoding, "identity"))
        return refuse(app, head, route,
                      ApiError::invalid("content-encoding", "only identity is accepted"));
    return decision;
}

void dispatch(App& app, http::Request request, http::Writer writer) {
    const Route* route = find_route(request);
    const auto exchange = std::make_shared<Exchange>(app, std::move(request), std::move(writer),
                                                     std::string(route ? route->name : "other"));
    exchange->dialect = dialect_of(route);
    exchange->more_headers = cors_headers(app.options.cors_origins, exchange->request);
    if (!route)
        return exchange->error(
            ApiError::of(ErrorType::not_found_error, "this path does not exist"));
    if (!route->open) {
        auto caller = app.auth->check(exchange->request, app.store->reader());
        if (!caller) return exchange->error(caller.error());
        exchange->caller = std::move(*caller);
        if (app.refuses())
            return exchange->error(ApiError::unavailable("this server is draining", 1));
    }
    route->handle(exchange);
}

}  // namespace parley::chatd
