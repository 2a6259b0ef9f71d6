#include "live/presence.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/file.hpp"

namespace parley::live {

namespace {

constexpr std::string_view kPrefix = "chatd-", kSuffix = ".presence";
constexpr size_t kRowBytes = 20;  // 16 of the user, 4 of the count
constexpr size_t kFileMax = 16u << 20;

// A look at the lock, not a hold of it: its file stays with its chatd.
bool lives(const std::string& run_dir, const std::string& boot) {
    const std::string path = run_dir + "/" + std::string(kPrefix) + boot + ".lock";
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool free = ::flock(fd, LOCK_SH | LOCK_NB) == 0;
    ::close(fd);
    return !free;
}

}  // namespace

std::string presence_path(const std::string& run_dir, const std::string& boot) {
    return run_dir + "/" + std::string(kPrefix) + boot + std::string(kSuffix);
}

std::vector<std::string> presence_boots(const std::string& run_dir) {
    std::vector<std::string> boots;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(run_dir, error)) {
        const std::string name = entry.path().filename();
        if (name.size() > kPrefix.size() + kSuffix.size() && name.starts_with(kPrefix) &&
            name.ends_with(kSuffix))
            boots.push_back(
                name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()));
    }
    return boots;
}

bool write_presence(const std::string& run_dir, const std::string& boot, const Devices& devices,
                    size_t users_max) {
    std::string bytes;
    for (const auto& [user, count] : devices) {
        if (bytes.size() / kRowBytes >= users_max) break;
        bytes.append(reinterpret_cast<const char*>(user.bytes.data()), user.bytes.size());
        char number[4];
        std::memcpy(number, &count, sizeof number);
        bytes.append(number, sizeof number);
    }
    const std::string path = presence_path(run_dir, boot), fresh = path + ".new";
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const bool good =
        fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    if (fd >= 0) ::close(fd);
    return good && ::rename(fresh.c_str(), path.c_str()) == 0;
}

std::optional<Devices> read_presence(const std::string& run_dir, const std::string& boot) {
    const auto bytes = base::read_file(presence_path(run_dir, boot), kFileMax);
    if (!bytes || bytes->size() % kRowBytes != 0) return std::nullopt;
    Devices devices;
    for (size_t at = 0; at < bytes->size(); at += kRowBytes) {
        store::Ulid user;
        uint32_t count = 0;
        std::memcpy(user.bytes.data(), bytes->data() + at, user.bytes.size());
        std::memcpy(&count, bytes->data() + at + user.bytes.size(), sizeof count);
        devices.emplace_hint(devices.end(), user, count);
    }
    return devices;
}

std::set<store::Ulid> present_users(const std::string& run_dir) {
    std::set<store::Ulid> out;
    for (const std::string& boot : presence_boots(run_dir)) {
        if (!lives(run_dir, boot)) continue;
        if (const auto devices = read_presence(run_dir, boot))
            for (const auto& [user, count] : *devices) out.insert(user);
    }
    return out;
}

}  // namespace parley::live
