// ThreadPool: a few threads that go through a list of phases together.
//
// A run is a list of phases; a phase is a number of units of work. All units of a phase are done
// before any of the next begins. Units are claimed from a counter, many at first and fewer towards
// the end (the remainder over twice the threads), so that a thread the system has put aside holds
// up the others by what it has claimed and by nothing else: a phase ends when its units are done,
// not when every thread has arrived, and one that wakes late joins wherever the work is by then.
//
// Waiting  spins for a few microseconds and then sleeps on a futex: two threads that spin while a
// third
//          process wants their core would lose a whole time slice at every phase.
// Crowded  where other processes hold the cores, a thread is put aside in the middle of its claim again
//          and again, and the others wait for it longer than it would have helped: threads that sleep
//          for over a quarter of the runs' time (a moving average) make way, and the caller does the
//          next 32 runs alone before it tries again.
// Threads  run() from one thread, which works as number 0; `threads` − 1 others are owned.
// Bounds   kThreadsMax threads; units and phases below 2^31.
// Errors   none; create() reports a thread that cannot be started.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/result.hpp"

namespace parley::engine {

struct Phase {
    uint32_t units = 0;       // 0: skipped
    bool one_by_one = false;  // few large units of unequal size: claimed one at a time
};

class ThreadPool {
  public:
    static constexpr uint32_t kThreadsMax = 256;

    // Called for units [begin, end) of a phase; concurrently for different units of one phase.
    // Everything written by earlier phases is visible.
    class Body {
      public:
        virtual void units(uint32_t phase, uint32_t begin, uint32_t end, uint32_t thread) = 0;

      protected:
        ~Body() = default;
    };

    static base::Result<std::unique_ptr<ThreadPool>> create(uint32_t threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    void run(std::span<const Phase> phases, Body& body);
    uint32_t threads() const { return threads_; }

  private:
    explicit ThreadPool(uint32_t threads);
    void worker(uint32_t thread);
    bool claim_and_work(uint32_t thread);
    void advance(uint32_t sequence, uint32_t phase);
    void run_together(std::span<const Phase> phases, Body& body);
    void wait(uint32_t sequence, bool in_run);

    // What a thread may look at without holding a claim is atomic. The rest (phases_, body_) is
    // read only under a claim, which keeps the run from ending.
    alignas(64) std::atomic<uint64_t> state_{0};  // phase sequence number << 32 | next unit
    std::atomic<uint32_t> units_{0};              // of the open phase; 0: nothing to do
    std::atomic<uint32_t> phase_{0};
    std::atomic<bool> one_by_one_{false};
    alignas(64) std::atomic<uint32_t> done_{0};  // units finished in the open phase
    alignas(64) std::atomic<uint32_t> sleepers_{0};
    std::atomic<uint64_t> slept_ns_{0};  // within runs, all threads
    std::atomic<bool> stop_{false};

    const uint32_t threads_;
    double lost_ = 0;  // share of the time slept in runs, averaged
    uint32_t runs_alone_ = 0;
    std::span<const Phase> phases_;
    Body* body_ = nullptr;
    std::vector<std::thread> workers_;
};

}  // namespace parley::engine
