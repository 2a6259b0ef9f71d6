// What a decision costs with very many flows; hidden, run by tests/bench/router_decision.py.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdio>

#include "dispatch/scheduler.hpp"

using namespace parley;
using namespace parley::dispatch;

TEST_CASE("what a decision costs with 10,000 flows", "[.][decision]") {
    constexpr int kFlows = 10'000, kWorkers = 64, kRounds = 200'000;
    SchedulerOptions options;
    options.waiting_max = 1 << 20;
    Scheduler scheduler(options);
    const ModelId model = scheduler.model_id("m");
    for (WorkerId worker = 1; worker <= kWorkers; ++worker) {
        pipe::HelloMeta hello;
        hello.name = "w" + std::to_string(worker);
        hello.slots = 16;
        hello.models = {{"m", "m", "llama", 100, 100}};
        scheduler.worker_joined(worker, hello);
    }
    const auto arrive = [&](int flow, int64_t now) {
        Arrival arrival;
        arrival.org = "org-" + std::to_string(flow);
        arrival.model = model;
        arrival.bytes = 400 + flow % 700;
        arrival.max_tokens = 100;
        arrival.deadline_ms = now + 3'600'000;
        for (uint64_t i = 0; i < 2; ++i) arrival.blocks.push_back(flow * 7919ull + i);
        REQUIRE(std::holds_alternative<Ticket>(scheduler.arrive(arrival, now)));
    };
    for (int flow = 0; flow < kFlows; ++flow)
        for (int i = 0; i < 2; ++i) arrive(flow, 0);
    std::vector<Started> running;
    while (const auto started = scheduler.next(0)) running.push_back(*started);
    REQUIRE(running.size() == kWorkers * 16);
    std::vector<double> arriving, deciding, ending;  // microseconds
    uint64_t random = 88172645463325252ull;
    using Clock = std::chrono::steady_clock;
    for (int round = 0; round < kRounds; ++round) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const size_t at = random % running.size();
        pipe::Usage usage{100, 0, 50};
        const auto t0 = Clock::now();
        scheduler.ended(running[at].ticket,
                        0.2 + 1e-9 * static_cast<double>(random % 1'000'000'000), usage, true,
                        round);
        const auto t1 = Clock::now();
        const auto started = scheduler.next(round);
        const auto t2 = Clock::now();
        REQUIRE(started.has_value());
        running[at] = *started;
        arrive(static_cast<int>(random / 7 % kFlows), round);
        const auto t3 = Clock::now();
        ending.push_back(std::chrono::duration<double, std::micro>(t1 - t0).count());
        deciding.push_back(std::chrono::duration<double, std::micro>(t2 - t1).count());
        arriving.push_back(std::chrono::duration<double, std::micro>(t3 - t2).count());
    }
    // Medians: other processes' turns are not this one's cost.
    const auto median = [](std::vector<double>& times) {
        std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
        return times[times.size() / 2];
    };
    std::printf(
        "{\"flows\":%d,\"workers\":%d,\"arrive_us\":%.3f,\"decide_us\":%.3f,\"settle_us\":%.3f}\n",
        kFlows, kWorkers, median(arriving), median(deciding), median(ending));
}
