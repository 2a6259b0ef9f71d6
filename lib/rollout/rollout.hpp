// Rollout: one model version takes the place of another behind an alias, by stages, as long as nothing
// speaks against it. The same code decides in the router and in `router simulate --rollouts`.
//
// Stages   a share of the conversations each, rising to 1; share 0 is the shadow stage (copies without
//          effect). A stage with `person` is entered only by promote(). Sticky: who is the canary's at
//          a share is so at every greater one, by a hash of rollout and conversation (or organisation).
// Counted  a request counts for the stage in which it was assigned; one that ends in a later stage does
//          not. Errors in every stage; times and filter triggers not of shadow copies, which run as
//          batch and which no filter sees. The shadow stage's times of the stable version make its
//          baseline.
// Late     TTFT is from dispatch to the first event, by size of the prompt; ITL a request's mean. Over
//          the p95 of the stable version's first `baseline` requests of that size is an event; before
//          there are so many there is none, and the first stage with traffic waits for one size.
// Back     golden prompts answered otherwise, crashes_max crashes or OOMs, first_errors in the first
//          first_requests: at once. Else where log E >= log(act) and what was seen is beyond the gate.
//          That is valid at every look, so it waits for requests_min alone (of both), not for min_ms.
// On       after requests_min of the canary's and min_ms in the stage, where nothing seen is beyond its
//          gate and the ratio of requests is as it should be; else it holds, and says why.
// End      done or rolled_back or aborted; nothing changes that. share() is then 1 or 0.
// Threads  one. No clock, no random numbers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "rollout/evidence.hpp"

namespace parley::rollout {

struct Stage {
    double share = 0;
    bool person = false;
};
// "shadow,2,10,person:50,100": percents, rising, the last 100. Errc::invalid names the part.
base::Result<std::vector<Stage>> parse_stages(std::string_view text);

struct Gates {
    double act = 100;             // E from which on something is done
    uint64_t requests_min = 200;  // see On and Back
    int64_t min_ms = 300'000;     // in a stage
    double error_points = 0.01;   // error rate beyond the stable one's
    double ttft_ratio = 1.25, itl_ratio = 1.20;    // of the p95s
    // Triggers a request, over the stable one's: differences as great as this are to be found, so what
    // is seen counts from half way (the root) on.
    double filter_high = 1.5, filter_low = 0.67;
    uint64_t first_errors = 5, first_requests = 20;
    uint32_t crashes_max = 3;
    double shadow_share = 0.05;  // of the requests, copied in the shadow stage
    uint64_t baseline = 200;     // requests of the stable version, see Late; at least 1
};

struct Spec {
    std::string id;  // of this rollout: salts the hash
    std::string alias, stable, canary;  // the two: hashes
    std::vector<Stage> stages;
    Gates gates;
    std::string who, why;
    int64_t started_ms = 0;
};

// A histogram in steps of 5 %, of what is above 0.
class Spread {
  public:
    static constexpr size_t kBins = 384;  // 0.01 … 1.3e6
    void add(double value);
    double quantile(double q) const;  // upper edge of the bin; 0 where empty
    uint64_t count() const { return count_; }

  private:
    std::array<uint32_t, kBins> bins_{};
    uint64_t count_ = 0;
};

enum class State : uint8_t { running, done, rolled_back, aborted };
const char* name(State state);

struct Assigned {
    bool canary = false;
    uint32_t stage = 0;
};

struct Outcome {
    bool error = false;     // api_error, empty or malformed; not what the client or the load did
    bool filtered = false;  // a filter ended it
    double ttft_ms = -1, itl_ms = -1;  // -1: not known
    uint64_t prompt_bytes = 0;
};

struct Step {
    int64_t at_ms = 0;
    std::string what;  // started, promoted, rolled_back, aborted, done
    std::string who, why;
    double share = 0;
};

class Rollout {
  public:
    static constexpr size_t kSizes = 5;  // of prompts, by bytes: below 1, 4, 16, 64 KiB, more

    Rollout(Spec spec, int64_t now_ms);

    // unit: the conversation, or the organisation where there is none.
    Assigned assign(std::string_view unit) const;
    bool copies(std::string_view request) const;  // shadow stage: this one is to be copied
    void assigned(const Assigned& assigned);      // for the ratio of requests
    void outcome(const Assigned& assigned, const Outcome& outcome);
    void filtered(const Assigned& assigned);  // one that was an outcome already
    void golden(uint32_t wrong, uint32_t of, int64_t now_ms, const std::string& first);
    void crashed(const std::string& how, int64_t now_ms);  // a worker of the canary's
    // Call after outcomes: true where the state or the stage changed.
    bool look(int64_t now_ms);
    base::Result<void> promote(const std::string& who, const std::string& why, int64_t now_ms);
    base::Result<void> abort(const std::string& who, const std::string& why, int64_t now_ms);

    const Spec& spec() const { return spec_; }
    State state() const { return state_; }
    bool running() const { return state_ == State::running; }
    bool shadow() const { return running() && spec_.stages[stage_].share == 0; }
    double share() const;
    uint32_t stage() const { return stage_; }
    const std::string& holds() const { return holds_; }  // why it does not go on; empty: it will
    const std::vector<Step>& steps() const { return steps_; }
    uint64_t requests(bool canary) const { return seen_[canary].requests; }  // of the stage
    uint64_t total() const { return total_; }  // counted over all stages, both versions

    // What outlives the process: all but histograms that are not a baseline yet. One JSON object.
    std::string save() const;
    static base::Result<Rollout> restore(std::string_view json);
    std::string report_json() const;  // for status: short

  private:
    struct Seen {
        uint64_t requests = 0, errors = 0, filtered = 0;  // of the stage
    };
    void enter(uint32_t stage, const std::string& what, const std::string& who,
               const std::string& why, int64_t now_ms);
    void finish(State state, const std::string& who, const std::string& why, int64_t now_ms);
    std::string against() const;  // reason to roll back; empty: none
    std::string not_yet(int64_t now_ms) const;
    double theta0() const;
    double error_rate(bool canary) const;

    Spec spec_;
    State state_ = State::running;
    uint32_t stage_ = 0;
    int64_t entered_ms_ = 0;
    std::string holds_;
    std::vector<Step> steps_;
    Seen seen_[2];
    uint64_t all_requests_[2] = {}, all_errors_[2] = {}, all_filtered_[2] = {};
    uint64_t total_ = 0;
    uint32_t crashes_ = 0;
    Evidence errors_, ttft_, itl_, filter_, ratio_;
    Spread baseline_ttft_[kSizes], baseline_itl_;
    double ttft_p95_[kSizes] = {}, itl_p95_ = 0;  // 0: no baseline yet
    Spread ttft_over_[2], itl_over_[2];           // value over the baseline's p95
};

}  // namespace parley::rollout
