// Flows: whose turn it is, by what was used: one for each key that requests bring (their org), with a
// tag: compute-seconds over weight. The one whose tag is least is furthest behind, and goes first.
//
// Tags     charge() moves a tag on by measured time. A flow that comes back starts at its old tag or
//          at the least of those that have requests here, whichever is more: idle time banks nothing,
//          and what was used before is not forgotten. A tag that the router sends counts instead,
//          since it has seen the other workers: with a flow's first request here, and as a correction.
//          Without any request all tags are forgotten.
// Bounds   no tag that was sent is taken as more than `lag_s` behind the least or ahead of the most, so
//          that a router that starts from 0 again stops no one for long. `kIdleMost` flows without a
//          request are remembered, those furthest ahead.
// Units    seconds of this engine's iterations, over weight; weights are > 0, others count as 1.
// Owns     the flows; a pointer is good from enter() to the leave() that belongs to it.
// Threads  the engine's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace parley::engine {

struct Flow {
    double weight = 1;  // of the request that came last
    double tag = 0;
    uint32_t live = 0;     // requests: waiting ones too
    uint32_t running = 0;  // of these, admitted
};

class Flows {
  public:
    static constexpr size_t kIdleMost = 1024;

    explicit Flows(double lag_s) : lag_s_(lag_s) {}

    // One request more. `tag`: as the router sent it; 0: it sent none.
    Flow* enter(const std::string& key, double weight, double tag);
    void leave(Flow& flow);
    static void charge(Flow& flow, double seconds) { flow.tag += seconds / flow.weight; }
    void correct(Flow& flow, double tag) const { flow.tag = within(tag, &flow); }

    size_t known() const { return flows_.size(); }

  private:
    double within(double tag, const Flow* own) const;
    void forget();

    double lag_s_;
    std::unordered_map<std::string, Flow> flows_;
    size_t live_ = 0;    // flows with requests
    double least_ = 0;   // tag of the least of them, when last looked at; never falls
};

}  // namespace parley::engine
