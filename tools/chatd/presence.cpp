#include "presence.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "app.hpp"
#include "base/log.hpp"
#include "turns.hpp"

namespace parley::chatd {

Presence::Presence(App& app) : app_(app) {}
Presence::~Presence() { ::unlink(live::presence_path(app_.places.run(), app_.owner).c_str()); }

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
    const bool failed = !live::write_presence(app_.places.run(), app_.owner, written_,
                                              app_.options.presence_users_max);
    if (failed && !unwritten_)
        base::log(base::Level::warn, "chatd.presence_unwritten", {{"folder", app_.places.run()}});
    unwritten_ = failed;
}

// True: what others tell has changed.
bool Presence::read_others() {
    bool changed = false;
    for (auto& [boot, other] : others_) other.seen = false;
    const std::string run = app_.places.run();
    for (const std::string& boot : live::presence_boots(run)) {
        if (boot == app_.owner) continue;
        const std::string path = live::presence_path(run, boot);
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
        auto counts = live::read_presence(run, boot);
        if (!counts) continue;
        other.inode = info.st_ino;
        other.changed_ns = when;
        other.counts = std::move(*counts);
        changed = true;
    }
    return std::erase_if(others_, [](const auto& one) { return !one.second.seen; }) > 0 || changed;
}

}  // namespace parley::chatd
