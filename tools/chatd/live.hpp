// Live: chatd as a follower of the change log: it wakes the devices that are connected here, and hears
// what concerns the answers made here.
//
// Threads  the loop's.
#pragma once

#include <memory>

#include "app.hpp"
#include "live/feed.hpp"
#include "store/follower.hpp"

namespace parley::chatd {

class Live {
  public:
    explicit Live(App& app);
    ~Live();
    // Each second: opens the follower once there is a store, and looks for what no publication told.
    void retry();
    live::Hub& hub() { return hub_; }

  private:
    void step();

    App& app_;
    live::Hub hub_;
    std::unique_ptr<store::Follower> follower_;
    std::unique_ptr<http::FdWatch> watch_;
};

}  // namespace parley::chatd
