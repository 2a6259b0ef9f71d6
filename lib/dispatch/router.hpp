// Router: between the askers (filters) and the workers. Each request waits, runs on one worker, and
// ends once; its events pass through as they are.
//
// Credit   the asker's credit is the worker's: nothing piles up here.
// Loss     a worker that goes away ends its requests with a retryable END (the asker's side of the
//          protocol makes it); the front asks again with what it has, and that continuation waits at
//          the head of its class for another worker, at most until its deadline.
// Refusals END with status, reason and retry_after_s: overloaded_error (queue_full, expired,
//          draining), not_found_error (unknown model), invalid_request_error (no model named).
// Threads  one: that of the two links' step().
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "base/clock.hpp"
#include "dispatch/catalogue.hpp"
#include "dispatch/queue.hpp"
#include "dispatch/workers.hpp"
#include "pipe/answerer.hpp"
#include "pipe/asker.hpp"

namespace parley::dispatch {

struct RouterOptions {
    QueueOptions queue;
    int64_t ttft_ms = 30'000;  // wait for a worker where the envelope names no bound
    const base::Clock* clock = &base::system_clock();
};

struct RouterCounters {
    uint64_t asked = 0, dispatched = 0, ended = 0, refused = 0, expired = 0, cancelled = 0,
             lost = 0;
};

// What the tool wants to know of the workers' HELLOs.
class ModelSink {
  public:
    virtual ~ModelSink() = default;
    virtual void on_models(pipe::Peer worker, const pipe::HelloMeta& hello) = 0;
    virtual void on_tokenizer(pipe::Peer worker, const std::string& hash, std::string bytes) = 0;
    virtual void on_worker(const std::string& name, bool joined, const std::string& why) = 0;
};

class Router {
  public:
    Router(RouterOptions options, ModelSink& models)
        : options_(options),
          models_(models),
          asker_side_(*this),
          worker_side_(*this),
          queue_(options.queue) {}
    Router(const Router&) = delete;
    Router& operator=(const Router&) = delete;

    pipe::AnswererHandler& asker_side() { return asker_side_; }
    pipe::AskerHandler& worker_side() { return worker_side_; }
    // Both must outlive the router's last step.
    void connect(pipe::Answerer& askers, pipe::Asker& workers);

    Catalogue& catalogue() { return catalogue_; }
    const Workers& workers() const { return workers_table_; }
    const RouterCounters& counters() const { return counters_; }
    size_t waiting() const { return queue_.size(); }
    size_t running() const { return running_.size(); }
    // Ends what waits (retryable: another router may take it) and takes nothing new.
    void drain();
    bool idle() const { return queue_.size() == 0 && running_.empty(); }
    void tick();  // expiry; call some times a second
    pipe::StatusMeta status() const;
    std::string status_json() const;  // what `router status` shows

  private:
    struct Running {
        pipe::Peer worker = 0;
        std::string model;
        pipe::Class cls{};
        uint32_t outstanding = 0;  // credit passed on, less the events that have come
        bool gone = false;         // nobody waits for its END
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
            router.workers_table_.drain(peer);
        }
    };
    void on_ask(pipe::Ask ask);
    void on_cancel(const std::string& id, pipe::Cancel why);
    void on_credit(const std::string& id, uint32_t available);
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body);
    void on_end(const std::string& id, const pipe::EndMeta& meta);
    void on_worker_up(pipe::Peer peer, const pipe::HelloMeta& hello);
    void on_worker_down(pipe::Peer peer, const std::string& why);

    void pump();
    void start(Job job, pipe::Peer worker);
    void refuse(const std::string& id, const std::string& status, const std::string& reason,
                const std::string& message);
    uint32_t retry_after_s(const std::string& model) const;

    RouterOptions options_;
    ModelSink& models_;
    AskerSide asker_side_;
    WorkerSide worker_side_;
    pipe::Answerer* askers_ = nullptr;
    pipe::Asker* workers_ = nullptr;
    Catalogue catalogue_;
    Workers workers_table_;
    Queue queue_;
    std::unordered_map<std::string, Running> running_;
    RouterCounters counters_;
    double service_s_ = 1.0;  // moving average of a request's compute-seconds
    bool draining_ = false;
};

}  // namespace parley::dispatch
