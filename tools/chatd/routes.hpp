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

struct Route {
    std::string_view name;                  // as it stands in logs and metrics
    std::vector<std::string_view> pattern;  // segments; "*" is any one
    std::vector<std::string_view> methods;
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
void get_hello(const ExchangePtr&);
void get_health(const ExchangePtr&);
void get_ready(const ExchangePtr&);
void get_index(const ExchangePtr&);
void get_page_file(const ExchangePtr&);
void get_operator(const ExchangePtr&);
void get_operator_page(const ExchangePtr&);
void get_events(const ExchangePtr&);
void mark_read(const ExchangePtr&);
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

}  // namespace parley::chatd
