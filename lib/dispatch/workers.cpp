#include "dispatch/workers.hpp"

#include <algorithm>

namespace parley::dispatch {
namespace {

bool serves(const Worker& worker, const std::string& model) {
    return !worker.draining &&
           std::find(worker.models.begin(), worker.models.end(), model) != worker.models.end();
}

}  // namespace

void Workers::join(pipe::Peer peer, const pipe::HelloMeta& hello) {
    Worker& worker = workers_[peer];
    worker.peer = peer;
    worker.name = hello.name;
    worker.boot = hello.boot;
    worker.slots = std::max<uint32_t>(hello.slots, 1);
    worker.models.clear();
    for (const auto& model : hello.models) worker.models.push_back(model.hash);
}

void Workers::leave(pipe::Peer peer) { workers_.erase(peer); }

void Workers::drain(pipe::Peer peer) {
    if (const auto at = workers_.find(peer); at != workers_.end()) at->second.draining = true;
}

void Workers::report(pipe::Peer peer, const pipe::StatusMeta& status) {
    const auto at = workers_.find(peer);
    if (at == workers_.end()) return;
    at->second.status = status;
    at->second.draining |= status.draining;
}

void Workers::started(pipe::Peer peer) {
    if (const auto at = workers_.find(peer); at != workers_.end()) ++at->second.in_flight;
}

void Workers::ended(pipe::Peer peer, double cost_s) {
    const auto at = workers_.find(peer);
    if (at == workers_.end()) return;
    if (at->second.in_flight > 0) --at->second.in_flight;
    ++at->second.served;
    at->second.cost_s += cost_s;
}

std::optional<pipe::Peer> Workers::choose(const std::string& model) const {
    const Worker* best = nullptr;
    for (const auto& [peer, worker] : workers_) {
        if (!serves(worker, model) || worker.in_flight >= worker.slots) continue;
        if (!best) {
            best = &worker;
            continue;
        }
        // in_flight / slots, compared without division
        const auto mine = uint64_t{worker.in_flight} * best->slots;
        const auto theirs = uint64_t{best->in_flight} * worker.slots;
        if (mine < theirs || (mine == theirs && worker.status.kv_free > best->status.kv_free))
            best = &worker;
    }
    if (!best) return std::nullopt;
    return best->peer;
}

bool Workers::has(const std::string& model) const {
    return std::any_of(workers_.begin(), workers_.end(),
                       [&](const auto& entry) { return serves(entry.second, model); });
}

uint32_t Workers::slots(const std::string& model) const {
    uint32_t sum = 0;
    for (const auto& [peer, worker] : workers_) {
        if (serves(worker, model)) sum += worker.slots;
    }
    return sum;
}

}  // namespace parley::dispatch
