#include "dispatch/workers.hpp"

#include <algorithm>

namespace parley::dispatch {

bool Workers::room_at(const Worker& worker, Room room) {
    if (worker.draining) return false;
    if (worker.in_flight < worker.slots) return true;
    if (room == Room::slot) return false;
    const uint32_t most = worker.slots + std::min(worker.slots, worker.queue);
    if (worker.in_flight >= most) return false;
    return room == Room::beside || worker.online < worker.slots;
}

void Workers::unindex(Worker& worker) {
    if (worker.draining) return;
    for (const ModelId model : worker.model_ids) {
        Index& index = by_model_[model];
        for (auto& set : index.by_room) set.erase({worker.load_s, worker.id});
        --index.count;
        index.slots -= worker.slots;
    }
}

void Workers::index(Worker& worker) {
    if (worker.draining) return;
    for (const ModelId model : worker.model_ids) {
        Index& index = by_model_[model];
        for (const Room room : {Room::slot, Room::online, Room::beside})
            if (room_at(worker, room))
                index.by_room[static_cast<size_t>(room)].insert({worker.load_s, worker.id});
        ++index.count;
        index.slots += worker.slots;
    }
}

void Workers::join(WorkerId id, const pipe::HelloMeta& hello, std::vector<ModelId> models) {
    Worker& worker = workers_[id];
    if (worker.id != 0) unindex(worker);
    std::sort(models.begin(), models.end());
    models.erase(std::unique(models.begin(), models.end()), models.end());
    worker.id = id;
    worker.name = hello.name;
    worker.boot = hello.boot;
    worker.zone = hello.zone;
    worker.slots = std::max<uint32_t>(hello.slots, 1);
    worker.queue = hello.queue;
    worker.models.clear();
    for (const auto& model : hello.models) worker.models.push_back(model.hash);
    worker.model_ids = std::move(models);
    index(worker);
}

void Workers::leave(WorkerId id) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    unindex(at->second);
    workers_.erase(at);
}

void Workers::drain(WorkerId id) {
    const auto at = workers_.find(id);
    if (at == workers_.end() || at->second.draining) return;
    unindex(at->second);
    at->second.draining = true;
}

void Workers::report(WorkerId id, const pipe::StatusMeta& status) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    at->second.status = status;
    if (status.draining) drain(id);
}

void Workers::serves(WorkerId id, ModelId model, bool does) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    auto& ids = at->second.model_ids;
    const auto place = std::lower_bound(ids.begin(), ids.end(), model);
    const bool did = place != ids.end() && *place == model;
    if (did == does) return;
    unindex(at->second);
    if (does)
        ids.insert(place, model);
    else
        ids.erase(place);
    index(at->second);
}

void Workers::started(WorkerId id, Level level, double predicted_s) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    unindex(at->second);
    ++at->second.in_flight;
    if (level == Level::online) ++at->second.online;
    at->second.load_s += predicted_s;
    index(at->second);
}

void Workers::progressed(WorkerId id, double used_s) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    unindex(at->second);
    at->second.load_s = std::max(0.0, at->second.load_s - used_s);
    index(at->second);
}

void Workers::ended(WorkerId id, Level level, double load_s, double cost_s) {
    const auto at = workers_.find(id);
    if (at == workers_.end()) return;
    Worker& worker = at->second;
    unindex(worker);
    if (worker.in_flight > 0) --worker.in_flight;
    if (level == Level::online && worker.online > 0) --worker.online;
    worker.load_s = worker.in_flight == 0 ? 0 : std::max(0.0, worker.load_s - load_s);
    index(worker);
    ++worker.served;
    worker.cost_s += cost_s;
}

std::optional<WorkerId> Workers::choose(ModelId model, Room room) const {
    const auto at = by_model_.find(model);
    if (at == by_model_.end()) return std::nullopt;
    const auto& set = at->second.by_room[static_cast<size_t>(room)];
    if (set.empty()) return std::nullopt;
    return set.begin()->second;
}

bool Workers::has_room(WorkerId id, Room room) const {
    const Worker* worker = find(id);
    return worker != nullptr && room_at(*worker, room);
}

uint32_t Workers::count(ModelId model) const {
    const auto at = by_model_.find(model);
    return at == by_model_.end() ? 0 : at->second.count;
}

uint32_t Workers::slots(ModelId model) const {
    const auto at = by_model_.find(model);
    return at == by_model_.end() ? 0 : at->second.slots;
}

std::set<std::string> Workers::zones() const {
    std::set<std::string> out;
    for (const auto& [id, worker] : workers_)
        if (!worker.draining) out.insert(worker.zone);
    return out;
}

const Worker* Workers::find(WorkerId id) const {
    const auto at = workers_.find(id);
    return at == workers_.end() ? nullptr : &at->second;
}

}  // namespace parley::dispatch
