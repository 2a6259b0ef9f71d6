// Loop: epoll with a deadline in nanoseconds; one thread drives thousands of sockets.
//
// Open-loop start times are shorter than epoll's milliseconds, so a timerfd carries the deadline.
// Owns     epoll and timer descriptors, none of the watched ones.
// Threads  one. ready() may add, change and remove any descriptor, its own too; a watcher may see a
//          readiness that is no longer true and must bear it (EAGAIN).
// Errors   Errc::io when the kernel refuses a descriptor.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.hpp"

namespace parley::load {

class Watcher {
  public:
    virtual ~Watcher() = default;
    virtual void ready() = 0;
};

class Loop {
  public:
    static base::Result<std::unique_ptr<Loop>> make();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // Level-triggered. The watcher outlives the registration; close() removes it.
    base::Result<void> add(int fd, bool read, bool write, Watcher& watcher);
    void change(int fd, bool read, bool write, Watcher& watcher);
    // Waits until something is ready or `deadline_ns` (CLOCK_MONOTONIC) passes, then calls ready().
    void wait(int64_t deadline_ns);

  private:
    Loop(int epoll_fd, int timer_fd) : epoll_fd_(epoll_fd), timer_fd_(timer_fd) {}
    int epoll_fd_;
    int timer_fd_;
};

}  // namespace parley::load
