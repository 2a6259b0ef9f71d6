#include "presence.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "app.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "turns.hpp"

namespace parley::chatd {

namespace {

constexpr std::string_view kPrefix = "chatd-", kSuffix = ".presence";
constexpr size_t kRowBytes = 20;  // 16 of the user, 4 of the count

}  // namespace

Presence::Presence(App& app) : app_(app) {}
Presence::~Presence() { ::unlink(path_of(app_.owner).c_str()); }

std::string Presence::path_of(const std::string& boot) const {
    return app_.places.run() + "/" + std::string(kPrefix) + boot + std::string(kSuffix);
}

std::shared_ptr<void> Presence::enter(const store::Ulid& user) {
    ++(*own_)[user];
    entered_ = true;
    return std::shared_ptr<void>(nullptr, [own = own_, user](void*) {
        const auto found = own->find(user);
        if (found != own->end() && --found->second == 0) own->erase(found);
    });
}

uint32_t Presence::devices(const store::Ulid& user) const {
    const auto of = [&](const Counts& counts) {
        const auto found = counts.find(user);
        return found == counts.end() ? 0u : found->second;
    };
    uint32_t total = of(written_);
    for (const auto& [boot, other] : others_) total += of(other.counts);
    return total;
}

void Presence::tick(int64_t now_ms) {
    if (now_ms - looked_ms_ < kEveryMs) return;
    looked_ms_ = now_ms;
    const bool changed = *own_ != written_;
    if (changed) written_ = *own_;
    if (changed || unwritten_) write();
    if (read_others() || changed || std::exchange(entered_, false)) ++generation_;
}

void Presence::write() {
    std::string bytes;
    const size_t most = app_.options.presence_users_max;
    for (const auto& [user, count] : written_) {
        if (bytes.size() / kRowBytes >= most) break;
        bytes.append(reinterpret_cast<const char*>(user.bytes.data()), user.bytes.size());
        char number[4];
        std::memcpy(number, &count, sizeof number);
        bytes.append(number, sizeof number);
    }
    const std::string path = path_of(app_.owner), fresh = path + ".new";
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const bool good =
        fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    if (fd >= 0) ::close(fd);
    const bool failed = !good || ::rename(fresh.c_str(), path.c_str()) != 0;
    if (failed && !unwritten_)
        base::log(base::Level::warn, "chatd.presence_unwritten", {{"path", path}});
    unwritten_ = failed;
}

// True: what others tell has changed.
bool Presence::read_others() {
    bool changed = false;
    for (auto& [boot, other] : others_) other.seen = false;
    DIR* dir = ::opendir(app_.places.run().c_str());
    if (!dir) return false;
    while (const dirent* entry = ::readdir(dir)) {
        const std::string_view name = entry->d_name;
        if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
        const std::string boot(
            name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()));
        if (boot == app_.owner) continue;
        const std::string path = path_of(boot);
        if (!app_.turns->owner_lives(boot)) {
            ::unlink(path.c_str());
            continue;
        }
        if (!others_.count(boot) && others_.size() >= kChatdsMax) continue;
        struct stat info {};
        if (::stat(path.c_str(), &info) != 0) continue;
        Other& other = others_[boot];
        other.seen = true;
        const int64_t when = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec;
        if (other.inode == info.st_ino && other.changed_ns == when) continue;
        const auto bytes = base::read_file(path, 16u << 20);
        if (!bytes || bytes->size() % kRowBytes != 0) continue;
        Counts counts;
        for (size_t at = 0; at < bytes->size(); at += kRowBytes) {
            store::Ulid user;
            uint32_t count = 0;
            std::memcpy(user.bytes.data(), bytes->data() + at, user.bytes.size());
            std::memcpy(&count, bytes->data() + at + user.bytes.size(), sizeof count);
            counts.emplace_hint(counts.end(), user, count);
        }
        other.inode = info.st_ino;
        other.changed_ns = when;
        other.counts = std::move(counts);
        changed = true;
    }
    ::closedir(dir);
    return std::erase_if(others_, [](const auto& one) { return !one.second.seen; }) > 0 || changed;
}

}  // namespace parley::chatd
