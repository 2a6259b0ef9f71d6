#include "load/loop.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace parley::load {

base::Result<std::unique_ptr<Loop>> Loop::make() {
    const int epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return base::fail(base::errno_error(errno, "cannot make an epoll descriptor"));
    const int timer_fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer_fd < 0) {
        const int number = errno;
        ::close(epoll_fd);
        return base::fail(base::errno_error(number, "cannot make a timer descriptor"));
    }
    std::unique_ptr<Loop> out(new Loop(epoll_fd, timer_fd));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = nullptr;  // the timer
    if (::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) != 0)
        return base::fail(base::errno_error(errno, "cannot watch a timer"));
    return out;
}

Loop::~Loop() {
    ::close(timer_fd_);
    ::close(epoll_fd_);
}

base::Result<void> Loop::add(int fd, bool read, bool write, Watcher& watcher) {
    epoll_event event{};
    event.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
    event.data.ptr = &watcher;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0)
        return base::fail(base::errno_error(errno, "cannot watch a descriptor"));
    return {};
}

void Loop::change(int fd, bool read, bool write, Watcher& watcher) {
    epoll_event event{};
    event.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
    event.data.ptr = &watcher;
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
}

void Loop::wait(int64_t deadline_ns) {
    deadline_ns = std::max<int64_t>(deadline_ns, 1);  // 0 would disarm the timer
    itimerspec when{};
    when.it_value.tv_sec = deadline_ns / 1'000'000'000;
    when.it_value.tv_nsec = deadline_ns % 1'000'000'000;
    ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
    epoll_event events[256];
    const int n = ::epoll_wait(epoll_fd_, events, 256, 1000);
    for (int i = 0; i < n; ++i) {
        if (auto* watcher = static_cast<Watcher*>(events[i].data.ptr)) {
            watcher->ready();
        } else {
            uint64_t ticks = 0;
            [[maybe_unused]] const ssize_t got = ::read(timer_fd_, &ticks, sizeof ticks);
        }
    }
}

}  // namespace parley::load
