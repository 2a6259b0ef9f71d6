#include "live.hpp"

#include "base/log.hpp"
#include "turns.hpp"

namespace parley::chatd {

Live::Live(App& app) : app_(app) {}
Live::~Live() = default;

void Live::retry() {
    if (follower_) return step();
    store::Reader* reader = app_.store->reader();
    if (!reader) return;
    const auto last = reader->last_change();
    if (!last) return;
    store::FollowerOptions options;
    options.changes_endpoint = app_.places.changes_endpoint();
    options.after = *last;
    auto opened = store::Follower::open(*reader, options);
    if (!opened) {
        base::log(base::Level::warn, "chatd.follow_failed", {{"error", opened.error().what}});
        return;
    }
    follower_ = std::move(*opened);
    watch_ = std::make_unique<http::FdWatch>(app_.loop, follower_->fd(), [this] { step(); });
}

void Live::step() {
    for (;;) {
        auto changes = follower_->next();
        if (!changes) {
            // A log that jumps: devices find out by their own places; we begin anew at its end.
            base::log(base::Level::warn, "chatd.follow_failed", {{"error", changes.error().what}});
            if (changes.error().code == base::Errc::corrupt) {
                watch_.reset();
                follower_.reset();
            }
            return;
        }
        if (changes->empty()) return;
        for (const store::Change& change : *changes) {
            const live::Route route = live::route_of(change);
            if (route.type == "message.cancel_asked")
                if (const auto turn = app_.turns->find(route.message)) turn->cancel(nullptr);
            if (route.user) hub_.wake(*route.user);
        }
    }
}

}  // namespace parley::chatd
