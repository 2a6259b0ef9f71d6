// Presence: which users have a device connected, as each chatd writes it to run/present.BOOT every few
// seconds; a file that is older than kFreshMs is of a chatd that is gone.
//
// Errors   a file that cannot be read or written tells of nobody: presence only holds notifications back
// Threads  pure functions over files
#pragma once

#include <set>
#include <string>
#include <vector>

#include "store/ids.hpp"

namespace parley::notify {

inline constexpr int64_t kFreshMs = 15'000;
inline constexpr int64_t kPresenceEveryMs = 3'000;

void write_presence(const std::string& run_dir, const std::string& boot,
                    const std::vector<store::Ulid>& users);
std::set<store::Ulid> read_presence(const std::string& run_dir);

}  // namespace parley::notify
