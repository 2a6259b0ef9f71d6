// What a fair queue is made of: shared by fair_queue.cpp, which changes it, and fair_queue_view.cpp, which tells of it.
#pragma once

#include <utility>

#include "dispatch/fair_queue.hpp"

namespace parley::dispatch {

// Requests of a flow for one model, by class: deadline first, then arrival.
struct FairQueue::Lane {
    ModelId model;
    std::array<std::set<std::pair<int64_t, Ticket>>, 2> waiting;
    bool indexed = false;
    bool empty() const { return waiting[0].empty() && waiting[1].empty(); }
};

struct FairQueue::Flow {
    Org* org;
    Pool* pool;
    Level level;
    uint64_t number;
    double tag = 0;
    double flight_s = 0;  // charged and unused
    double used_s = 0;
    double waiting_s = 0;
    uint32_t waiting = 0, running = 0;
    std::array<double, 2> class_tag{};
    std::array<uint32_t, 2> class_waiting{};
    std::vector<Lane> lanes;
    // As the pool's sets have it.
    double indexed_tag = 0, indexed_used = 0, indexed_weight = 0;
    bool indexed_fresh = false, indexed_waiting = false, indexed_working = false;

    bool works() const { return waiting > 0 || running > 0; }
    double used_tag() const;
    Lane& lane(ModelId model) {
        for (Lane& each : lanes)
            if (each.model == model) return each;
        lanes.push_back({model, {}, false});
        return lanes.back();
    }
};

struct FairQueue::Org {
    std::string name;
    double weight = 1;
    uint32_t running = 0, waiting = 0;
    double flight_s = 0, waiting_s = 0;
    bool capped = false;
    std::vector<Flow*> flows;
};

inline double FairQueue::Flow::used_tag() const { return tag - flight_s / org->weight; }

struct FairQueue::Pool {
    uint32_t number = 0;
    double virtual_time = 0;
    struct Line {  // flows with requests for one model, eligible ones
        std::set<Key> fresh, active;
    };
    struct Tier {
        double tag = 0;
        uint32_t waiting = 0;
        bool started = false;
        double weights = 0;  // of flows with work
        double last = 0;     // the greatest tag of a flow that has become idle
        std::unordered_map<ModelId, Line> lines;
        std::set<Key> waiting_used;  // by used_tag
        double virtual_time = 0;
        std::unordered_map<std::string, std::unique_ptr<Flow>> flows;
        size_t working = 0;
    };
    std::array<Tier, kLevels> tiers;
    Tier& tier(Level level) { return tiers[static_cast<size_t>(level)]; }
    const Tier& tier(Level level) const { return tiers[static_cast<size_t>(level)]; }
};

struct FairQueue::Request {
    Item item;
    Flow* flow = nullptr;
    bool running = false;
    double charged_s = 0, used_s = 0;
    std::pair<int64_t, Ticket> key;
};

}  // namespace parley::dispatch
