// Queue: requests that wait for a worker, bounded, by class.
//
// Order    interactive before streaming before batch; first come, first served inside a class. A
//          continuation (a stream that lost its worker) goes to the head of its class: its reader has
//          seen the beginning.
// Bounds   QueueOptions, over all classes together. push(): Errc::again when one is reached; nothing
//          that waits is thrown out for a newcomer.
// Time     a request that is still here at its deadline is handed back by expire().
// Threads  one. No clock of its own: times are passed in.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "pipe/answerer.hpp"

namespace parley::dispatch {

struct Job {
    pipe::Ask ask;
    std::string model;  // hash of the version that answers
    int64_t arrived_ms = 0;
    int64_t deadline_ms = 0;  // for the first event; 0 = none
};

struct QueueOptions {
    uint32_t requests_max = 1024;
    uint64_t bytes_max = 256ull << 20;
};

class Queue {
  public:
    explicit Queue(QueueOptions options) : options_(options) {}

    base::Result<void> push(Job job);
    // Takes the first request, in order, for which `fits` is true. It is asked once per model: a
    // model without a free worker holds back nobody else's.
    std::optional<Job> take(const std::function<bool(const std::string& model)>& fits);
    std::optional<Job> remove(const std::string& id);
    std::vector<Job> expire(int64_t now_ms);
    std::vector<Job> clear();

    size_t size() const { return by_id_.size(); }
    uint64_t bytes() const { return bytes_; }
    size_t size_of(pipe::Class cls) const { return lists_[static_cast<size_t>(cls)].size(); }

  private:
    using List = std::list<Job>;
    Job unlink(List& list, List::iterator at);

    QueueOptions options_;
    std::array<List, 3> lists_;  // by pipe::Class
    std::unordered_map<std::string, std::pair<size_t, List::iterator>> by_id_;
    uint64_t bytes_ = 0;
};

}  // namespace parley::dispatch
