// Simulation: the router's scheduler (scheduler.hpp, the very same code) under a virtual clock, with
// simulated organisations and workers.
//
// Workers  an iteration takes step + row · (decoding rows) [+ a prefill chunk of kChunkS]; one prompt
//          is computed at a time, in order of arrival. More requests than slots take turns: rows go
//          to flows by weight, batch last, as the worker's own scheduler does, but in fractions. What
//          an iteration took is divided over its rows and reported every kStatusMs and at the end.
//          Prompts, KV memory, preemption and speculation are not simulated.
// Clients  open loop (Poisson, `rate` a second) or closed loop (`streams` at once, `think_s` between);
//          who is refused comes back after retry-after (closed loop) or not at all (open loop).
// Exact    the same scenario and seed give the same result, to the last digit.
// Bounds   ScenarioOptions; a scenario beyond them is refused with its line.
// Threads  one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "dispatch/scheduler.hpp"

namespace parley::dispatch {

struct WorkerKind {
    uint32_t count = 1;
    std::string zone;
    uint32_t slots = 16, queue = 64;
    std::vector<std::string> models{"model"};
    double step_us = 1700, row_us = 490, prefill_us = 260;
    double speed = 1;
};

struct OrgKind {
    uint32_t count = 1;
    std::string name = "org";  // "name-0", "name-1", … where there are several
    double weight = 1;
    pipe::Class cls = pipe::Class::streaming;
    std::string model = "model";
    double rate = 0;       // open loop: requests a second of each
    uint32_t streams = 0;  // closed loop: at once, of each
    double think_s = 0;
    double prompt_tokens = 200, output_tokens = 100;  // means
    uint64_t max_tokens = 0;                          // 0: four times the mean
    double ttft_ms = 30'000;                          // deadline, and SLO of goodput; 0: none
    double from_s = 0, to_s = 0;                      // asks within; to_s 0: to the end
};

struct Happening {
    double at_s = 0;
    std::string lose_zone, restore_zone;
    uint32_t kill = 0;  // workers, from the first on
    double load = 0;    // from now on all open loops at that many times their rate; 0: no change
};

struct TraceRequest {
    double at_s = 0;
    std::string org;
    pipe::Class cls = pipe::Class::streaming;
    std::string model = "model";
    double prompt_tokens = 200, output_tokens = 100;
    double ttft_ms = 30'000;
};

struct Scenario {
    std::string name = "scenario";
    double seconds = 60, warmup_s = 0;
    uint64_t seed = 1;
    std::vector<WorkerKind> workers;
    std::vector<OrgKind> orgs;
    std::vector<Happening> happenings;
    std::vector<TraceRequest> trace;
};

// JSON Lines, an object a line: see router(8), SIMULATION. Errc::invalid names the line.
base::Result<Scenario> parse_scenario(std::string_view text);

struct GroupResult {
    std::string name;
    uint32_t orgs = 0;
    uint64_t asked = 0, done = 0, good = 0, rate_limited = 0, overloaded = 0, expired = 0,
             moved = 0, broken = 0;
    double used_s = 0;
    std::vector<float> ttft_ms;          // of those that ended
    std::vector<double> used_by_second;  // compute-seconds
    std::vector<double> good_by_second, refused_by_second;
    double ttft(double quantile) const;  // ms
};

struct SimulationResult {
    std::vector<GroupResult> groups;  // in the scenario's order, `trace` last
    double seconds = 0;               // measured: without the warm-up
    double busy_s = 0, capacity_s = 0;
    double goodput = 0;       // good requests a second
    double jain = 0;          // of compute-seconds over weight, of organisations that always waited
    uint32_t backlogged = 0;  // so many they are
    double charged_error = 0;  // |charged − busy| / busy
    uint64_t decisions = 0;
    std::string table() const;
    std::string json(const std::string& name) const;
    std::string svg(const std::string& title) const;
};

base::Result<SimulationResult> simulate(const Scenario& scenario, const SchedulerOptions& options);

}  // namespace parley::dispatch
