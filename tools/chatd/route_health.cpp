#include "routes.hpp"

namespace parley::chatd {

void get_hello(const ExchangePtr& exchange) { exchange->reply(200, R"({"ok":true})"); }

void get_health(const ExchangePtr& exchange) { exchange->reply(200, R"({"status":"ok"})"); }

void get_ready(const ExchangePtr& exchange) {
    if (const char* missing = exchange->app.not_ready())
        return exchange->error(messages::ApiError::unavailable(missing, 1));
    exchange->reply(200, R"({"status":"ready"})");
}

}  // namespace parley::chatd
