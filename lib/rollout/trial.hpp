// Trial: rollouts of made-up versions under a virtual clock, through Rollout itself: how often one that
// is as good as the stable one is rolled back, and after how many requests a bad one is.
//
// Traffic  `rate` requests a second, `turns` of a conversation; TTFT and ITL log-normal; errors and
//          filter triggers by chance. The person at a gate promotes as soon as nothing else holds.
// Exact    the same options and seed give the same result.
// Threads  one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rollout/rollout.hpp"

namespace parley::rollout {

struct Fault {
    std::string name = "none (A/A)";
    double ttft = 1, error_points = 0, filter = 1;  // times; added; times
    double golden_wrong = 0;                         // share of golden prompts answered otherwise
};
std::vector<Fault> faults();  // none, and those of the table

struct TrialOptions {
    Gates gates;
    std::string stages = "2,10,person:50,100";
    double rate = 50, errors = 0.01, filtered = 0.02;
    double ttft_ms = 200, ttft_sigma = 0.5, itl_ms = 20, itl_sigma = 0.2;
    uint32_t turns = 1;
    uint64_t requests_max = 200'000;  // then it counts as not decided
    uint32_t golden = 8;
};

struct TrialRow {
    Fault fault;
    uint32_t runs = 0, rolled_back = 0, done = 0, undecided = 0;
    uint64_t p50 = 0, p95 = 0;                // requests of both until rolled back
    uint64_t canary_p50 = 0, canary_p95 = 0;  // of them, the canary's: who was hurt
    std::string reason;                       // of the last one rolled back
};
TrialRow try_rollouts(const Fault& fault, const TrialOptions& options, uint32_t runs,
                      uint64_t seed);
std::string table(const std::vector<TrialRow>& rows);

}  // namespace parley::rollout
