// CounterThread: one thread beside the loop, for prompts so large that counting them would hold up
// every stream.
//
// Bounds   queue_max waiting; run() is false beyond: answer 529.
// Threads  run() from the loop's; `done` is called on the loop.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "http/loop.hpp"

namespace parley::chatd {

class CounterThread {
  public:
    explicit CounterThread(http::Loop& loop, size_t queue_max = 256);
    ~CounterThread();
    bool run(std::function<void()> work, std::function<void()> done);

  private:
    struct Job {
        std::function<void()> work, done;
    };
    void loop();

    http::Loop& loop_;
    size_t queue_max_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace parley::chatd
