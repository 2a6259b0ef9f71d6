// FairQueue: whose request goes next, fair in compute-seconds (start-time fair queueing with predicted
// charges that are settled by what was really used).
//
// Flow     an organisation at a level (online: interactive and streaming; batch) in a pool. A pool is
//          the models that some worker serves together: what shares no worker does not compete.
//          Pools only grow together: join() of models in two pools makes them one.
// Tag      S, in compute-seconds over weight: what the flow has used, and what was charged ahead for
//          what it has in flight. A = S less what is charged and unused: what it has really used.
//            add      if nothing of the flow waits: S = max(S, V): who has not asked saves nothing up
//            start    S += predicted / w
//            progress what was used beyond the charge is charged at once
//            settle   S stands at start + actual / w; failed and cancelled requests get back the rest
//            requeue  the same, and the request waits at the head of its flow
//          V = the least A of the flows with requests that wait and may run, never falling; where none
//          waits, A of the flow that was started last; when all is over, the greatest S.
// Order    the level whose tag is least (online : batch = 19 : 1), in it flows by S, in an online flow
//          interactive : streaming = 4 : 1, in a class by deadline, then arrival. A flow with nothing
//          running goes before the others while its S is at most Q ahead of the least; of those with
//          work running, within Q of the least, the one whose head gains most by `gain` (cached prefix
//          less wait, compute-seconds).
// Bound    for flows f, g of one level and pool that always wait and meet no cap:
//          |W_f/w_f − W_g/w_g| ≤ U_f/w_f + U_g/w_g + 2Q, W: used since both wait, U: the most that was
//          charged or used in flight and not settled. (f starts only where S_f ≤ S_g + Q, and
//          |S − W/w| ≤ U/w.)
// Caps     an organisation at its cap does not go; on release its flows are lifted to V.
// Exact    no clock, no random numbers, no order by address: the same calls give the same picks.
// Cost     O(log flows) a call; nothing scans the flows but pools that grow together and forget().
// Threads  one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "pipe/message.hpp"

namespace parley::dispatch {

using Ticket = uint64_t;   // of a request, rising, never used twice; 0 is none
using ModelId = uint32_t;  // small numbers: an index

enum class Level : uint8_t { online, batch };
inline constexpr size_t kLevels = 2;
inline Level level_of(pipe::Class cls) {
    return cls == pipe::Class::batch ? Level::batch : Level::online;
}

struct FairOptions {
    double quantum_s = 0.25;       // Q
    double online_share = 19;      // to 1 of batch
    double interactive_share = 4;  // to 1 of streaming, inside a flow
    uint32_t running_max = 0;      // of an organisation; 0: no cap
    double flight_s_max = 0;       // predicted compute-seconds in flight of one; 0: no cap
    uint32_t look_max = 8;         // flows within Q that are asked for their gain
};

struct Item {
    std::string org;
    pipe::Class cls = pipe::Class::streaming;
    ModelId model = 0;
    double predicted_s = 0;
    int64_t deadline_ms = 0;  // of the first event; 0: none
    bool head = false;        // a stream that goes on: before all others of its flow
};

// One flow, for status and the envelope.
struct FlowView {
    std::string org;
    Level level = Level::online;
    uint32_t pool = 0;
    double weight = 1, tag = 0, used_tag = 0;  // S, A
    uint32_t waiting = 0, running = 0;
    double waiting_s = 0, flight_s = 0;  // predicted; charged and unused
    double used_s = 0;                   // settled and reported, since it is known
    bool capped = false;
};

class FairQueue {
  public:
    explicit FairQueue(FairOptions options = {});
    ~FairQueue();

    // The share of an organisation: 1 unless set. Counts from the next charge on.
    void set_weight(const std::string& org, double weight);
    // A worker serves all of these: one pool from now on.
    void join(std::span<const ModelId> models);

