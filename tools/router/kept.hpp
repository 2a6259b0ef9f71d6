// Kept: what of a router outlives its process, written each second by the one that serves.
//
// Flows    what each has used, in the store: whoever serves next on it begins there.
// Rollouts what was counted since their last step (steps are in the store, see Registrar), in a file of
//          JSON Lines: at most a second of it is lost with the process.
// Errors   logged; what cannot be read costs no more than that all flows begin alike, and that a rollout
//          counts from its last step.
// Threads  the router's loop. Not moved: replies of the store point here.
#pragma once

#include <string>

#include "dispatch/router.hpp"
#include "store/client.hpp"

namespace parley::router {

class Kept {
  public:
    // `rollouts`: path of the file; its folder is there.
    Kept(dispatch::Router& router, store::Client& client, std::string rollouts)
        : router_(router), client_(client), rollouts_(std::move(rollouts)) {}
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;

    void restore();  // flows are asked for at once, and there when convstore answers
    void save();     // what has changed
    bool pending() const { return pending_; }  // flows are on their way

  private:
    void save_flows();
    void save_rollouts();
    void restore_rollouts();
    void use_flows(const std::string& json);

    dispatch::Router& router_;
    store::Client& client_;
    const std::string rollouts_;
    bool flows_known_ = false;  // what was there has been read: from now on it may be replaced
    bool pending_ = false;
    std::string last_flows_, last_rollouts_;
};

}  // namespace parley::router
