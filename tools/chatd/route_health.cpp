#include "routes.hpp"

namespace parley::chatd {

namespace {

constexpr std::string_view kIndex =
    "<!doctype html><meta charset=utf-8><title>parley</title>"
    "<style>body{font:16px/1.5 system-ui;max-width:40em;margin:4em auto;padding:0 1em}</style>"
    "<h1>parley</h1><p>This is chatd, the front of a parley: conversations with language models on "
    "one box.</p><p>Programs talk to it by <code>POST /v1/messages</code>, "
    "<code>GET /v1/models</code> and <code>/v1/conversations</code>, with a key in "
    "<code>x-api-key</code>. See chatd(8).</p>";

}  // namespace

void get_index(const ExchangePtr& exchange) {
    http::Response response = http::Response::text(200, std::string(kIndex));
    response.headers = {
        {"content-type", "text/html; charset=utf-8"},
        {"content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"},
        {"x-content-type-options", "nosniff"},
        {"request-id", exchange->request_id},
        {"x-request-id", exchange->request_id}};
    exchange->reply(std::move(response));
}

void get_hello(const ExchangePtr& exchange) { exchange->reply(200, R"({"ok":true})"); }

void get_health(const ExchangePtr& exchange) { exchange->reply(200, R"({"status":"ok"})"); }

void get_ready(const ExchangePtr& exchange) {
    if (const char* missing = exchange->app.not_ready())
        return exchange->error(messages::ApiError::unavailable(missing, 1));
    exchange->reply(200, R"({"status":"ready"})");
}

}  // namespace parley::chatd
