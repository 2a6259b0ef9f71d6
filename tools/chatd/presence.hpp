// Presence: how many devices of a user are connected, over all chatd of the state.
//
// Each chatd tells its own counts in a file (live/presence.hpp) and reads the others'; whoever meets a dead
// one's removes it. Followers read them too. A change is told after kEveryMs at the latest, so that a device that comes back at
// once was never away.
// Bounds   usersMax users a chatd are told to others; of more, each chatd knows its own devices only.
//          kChatdsMax files are read.
// Threads  the loop's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "live/presence.hpp"

namespace parley::chatd {

class App;

class Presence {
  public:
    static constexpr int64_t kEveryMs = 250;
    static constexpr size_t kChatdsMax = 32;

    explicit Presence(App& app);
    ~Presence();
    // A device of the user, until the result is dropped.
    std::shared_ptr<void> enter(const store::Ulid& user);
    // As last told: what all devices of the user are told alike.
    uint32_t devices(const store::Ulid& user) const;
    // Rises when any count may have changed.
    uint64_t generation() const { return generation_; }
    void tick(int64_t now_ms);

  private:
    using Counts = live::Devices;
    struct Other {
        uint64_t inode = 0;
        int64_t changed_ns = 0;
        Counts counts;
        bool seen = false;
    };
    void write();
    bool read_others();

    App& app_;
    // Shared with the devices, which may outlive us.
    std::shared_ptr<Counts> own_ = std::make_shared<Counts>();
    Counts written_;
    std::map<std::string, Other> others_;  // by boot id
    uint64_t generation_ = 1;
    int64_t looked_ms_ = 0;
    bool entered_ = false;    // somebody who is to be told how many there are
    bool unwritten_ = false;  // the last write failed
};

}  // namespace parley::chatd
