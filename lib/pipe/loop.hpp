// Loop: a poll loop over links, descriptors and timers, for the daemons that need no Asio.
//
// It knows ZeroMQ's edge-triggered descriptor: links are stepped until they are quiet before it
// waits. Threads  one.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.hpp"
#include "pipe/link.hpp"

namespace parley::pipe {

class Loop {
  public:
    explicit Loop(const base::Clock& clock = base::system_clock()) : clock_(clock) {}
    void add(Link& link);
    void watch(int fd, std::function<void()> readable);
    void every(int64_t interval_ms, std::function<void()> call);
    // Dispatches what is there, then waits at most `timeout_ms` (0: does not wait) for more.
    // Returns true if anything was dispatched.
    bool run_once(int timeout_ms);
    void run();  // until stop()
    void stop() { stopped_ = true; }
    bool stopped() const { return stopped_; }

  private:
    struct Timer {
        int64_t interval_ms;
        int64_t due_ms;
        std::function<void()> call;
    };
    struct Watch {
        int fd;
        std::function<void()> readable;
    };
    const base::Clock& clock_;
    std::vector<Link*> links_;
    std::vector<Watch> watches_;
    std::vector<Timer> timers_;
    bool stopped_ = false;
};

}  // namespace parley::pipe
