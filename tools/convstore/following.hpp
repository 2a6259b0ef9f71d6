// Following: what the verbs that follow the log have in common: when to stop, and whose turn it is.
//
// Threads  one.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/signals.hpp"
#include "store/lease.hpp"

namespace parley::convstore {

// SIGTERM, SIGINT: true. SIGHUP finds nothing that could change while it runs, and is answered.
bool told_to_stop(const base::SignalFd& signals);
void nap(int ms);

// Waits until the lease at `path` is ours. `busy` is asked whenever another holds it, with true the first time:
// an error ends the waiting, and so does false. Empty: `busy` said so, or it was told to stop.
base::Result<std::optional<store::Lease>> stand_by(
    const std::string& path, int64_t lease_ms, const base::SignalFd& signals,
    const std::function<base::Result<bool>(bool first)>& busy);

}  // namespace parley::convstore
