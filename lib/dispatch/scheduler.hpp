// Scheduler: what is admitted, what goes next, and where; the same code in the router and in `router
// simulate`. It is told what happens (requests, workers, reports, ENDs) with the time at which it
// happens, and asked what to start.
//
// Use      after anything that was told, call next() until it gives nothing.
// Refusals arrive(): 429 rate_limit_error where the organisation itself is the reason (its own queue is
//          full, or its own requests make this one too late), 529 overloaded_error where it is not;
//          always with a reason for programs, words for people, and the seconds after which the same
//          request would be in time.
// Bounds   SchedulerOptions.
// Exact    as FairQueue: the same calls give the same starts.
// Threads  one. No clock, no random numbers.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "dispatch/admission.hpp"
#include "dispatch/fair_queue.hpp"
#include "dispatch/predictor.hpp"
#include "dispatch/prefix_map.hpp"
#include "dispatch/workers.hpp"

namespace parley::dispatch {

struct SchedulerOptions {
    FairOptions fair;
    AdmissionOptions admission;
    uint32_t waiting_max = 4096;       // over all
    uint32_t flow_waiting_max = 1024;  // of an organisation
    double flow_waiting_s_max = 3600;  // predicted compute-seconds of an organisation that wait
};

struct Arrival {
    std::string org;
    pipe::Class cls = pipe::Class::streaming;
    ModelId model = 0;
    uint64_t bytes = 0;       // of the body
    uint64_t max_tokens = 0;  // 0: not said
    std::vector<uint64_t> blocks;
    int64_t deadline_ms = 0;  // of the first event, on the clock of now_ms; 0: none
    bool goes_on = false;     // a stream that has begun: never refused for the time it would wait
};

struct Refusal {
    std::string status, reason, message;
    uint32_t retry_after_s = 0;
};

struct Started {
    Ticket ticket = 0;
    WorkerId worker = 0;
    std::string flow;  // as the worker shall name it in its reports
    double weight = 1;
    double tag = 0;  // what the flow has used, on the scale of its pool
    int64_t waited_ms = 0;
};

class Scheduler {
  public:
    explicit Scheduler(SchedulerOptions options = {})
        : options_(options), queue_(options.fair), admission_(options.admission) {}

    ModelId model_id(const std::string& hash);
    const std::string& model_hash(ModelId id) const { return hashes_[id]; }
    void set_weight(const std::string& org, double weight) { queue_.set_weight(org, weight); }

    void worker_joined(WorkerId id, const pipe::HelloMeta& hello);
    void worker_status(WorkerId id, const pipe::StatusMeta& status);
    void worker_drains(WorkerId id) { workers_.drain(id); }
    void worker_serves(WorkerId id, const std::string& hash, bool does);  // by its breaker
    void worker_left(WorkerId id);  // after ended() or lost() of what it ran

    std::variant<Ticket, Refusal> arrive(const Arrival& arrival, int64_t now_ms);
    std::optional<Started> next(int64_t now_ms);
    void first_event(Ticket ticket, int64_t now_ms);
    // It is over. cost_s of this run of it; what is not known is 0 and the charge is given back.
    void ended(Ticket ticket, double cost_s, const std::optional<pipe::Usage>& usage, bool ok,
               int64_t now_ms);
    // Its worker is gone: it waits at the head of its flow until the deadline. Returns the
    // compute-seconds that its worker had reported for it.
    double requeue(Ticket ticket, int64_t deadline_ms);
    // The tag of a flow that runs on other workers too, by what all have reported; nullopt: this one
    // worker knows better.
    std::optional<double> correction(Ticket ticket) const;
    bool cancel(Ticket ticket);  // one that waits; false: it runs
    std::vector<Ticket> expire(int64_t now_ms);
    void tick(int64_t now_ms) { admission_.tick(now_ms, queue_.waiting() == 0); }
    bool may_retry() { return admission_.may_retry(); }

    // Milliseconds until a request like this would have its first event, as far as is known.
    double predicted_ttft_ms(const Arrival& arrival) const;
    uint32_t retry_after_s(ModelId model) const;  // of a new request of nobody in particular

    FairQueue& queue() { return queue_; }
    const FairQueue& queue() const { return queue_; }
    const Workers& workers() const { return workers_; }
    const Admission& admission() const { return admission_; }
    const Predictor& predictor() const { return predictor_; }
    size_t running() const { return running_.size(); }
    double cost_s() const { return cost_s_; }  // settled, over all

  private:
    struct Waiting {
        int64_t arrived_ms = 0;
        uint64_t bytes = 0, max_tokens = 0;
        std::vector<uint64_t> blocks;
        double predicted_wait_ms = 0, predicted_ttft_ms = 0;
        bool goes_on = false;
    };
    struct Running {
        WorkerId worker = 0;
        double predicted_s = 0, used_s = 0;
        int64_t started_ms = 0;
        bool first_seen = false;
    };
    struct Choice {
        WorkerId worker = 0;
        uint64_t cached_bytes = 0;
    };
    // `each_s`: what one request of this kind costs, as is known now.
    double predicted_wait_ms(const std::string& org, pipe::Class cls, ModelId model,
                             double each_s) const;
    std::optional<Refusal> refusal(const Arrival& arrival, double predicted_s) const;
    Choice place(Ticket ticket, ModelId model, Room room) const;
    void mark(WorkerId id);
    Refusal refused(const char* status, const char* reason, std::string message,
                    double wait_s) const;

    SchedulerOptions options_;
    FairQueue queue_;
    Workers workers_;
    Predictor predictor_;
    PrefixMap prefixes_;
    Admission admission_;
    std::unordered_map<std::string, ModelId> ids_;
    std::vector<std::string> hashes_;
    std::unordered_map<Ticket, Waiting> requests_;  // also of those that run
    std::unordered_map<Ticket, Running> running_;
    std::map<WorkerId, std::map<std::string, std::set<Ticket>>> flights_;  // by flow
    std::set<ModelId> open_;  // something may have changed for them: to be looked at
    double run_ms_ = 0;       // moving average of how long a request runs
    double cost_s_ = 0;
    int64_t now_ms_ = 0;
};

}  // namespace parley::dispatch
