// Endpoints: which addresses may be used, and what must hold before a socket binds one.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/result.hpp"

namespace parley::pipe {

// tcp:// to anything but 127.0.0.0/8, localhost and [::1].
// CURVE is for tcp: an ipc socket is guarded by the mode of its folder.
bool takes_curve(std::string_view endpoint);
bool leaves_machine(std::string_view endpoint);

// For ipc://: makes the folder (0700) where it is missing, refuses one that others can enter, takes
// the lock beside the path (ZeroMQ itself unlinks whatever is there and steals a live endpoint).
// nullopt for other transports.
base::Result<std::optional<base::LockFile>> prepare_bind(const std::string& endpoint);
base::Result<void> check_endpoint(const std::string& endpoint, bool has_curve);

}  // namespace parley::pipe
