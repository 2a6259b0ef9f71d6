#include "telemetry/trace.hpp"

#include <catch2/catch.hpp>
#include <string>

using parley::telemetry::TraceContext;

namespace {
const std::string kGood = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
}

TEST_CASE("a traceparent reads and writes back the same", "[telemetry]") {
    const auto parsed = TraceContext::parse(kGood);
    REQUIRE(parsed);
    CHECK(parsed->sampled());
    CHECK(parsed->text() == kGood);
    const auto child = parsed->child();
    CHECK(child.trace_id == parsed->trace_id);
    CHECK(child.span_id != parsed->span_id);
    CHECK(TraceContext::parse(child.text()) == child);
    const auto fresh = TraceContext::fresh(false);
    CHECK(TraceContext::parse(fresh.text()) == fresh);
    CHECK_FALSE(fresh.sampled());
    CHECK(TraceContext::fresh(true).trace_id != fresh.trace_id);
}

TEST_CASE("what the standard forbids is no trace", "[telemetry]") {
    for (size_t cut = 0; cut < kGood.size(); ++cut)
        CHECK_FALSE(TraceContext::parse(kGood.substr(0, cut)));
    CHECK_FALSE(TraceContext::parse(kGood + "-00"));
    CHECK_FALSE(TraceContext::parse(kGood + "0"));
    CHECK_FALSE(TraceContext::parse("ff" + kGood.substr(2)));
    CHECK_FALSE(TraceContext::parse("0g" + kGood.substr(2)));
    CHECK_FALSE(TraceContext::parse("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    CHECK_FALSE(TraceContext::parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
    CHECK_FALSE(TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
    CHECK_FALSE(TraceContext::parse("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    CHECK_FALSE(TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x"));
}

TEST_CASE("a later version is read by its first four fields", "[telemetry]") {
    CHECK(TraceContext::parse("cc" + kGood.substr(2)));
    CHECK(TraceContext::parse("cc" + kGood.substr(2) + "-what-comes"));
    CHECK_FALSE(TraceContext::parse("cc" + kGood.substr(2) + "what-comes"));
}
