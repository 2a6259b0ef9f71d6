#include "engine/flows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace parley::engine {

// `tag`, as near as lag_s to those that have requests, `own` not among them.
double Flows::within(double tag, const Flow* own) const {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    for (const auto& [key, flow] : flows_) {
        if (flow.live == 0 || &flow == own) continue;
        least = std::min(least, flow.tag);
        most = std::max(most, flow.tag);
    }
    if (!std::isfinite(tag)) tag = 0;
    return most < least ? tag : std::clamp(tag, least - lag_s_, most + lag_s_);
}

Flow* Flows::enter(const std::string& key, double weight, double tag) {
    const auto [found, fresh] = flows_.try_emplace(key);
    Flow& flow = found->second;
    if (flow.live == 0) {
        if (live_ > 0) {
            double least = std::numeric_limits<double>::infinity();
            for (const auto& [other, one] : flows_)
                if (one.live > 0) least = std::min(least, one.tag);
            least_ = std::max(least_, least);
        }
        flow.tag = tag > 0 ? within(tag, &flow) : std::max(flow.tag, least_);
        ++live_;
    }
    flow.weight = weight > 0 && std::isfinite(weight) ? weight : 1;
    ++flow.live;
    return &flow;
}

void Flows::leave(Flow& flow) {
    if (--flow.live > 0) return;
    if (--live_ == 0) {
        flows_.clear();
        least_ = 0;
    } else if (flows_.size() - live_ > kIdleMost) {
        forget();
    }
}

// The idle flow that has least to answer for.
void Flows::forget() {
    auto least = flows_.end();
    for (auto it = flows_.begin(); it != flows_.end(); ++it)
        if (it->second.live == 0 && (least == flows_.end() || it->second.tag < least->second.tag))
            least = it;
    if (least != flows_.end()) flows_.erase(least);
}

}  // namespace parley::engine
