// Router: between the askers (filters) and the workers. Each request is admitted or refused, waits for
// its turn (scheduler.hpp), runs on one worker at a time, and ends once.
//
// Credit   the asker's credit is the worker's: nothing piles up here.
// Loss     a request whose worker is gone, hung or drained before its END goes to another, behind what
//          the asker has (delivered.hpp): numbered without a gap, charged for the work done. It waits
//          for one at the head of its flow until its stall deadline, then ends retryable
//          (overloaded_error, no_worker). Before the first event that takes from the retry budget.
//          After moves_max of that, or where its body was not kept (kept_bytes_max), the END goes up
//          and the asker's own recovery comes in.
// Attempts (id, attempt) of the asker is (id, attempt · 256 + moves) toward workers: a worker that
//          wakes up again is never asked the same pair twice.
// Refusals END with status, reason and retry_after_s: see Scheduler; and overloaded_error (expired,
//          no_worker, draining; late, where a worker says that the first token cannot come in time),
//          not_found_error (unknown model), invalid_request_error (no model).
// Rollouts an alias under rollout (rollouts.hpp) gives a version by conversation, else by end user and
//          first message of the body, which all turns have. A continuation stays with its version as long as this router
//          knows it (kVersionsKept). What waits unbegun for a version that is rolled back goes to the
//          stable one; what runs finishes. Times are from dispatch, by the router's clock. Shadow
//          copies run as batch of the organisation `shadow`, kShadowsMax at once, and go nowhere.
// Golden   prompts asked of a worker of the version before its rollout begins, one after the other,
//          past the queue; the answers must be the recorded ones, byte for byte.
// Threads  one: that of the two links' step().
#pragma once

#include <simdjson.h>

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "base/clock.hpp"
#include "dispatch/breaker.hpp"
#include "dispatch/catalogue.hpp"
#include "dispatch/delivered.hpp"
#include "dispatch/rollouts.hpp"
#include "dispatch/scheduler.hpp"
#include "pipe/answerer.hpp"
#include "pipe/asker.hpp"

namespace parley::dispatch {

struct RouterOptions {
    SchedulerOptions scheduler;
    uint64_t bytes_max = 256ull << 20;       // of the requests that wait
    uint64_t kept_bytes_max = 256ull << 20;  // of those that run, kept to hand them over
    uint32_t moves_max = 8;                  // of one request from worker to worker
    int64_t ttft_ms = 30'000;                // wait for a worker where the envelope names no bound
    int64_t stall_ms = 30'000;               // the same of a stream that has begun
    std::string stages = "2,10,person:50,100";  // of rollouts: rollout::parse_stages
    rollout::Gates gates;
    BreakerOptions breaker;
    const base::Clock* clock = &base::system_clock();
};

struct RouterCounters {
    uint64_t asked = 0, dispatched = 0, ended = 0, refused = 0, expired = 0, cancelled = 0,
             lost = 0, moved = 0, retried = 0, shortened = 0;
};

// What the tool wants to know of the workers' HELLOs.
class ModelSink {
  public:
    virtual ~ModelSink() = default;
    virtual void on_models(pipe::Peer worker, const pipe::HelloMeta& hello) = 0;
    virtual void on_tokenizer(pipe::Peer worker, const std::string& hash, std::string bytes) = 0;
    // A rollout took a step: to be written down.
    virtual void on_rollout(const rollout::Rollout&) {}
    virtual void on_worker(const std::string& name, bool joined, const std::string& why) = 0;
};

class Router {
  public:
    Router(RouterOptions options, ModelSink& models);
    ~Router();
    Router(const Router&) = delete;
    Router& operator=(const Router&) = delete;

    pipe::AnswererHandler& asker_side() { return asker_side_; }
    pipe::AskerHandler& worker_side() { return worker_side_; }
    // Both must outlive the router's last step.
    void connect(pipe::Answerer& askers, pipe::Asker& workers);

    Catalogue& catalogue() { return catalogue_; }
    Rollouts& rollouts() { return rollouts_; }
    const Breakers& breakers() const { return breakers_; }
    Scheduler& scheduler() { return scheduler_; }
    const Scheduler& scheduler() const { return scheduler_; }
    const Workers& workers() const { return scheduler_.workers(); }
    const RouterCounters& counters() const { return counters_; }
    size_t waiting() const { return waiting_.size(); }
    size_t running() const { return running_.size(); }
    // Ends what waits (retryable: another router may take it) and takes nothing new.
    void drain();
    // drain(), and what runs ends too, retryable: a successor stands by, chatd goes on there.
    void hand_over();
    bool idle() const { return waiting_.empty() && running_.empty(); }
    void tick();  // expiry; call some times a second
    pipe::StatusMeta status() const;
    double workers_wanted() const;    // for what is here now; a signal for autoscaling
    std::string status_json() const;  // what `router status` shows

