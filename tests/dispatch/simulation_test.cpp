// What the scheduler keeps, in `router simulate`: the same code under a virtual clock.
#include "dispatch/simulation.hpp"

#include <fmt/format.h>

#include <catch2/catch.hpp>

using namespace parley;
using namespace parley::dispatch;

namespace {

SimulationResult run(const std::string& text, SchedulerOptions options = {}) {
    const auto scenario = parse_scenario(text);
    INFO((scenario ? "" : scenario.error().what));
    REQUIRE(scenario.has_value());
    auto result = simulate(*scenario, options);
    REQUIRE(result.has_value());
    return std::move(*result);
}

std::string wrong(const std::string& text) {
    const auto scenario = parse_scenario(text);
    return scenario ? "" : scenario.error().what;
}

const std::string kWorker = R"({"workers":1,"slots":16,"queue":64})"
                            "\n";

std::string overload(double load) {
    return R"({"scenario":"x","seconds":150,"warmup_s":50})"
           "\n" +
           kWorker +
           fmt::format(
               R"({{"orgs":200,"rate":{},"prompt_tokens":200,"output_tokens":80,"ttft_ms":10000}})",
               0.05 * load);
}

}  // namespace

TEST_CASE("orgs that always wait share compute-seconds by weight, whatever they send",
          "[simulation]") {
    const auto result = run(
        R"({"scenario":"x","seconds":300,"warmup_s":50})"
        "\n"
        R"({"workers":2})"
        "\n"
        R"({"orgs":2,"name":"long","streams":40,"prompt_tokens":50,"output_tokens":400,"ttft_ms":0})"
        "\n"
        R"({"orgs":2,"name":"wide","streams":40,"prompt_tokens":1500,"output_tokens":20,"ttft_ms":0})"
        "\n"
        R"({"orgs":1,"name":"heavy","weight":3,"streams":80,"output_tokens":100,"ttft_ms":0})");
    REQUIRE(result.backlogged == 5);
    REQUIRE(result.jain >= 0.98);
    const double one = (result.groups[0].used_s + result.groups[1].used_s) / 4;
    REQUIRE(result.groups[2].used_s / one == Approx(3).epsilon(0.05));
    REQUIRE(result.busy_s == Approx(result.capacity_s).epsilon(0.01));
    REQUIRE(result.charged_error < 0.01);
}

TEST_CASE("a quiet org beside a flood has its first token in nearly the time that it has alone",
          "[simulation]") {
    const std::string quiet =
        R"({"orgs":1,"name":"quiet","streams":1,"think_s":0.5,"prompt_tokens":100,"output_tokens":20})"
        "\n";
    const std::string head = R"({"scenario":"x","seconds":200,"warmup_s":30})"
                             "\n";
    const auto alone = run(head + kWorker + quiet);
    const auto beside = run(
        head + kWorker + quiet +
        R"({"orgs":1,"name":"flood","streams":32,"prompt_tokens":200,"output_tokens":400,"ttft_ms":0})");
    // An iteration of 16 rows and a chunk: 1.7 + 16 · 0.49 + 40 ms, and its prompt may need two.
    REQUIRE(beside.groups[0].ttft(0.5) <= alone.groups[0].ttft(0.99) * 1.2 + 2 * 50);
    REQUIRE(beside.groups[0].ttft(0.9) <= alone.groups[0].ttft(0.99) * 1.2 + 4 * 50);
    REQUIRE(beside.groups[0].done > alone.groups[0].done / 3);
    // Without it beside the slots it would wait for one of them: seconds.
    REQUIRE(beside.groups[1].ttft(0.5) > 1000);
}

TEST_CASE("batch fills what is left, moves on, and holds up nobody", "[simulation]") {
    const std::string text = R"({"scenario":"x","seconds":200,"warmup_s":30})"
                             "\n" +
                             kWorker +
                             R"({"orgs":4,"name":"people","rate":0.5,"output_tokens":60})"
                             "\n";
    const auto alone = run(text);
    const auto beside = run(
        text +
        R"({"orgs":1,"name":"batch","class":"batch","streams":64,"output_tokens":200,"ttft_ms":0})");
    REQUIRE(beside.groups[1].done > 20);
    REQUIRE(beside.busy_s > 0.99 * beside.capacity_s);
    REQUIRE(beside.groups[0].good == beside.groups[0].done);
    REQUIRE(beside.groups[0].ttft(0.5) < alone.groups[0].ttft(0.5) + 150);
}

