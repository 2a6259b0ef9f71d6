#include "dispatch/fair_queue_impl.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

namespace parley::dispatch {

namespace {

constexpr size_t kIdleMax = 4096;  // idle flows of a pool that are kept, at most twice

// The queue of a class inside its flow.
size_t slot_of(pipe::Class cls) { return cls == pipe::Class::interactive ? 1 : 0; }

}  // namespace

FairQueue::FairQueue(FairOptions options) : options_(options) {}
FairQueue::~FairQueue() = default;

FairQueue::Org& FairQueue::org_of(const std::string& name) {
    auto& org = orgs_[name];
    if (!org) {
        org = std::make_unique<Org>();
        org->name = name;
    }
    return *org;
}

void FairQueue::set_weight(const std::string& name, double weight) {
    assert(weight > 0);
    Org& org = org_of(name);
    if (org.weight == weight) return;
    // What is in flight was charged at the old weight: it stands at the new one.
    for (Flow* flow : org.flows) flow->tag += flow->flight_s * (1 / weight - 1 / org.weight);
    org.weight = weight;
    for (Flow* flow : org.flows) index(*flow);
}

FairQueue::Pool& FairQueue::pool_for(ModelId model) {
    if (model >= pool_of_.size()) pool_of_.resize(model + 1, UINT32_MAX);
    if (pool_of_[model] == UINT32_MAX) {
        pool_of_[model] = static_cast<uint32_t>(pools_.size());
        pools_.push_back(std::make_unique<Pool>());
        pools_.back()->number = pool_of_[model];
    }
    return *pools_[pool_of_[model]];
}

uint32_t FairQueue::pool_of(ModelId model) const {
    return model < pool_of_.size() ? pool_of_[model] : UINT32_MAX;
}

void FairQueue::join(std::span<const ModelId> models) {
    if (models.empty()) return;
    Pool& into = pool_for(models.front());
    for (const ModelId model : models.subspan(1)) {
        Pool& from = pool_for(model);
        if (&from != &into) merge(into, from);
    }
}

FairQueue::Flow& FairQueue::flow_for(const std::string& name, Level level, Pool& pool) {
    Pool::Tier& tier = pool.tier(level);
    auto& flow = tier.flows[name];
    if (!flow) {
        flow = std::make_unique<Flow>();
        flow->org = &org_of(name);
        flow->pool = &pool;
        flow->level = level;
        flow->number = next_flow_++;
        flow->tag = tier.virtual_time;
        auto& restored = restored_[static_cast<size_t>(level)];
        if (const auto at = restored.find(name); at != restored.end()) {
            flow->tag += at->second.beyond;
            flow->used_s = at->second.used_s;
            restored.erase(at);
        }
        flow->org->flows.push_back(flow.get());
    }
    return *flow;
}

bool FairQueue::at_cap(const Org& org) const {
    return (options_.running_max > 0 && org.running >= options_.running_max) ||
           (options_.flight_s_max > 0 && org.running > 0 && org.flight_s >= options_.flight_s_max);
}

// Brings the pool's sets in step with the flow. Only what has changed is touched: a start leaves what
// was used as it is, and most changes leave the lanes.
void FairQueue::index(Flow& flow, bool gone) {
    Pool::Tier& tier = flow.pool->tier(flow.level);
    const double used = flow.used_tag();
    const bool fresh = flow.running == 0;
    const bool waiting = !gone && flow.waiting > 0 && !flow.org->capped;
    const bool working = !gone && flow.works();
    if (!flow.works()) tier.last = std::max(tier.last, flow.tag);
    const bool moved = flow.tag != flow.indexed_tag || fresh != flow.indexed_fresh;
    for (Lane& lane : flow.lanes) {
        const bool stays = waiting && !lane.empty();
        if (lane.indexed && (moved || !stays)) {
            auto& line = tier.lines[lane.model];
            (flow.indexed_fresh ? line.fresh : line.active)
                .erase({flow.indexed_tag, flow.number, &flow});
            lane.indexed = false;
        }
        if (stays && !lane.indexed) {
            auto& line = tier.lines[lane.model];
            (fresh ? line.fresh : line.active).insert({flow.tag, flow.number, &flow});
            lane.indexed = true;
        }
    }
    if (flow.indexed_waiting && (!waiting || used != flow.indexed_used))
        tier.waiting_used.erase({flow.indexed_used, flow.number, &flow});
    if (waiting && (!flow.indexed_waiting || used != flow.indexed_used))
        tier.waiting_used.insert({used, flow.number, &flow});
    if (flow.indexed_working) {
        --tier.working;
        tier.weights -= flow.indexed_weight;
        if (tier.working == 0) tier.weights = 0;  // no sum of rounding errors
    }
    if (working) {
        ++tier.working;
        tier.weights += flow.org->weight;
    }
    flow.indexed_tag = flow.tag;
    flow.indexed_used = used;
    flow.indexed_weight = flow.org->weight;
    flow.indexed_fresh = fresh;
    flow.indexed_waiting = waiting;
    flow.indexed_working = working;
}

void FairQueue::advance(Pool& pool) {
    for (Pool::Tier& tier : pool.tiers) {
        // Until something has been started there is no service to measure: those who come first
        // (after a restart, with tags of before) do not set the others' beginning.
        if (!tier.started) continue;
        double to = tier.virtual_time;
        if (!tier.waiting_used.empty())
            to = tier.waiting_used.begin()->tag;
        else if (tier.working == 0)
            to = tier.last;
        tier.virtual_time = std::max(tier.virtual_time, to);
    }
    if (pool.tiers[0].flows.size() + pool.tiers[1].flows.size() >
        2 * (kIdleMax + pool.tiers[0].working + pool.tiers[1].working))
        forget(pool);
}

// An idle flow at or behind V is as good as a new one.
void FairQueue::forget(Pool& pool) {
    for (Pool::Tier& tier : pool.tiers) {
        for (auto at = tier.flows.begin(); at != tier.flows.end();) {
            Flow& flow = *at->second;
            if (flow.works() || flow.tag > tier.virtual_time) {
                ++at;
                continue;
            }
            index(flow, true);
            std::erase(flow.org->flows, &flow);
            if (flow.org->flows.empty() && flow.org->weight == 1) orgs_.erase(flow.org->name);
            at = tier.flows.erase(at);
        }
    }
}

void FairQueue::enqueue(Ticket ticket, Request& request) {
    const Item& item = request.item;
    Pool& pool = pool_for(item.model);
    advance(pool);
    const Level level = level_of(item.cls);
    Flow& flow = flow_for(item.org, level, pool);
    Pool::Tier& tier = pool.tier(level);
    request.flow = &flow;
    request.running = false;
    if (flow.waiting == 0 && !item.head) flow.tag = std::max(flow.tag, tier.virtual_time);
    if (tier.waiting == 0) {
        const Pool::Tier& other = pool.tiers[1 - static_cast<size_t>(level)];
        if (other.waiting > 0) tier.tag = std::max(tier.tag, other.tag);
    }
    const size_t slot = slot_of(item.cls);
    if (flow.class_waiting[slot] == 0 && flow.class_waiting[1 - slot] > 0)
        flow.class_tag[slot] = std::max(flow.class_tag[slot], flow.class_tag[1 - slot]);
    const int64_t by = item.head               ? std::numeric_limits<int64_t>::min()
                       : item.deadline_ms == 0 ? std::numeric_limits<int64_t>::max()
                                               : item.deadline_ms;
    request.key = {by, ticket};
    flow.lane(item.model).waiting[slot].insert(request.key);
    if (item.deadline_ms != 0) deadlines_.insert({item.deadline_ms, ticket});
    ++flow.class_waiting[slot];
    ++flow.waiting;
    ++tier.waiting;
    ++flow.org->waiting;
    ++waiting_;
    ++waiting_of_[static_cast<size_t>(item.cls)];
    flow.waiting_s += item.predicted_s;
    flow.org->waiting_s += item.predicted_s;
    waiting_s_ += item.predicted_s;
    index(flow);
}

// From the queues; index() is the caller's.
void FairQueue::dequeue(Ticket ticket, Request& request) {
    Flow& flow = *request.flow;
    const Item& item = request.item;
    const size_t slot = slot_of(item.cls);
    flow.lane(item.model).waiting[slot].erase(request.key);
    if (item.deadline_ms != 0) deadlines_.erase({item.deadline_ms, ticket});
    --flow.class_waiting[slot];
    --flow.waiting;
    --flow.pool->tier(flow.level).waiting;
    --flow.org->waiting;
    --waiting_;
    --waiting_of_[static_cast<size_t>(item.cls)];
    flow.waiting_s = flow.waiting == 0 ? 0 : flow.waiting_s - item.predicted_s;
    flow.org->waiting_s = flow.org->waiting == 0 ? 0 : flow.org->waiting_s - item.predicted_s;
    waiting_s_ = waiting_ == 0 ? 0 : waiting_s_ - item.predicted_s;
}

Ticket FairQueue::add(Item item) {
    const Ticket ticket = next_ticket_++;
    Request& request = requests_[ticket];
    request.item = std::move(item);
    enqueue(ticket, request);
    return ticket;
}

Ticket FairQueue::head_of(const Flow& flow, ModelId model) const {
    for (const Lane& lane : flow.lanes) {
        if (lane.model != model) continue;
        const auto& [streaming, interactive] = lane.waiting;
        if (streaming.empty()) return interactive.begin()->second;
        if (interactive.empty()) return streaming.begin()->second;
        constexpr int64_t kHead = std::numeric_limits<int64_t>::min();
        if (interactive.begin()->first == kHead) return interactive.begin()->second;
        if (streaming.begin()->first == kHead) return streaming.begin()->second;
        return flow.class_tag[1] <= flow.class_tag[0] ? interactive.begin()->second
                                                      : streaming.begin()->second;
    }
    return 0;
}

std::optional<Ticket> FairQueue::pick(std::span<const ModelId> models, bool fresh, Level least,
                                      const std::function<double(Ticket)>& gain) const {
    if (models.empty() || pool_of(models.front()) == UINT32_MAX) return std::nullopt;
    const Pool& pool = *pools_[pool_of(models.front())];
    std::array<Level, kLevels> order{Level::online, Level::batch};
    if (pool.tier(Level::batch).tag < pool.tier(Level::online).tag) std::swap(order[0], order[1]);
    for (const Level level : order) {
        if (level > least) continue;
        const Pool::Tier& tier = pool.tier(level);
        const Key* first_fresh = nullptr;
        ModelId fresh_model = 0;
        double low = std::numeric_limits<double>::infinity();
        bool any_active = false;
        for (const ModelId model : models) {
            const auto line = tier.lines.find(model);
            if (line == tier.lines.end()) continue;
            if (!line->second.fresh.empty()) {
                const Key& key = *line->second.fresh.begin();
                low = std::min(low, key.tag);
                if (!first_fresh || key < *first_fresh) {
                    first_fresh = &key;
                    fresh_model = model;
                }
            }
            if (!line->second.active.empty()) {
                low = std::min(low, line->second.active.begin()->tag);
                any_active = true;
            }
        }
        if (first_fresh && first_fresh->tag <= low + options_.quantum_s)
            return head_of(*first_fresh->flow, fresh_model);
        if (!any_active || fresh) continue;
        Ticket best = 0;
        double best_gain = 0;
        Key best_key{};
        for (const ModelId model : models) {
            const auto line = tier.lines.find(model);
            if (line == tier.lines.end()) continue;
            uint32_t looked = 0;
            for (const Key& key : line->second.active) {
                if (key.tag > low + options_.quantum_s || looked++ == options_.look_max) break;
                const Ticket ticket = head_of(*key.flow, model);
                const double gained = gain ? gain(ticket) : 0;
                const bool better =
                    best == 0 || gained > best_gain || (gained == best_gain && key < best_key);
                if (better) {
                    best = ticket;
                    best_gain = gained;
                    best_key = key;
                }
                if (!gain) break;  // the least tag
            }
        }
        if (best != 0) return best;
    }
    return std::nullopt;
}

// Moves the flow's tag, its level's and its class's.
void FairQueue::charge(Flow& flow, Request& request, double delta_s) {
    const double weight = flow.org->weight;
    flow.tag += delta_s / weight;
    Pool::Tier& tier = flow.pool->tier(flow.level);
    tier.tag += delta_s / (flow.level == Level::online ? options_.online_share : 1);
    const size_t slot = slot_of(request.item.cls);
    flow.class_tag[slot] += delta_s / (slot == 1 ? options_.interactive_share : 1);
}

void FairQueue::mention(const Flow& flow) {
    for (const Lane& lane : flow.lanes)
        if (!lane.empty()) released_.push_back(lane.model);
}

std::vector<ModelId> FairQueue::take_released() { return std::exchange(released_, {}); }

void FairQueue::recheck(Org& org) {
    const bool capped = at_cap(org);
    if (capped == org.capped) return;
    org.capped = capped;
    for (Flow* flow : org.flows) {
        if (!capped && flow->waiting > 0) {
            flow->tag = std::max(flow->tag, flow->pool->tier(flow->level).virtual_time);
            mention(*flow);
        }
        index(*flow);
    }
}

void FairQueue::start(Ticket ticket, double predicted_s) {
    Request& request = requests_.at(ticket);
    assert(!request.running);
    Flow& flow = *request.flow;
    dequeue(ticket, request);
    request.running = true;
    request.charged_s = predicted_s;
    request.used_s = 0;
    Pool::Tier& tier = flow.pool->tier(flow.level);
    tier.started = true;
    // Nobody waits for what this one gets: V is where it starts, as in plain start-time queueing.
    if (tier.waiting == 0) tier.virtual_time = std::max(tier.virtual_time, flow.used_tag());
    charge(flow, request, request.charged_s);
    flow.flight_s += request.charged_s;
    flow.org->flight_s += request.charged_s;
    ++flow.running;
    ++flow.org->running;
    index(flow);
    recheck(*flow.org);
    advance(*flow.pool);
}

void FairQueue::progress(Ticket ticket, double used_s) {
    const auto at = requests_.find(ticket);
    if (at == requests_.end() || !at->second.running) return;
    Request& request = at->second;
    if (used_s <= request.used_s) return;
    Flow& flow = *request.flow;
    const double more = std::max(0.0, used_s - request.charged_s);
    charge(flow, request, more);
    request.charged_s += more;
    const double spent = used_s - request.used_s - more;
    flow.flight_s -= spent;
    flow.org->flight_s -= spent;
    flow.used_s += used_s - request.used_s;
    request.used_s = used_s;
    index(flow);
    recheck(*flow.org);
    advance(*flow.pool);
}

// Ends the run: the charge becomes what was used.
void FairQueue::release(Request& request, double used_s) {
    Flow& flow = *request.flow;
    charge(flow, request, used_s - request.charged_s);
    const double unspent = request.charged_s - request.used_s;
    flow.flight_s -= unspent;
    flow.org->flight_s -= unspent;
    flow.used_s += used_s - request.used_s;
    --flow.running;
    --flow.org->running;
    if (flow.running == 0) {
        flow.flight_s = 0;  // no sum of rounding errors
        mention(flow);
    }
    if (flow.org->running == 0) flow.org->flight_s = 0;
    request.running = false;
    request.charged_s = request.used_s = 0;
}

void FairQueue::settle(Ticket ticket, double used_s) {
    const auto at = requests_.find(ticket);
    if (at == requests_.end() || !at->second.running) return;
    Flow& flow = *at->second.flow;
    release(at->second, used_s);
    requests_.erase(at);
    index(flow);
    recheck(*flow.org);
    advance(*flow.pool);
}

void FairQueue::requeue(Ticket ticket, double used_s, double predicted_s, int64_t deadline_ms) {
    const auto at = requests_.find(ticket);
    if (at == requests_.end() || !at->second.running) return;
    Request& request = at->second;
    Flow& flow = *request.flow;
    release(request, used_s);
    index(flow);
    request.item.head = true;
    request.item.predicted_s = predicted_s;
    request.item.deadline_ms = deadline_ms;
    enqueue(ticket, request);
    recheck(*flow.org);
    advance(*flow.pool);
}

bool FairQueue::remove(Ticket ticket) {
    const auto at = requests_.find(ticket);
    if (at == requests_.end() || at->second.running) return false;
    Flow& flow = *at->second.flow;
    dequeue(ticket, at->second);
    requests_.erase(at);
    index(flow);
    advance(*flow.pool);
    return true;
}

std::vector<Ticket> FairQueue::expire(int64_t now_ms) {
    std::vector<Ticket> out;
    while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
        out.push_back(deadlines_.begin()->second);
        remove(out.back());
    }
    return out;
}

