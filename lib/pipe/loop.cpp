#include "pipe/loop.hpp"

#include <poll.h>

#include <algorithm>

namespace parley::pipe {

void Loop::add(Link& link) { links_.push_back(&link); }
void Loop::watch(int fd, std::function<void()> readable) {
    watches_.push_back({fd, std::move(readable)});
}
void Loop::every(int64_t interval_ms, std::function<void()> call) {
    timers_.push_back({interval_ms, clock_.mono_ms() + interval_ms, std::move(call)});
}

bool Loop::run_once(int timeout_ms) {
    bool worked = false;
    for (Link* link : links_) worked |= link->step();
    const int64_t now = clock_.mono_ms();
    int64_t wait = std::min<int64_t>(timeout_ms, kTickMs);
    for (Timer& timer : timers_) {
        if (timer.due_ms <= now) {
            timer.due_ms = now + timer.interval_ms;
            timer.call();
            worked = true;
        }
        wait = std::min(wait, timer.due_ms - now);
    }
    // A handler of one link may have sent on another, and a send consumes the edge of its
    // descriptor.
    for (const Link* link : links_) worked |= link->readable();
    if (worked) wait = 0;
    std::vector<pollfd> fds;
    for (const Link* link : links_) fds.push_back({link->fd(), POLLIN, 0});
    for (const Watch& watch : watches_) fds.push_back({watch.fd, POLLIN, 0});
    if (::poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(wait, 0))) <= 0)
        return worked;
    for (size_t i = 0; i < watches_.size(); ++i) {
        if (fds[links_.size() + i].revents != 0) {
            watches_[i].readable();
            worked = true;
        }
    }
    for (size_t i = 0; i < links_.size(); ++i) worked |= fds[i].revents != 0;
    return worked;
}

void Loop::run() {
    while (!stopped_) run_once(kTickMs);
}

}  // namespace parley::pipe
