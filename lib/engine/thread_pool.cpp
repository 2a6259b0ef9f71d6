#include "engine/thread_pool.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <chrono>
#include <climits>
#include <system_error>

namespace parley::engine {
namespace {

// A pause is 40–150 cycles, by processor: these are about 10 and 50 microseconds. Between runs the
// caller samples tokens and hands out work, which a sleeping thread would pay for with a wake-up.
constexpr uint32_t kSpinsInRun = 600;
constexpr uint32_t kSpinsIdle = 3000;
// When the threads of a run sleep for more than this share of its time, some run alone: see the header.
constexpr double kLostMax = 0.25;
constexpr double kLostWeight = 0.25;
constexpr uint32_t kRunsAlone = 32;

// Values of a state's lower half that are no unit: the phase is being replaced; the run is over.
constexpr uint32_t kClosed = UINT32_MAX;
constexpr uint32_t kOver = UINT32_MAX - 1;

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

constexpr uint32_t sequence_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
constexpr uint32_t next_of(uint64_t state) { return static_cast<uint32_t>(state); }
constexpr uint64_t state_of(uint32_t sequence, uint32_t next) {
    return uint64_t{sequence} << 32 | next;
}

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Threads sleep on the sequence number, the upper half of the state: claims do not disturb them.
uint32_t* futex_word(std::atomic<uint64_t>& state) {
    return reinterpret_cast<uint32_t*>(&state) + (std::endian::native == std::endian::little);
}
void futex_wait(std::atomic<uint64_t>& state, uint32_t sequence) {
    syscall(SYS_futex, futex_word(state), FUTEX_WAIT_PRIVATE, sequence, nullptr, nullptr, 0);
}
void futex_wake_all(std::atomic<uint64_t>& state) {
    syscall(SYS_futex, futex_word(state), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

base::Result<std::unique_ptr<ThreadPool>> ThreadPool::create(uint32_t threads) {
    if (threads < 1 || threads > kThreadsMax) {
        return base::fail(base::Errc::config, "threads must be 1 to " +
                                                  std::to_string(kThreadsMax) + ", not " +
                                                  std::to_string(threads));
    }
    std::unique_ptr<ThreadPool> pool{new ThreadPool(threads)};
    try {
        for (uint32_t i = 1; i < threads; ++i) {
            pool->workers_.emplace_back([raw = pool.get(), i] { raw->worker(i); });
        }
    } catch (const std::system_error& error) {
        return base::fail(base::Errc::again,
                          std::string{"cannot start a compute thread: "} + error.what());
    }
    return pool;
}

ThreadPool::ThreadPool(uint32_t threads) : threads_(threads) {}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    const uint32_t sequence = sequence_of(state_.load()) + 1;
    state_.store(state_of(sequence, kOver));
    futex_wake_all(state_);
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(std::span<const Phase> phases, Body& body) {
    if (threads_ == 1 || runs_alone_ > 0) {
        runs_alone_ -= runs_alone_ > 0 ? 1 : 0;
        for (uint32_t phase = 0; phase < phases.size(); ++phase) {
            if (phases[phase].units > 0) body.units(phase, 0, phases[phase].units, 0);
        }
        return;
    }
    const int64_t began_ns = now_ns();
    const uint64_t slept_before_ns = slept_ns_.load(std::memory_order_relaxed);
    run_together(phases, body);
    const auto slept_ns =
        static_cast<double>(slept_ns_.load(std::memory_order_relaxed) - slept_before_ns);
    const double lost = slept_ns / (static_cast<double>(now_ns() - began_ns) * threads_);
    lost_ += (lost - lost_) * kLostWeight;
    if (lost_ > kLostMax) {
        runs_alone_ = kRunsAlone;
        lost_ = kLostMax;  // the next run together decides
    }
}

void ThreadPool::run_together(std::span<const Phase> phases, Body& body) {
    // The last run is over, so nobody holds a claim.
    phases_ = phases;
    body_ = &body;
    advance(sequence_of(state_.load(std::memory_order_relaxed)), UINT32_MAX);
    for (;;) {
        const uint64_t state = state_.load(std::memory_order_acquire);
        if (next_of(state) == kOver) return;
        if (!claim_and_work(0)) wait(sequence_of(state), true);
    }
}

// Takes one claim and does it; false when the open phase has none left.
bool ThreadPool::claim_and_work(uint32_t thread) {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
        const uint32_t next = next_of(state);
        // These may already be the next phase's; then the state was closed before they were
        // written, and the exchange below cannot succeed.
        const uint32_t units = units_.load(std::memory_order_acquire);
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        const bool one_by_one = one_by_one_.load(std::memory_order_acquire);
        if (next >= units) return false;  // also when closed or over
        const uint32_t count =
            one_by_one ? 1 : std::max<uint32_t>(1, (units - next) / (2 * threads_));
        if (!state_.compare_exchange_weak(state, state + count, std::memory_order_acq_rel)) {
            continue;
        }
        body_->units(phase, next, next + count, thread);
        if (done_.fetch_add(count, std::memory_order_acq_rel) + count == units) {
            advance(sequence_of(state), phase);
        }
        return true;
    }
}

// Opens the phase after `phase`. Only the thread that finished the last unit comes here.
void ThreadPool::advance(uint32_t sequence, uint32_t phase) {
    uint32_t following = phase + 1;  // UINT32_MAX + 1 is the first
    while (following < phases_.size() && phases_[following].units == 0) ++following;
    const bool over = following >= phases_.size();
    const Phase open = over ? Phase{} : phases_[following];
    // Closing and opening are two steps of the sequence: who saw it closed must not sleep through the
    // opening.
    state_.store(state_of(sequence + 1, kClosed), std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    units_.store(open.units, std::memory_order_release);
    phase_.store(following, std::memory_order_release);
    one_by_one_.store(open.one_by_one, std::memory_order_release);
    // From here on, if the run is over, its caller may begin the next.
    state_.store(state_of(sequence + 2, over ? kOver : 0), std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) futex_wake_all(state_);
}

// Returns when the phase sequence is no longer `sequence`, or for no reason.
void ThreadPool::wait(uint32_t sequence, bool in_run) {
    const uint32_t spins = in_run ? kSpinsInRun : kSpinsIdle;
    for (uint32_t i = 0; i < spins; ++i) {
        if (sequence_of(state_.load(std::memory_order_acquire)) != sequence) return;
        pause();
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (sequence_of(state_.load(std::memory_order_seq_cst)) == sequence) {
        const int64_t began_ns = in_run ? now_ns() : 0;
        futex_wait(state_, sequence);
        if (in_run) {
            slept_ns_.fetch_add(static_cast<uint64_t>(now_ns() - began_ns),
                                std::memory_order_relaxed);
        }
    }
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void ThreadPool::worker(uint32_t thread) {
    pthread_setname_np(pthread_self(), "forward");
    while (!stop_.load(std::memory_order_acquire)) {
        const uint64_t state = state_.load(std::memory_order_acquire);
        if (claim_and_work(thread)) continue;
        wait(sequence_of(state), next_of(state) != kOver);
    }
}

}  // namespace parley::engine
