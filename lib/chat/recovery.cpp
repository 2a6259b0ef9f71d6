#include "chat/recovery.hpp"

#include <algorithm>

namespace parley::chat {

using messages::ApiError;
using messages::ErrorType;

namespace {

// The way there broke, or is not whole yet: no stage has said no.
bool hop_broke(std::string_view reason) {
    return reason == "peer_gone" || reason == "gap" || reason == "malformed" ||
           reason == "replaced" || reason == "stamp" || reason == "draining" ||
           reason == "no_filter" || reason == "cancel_timeout";
}

bool filter_failed(std::string_view reason) {
    return reason == "filter_late" || reason == "filter_failed";
}

}  // namespace

Verdict judge(const pipe::EndMeta& end, bool whole, bool begun) {
    // Stop reason and usage have passed the filter: nothing is missing but message_stop, which holds no
    // model text.
    if (whole) return Verdict::done;
    // An ok without its message_delta is a broken stage, not a short answer.
    if (end.ok()) return Verdict::again;
    if (end.status == "timeout_error") return Verdict::out_of_time;
    if (!end.retryable) return Verdict::fail;
    // no_worker: a router that has just started says it until its workers are back.
    const bool again = begun || hop_broke(end.reason) || end.reason == "no_worker";
    return again ? Verdict::again : Verdict::fail;
}

ApiError error_of(const pipe::EndMeta& end) {
    // A broken hop is no fault of the request: the client is told to come again.
    if (end.ok() || hop_broke(end.reason) || filter_failed(end.reason) || end.status == "cancelled")
        return ApiError::overloaded(1);
    ApiError error = ApiError::from_end(end.status, end.message, end.retryable);
    // A deadline says nothing against the request: SDKs may try again.
    if (error.type == ErrorType::timeout_error) error.retryable = true;
    if (error.type == ErrorType::api_error && end.retryable) {
        error.status = 503;
        error.retryable = true;
    }
    if (error.status == 429 || error.status == 503 || error.status == 529) {
        const uint32_t seconds = end.retry_after_s == 0 ? 1 : end.retry_after_s;
        error.retry_after_s = static_cast<int>(std::min<uint32_t>(seconds, 60));
    }
    return error;
}

int64_t backoff_ms(uint32_t failures, uint64_t random) {
    const uint32_t doublings = std::min<uint32_t>(failures > 0 ? failures - 1 : 0, 10);
    const int64_t most = std::min<int64_t>(int64_t{50} << doublings, 1000);
    // Half fixed, half random: askers that lost the same peer do not come back in step.
    return most / 2 + static_cast<int64_t>(random % static_cast<uint64_t>(most / 2 + 1));
}

}  // namespace parley::chat
