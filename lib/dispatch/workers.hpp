// Workers: who can answer what, and who has the most room.
//
// Load     requests that we have in flight there, over its slots; ties go to the one with more free KV,
//          then to the one that joined first. STATUS refines it, and is not needed for it.
// Threads  one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "pipe/link.hpp"

namespace parley::dispatch {

struct Worker {
    pipe::Peer peer = 0;
    std::string name;
    std::string boot;
    std::vector<std::string> models;  // hashes
    uint32_t slots = 1;
    uint32_t in_flight = 0;
    bool draining = false;
    pipe::StatusMeta status;
    uint64_t served = 0;
    double cost_s = 0;
};

class Workers {
  public:
    void join(pipe::Peer peer, const pipe::HelloMeta& hello);  // again: its models and slots anew
    void leave(pipe::Peer peer);
    void drain(pipe::Peer peer);
    void report(pipe::Peer peer, const pipe::StatusMeta& status);
    void started(pipe::Peer peer);
    void ended(pipe::Peer peer, double cost_s);

    // The least loaded worker that has the model, is not draining and has a slot free.
    std::optional<pipe::Peer> choose(const std::string& model) const;
    bool has(const std::string& model) const;  // any worker, busy or not, that is not draining
    uint32_t slots(const std::string& model) const;
    const std::map<pipe::Peer, Worker>& all() const { return workers_; }

  private:
    std::map<pipe::Peer, Worker> workers_;
};

}  // namespace parley::dispatch
