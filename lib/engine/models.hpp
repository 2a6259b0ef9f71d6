// Models: the models of one worker, each with a Service of its own; they share one thread and the cores.
//
// Turns    step() gives one iteration to the model that has had the least time, of those with work:
//          beside each other they get equal time, not equal counts, so that a small one is not
//          slowed to the pace of a large one's iterations. One that was idle saves nothing up.
// Routing  an ASK goes to the version of its envelope; without one to the only model, or where there
//          are several to the one that its body names (name or hash). Otherwise END not_found_error,
//          retryable, reason no_worker: the router may know a worker that has it.
// Retiring retire() takes a model out of names(); what it runs finishes, then step() frees it.
// Owns     artifacts, forwards and services. Counts of models that are gone stay in the sums.
// Threads  one calls all of it; load elsewhere, then add().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/service.hpp"

namespace parley::engine {

struct Model {
    std::string name;    // what clients call it
    std::string source;  // where it came from: how a configuration knows it again
    std::unique_ptr<model::Artifact> artifact;
    std::unique_ptr<Forward> forward;
    std::unique_ptr<Forward> draft;  // null: none; of options.engine.draft
    ServiceOptions options;
};

class Models {
  public:
    explicit Models(Outlet& outlet, const base::Clock& clock = base::system_clock())
        : outlet_(outlet), clock_(clock) {}
    Models(const Models&) = delete;

    // Errc::conflict when this hash is served already. One that is retiring is taken back instead of
    // being served twice; the new one is freed then.
    base::Result<void> add(Model model);
    // A name or a hash. Errc::not_found; Errc::conflict for a name that several versions have.
    base::Result<std::string> hash_of(const std::string& name) const;
    bool retire(const std::string& hash);  // false: no such model

    void ask(const std::string& id, pipe::Envelope envelope, std::string body);
    void cancel(const std::string& id, const std::string& reason);
    void credit(const std::string& id, uint32_t available);
    void tag(const std::string& id, double tag);
    void abandon(const std::string& why);

    // One iteration of one model. False when there was nothing to do.
    bool step();
    bool empty() const { return live() == 0; }
    size_t live() const;

    std::vector<const Model*> serving() const;  // in the order of add(), without those that retire
    const Model* find(const std::string& hash) const;  // retiring ones too
    size_t retiring() const;
    std::vector<std::string> take_freed();  // hashes of those freed since the last call

    // Sums over all; slots: the most of any; longest_ms: the longest.
    pipe::StatusMeta status();
    EngineStats stats() const;
    ServiceCounters counters() const;

  private:
    struct Entry {
        Model model;  // outlives its service
        std::unique_ptr<Service> service;
        bool retiring = false;
        bool idle = true;  // had nothing to do when last asked
        int64_t used_ns = 0;
    };
    Entry* choose(const pipe::Envelope& envelope, const std::string& body);
    void free_retired();

    Outlet& outlet_;
    const base::Clock& clock_;
    std::vector<std::unique_ptr<Entry>> entries_;
    std::vector<std::string> freed_;
    EngineStats gone_stats_;
    ServiceCounters gone_counters_;
    int64_t least_ns_ = 0;  // used_ns of the one that had the last turn, before it
};

}  // namespace parley::engine
