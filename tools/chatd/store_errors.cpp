#include "store_errors.hpp"

#include <fmt/format.h>

#include <charconv>

#include "json_in.hpp"

namespace parley::chatd {

using base::Errc;
using messages::ApiError;
using messages::ErrorType;

ApiError store_away() { return ApiError::unavailable("the store is not ready", 1); }

ApiError no_conversation() {
    return ApiError::of(ErrorType::not_found_error, "no such conversation");
}

ApiError api_error_of(const base::Error& error, std::string_view path) {
    switch (error.code) {
        case Errc::not_found:
            return ApiError::of(
                ErrorType::not_found_error,
                error.what.empty() ? "not found" : "no such conversation or message");
        case Errc::invalid:
            return path.empty() ? ApiError::invalid(error.what)
                                : ApiError::invalid(path, error.what);
        case Errc::too_large:
            return ApiError::of(ErrorType::request_too_large, error.what);
        case Errc::unavailable:
        case Errc::again:
        case Errc::timeout:
            return store_away();
        default:
            return ApiError::of(ErrorType::api_error, "the store cannot read this: " + error.what);
    }
}

ApiError api_error_of(const store::CommandReply& reply) {
    if (reply.reason == "rev") {
        ApiError error = ApiError::of(ErrorType::invalid_request_error, reply.error->what);
        error.status = 412;
        return error;
    }
    if (reply.reason == "running") {
        std::string running;
        const std::string json = member_json(reply.json, "error");
        running = member_json(json, "running");
        if (running.size() > 2) running = running.substr(1, running.size() - 2);
        ApiError error =
            ApiError::of(ErrorType::conflict_error,
                         fmt::format("an answer is running on this branch: {}", running));
        error.retryable = false;
        return error;
    }
    if (reply.error->code == Errc::conflict) {
        ApiError error = ApiError::of(ErrorType::conflict_error, reply.error->what);
        error.retryable = false;
        return error;
    }
    return api_error_of(*reply.error, "");
}

tl::expected<size_t, ApiError> limit_of(const Exchange& exchange, size_t normal, size_t most) {
    const auto text = exchange.request.query_value("limit");
    if (!text) return normal;
    size_t limit = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc() || end != text->data() + text->size() || limit < 1 || limit > most)
        return tl::make_unexpected(ApiError::invalid(
            "limit", fmt::format("Input should be an integer from 1 to {}", most)));
    return limit;
}

void submit_for(const ExchangePtr& exchange, std::string command,
                std::function<void(const store::CommandReply&)> done) {
    StoreLink& store = *exchange->app.store;
    if (!store.connected()) return exchange->error(store_away());
    auto sent = store.submit(
        std::move(command),
        [exchange, done = std::move(done)](const store::CommandReply& reply) {
            if (!reply.ok()) return exchange->error(api_error_of(reply));
            done(reply);
        },
        kCommandWaitMs);
    if (!sent) exchange->error(api_error_of(sent.error(), ""));
}

}  // namespace parley::chatd
