// SignalFd: signals as readable events on a descriptor, for poll loops and Asio alike.
//
// Use      block() first thing in main, before any thread: threads inherit the mask.
// Threads  next() from one thread.
#pragma once

#include <initializer_list>
#include <optional>

namespace parley::base {

class SignalFd {
  public:
    static SignalFd block(std::initializer_list<int> signals);  // aborts only if the kernel refuses
    ~SignalFd();
    SignalFd(SignalFd&& other) noexcept;
    SignalFd& operator=(SignalFd&&) = delete;
    int fd() const { return fd_; }
    std::optional<int> next() const;  // the next pending signal number; never waits

  private:
    explicit SignalFd(int fd) : fd_(fd) {}
    int fd_ = -1;
};

// sd_notify; without a supervisor (no NOTIFY_SOCKET) they do nothing.
void notify_ready();
void notify_reloading();  // follow it with notify_ready()
void notify_stopping();

}  // namespace parley::base
