#include "telemetry/registry.hpp"

#include <fmt/format.h>

#include <catch2/catch.hpp>

using namespace parley::telemetry;
using Catch::Matchers::Contains;

TEST_CASE("counters, gauges and histograms read as Prometheus text", "[telemetry]") {
    Registry registry({.process_metrics = false});
    registry.counter("a_total", "things", {{"kind", "x"}, {"way", "up"}}).add(3);
    registry.gauge("b_now", "depth").set(-1.5);
    auto& h = registry.histogram("c_seconds", "wait", {{"k", "v"}}, {.bounds = {0.01, 1}});
    h.record(5'000'000);      // 5 ms
    h.record(500'000'000);    // 0.5 s
    h.record(5'000'000'000);  // 5 s
    CHECK(registry.render() ==
          "# HELP a_total things\n# TYPE a_total counter\na_total{kind=\"x\",way=\"up\"} 3\n"
          "# HELP b_now depth\n# TYPE b_now gauge\nb_now -1.5\n"
          "# HELP c_seconds wait\n# TYPE c_seconds histogram\n"
          "c_seconds_bucket{k=\"v\",le=\"0.01\"} 1\nc_seconds_bucket{k=\"v\",le=\"1\"} 2\n"
          "c_seconds_bucket{k=\"v\",le=\"+Inf\"} 3\nc_seconds_sum{k=\"v\"} "
          "5.505\nc_seconds_count{k=\"v\"} 3\n"
          "# HELP parley_series_refused_total label sets folded into _other\n"
          "# TYPE parley_series_refused_total counter\nparley_series_refused_total 0\n");
}

TEST_CASE("a label value cannot break the line it stands in", "[telemetry]") {
    Registry registry({.process_metrics = false});
    registry.counter("a_total", "x", {{"v", "q\"b\\n\nend} 7"}}).add();
    CHECK_THAT(registry.render(), Contains("a_total{v=\"q\\\"b\\\\n\\nend} 7\"} 1\n"));
    registry.counter("a_total", "x", {{"v", "bad\xff"}}).add();
    CHECK_THAT(registry.render(), Contains("a_total{v=\"_invalid_utf8\"} 1\n"));
    registry.counter("b_total", "x", {{"v", std::string(127, 'a') + "\xc3\xa9"}}).add();
    CHECK_THAT(registry.render(), Contains("b_total{v=\"" + std::string(127, 'a') + "\"} 1\n"));
}

TEST_CASE("the same name and labels are the same counter", "[telemetry]") {
    Registry registry;
    auto& one = registry.counter("a_total", "x", {{"k", "1"}});
    CHECK(&one == &registry.counter("a_total", "x", {{"k", "1"}}));
    CHECK(&one != &registry.counter("a_total", "x", {{"k", "2"}}));
}

TEST_CASE("label sets past the bound share one series, and the refusal is counted", "[telemetry]") {
    Registry registry({.series_max = 10, .process_metrics = false});
    for (int i = 0; i < 100; ++i)
        registry.counter("a_total", "x", {{"id", fmt::format("{}", i)}}).add();
    const std::string text = registry.render();
    CHECK_THAT(text, Contains("a_total{id=\"_other\"} 90\n"));
    CHECK_THAT(text, Contains("parley_series_refused_total 90\n"));
    CHECK_THAT(text, !Contains("id=\"10\""));
}

TEST_CASE("process metrics show memory, time and descriptors", "[telemetry]") {
    const std::string text = Registry().render();
    CHECK_THAT(text, Contains("\nprocess_resident_memory_bytes "));
    CHECK_THAT(text, Contains("\nprocess_cpu_seconds_total "));
    CHECK_THAT(text, !Contains("\nprocess_resident_memory_bytes 0\n"));
    CHECK_THAT(text, !Contains("\nprocess_open_fds 0\n"));
}
