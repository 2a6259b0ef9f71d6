// Breakers: whether a worker gets requests of a version, by how the last ones ended there.
//
// Closed      all go. errors_min failures among the ends of the last window_ms, and at least `share` of
//             those ends, open it.
// Open        none goes, for open_ms; twice as long each time that a probe failed, up to open_most_ms.
// Half-open   `probes` requests, real ones, are let through; when as many have ended well it closes,
//             one that fails opens it again. One that says nothing (cancelled) gives its place back.
// Key         the worker's name and the version's hash: a worker that comes again is the same one.
// Bounds      kMost keys; beyond them the closed ones are forgotten, then all further stay closed.
//             kEndsMost ends of a window are remembered, the latest.
// Threads     one. No clock.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace parley::dispatch {

struct BreakerOptions {
    uint32_t errors_min = 5;  // 0: never opens
    double share = 0.5;
    int64_t window_ms = 10'000, open_ms = 5'000, open_most_ms = 60'000;
    uint32_t probes = 2;  // at least 1
};

class Breakers {
  public:
    static constexpr size_t kMost = 4096, kEndsMost = 256;
    enum class State : uint8_t { closed, open, half_open };
    enum class End : uint8_t { good, failed, neutral };
    using Key = std::pair<std::string, std::string>;  // worker, version

    struct Breaker {
        State state = State::closed;
        std::deque<std::pair<int64_t, bool>> ends;  // when, failed
        int64_t until_ms = 0, open_ms = 0;          // of the state open
        uint32_t probing = 0, good = 0;             // of the state half-open
        uint64_t opened = 0;                        // times
    };

    explicit Breakers(BreakerOptions options = {}) : options_(options) {}
    // Each returns true where allows() of that key has changed.
    bool started(const Key& key);
    bool ended(const Key& key, End end, int64_t now_ms);
    std::vector<Key> tick(int64_t now_ms);  // those that may be probed from now on
    bool allows(const Key& key) const;
    const std::map<Key, Breaker>& all() const { return all_; }
    size_t count(State state) const;
    uint64_t opened() const { return opened_; }  // times, over all

  private:
    void open(Breaker& breaker, int64_t now_ms);
    BreakerOptions options_;
    std::map<Key, Breaker> all_;  // those with failures to remember
    uint64_t opened_ = 0;
};

const char* name(Breakers::State state);

}  // namespace parley::dispatch