TEST_CASE("at four times its capacity the goodput is at least 90 % of the peak", "[simulation]") {
    double peak = 0;
    for (const double load : {0.8, 1.0, 1.5, 2.0})
        peak = std::max(peak, run(overload(load)).goodput);
    const auto four = run(overload(4));
    REQUIRE(four.goodput >= 0.9 * peak);
    REQUIRE(four.groups[0].rate_limited + four.groups[0].overloaded > four.groups[0].done);
    REQUIRE(run(overload(10)).goodput >= 0.8 * peak);
    // And that is admission's doing.
    SchedulerOptions all;
    all.admission.predict = false;
    all.admission.standing_share = 1e9;
    REQUIRE(run(overload(4), all).groups[0].expired > four.groups[0].expired);
}

TEST_CASE("a lost zone breaks no stream that has begun: all go on with the others",
          "[simulation]") {
    const auto result = run(R"({"scenario":"x","seconds":120})"
                            "\n"
                            R"({"workers":3,"zone":"a"})"
                            "\n"
                            R"({"workers":3,"zone":"b"})"
                            "\n"
                            R"({"orgs":20,"streams":3,"output_tokens":200})"
                            "\n"
                            R"({"at":40,"lose_zone":"b"})"
                            "\n"
                            R"({"at":60,"restore_zone":"b"})"
                            "\n"
                            R"({"at":80,"kill":2})");
    REQUIRE(result.groups[0].moved > 20);
    REQUIRE(result.groups[0].broken == 0);
    REQUIRE(result.groups[0].expired == 0);
    REQUIRE(result.charged_error < 0.02);
}

TEST_CASE("a scenario repeats exactly under its seed, and differs under another", "[simulation]") {
    const std::string text = overload(2);
    const std::string once = run(text).json("x");
    REQUIRE(run(text).json("x") == once);
    auto other = parse_scenario(text);
    other->seed = 2;
    REQUIRE(simulate(*other, {})->json("x") != once);
}

TEST_CASE("a trace is asked as it says", "[simulation]") {
    const auto result =
        run(kWorker + R"({"t":1,"org":"a","prompt_tokens":100,"output_tokens":10})"
                      "\n"
                      R"({"t":2,"org":"b","class":"batch","output_tokens":10,"ttft_ms":0})");
    REQUIRE(result.groups.size() == 1);
    REQUIRE(result.groups[0].orgs == 2);
    REQUIRE(result.groups[0].done == 2);
    REQUIRE(result.groups[0].ttft(0) == Approx(26).margin(1));  // 100 · 260 µs, nobody before it
}

TEST_CASE("a wrong scenario is refused with its line", "[simulation]") {
    REQUIRE(wrong("") == "it has no line of workers");
    REQUIRE(wrong(kWorker) == "it has no line of orgs and no trace");
    REQUIRE(wrong(kWorker + "nonsense") == "line 2: it is no JSON object");
    REQUIRE(wrong(kWorker + R"({"orgs":1,"rate":1,"speed":3})") ==
            "line 2: 'speed' is not known here");
    REQUIRE(wrong(kWorker + R"({"orgs":1})") == "line 2: give 'rate' or 'streams', one of them");
    REQUIRE(wrong(kWorker + R"({"orgs":1,"rate":"much"})").find("'rate' is a number") !=
            std::string::npos);
    REQUIRE(wrong(R"({"workers":0})").find("'workers' is a number from 1") != std::string::npos);
    const auto scenario = parse_scenario(kWorker + R"({"orgs":1,"rate":1,"model":"other"})");
    REQUIRE(scenario.has_value());
    REQUIRE(simulate(*scenario, {}).error().what.find("no worker serves 'other'") !=
            std::string::npos);
}

TEST_CASE("the drawing names every group and escapes what it is given", "[simulation]") {
    auto result = run(kWorker + R"({"orgs":1,"name":"a<b","rate":1})");
    const std::string svg = result.svg("x & y");
    REQUIRE(svg.find("<svg") == 0);
    REQUIRE(svg.find("a&lt;b") != std::string::npos);
    REQUIRE(svg.find("x &amp; y (simulated)") != std::string::npos);
    REQUIRE(svg.find("a<b") == std::string::npos);
}

TEST_CASE(
    "a flood that nobody knew is not refused for what its first requests were thought to cost",
    "[simulation]") {
    // Before it only answers of 8 tokens were known; its own are 200, and all 32 wait in time.
    const auto result = run(
        R"({"scenario":"x","seconds":60})"
        "\n"
        R"({"workers":1,"slots":8})"
        "\n"
        R"({"orgs":1,"name":"quiet","streams":1,"think_s":0.1,"prompt_tokens":30,"output_tokens":8})"
        "\n"
        R"({"orgs":1,"name":"flood","streams":32,"prompt_tokens":30,"output_tokens":200,"from_s":10})");
    REQUIRE(result.groups[1].done > 100);
    REQUIRE(result.groups[0].rate_limited + result.groups[1].rate_limited == 0);
    REQUIRE(result.groups[0].overloaded + result.groups[1].overloaded == 0);
    REQUIRE(result.groups[1].ttft(1) < 30'000);
}
