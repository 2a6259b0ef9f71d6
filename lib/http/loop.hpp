// Loop: the one thread of a server, and what may wait on it: descriptors, timers, posted work.
//
// Threads  run() in one thread, which is the loop's. post() and stop() from any; everything else from
//          the loop's thread (or before run()).
// Errors   a callback must not throw.
// Asio     stays behind this header; context() is for those who speak it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

namespace parley::http {

class Loop {
  public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    void run();   // returns after stop(); waits even while there is nothing to do
    void stop();  // callbacks that are due may still run first; run() may be called again
    void post(std::function<void()> work);
    // Runs what is ready, at most for `ms`, and returns: for tests.
    void run_for(int64_t ms);
    boost::asio::io_context& context();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Calls back each time a foreign descriptor is readable, until destroyed. Does not own the
// descriptor and never closes it: destroy the watch before the descriptor is closed. It re-arms by
// itself after each callback, and tells at once of what was readable before. The callback may destroy
// the watch. For a ZeroMQ socket (ZMQ_FD) the callback must empty the socket by ZMQ_EVENTS, and sends
// must be followed by the same. The descriptor must be one
// that can be polled (not a plain file): the constructor throws otherwise.
class FdWatch {
  public:
    FdWatch(Loop& loop, int fd, std::function<void()> on_readable);
    ~FdWatch();
    FdWatch(const FdWatch&) = delete;
    FdWatch& operator=(const FdWatch&) = delete;

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

// One deadline at a time. Starting again replaces it; destruction cancels. The callback may start it
// again or destroy it.
class Timer {
  public:
    explicit Timer(Loop& loop);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void after(int64_t ms, std::function<void()> callback);
    void every(int64_t ms,
               std::function<void()> callback);  // first in `ms`; late ticks are not made up
    void cancel();
    bool active() const;

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace parley::http
