// Workers: who can answer what, and who has the least to do.
//
// Load     predicted compute-seconds of what we have in flight there, less what is reported used; the
//          worker with the least is chosen, ties go to the one that joined first.
// Room     `slots` requests run. Where a flow has nothing running its request may be sent beside them,
//          up to `slots` more and no more than the worker's own queue holds: the worker's iteration
//          scheduler gives it its turns. Batch never goes beyond the slots, and takes none from
//          online requests: while less of those run than there are slots, one more may be sent.
// Cost     O(log workers) for each model of the worker.
// Threads  one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "dispatch/fair_queue.hpp"
#include "pipe/link.hpp"

namespace parley::dispatch {

using WorkerId = pipe::Peer;  // 0: none

struct Worker {
    WorkerId id = 0;
    std::string name;
    std::string boot;
    std::string zone;
    std::vector<std::string> models;  // hashes
    std::vector<ModelId> model_ids;   // those that it gets requests of
    uint32_t slots = 1;
    uint32_t queue = 0;  // what it lets wait beside its slots
    uint32_t in_flight = 0, online = 0;
    double load_s = 0;
    bool draining = false;
    pipe::StatusMeta status;
    uint64_t served = 0;
    double cost_s = 0;
};

// What a request needs to be sent.
enum class Room : uint8_t {
    slot,    // a free slot
    online,  // a free slot, or one that batch holds
    beside,  // any of these, or a place beside the slots
};

class Workers {
  public:
    // Again: its models and slots anew.
    void join(WorkerId id, const pipe::HelloMeta& hello, std::vector<ModelId> models);
    void leave(WorkerId id);
    void drain(WorkerId id);
    void report(WorkerId id, const pipe::StatusMeta& status);
    void serves(WorkerId id, ModelId model, bool does);  // gets requests of it, or none
    void started(WorkerId id, Level level, double predicted_s);
    void progressed(WorkerId id, double used_s);  // of the load: compute-seconds done
    void ended(WorkerId id, Level level, double load_s, double cost_s);

    // The least loaded that has the model, does not drain, and has that room.
    std::optional<WorkerId> choose(ModelId model, Room room) const;
    bool has_room(WorkerId id, Room room) const;
    bool has(ModelId model) const { return count(model) > 0; }  // busy or not, not draining
    uint32_t count(ModelId model) const;
    uint32_t slots(ModelId model) const;
    const std::map<WorkerId, Worker>& all() const { return workers_; }
    // Names of the zones with a worker that does not drain; "" is a zone, too.
    std::set<std::string> zones() const;
    const Worker* find(WorkerId id) const;

  private:
    struct Index {
        std::set<std::pair<double, WorkerId>> by_room[3];
        uint32_t count = 0, slots = 0;
    };
    static bool room_at(const Worker& worker, Room room);
    void unindex(Worker& worker);
    void index(Worker& worker);
    std::map<WorkerId, Worker> workers_;
    std::unordered_map<ModelId, Index> by_model_;
};

}  // namespace parley::dispatch