void FairQueue::merge(Pool& into, Pool& from) {
    std::unordered_map<const Flow*, Flow*> became;
    std::vector<std::unique_ptr<Flow>> gone;
    for (size_t i = 0; i < kLevels; ++i) {
        Pool::Tier& to = into.tiers[i];
        Pool::Tier& old = from.tiers[i];
        std::vector<std::unique_ptr<Flow>> moved;
        for (auto& [name, flow] : old.flows) {
            index(*flow, true);
            moved.push_back(std::move(flow));
        }
        // In the order in which they came: the map's own is no order.
        std::sort(moved.begin(), moved.end(),
                  [](const auto& a, const auto& b) { return a->number < b->number; });
        old.flows.clear();
        to.waiting += old.waiting;
        to.started |= old.started;
        for (auto& flow : moved) {
            const double beyond = flow->tag - old.virtual_time;
            auto& there = to.flows[flow->org->name];
            if (!there) {
                flow->pool = &into;
                flow->tag = to.virtual_time + beyond;
                there = std::move(flow);
                index(*there);
                continue;
            }
            Flow& same = *there;
            same.tag += std::max(0.0, beyond);
            same.flight_s += flow->flight_s;
            same.used_s += flow->used_s;
            same.waiting_s += flow->waiting_s;
            same.waiting += flow->waiting;
            same.running += flow->running;
            for (size_t c = 0; c < 2; ++c) {
                same.class_tag[c] = std::max(same.class_tag[c], flow->class_tag[c]);
                same.class_waiting[c] += flow->class_waiting[c];
            }
            for (Lane& lane : flow->lanes)
                for (size_t c = 0; c < 2; ++c)
                    same.lane(lane.model).waiting[c].merge(lane.waiting[c]);
            became[flow.get()] = &same;
            std::erase(same.org->flows, flow.get());
            index(same);
            gone.push_back(std::move(flow));
        }
    }
    for (auto& [ticket, request] : requests_)
        if (const auto at = became.find(request.flow); at != became.end())
            request.flow = at->second;
    for (uint32_t& pool : pool_of_)
        if (pool == from.number) pool = into.number;
}

}  // namespace parley::dispatch
