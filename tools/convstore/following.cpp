#include "following.hpp"

#include <chrono>
#include <csignal>
#include <thread>

namespace parley::convstore {

bool told_to_stop(const base::SignalFd& signals) {
    bool stop = false;
    while (const auto number = signals.next()) {
        stop |= *number != SIGHUP;
        if (*number != SIGHUP) continue;
        base::notify_reloading();
        base::notify_ready();
    }
    return stop;
}

void nap(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

base::Result<std::optional<store::Lease>> stand_by(
    const std::string& path, int64_t lease_ms, const base::SignalFd& signals,
    const std::function<base::Result<bool>(bool first)>& busy) {
    for (bool first = true;; first = false) {
        auto taken = store::Lease::try_take(path, lease_ms);
        if (!taken || *taken) return taken;
        auto on = busy(first);
        if (!on) return base::fail(on.error());
        if (!*on || told_to_stop(signals)) return std::optional<store::Lease>();
        nap(100);
    }
}

}  // namespace parley::convstore
