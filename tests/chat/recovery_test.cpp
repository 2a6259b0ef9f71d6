#include "chat/recovery.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using namespace parley::chat;

namespace {
pipe::EndMeta end(std::string status, bool retryable, std::string reason = "") {
    pipe::EndMeta meta;
    meta.status = std::move(status);
    meta.retryable = retryable;
    meta.reason = std::move(reason);
    return meta;
}
}  // namespace

TEST_CASE("after the first byte every retryable end is asked again", "[recovery]") {
    for (const char* reason : {"peer_gone", "queue_full", "filter_late", "draining", "expired", ""})
        CHECK(judge(end("overloaded_error", true, reason), false, true) == Verdict::again);
    CHECK(judge(end("api_error", false), false, true) == Verdict::fail);
}

TEST_CASE("before it only a way that broke is asked again", "[recovery]") {
    for (const char* reason : {"peer_gone", "gap", "stamp", "malformed", "draining", "no_worker"})
        CHECK(judge(end("api_error", true, reason), false, false) == Verdict::again);
    for (const char* reason : {"queue_full", "filter_late", "expired", ""})
        CHECK(judge(end("overloaded_error", true, reason), false, false) == Verdict::fail);
}

TEST_CASE("a late or failed filter is 529, a full queue says when to come back", "[recovery]") {
    for (const char* reason : {"filter_late", "filter_failed", "peer_gone", "stamp"}) {
        const messages::ApiError error = error_of(end("api_error", true, reason));
        CHECK(error.status == 529);
        CHECK(error.retry_after_s == 1);
    }
    pipe::EndMeta full = end("overloaded_error", true, "queue_full");
    full.retry_after_s = 400;
    CHECK(error_of(full).retry_after_s == 60);
    CHECK(error_of(end("api_error", true)).status == 503);
    CHECK(error_of(end("api_error", false)).status == 500);
    CHECK(error_of(end("invalid_request_error", false)).status == 400);
    CHECK(error_of(end("timeout_error", false)).status == 504);
    CHECK_FALSE(error_of(end("timeout_error", false)).wants_should_retry_false());
}

TEST_CASE("the back-off doubles from 50 ms to 1 s and is never in step", "[recovery]") {
    for (uint32_t failures = 1; failures < 40; ++failures) {
        const int64_t most = std::min<int64_t>(50 << std::min<uint32_t>(failures - 1, 10), 1000);
        for (uint64_t random : {uint64_t{0}, uint64_t{12345}, ~uint64_t{0}}) {
            CHECK(backoff_ms(failures, random) >= most / 2);
            CHECK(backoff_ms(failures, random) <= most);
        }
    }
    CHECK(backoff_ms(5, 1) != backoff_ms(5, 2));
}
