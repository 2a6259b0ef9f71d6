// Feed: what a user's devices are told while they are connected: the user's part of the change log, in
// the words of the conversations API.
//
// Truth    the store's table `feed`. What is published, and woken here, is only "look again": a device
//          that is slow, or was away, reads on from its own place, and nothing is kept for it in memory.
// Place    the number of a change, rising and not dense for one user.
// Resync   a place that the feed may not reach back to, or that lies too far behind or ahead of the log:
//          the device is told to read everything anew and goes on from now.
// Threads  one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/reader.hpp"

namespace parley::live {

struct Event {
    uint64_t seq = 0;
    std::string type;  // conversation.created, message.finished, …
    std::string json;  // one line; its "type" is the event's
};

// Nothing for a change that is no device's business.
std::optional<Event> event_of(const store::Change& change);
// Whose feed a change belongs to, and the message of a wish to cancel.
struct Route {
    std::optional<store::Ulid> user;
    std::string type;
    std::string message;  // text form, "" none
};
Route route_of(const store::Change& change);

enum class Start : uint8_t { follow, resync };
struct Place {
    Start start = Start::follow;
    uint64_t after = 0;  // the next event is later than this
};
// `since`: what the device says it has; none: it begins now. `window_ms`: how far back the feed reaches
// for certain; `events_max`: more than that is not replayed.
store::Result<Place> place_of(store::Reader& reader, const store::Ulid& user,
                              std::optional<uint64_t> since, int64_t now_ms, int64_t window_ms,
                              size_t events_max);

// Who waits for whose feed.
class Hub {
  public:
    explicit Hub(size_t per_user_max = 100) : per_user_max_(per_user_max) {}
    // A place among a user's listeners; letting go of it leaves. Null: too many.
    std::shared_ptr<void> listen(const store::Ulid& user, std::function<void()> wake);
    void wake(const store::Ulid& user);
    size_t listeners() const;

  private:
    using Wakes = std::map<uint64_t, std::shared_ptr<std::function<void()>>>;
    size_t per_user_max_;
    uint64_t next_ = 1;
    // Shared with the listeners' places, which may outlive the hub.
    std::shared_ptr<std::map<store::Ulid, Wakes>> users_ =
        std::make_shared<std::map<store::Ulid, Wakes>>();
};

}  // namespace parley::live
