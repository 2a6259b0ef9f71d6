// Routes: which path means what, and the checks that come before a body is read.
//
// Order    path 404, method 405, key 401, size 413; the handlers go on with the version header, JSON,
//          types, model, semantics, capacity.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "exchange.hpp"
#include "http/server.hpp"

namespace parley::chatd {

// One method of a path, and what /openapi.json and /docs tell of it: there is none without a summary. Schemas
// are those of openapi_schemas.inc.
struct Served {
    constexpr Served(std::string_view method_in, std::string_view summary_in)
        : method(method_in), summary(summary_in) {}
    std::string_view method, summary;
    std::string_view request;          // schema of the body; "": none
    std::string_view response = "Ok";  // schema of the answer, where it is JSON
    std::string_view media = "application/json";
    std::string_view parameters;  // of the query, divided by spaces
    int status = 200;             // where it is done
    bool stream = false;          // the answer may be, or is, a stream of events
    constexpr Served takes(std::string_view schema) const {
        Served out = *this;
        out.request = schema;
        return out;
    }
    constexpr Served gives(std::string_view schema, int answer = 200) const {
        Served out = *this;
        out.response = schema;
        out.status = answer;
        return out;
    }
    constexpr Served as(std::string_view type) const {
        Served out = *this;
        out.media = type;
        return out;
    }
    constexpr Served query(std::string_view names) const {
        Served out = *this;
        out.parameters = names;
        return out;
    }
    constexpr Served streams() const {
        Served out = *this;
        out.stream = true;
        return out;
    }
};

struct Route {
    std::string_view name;                  // as it stands in logs and metrics
    std::vector<std::string_view> pattern;  // segments; "*" is any one
    std::vector<Served> methods;
    bool open = false;       // no key needed
    std::string_view scope;  // of a key: "messages", "conversations"; "": any
    void (*handle)(const ExchangePtr&) = nullptr;
    Dialect dialect = Dialect::messages;
    bool spool = false;  // what is posted goes to a file, up to Options::batch_body_bytes_max
};

const std::vector<Route>& all_routes();
const Route* find_route(const http::Request& head);
// Of the route, or of a path that is none.
Dialect dialect_of(const Route* route);
http::HeadDecision decide(App& app, const http::Request& head);
void dispatch(App& app, http::Request request, http::Writer writer);

// Handlers, a file per noun.
void get_docs(const ExchangePtr&);     // for people
void get_openapi(const ExchangePtr&);  // for programs
void get_hello(const ExchangePtr&);
void get_health(const ExchangePtr&);
void get_ready(const ExchangePtr&);
void get_index(const ExchangePtr&);
void get_page_file(const ExchangePtr&);
void get_operator(const ExchangePtr&);
void get_operator_page(const ExchangePtr&);
void get_events(const ExchangePtr&);
void get_ws(const ExchangePtr&);  // one connection for the feed and many answers
void mark_read(const ExchangePtr&);
void get_search(const ExchangePtr&);
void notifications(const ExchangePtr&);  // GET, PUT
void list_models(const ExchangePtr&);
void get_model(const ExchangePtr&);
void post_messages(const ExchangePtr&);
void post_chat_completions(const ExchangePtr&);
void get_message_stream(const ExchangePtr&);
void post_count_tokens(const ExchangePtr&);
void message_batches(const ExchangePtr&);  // GET, POST
void message_batch(const ExchangePtr&);    // GET, DELETE
void cancel_message_batch(const ExchangePtr&);
void message_batch_results(const ExchangePtr&);
void conversations(const ExchangePtr&);          // GET, POST
void conversation(const ExchangePtr&);           // GET, PATCH, DELETE
void conversation_messages(const ExchangePtr&);  // GET, POST
void conversation_message(const ExchangePtr&);
void cancel_message(const ExchangePtr&);
void regenerate_message_route(const ExchangePtr&);
void conversation_stream(const ExchangePtr&);
void create_session(const ExchangePtr&);    // log in
void end_session(const ExchangePtr&);       // log out
void end_all_sessions(const ExchangePtr&);  // of the user, everywhere
void get_me(const ExchangePtr&);
void get_usage(const ExchangePtr&);
void erase_my_data(const ExchangePtr&);
void get_export(const ExchangePtr&);

}  // namespace parley::chatd
