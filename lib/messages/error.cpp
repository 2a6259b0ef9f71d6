#include "messages/error.hpp"

#include <array>
#include <utility>

#include "base/json.hpp"
#include "base/text.hpp"

namespace parley::messages {
namespace {

struct Row {
    ErrorType type;
    std::string_view name;
    int status;
    bool retryable;
};
constexpr std::array kRows{
    Row{ErrorType::invalid_request_error, "invalid_request_error", 400, false},
    Row{ErrorType::authentication_error, "authentication_error", 401, false},
    Row{ErrorType::billing_error, "billing_error", 402, false},
    Row{ErrorType::permission_error, "permission_error", 403, false},
    Row{ErrorType::not_found_error, "not_found_error", 404, false},
    Row{ErrorType::conflict_error, "conflict_error", 409, false},
    Row{ErrorType::request_too_large, "request_too_large", 413, false},
    Row{ErrorType::rate_limit_error, "rate_limit_error", 429, true},
    Row{ErrorType::api_error, "api_error", 500, true},
    Row{ErrorType::timeout_error, "timeout_error", 504, true},
    Row{ErrorType::overloaded_error, "overloaded_error", 529, true},
};
const Row& row(ErrorType type) { return kRows[static_cast<size_t>(type)]; }

constexpr size_t kNameBytesMax = 256;

}  // namespace

std::string_view name(ErrorType type) { return row(type).name; }
int http_status(ErrorType type) { return row(type).status; }
bool retryable(ErrorType type) { return row(type).retryable; }

std::optional<ErrorType> error_type(std::string_view name) {
    for (const Row& each : kRows)
        if (each.name == name) return each.type;
    return std::nullopt;
}

ApiError ApiError::of(ErrorType type, std::string message, int retry_after_s) {
    return {type, http_status(type), std::move(message), retry_after_s, messages::retryable(type)};
}

ApiError ApiError::invalid(std::string message) {
    return of(ErrorType::invalid_request_error, std::move(message));
}

ApiError ApiError::invalid(std::string_view path, std::string_view why) {
    std::string message(path);
    message += ": ";
    message += why;
    return invalid(std::move(message));
}

ApiError ApiError::unavailable(std::string message, int retry_after_s) {
    ApiError error = of(ErrorType::api_error, std::move(message), retry_after_s);
    error.status = 503;
    return error;
}

ApiError ApiError::overloaded(int retry_after_s) {
    return of(ErrorType::overloaded_error, "Overloaded", retry_after_s);
}

ApiError ApiError::unknown_model(std::string_view model) {
    std::string_view shown = model.substr(0, kNameBytesMax);
    shown = shown.substr(0, base::utf8_complete_prefix(shown));
    return of(ErrorType::not_found_error, "model: " + std::string(shown));
}

ApiError ApiError::prompt_too_long(uint64_t tokens, uint64_t tokens_max) {
    return invalid("prompt is too long: " + std::to_string(tokens) + " tokens > " +
                   std::to_string(tokens_max) + " maximum");
}

ApiError ApiError::from_end(std::string_view status, std::string message, bool retryable) {
    ApiError error = of(error_type(status).value_or(ErrorType::api_error), std::move(message));
    error.retryable = retryable;
    return error;
}

bool ApiError::wants_should_retry_false() const {
    const bool sdk_retries = status == 408 || status == 409 || status == 429 || status >= 500;
    return sdk_retries && !retryable;
}

std::string error_body(const ApiError& error, std::string_view request_id) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "error").key("error").object();
    w.field("type", name(error.type)).field("message", error.message).end();
    w.field("request_id", request_id).end();
    return out;
}

}  // namespace parley::messages
