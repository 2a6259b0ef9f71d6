// Error: what a client of the Messages API is told when a request fails.
//
// Status   the official SDKs choose their exception class by HTTP status alone, so type and status
//          are set together here and nowhere else. One type may stand for several statuses
//          (invalid_request_error: 400 and 405; api_error: 500 and 503).
// Text     `path: reason`, path with dots and indices: "messages.0.content.1.text: Field required".
//          Texts hold no user text but names of fields (cut at 64 bytes).
// Threads  values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::messages {

enum class ErrorType {
    invalid_request_error,  // 400 (405 for a wrong method)
    authentication_error,   // 401
    billing_error,          // 402
    permission_error,       // 403
    not_found_error,        // 404
    conflict_error,         // 409
    request_too_large,      // 413
    rate_limit_error,       // 429
    api_error,              // 500 (503 while loading, draining, or without a model)
    timeout_error,          // 504
    overloaded_error,       // 529
};

std::string_view name(ErrorType type);
std::optional<ErrorType> error_type(std::string_view name);
int http_status(ErrorType type);  // the usual one
// Would the same request, sent again later, have a chance?
bool retryable(ErrorType type);

struct ApiError {
    ErrorType type = ErrorType::api_error;
    int status = 500;
    std::string message;
    int retry_after_s = 0;  // 0: no retry-after header; else 1…60
    // false on a status that SDKs retry (408, 409, 429, 5xx) calls for `x-should-retry: false`.
    bool retryable = false;

    // Status and retryable as usual for the type.
    static ApiError of(ErrorType type, std::string message, int retry_after_s = 0);
    static ApiError invalid(std::string message);                           // 400
    static ApiError invalid(std::string_view path, std::string_view why);   // 400 "path: why"
    static ApiError unavailable(std::string message, int retry_after_s);    // 503 api_error
    static ApiError overloaded(int retry_after_s);                          // 529 "Overloaded"
    static ApiError unknown_model(std::string_view model);                  // 404 "model: NAME"
    static ApiError prompt_too_long(uint64_t tokens, uint64_t tokens_max);  // the [exact] text
    // An END's `status` word and message (protocol.md §1); a word of no error type becomes
    // api_error.
    static ApiError from_end(std::string_view status, std::string message, bool retryable);
    // true when an SDK would retry this status although it cannot help.
    bool wants_should_retry_false() const;
};

// {"type":"error","error":{"type":…,"message":…},"request_id":…}; also the data of `event: error`.
std::string error_body(const ApiError& error, std::string_view request_id);

}  // namespace parley::messages