    Ticket add(Item item);
    // The request that goes next, of those for `models`; they must be of one pool. `fresh`: only of
    // flows with nothing running. `least`: only of this level and above (online is above batch).
    std::optional<Ticket> pick(std::span<const ModelId> models, bool fresh, Level least,
                               const std::function<double(Ticket)>& gain = {}) const;
    void start(Ticket ticket, double predicted_s);  // as is known now: the worker, its prefixes
    void progress(Ticket ticket, double used_s);    // so far; less than before changes nothing
    void settle(Ticket ticket, double used_s);      // it is over
    // Its worker is lost: settled at what it had used, and waits again.
    void requeue(Ticket ticket, double used_s, double predicted_s, int64_t deadline_ms);
    bool remove(Ticket ticket);                  // one that waits; false: it does not
    std::vector<Ticket> expire(int64_t now_ms);  // those past their deadline; they are removed

    // Models with requests that may go since the last call although nothing was added or ended for
    // them: an organisation came below its cap, or a flow has nothing running any more.
    std::vector<ModelId> take_released();

    bool waits(Ticket ticket) const;
    bool any_waiting(ModelId model) const;
    size_t waiting() const { return waiting_; }
    size_t waiting(pipe::Class cls) const { return waiting_of_[static_cast<size_t>(cls)]; }
    size_t waiting(const std::string& org) const;
    double waiting_s(const std::string& org) const;
    double waiting_s() const { return waiting_s_; }
    const Item* item(Ticket ticket) const;
    FlowView flow(Ticket ticket) const;  // of a request that waits or runs
    std::vector<FlowView> flows() const;
    uint32_t pool_of(ModelId model) const;
    double virtual_time(ModelId model) const;
    // Where a new request of this organisation would stand in its level.
    struct Place {
        double ahead = 0;    // what the flow has really used beyond V, over its weight
        double weights = 0;  // of flows with work there, this one among them
        double weight = 1;
        uint32_t own_waiting = 0;
        uint32_t own_running = 0;
    };
    Place place(const std::string& org, pipe::Class cls, ModelId model) const;

    // What outlives the process: what each flow has used beyond V and in all, over all pools by
    // organisation; the kSavedMax that are furthest ahead, then those that used most. Restored ones
    // count when a flow of theirs is seen first.
    static constexpr size_t kSavedMax = 4096;
    struct Saved {
        std::string org;
        Level level = Level::online;
        double beyond = 0;
        double used_s = 0;
    };
    std::vector<Saved> save() const;
    void restore(std::span<const Saved> saved);

  private:
    struct Org;
    struct Flow;
    struct Pool;
    struct Request;
    struct Key {
        double tag;
        uint64_t number;  // of the flow: no order by address
        Flow* flow;
        bool operator<(const Key& other) const {
            return tag != other.tag ? tag < other.tag : number < other.number;
        }
    };
    struct Lane;

    Org& org_of(const std::string& name);
    Pool& pool_for(ModelId model);
    Flow& flow_for(const std::string& org, Level level, Pool& pool);
    void index(Flow& flow, bool gone = false);
    void advance(Pool& pool);
    void charge(Flow& flow, Request& request, double delta_s);
    void release(Request& request, double used_s);
    void enqueue(Ticket ticket, Request& request);
    void dequeue(Ticket ticket, Request& request);
    void recheck(Org& org);
    void mention(const Flow& flow);
    void merge(Pool& into, Pool& from);
    void forget(Pool& pool);
    bool at_cap(const Org& org) const;
    FlowView view(const Flow& flow) const;
    Ticket head_of(const Flow& flow, ModelId model) const;

    FairOptions options_;
    std::unordered_map<std::string, std::unique_ptr<Org>> orgs_;
    std::vector<std::unique_ptr<Pool>> pools_;
    std::vector<uint32_t> pool_of_;  // by model
    std::unordered_map<Ticket, Request> requests_;
    std::set<std::pair<int64_t, Ticket>> deadlines_;
    std::unordered_map<std::string, Saved> restored_[kLevels];
    std::vector<ModelId> released_;
    Ticket next_ticket_ = 1;
    uint64_t next_flow_ = 1;
    size_t waiting_ = 0;
    double waiting_s_ = 0;
    std::array<size_t, 3> waiting_of_{};
};

}  // namespace parley::dispatch
