#include "exchange.hpp"

#include <fmt/format.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/ulid.hpp"

namespace parley::chatd {

using messages::ApiError;

std::string new_request_id() { return base::random_id("req_"); }

http::Response json_response(int status, std::string json, std::string_view request_id) {
    http::Response response = http::Response::json(status, std::move(json));
    response.header("request-id", std::string(request_id));
    response.header("x-request-id", std::string(request_id));
    return response;
}

http::Response error_response(const ApiError& error, std::string_view request_id, Dialect dialect) {
    http::Response response =
        dialect == Dialect::openai
            ? json_response(openai::http_status(error), openai::error_body(error), request_id)
            : json_response(error.status,
                            dialect == Dialect::both
                                ? openai::error_body_for_both(error, request_id)
                                : messages::error_body(error, request_id),
                            request_id);
    if (error.retry_after_s > 0)
        response.header("retry-after", std::to_string(error.retry_after_s));
    if (error.wants_should_retry_false()) response.header("x-should-retry", "false");
    return response;
}

Exchange::Exchange(App& app_in, http::Request request_in, http::Writer writer_in,
                   std::string route_in)
    : app(app_in),
      request(std::move(request_in)),
      writer(std::move(writer_in)),
      route(std::move(route_in)),
      request_id(new_request_id()),
      since_ns(app_in.clock.mono_ns()) {}

void Exchange::reply(int status, std::string json) {
    reply(json_response(status, std::move(json), request_id));
}

void Exchange::reply(http::Response response) {
    status_ = response.status;
    for (const auto& [name, value] : more_headers) response.header(name, value);
    writer->reply(std::move(response));
    log(status_);
}

void Exchange::error(const ApiError& error) { reply(error_response(error, request_id, dialect)); }

void Exchange::begin_sse() {
    status_ = 200;
    HeaderList headers{{"content-type", "text/event-stream; charset=utf-8"},
                       {"cache-control", "no-cache"},
                       {"x-accel-buffering", "no"},
                       {"request-id", request_id},
                       {"x-request-id", request_id}};
    headers.insert(headers.end(), more_headers.begin(), more_headers.end());
    writer->start(200, headers);
}

void Exchange::begin_lines() {
    status_ = 200;
    HeaderList headers{{"content-type", "application/x-jsonl"},
                       {"request-id", request_id},
                       {"x-request-id", request_id}};
    headers.insert(headers.end(), more_headers.begin(), more_headers.end());
    writer->start(200, headers);
}

bool Exchange::upgrade(HeaderList headers, std::function<void(std::string_view)> on_bytes) {
    headers.emplace_back("request-id", request_id);
    headers.emplace_back("x-request-id", request_id);
    headers.insert(headers.end(), more_headers.begin(), more_headers.end());
    if (!writer->upgrade(std::move(headers), std::move(on_bytes))) return false;
    status_ = 101;
    return true;
}

void Exchange::end() {
    writer->finish();
    log(status_);
}

void Exchange::gone() { log(499); }  // nginx's number for it; nobody is sent it

void Exchange::log(int status) {
    if (logged_) return;
    logged_ = true;
    const double ms = static_cast<double>(app.clock.mono_ns() - since_ns) / 1e6;
    app.answered(route, status).add();
    std::string notes;
    for (const auto& [key, value] : notes_)
        notes += fmt::format("{}{}={}", notes.empty() ? "" : ",", key, value);
    base::log(status >= 500 ? base::Level::warn : base::Level::info, "chatd.request",
              {{"request_id", request_id},
               {"method", request.method.substr(0, 16)},
               {"route", route},
               {"status", status},
               {"ms", fmt::format("{:.1f}", ms)},
               {"org", caller.key_id.empty() ? "" : caller.org_text()},
               {"key", caller.key_id},
               {"notes", notes}});
}

}  // namespace parley::chatd
