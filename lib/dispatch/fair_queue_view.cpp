// FairQueue, what it tells: who waits, where a flow stands, what outlives the process.
#include <algorithm>

#include "dispatch/fair_queue_impl.hpp"

namespace parley::dispatch {

bool FairQueue::waits(Ticket ticket) const {
    const auto at = requests_.find(ticket);
    return at != requests_.end() && !at->second.running;
}

bool FairQueue::any_waiting(ModelId model) const {
    if (pool_of(model) == UINT32_MAX) return false;
    for (const Pool::Tier& tier : pools_[pool_of(model)]->tiers) {
        const auto line = tier.lines.find(model);
        if (line != tier.lines.end() &&
            !(line->second.fresh.empty() && line->second.active.empty()))
            return true;
    }
    return false;
}

size_t FairQueue::waiting(const std::string& org) const {
    const auto at = orgs_.find(org);
    return at == orgs_.end() ? 0 : at->second->waiting;
}

double FairQueue::waiting_s(const std::string& org) const {
    const auto at = orgs_.find(org);
    return at == orgs_.end() ? 0 : at->second->waiting_s;
}

const Item* FairQueue::item(Ticket ticket) const {
    const auto at = requests_.find(ticket);
    return at == requests_.end() ? nullptr : &at->second.item;
}

FlowView FairQueue::view(const Flow& flow) const {
    FlowView out;
    out.org = flow.org->name;
    out.level = flow.level;
    out.pool = flow.pool->number;
    out.weight = flow.org->weight;
    out.tag = flow.tag;
    out.used_tag = flow.used_tag();
    out.waiting = flow.waiting;
    out.running = flow.running;
    out.waiting_s = flow.waiting_s;
    out.flight_s = flow.flight_s;
    out.used_s = flow.used_s;
    out.capped = flow.org->capped;
    return out;
}

FlowView FairQueue::flow(Ticket ticket) const { return view(*requests_.at(ticket).flow); }

std::vector<FlowView> FairQueue::flows() const {
    std::vector<const Flow*> all;
    for (const auto& [name, org] : orgs_)
        for (const Flow* flow : org->flows) all.push_back(flow);
    std::sort(all.begin(), all.end(),
              [](const Flow* a, const Flow* b) { return a->number < b->number; });
    std::vector<FlowView> out;
    out.reserve(all.size());
    for (const Flow* flow : all) out.push_back(view(*flow));
    return out;
}

double FairQueue::virtual_time(ModelId model) const {
    return pool_of(model) == UINT32_MAX ? 0
                                        : pools_[pool_of(model)]->tier(Level::online).virtual_time;
}

FairQueue::Place FairQueue::place(const std::string& name, pipe::Class cls, ModelId model) const {
    Place out;
    const auto known = orgs_.find(name);
    if (known != orgs_.end()) out.weight = known->second->weight;
    out.weights = out.weight;
    if (pool_of(model) == UINT32_MAX) return out;
    const Pool::Tier& tier = pools_[pool_of(model)]->tier(level_of(cls));
    out.weights = tier.weights + out.weight;
    const auto at = tier.flows.find(name);
    if (at == tier.flows.end()) return out;
    const Flow& flow = *at->second;
    if (flow.works()) out.weights = tier.weights;
    out.ahead = std::max(0.0, flow.used_tag() - tier.virtual_time);
    out.own_waiting = flow.waiting;
    out.own_running = flow.running;
    return out;
}

std::vector<FairQueue::Saved> FairQueue::save() const {
    std::vector<Saved> out;
    std::unordered_map<std::string, size_t> known[kLevels];
    const auto add = [&](const std::string& org, Level level, double beyond, double used_s) {
        if (beyond <= 0 && used_s <= 0) return;
        const auto [at, fresh] = known[static_cast<size_t>(level)].try_emplace(org, out.size());
        if (fresh) out.push_back({org, level, 0, 0});
        Saved& saved = out[at->second];
        saved.beyond = std::max(saved.beyond, beyond);
        saved.used_s += used_s;
    };
    for (const FlowView& flow :
         flows())  // what was charged ahead dies with the process: it is asked for again
        add(flow.org, flow.level, flow.used_tag - pools_[flow.pool]->tier(flow.level).virtual_time,
            flow.used_s);
    // Those of before that have not come yet.
    for (const auto& level : restored_)
        for (const auto& [org, saved] : level) add(org, saved.level, saved.beyond, saved.used_s);
    std::sort(out.begin(), out.end(), [](const Saved& a, const Saved& b) {
        return std::tie(b.beyond, b.used_s, a.org, a.level) <
               std::tie(a.beyond, a.used_s, b.org, b.level);
    });
    if (out.size() > kSavedMax) out.resize(kSavedMax);
    return out;
}

void FairQueue::restore(std::span<const Saved> saved) {
    for (const Saved& each : saved)
        if (each.beyond > 0 || each.used_s > 0)
            restored_[static_cast<size_t>(each.level)][each.org] = {
                each.org, each.level, std::max(0.0, each.beyond), std::max(0.0, each.used_s)};
}

}  // namespace parley::dispatch
