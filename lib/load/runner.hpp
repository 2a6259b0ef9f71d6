// Runner: starts requests by a plan, keeps their meters, ends in bounded time.
//
// closed   `concurrency` requests at any time: a slot that is free starts the next one. It measures
//          what that many patient users see; a slow server is asked less often.
// open     starts follow a schedule that does not wait for answers. Each latency counts from the
//          intended start, also when all slots were taken then: queueing that the server caused is
//          not hidden (coordinated omission, Gil Tene). start_lag says how late starts were.
// Ending   after `requests` measured starts or `duration_ms` of measured time, whichever comes first,
//          or stop(): nothing more is started, what runs has drain_timeout_ms, the rest is cut off.
// Bounds   at most concurrency (closed) or inflight_max (open) at once. No memory grows with time.
// Threads  one. run() returns once all has ended.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "load/arrivals.hpp"
#include "load/loop.hpp"
#include "load/prompts.hpp"
#include "load/stats.hpp"
#include "load/transport.hpp"

namespace parley::load {

struct RunOptions {
    bool open_loop = false;
    uint32_t concurrency = 1;  // closed
    double rate_per_s = 0;     // open
    Arrival arrival = Arrival::poisson;
    uint32_t inflight_max = 4096;  // open
    uint64_t seed = 1;
    bool shuffle = false;          // prompts drawn by the seed; else in turn
    uint64_t requests = 0;         // measured ones; 0: no such end
    int64_t duration_ms = 0;       // of measured time; 0: no such end
    int64_t warmup_ms = 0;         // requests meant to start before are not measured
    uint64_t warmup_requests = 0;  // and neither are the first so many
    int64_t drain_timeout_ms = 30'000;
    int64_t error_pause_ms = 100;  // closed: a slot rests so long after an error
    uint32_t slots() const { return open_loop ? inflight_max : concurrency; }
};

struct Progress {
    int64_t elapsed_ms = 0;
    double share = 0;  // of the plan, 0…1
    bool warming_up = false;
    bool draining = false;
    uint32_t inflight = 0;
};

struct RunResult {
    double window_s = 0;       // measured time: what rates are divided by
    uint64_t warmups = 0;      // requests started and not measured
    uint64_t unstarted = 0;    // open: due, but every slot was taken until the end
    bool interrupted = false;  // stop() came before the plan's end
    bool reached = false;      // something answered at least once
};

class Runner final : private TransportSink {
  public:
    Runner(Loop& loop, RunOptions options, const PromptSet& prompts, Stats& stats);
    ~Runner() override;
    // The transport is made with sink() and options.slots() slots.
    TransportSink& sink() { return *this; }
    void watch(int fd, std::function<void()> readable);  // stop signals; before run()
    void on_progress(std::function<void(const Progress&)> call) {
        progress_ = std::move(call);
    }  // each 200 ms
    RunResult run(Transport& transport);
    void stop() { stop_asked_ = true; }    // start nothing more, drain
    void abort() { abort_asked_ = true; }  // and cut off what runs

  private:
    struct Slot {
        Meter meter;
        bool busy = false;
        bool measured = false;
    };
    struct FdWatcher;
    Verdict on_event(uint32_t slot, std::string_view json, int64_t stamp_ns,
                     int64_t now_ns) override;
    void on_done(uint32_t slot, const Outcome& outcome) override;
    void start(uint32_t slot, int64_t intended_ns, int64_t now_ns);
    void start_due(int64_t now_ns);
    bool plan_is_over(int64_t at_ns) const;
    int64_t next_due_ns() const;
    void report_progress(int64_t now_ns);
    const std::string& next_prompt();

    Loop& loop_;
    const RunOptions options_;
    const PromptSet& prompts_;
    Stats& stats_;
    Transport* transport_ = nullptr;
    Arrivals arrivals_;
    Random shuffle_;
    EventReader reader_;
    std::vector<Slot> slots_;
    std::vector<uint32_t> free_;                        // the last one freed is warm: taken first
    std::deque<std::pair<int64_t, uint32_t>> resting_;  // until when, slot; rising
    std::vector<std::unique_ptr<FdWatcher>> watchers_;
    std::function<void(const Progress&)> progress_;
    int64_t begin_ns_ = 0;
    int64_t measure_begin_ns_ = -1;
    int64_t last_end_ns_ = 0;
    int64_t next_progress_ns_ = 0;
    uint64_t index_ = 0;
    uint32_t inflight_ = 0;
    RunResult result_;
    bool stop_asked_ = false;
    bool abort_asked_ = false;
    bool draining_ = false;
};

}  // namespace parley::load
