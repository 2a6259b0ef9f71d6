// Judges: requests judged off the loop's thread, so that the heartbeat goes on under a heavy one.
//
// Jobs     submit() never waits; results come back through take(), in any order, after `ready` was
//          called (from a judging thread: it may only wake the loop).
// Bounds   jobs_max wait or run at once; over it submit() is Errc::again.
// Time     a job's wall clock starts at submit(): waiting counts. One that is past its bound when its
//          turn comes is not judged: Errc::timeout.
// Errors   what stops a judgement comes back as Outcome::error; an exception is Errc::internal.
// Threads  submit(), take(), set_judge() from one thread; judging in `threads` own ones.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "messages/request.hpp"
#include "safety/judge.hpp"

namespace parley::filter {

struct Outcome {
    uint64_t ticket = 0;
    std::shared_ptr<const safety::Judge> judge;  // the one that judged
    std::optional<messages::ApiError> refused;   // the body is not a request: this is the answer
    std::optional<base::Error> error;            // no verdict
    safety::Verdict verdict;
    std::string question;  // last user turn
    std::string model;
    int64_t took_ns = 0;
};

class Judges {
  public:
    Judges(std::shared_ptr<const safety::Judge> judge, uint32_t threads, uint32_t jobs_max,
           std::function<void()> ready);
    ~Judges();

    // The wall clock bound of a body of this size, in milliseconds.
    int64_t bound_ms(size_t body_bytes) const;
    base::Result<void> submit(uint64_t ticket, std::string body);
    std::vector<Outcome> take();
    void set_judge(std::shared_ptr<const safety::Judge> judge);
    std::shared_ptr<const safety::Judge> judge() const;

  private:
    struct Job {
        uint64_t ticket;
        std::string body;
        int64_t submitted_ns;
    };
    void work();
    Outcome judge_one(const Job& job, std::shared_ptr<const safety::Judge> judge) const;

    const uint32_t jobs_max_;
    std::function<void()> ready_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::shared_ptr<const safety::Judge> judge_;
    std::deque<Job> jobs_;
    std::vector<Outcome> done_;
    uint32_t running_ = 0;
    bool stopping_ = false;
    std::vector<std::jthread> threads_;
};

}  // namespace parley::filter