  private:
    struct Job {
        pipe::Ask ask;
        std::string model;  // hash of the version that answers
        Ticket ticket = 0;
        int64_t arrived_ms = 0;  // as a request; the times left of the envelope count from here
        Delivered delivered;
        uint32_t moves = 0;
        double cost_s = 0;  // on workers that were lost
        std::string alias;  // of the rollout that chose the version; empty: none
        rollout::Assigned assigned;
        bool shadow = false;  // nobody asked for it
        bool filtered = false;
        uint64_t max_tokens = 0;
        bool kept = true;  // the body is here while it runs
        uint64_t bytes() const { return ask.body.size() + ask.id.size() + 512; }
    };
    struct Running {
        Job job;
        pipe::Peer worker = 0;
        uint32_t outstanding = 0;  // credit passed on, less the events that have come
        bool gone = false;         // nobody waits for its END
        int64_t started_ms = 0, first_ms = 0, last_ms = 0;  // 0: not yet
        uint32_t events = 0;
    };
    // The two links number their peers apart, so each has a handler of its own.
    struct AskerSide final : pipe::AnswererHandler {
        explicit AskerSide(Router& r) : router(r) {}
        Router& router;
        void on_ask(pipe::Ask ask) override { router.on_ask(std::move(ask)); }
        void on_cancel(const std::string& id, uint32_t, pipe::Cancel why) override {
            router.on_cancel(id, why);
        }
        void on_credit(const std::string& id, uint32_t available) override {
            router.on_credit(id, available);
        }
        void on_refused_late(const std::string& id) override { router.refused_late(id); }
    };
    struct WorkerSide final : pipe::AskerHandler {
        explicit WorkerSide(Router& r) : router(r) {}
        Router& router;
        void on_event(const std::string& id, const pipe::EventMeta& meta,
                      std::string body) override {
            router.on_event(id, meta, std::move(body));
        }
        void on_end(const std::string& id, const pipe::EndMeta& meta) override {
            router.on_end(id, meta);
        }
        void on_peer_up(pipe::Peer peer, const pipe::HelloMeta& hello) override {
            router.on_worker_up(peer, hello);
        }
        void on_peer_hello(pipe::Peer peer, const pipe::HelloMeta& hello,
                           std::string body) override;
        void on_peer_down(pipe::Peer peer, const std::string& why) override {
            router.on_worker_down(peer, why);
        }
        void on_peer_status(pipe::Peer peer, const pipe::StatusMeta& status) override;
        void on_peer_bye(pipe::Peer peer, const pipe::ByeMeta&) override {
            router.said_bye_.insert(peer);
            router.scheduler_.worker_drains(peer);
        }
    };
    void on_ask(pipe::Ask ask);
    void on_cancel(const std::string& id, pipe::Cancel why);
    void on_credit(const std::string& id, uint32_t available);
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body);
    void on_end(const std::string& id, const pipe::EndMeta& meta);
    void on_worker_up(pipe::Peer peer, const pipe::HelloMeta& hello);
    void on_worker_down(pipe::Peer peer, const std::string& why);

    // The operator's commands: {"command":…}. False: it is none.
    bool command(const pipe::Ask& ask, simdjson::dom::element body);
    void rollout_command(const std::string& id, const std::string& verb,
                         simdjson::dom::element body);
    struct Probe;
    void probe_next();
    void probe_ended(const pipe::EndMeta& end);
    void count(const std::string& id, const Running& running, const pipe::EndMeta& end);
    bool late(const Running& running, const pipe::EndMeta& end) const;
    void refused_late(const std::string& id);  // a filter stopped the end of an answer
    void shadow(const Job& job);
    void reroute(const std::string& alias);
    void take_steps(int64_t now_ms);
    void remember(const std::string& id, const std::string& hash);
    // A breaker may have changed: the scheduler follows.
    void obey(pipe::Peer worker, const std::string& hash);
    void obey_all(pipe::Peer worker, const pipe::HelloMeta& hello);
    void breaker_ended(const Running& running, const pipe::EndMeta& end);
    void tick_breakers(int64_t now_ms);
    std::optional<Refusal> admit(Job job);
    Job take_waiting(const std::string& id);
    void pump();
    void start(const Started& started);
    // Gives it to another worker if that may be; else false.
    bool move(const std::string& id, Running& running, const pipe::EndMeta& end);
    void refuse(const std::string& id, const Refusal& refusal);

    RouterOptions options_;
    ModelSink& models_;
    AskerSide asker_side_;
    WorkerSide worker_side_;
    pipe::Answerer* askers_ = nullptr;
    pipe::Asker* workers_ = nullptr;
    Catalogue catalogue_;
    Scheduler scheduler_;
    std::unordered_map<std::string, Job> waiting_;
    std::unordered_map<Ticket, std::string> ids_;  // of those that wait
    uint64_t waiting_bytes_ = 0, kept_bytes_ = 0;
    std::unordered_map<std::string, Running> running_;
    RouterCounters counters_;
    static constexpr size_t kVersionsKept = 65'536, kShadowsMax = 16, kCountedKept = 4096;
    Rollouts rollouts_;
    Breakers breakers_;
    std::set<pipe::Peer> said_bye_;
    std::unordered_map<std::string, std::string> versions_;  // request → hash, of canaries
    std::deque<std::string> versions_order_;
    struct Counted {
        std::string alias;
        rollout::Assigned assigned;
    };
    std::unordered_map<std::string, Counted> counted_;  // ended just now
    std::deque<std::string> counted_order_;
    std::unique_ptr<Probe> probe_;
    size_t shadows_ = 0;
    bool draining_ = false, pumping_ = false;
};

}  // namespace parley::dispatch
