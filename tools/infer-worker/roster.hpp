// Roster: which models a running worker has: loads them beside the work, switches, says so.
//
// Loading  one job at a time, in a thread; what runs goes on meanwhile. A job adds all of its models
//          or none. Unloading is engine::Models::retire: what runs finishes, then the memory is freed.
// Owns     nothing of the models; the loading thread is waited for at the end.
// Threads  the working loop's. tick() often.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <optional>

#include "control.hpp"
#include "engine/models.hpp"
#include "model_list.hpp"

namespace parley::infer_worker {

class Roster {
  public:
    // `announce`: after every change of what is served.
    Roster(engine::Models& models, const Options& options, std::function<void()> announce)
        : models_(models), options_(options), announce_(std::move(announce)) {}

    void command(Command command);
    // Makes the list what `fresh` says: loads what is new, then unloads what is not in it. `done`
    // gets the error, and then nothing has changed.
    void reload(const Options& fresh, std::function<void(const base::Result<void>&)> done);
    void tick();

  private:
    struct Job {
        std::vector<ModelSpec> specs;
        bool whole = false;               // the list is to be `wanted`, else specs are added
        std::vector<std::string> wanted;  // sources
        std::function<void(base::Result<std::vector<std::string>>)> done;  // hashes
    };
    void finish(Job& job, base::Result<std::vector<engine::Model>> made);
    std::string list() const;

    engine::Models& models_;
    const Options& options_;
    std::function<void()> announce_;
    std::deque<Job> jobs_;  // the first is being loaded
    std::optional<std::future<base::Result<std::vector<engine::Model>>>> loading_;
};

}  // namespace parley::infer_worker
