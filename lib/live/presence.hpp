// Presence: how many devices of a user are connected, as each chatd of the state tells the others and the
// followers.
//
// File     RUN/chatd-BOOT.presence: a user's 16 bytes and a count of 4, for each; written beside, renamed,
//          never synced: it means nothing after a crash.
// Living   a chatd holds RUN/chatd-BOOT.lock. The file of a dead one counts no more.
// Errors   a file that cannot be read tells of nobody.
// Threads  functions over files; any.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/ids.hpp"

namespace parley::live {

using Devices = std::map<store::Ulid, uint32_t>;

std::string presence_path(const std::string& run_dir, const std::string& boot);
// The boot ids of all chatd that have a file here, living or not.
std::vector<std::string> presence_boots(const std::string& run_dir);
// The first users_max of them. False: it could not be written.
bool write_presence(const std::string& run_dir, const std::string& boot, const Devices& devices,
                    size_t users_max);
std::optional<Devices> read_presence(const std::string& run_dir, const std::string& boot);
// Who has a device connected to any chatd that lives.
std::set<store::Ulid> present_users(const std::string& run_dir);

}  // namespace parley::live
