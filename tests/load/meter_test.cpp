#include "load/meter.hpp"

#include <catch2/catch.hpp>

#include "load/stats.hpp"

using namespace parley;
using load::EventReader;
using load::Meter;
using load::Verdict;

namespace {

constexpr int64_t kMs = 1'000'000;
const char* kStart =
    R"({"type":"message_start","message":{"usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}})";
const char* kDelta =
    R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}})";
const char* kEmpty =
    R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}})";
const char* kPing = R"({"type":"ping"})";
const char* kEnd =
    R"({"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":5}})";
const char* kStop = R"({"type":"message_stop"})";

}  // namespace

TEST_CASE("TTFT, ITL, E2EL and TPOT are what the receipt times say", "[load]") {
    EventReader reader;
    Meter meter;
    meter.begin(1000 * kMs);
    meter.event(reader, kStart, -1, 1010 * kMs);
    meter.event(reader, kPing, -1, 1020 * kMs);
    CHECK(meter.event(reader, kEmpty, -1, 1030 * kMs).itl_ns ==
          -1);  // no text: not the first token
    CHECK(meter.ttft_ns() == -1);
    CHECK(meter.event(reader, kDelta, 1045 * kMs, 1050 * kMs).chain_overhead_ns == 5 * kMs);
    CHECK(meter.event(reader, kDelta, 1065 * kMs, 1070 * kMs).chain_overhead_ns ==
          -1);  // the first only
    CHECK(meter.event(reader, kDelta, -1, 1110 * kMs).itl_ns == 40 * kMs);
    meter.event(reader, kEnd, -1, 1120 * kMs);
    CHECK(meter.event(reader, kStop, -1, 1130 * kMs).verdict == Verdict::complete);
    CHECK(meter.ttft_ns() == 50 * kMs);
    CHECK(meter.itl_max_ns() == 40 * kMs);
    CHECK(meter.e2el_ns() == 130 * kMs);
    CHECK(meter.tpot_ns() == Approx(80.0 * kMs / 4));
    CHECK(meter.input_tokens() == 15);
    CHECK(meter.output_tokens() == 5);
    CHECK(meter.stop_reason() == "end_turn");
}

TEST_CASE("a stream that breaks the grammar fails, an error event keeps its type", "[load]") {
    EventReader reader;
    const auto run = [&reader](std::initializer_list<const char*> events) {
        Meter meter;
        meter.begin(0);
        Verdict last = Verdict::go_on;
        for (const char* event : events) last = meter.event(reader, event, -1, 1).verdict;
        CHECK(last == Verdict::failed);
        return meter.error_type();
    };
    CHECK(run({kDelta}) == "bad_stream");
    CHECK(run({kStart, kStart}) == "bad_stream");
    CHECK(run({kStart, kDelta, kStop}) == "bad_stream");
    CHECK(run({kStart, "{\"type\":"}) == "bad_stream");
    CHECK(run({kStart, "[1]"}) == "bad_stream");
    CHECK(run({kStart,
               R"({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}})"}) ==
          "overloaded_error");
    CHECK(run({R"({"type":"error","error":{"type":"evil\n\"type","message":"x"}})"}) == "other");
}

TEST_CASE("an answer is good only when it meets every objective that is stated", "[load]") {
    EventReader reader;
    Meter meter;
    meter.begin(0);
    meter.event(reader, kStart, -1, 0);
    meter.event(reader, kDelta, -1, 100 * kMs);
    meter.event(reader, kDelta, -1, 150 * kMs);
    meter.event(reader, kEnd, -1, 200 * kMs);
    meter.event(reader, kStop, -1, 200 * kMs);
    CHECK(load::Slo{}.met_by(meter));
    CHECK(load::Slo{.ttft_ms = 100, .itl_ms = 50, .tpot_ms = 25, .e2el_ms = 200}.met_by(meter));
    CHECK_FALSE(load::Slo{.ttft_ms = 99}.met_by(meter));
    CHECK_FALSE(load::Slo{.itl_ms = 49}.met_by(meter));
    CHECK_FALSE(load::Slo{.tpot_ms = 24}.met_by(meter));
    CHECK_FALSE(load::Slo{.e2el_ms = 199}.met_by(meter));
}

TEST_CASE("kinds of error are bounded whatever a server sends", "[load]") {
    telemetry::Registry registry;
    load::Stats stats(registry, {});
    for (int i = 0; i < 1000; ++i) stats.failed("type_" + std::to_string(i), "first", 500);
    CHECK(stats.errors.size() <= 65);
    CHECK(stats.errors["other"].count >= 936);
    CHECK(stats.failures == 1000);
    CHECK(stats.http_status[500] == 1000);
}
