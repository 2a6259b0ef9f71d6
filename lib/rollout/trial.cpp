#include "rollout/trial.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace parley::rollout {
namespace {

constexpr uint64_t kLookEvery = 25;

struct Random {  // distributions of the standard library differ by its maker: these do not
    std::mt19937_64 bits;
    double unit() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
    double normal() {
        double sum = -6;
        for (int i = 0; i < 12; ++i) sum += unit();
        return sum;
    }
};

struct End {
    State state = State::running;
    uint64_t requests = 0, canary = 0;
    std::string why;
};

End one(const Fault& fault, const TrialOptions& o, uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    Spec spec;
    spec.id = "trial-" + std::to_string(seed);
    spec.alias = "model";
    spec.stages = *parse_stages(o.stages);
    spec.gates = o.gates;
    Rollout rollout(spec, 0);
    End end;
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < o.golden; ++i) wrong += random.unit() < fault.golden_wrong;
    rollout.golden(wrong, o.golden, 0, "simulated");
    double now_ms = 0;
    for (; rollout.running() && end.requests < o.requests_max; ++end.requests) {
        now_ms += 1000 / o.rate;
        const std::string unit = std::to_string(end.requests / o.turns);
        const Assigned assigned = rollout.assign(unit);
        const bool bad = assigned.canary;
        end.canary += bad;
        Outcome outcome;
        outcome.error = random.unit() < o.errors + (bad ? fault.error_points : 0);
        outcome.filtered = random.unit() < o.filtered * (bad ? fault.filter : 1);
        outcome.ttft_ms =
            o.ttft_ms * std::exp(o.ttft_sigma * random.normal()) * (bad ? fault.ttft : 1);
        outcome.itl_ms = o.itl_ms * std::exp(o.itl_sigma * random.normal());
        rollout.assigned(assigned);
        rollout.outcome(assigned, outcome);
        if (end.requests % kLookEvery != 0) continue;
        const auto now = static_cast<int64_t>(now_ms);
        rollout.look(now);
        if (rollout.holds().rfind("a person", 0) == 0)
            (void)rollout.promote("simulated person", "nothing against it", now);
    }
    end.state = rollout.state();
    end.why = rollout.steps().back().why;
    return end;
}

uint64_t quantile(std::vector<uint64_t>& values, double q) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[std::min(values.size() - 1,
                           static_cast<size_t>(q * static_cast<double>(values.size())))];
}

}  // namespace

std::vector<Fault> faults() {
    return {{},
            {"TTFT +50 %", 1.5, 0, 1, 0},
            {"errors +2 pp", 1, 0.02, 1, 0},
            {"filter triggers x0.5", 1, 0, 0.5, 0},
            {"filter triggers x1.5", 1, 0, 1.5, 0},
            {"garbage (golden prompts)", 1, 0, 1, 1}};
}

TrialRow try_rollouts(const Fault& fault, const TrialOptions& options, uint32_t runs,
                      uint64_t seed) {
    TrialRow row;
    row.fault = fault;
    row.runs = runs;
    std::vector<uint64_t> requests, canary;
    for (uint32_t i = 0; i < runs; ++i) {
        const End end = one(fault, options, seed * 1'000'003 + i);
        row.done += end.state == State::done;
        row.undecided += end.state == State::running;
        if (end.state != State::rolled_back) continue;
        ++row.rolled_back;
        requests.push_back(end.requests);
        canary.push_back(end.canary);
        row.reason = end.why;
    }
    row.p50 = quantile(requests, 0.5);
    row.p95 = quantile(requests, 0.95);
    row.canary_p50 = quantile(canary, 0.5);
    row.canary_p95 = quantile(canary, 0.95);
    return row;
}

std::string table(const std::vector<TrialRow>& rows) {
    std::string out = fmt::format("{:<26} {:>5} {:>11} {:>5} {:>9} {:>10} {:>10} {:>10} {:>10}\n",
                                  "FAULT", "RUNS", "ROLLED BACK", "DONE", "UNDECIDED",
                                  "P50 REQ", "P95 REQ", "P50 CANARY", "P95 CANARY");
    for (const TrialRow& row : rows)
        out += fmt::format("{:<26} {:>5} {:>11} {:>5} {:>9} {:>10} {:>10} {:>10} {:>10}\n",
                           row.fault.name, row.runs, row.rolled_back, row.done, row.undecided,
                           row.p50, row.p95, row.canary_p50, row.canary_p95);
    return out;
}

}  // namespace parley::rollout
