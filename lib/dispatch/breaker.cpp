#include "dispatch/breaker.hpp"

#include <algorithm>

namespace parley::dispatch {

const char* name(Breakers::State state) {
    switch (state) {
        case Breakers::State::closed:
            return "closed";
        case Breakers::State::open:
            return "open";
        case Breakers::State::half_open:
            return "half_open";
    }
    return "?";
}

void Breakers::open(Breaker& breaker, int64_t now_ms) {
    breaker.open_ms = breaker.state == State::closed
                          ? options_.open_ms
                          : std::min(breaker.open_ms * 2, options_.open_most_ms);
    breaker.state = State::open;
    breaker.until_ms = now_ms + breaker.open_ms;
    breaker.ends.clear();
    breaker.probing = breaker.good = 0;
    ++breaker.opened;
    ++opened_;
}

bool Breakers::allows(const Key& key) const {
    const auto at = all_.find(key);
    if (at == all_.end() || at->second.state == State::closed) return true;
    return at->second.state == State::half_open &&
           at->second.probing + at->second.good < options_.probes;
}

bool Breakers::started(const Key& key) {
    const auto at = all_.find(key);
    if (at == all_.end() || at->second.state != State::half_open) return false;
    ++at->second.probing;
    return !allows(key);
}

bool Breakers::ended(const Key& key, End end, int64_t now_ms) {
    auto at = all_.find(key);
    if (at == all_.end()) {
        // Who never failed needs no memory: good ends before the first failure do not count.
        if (end != End::failed || options_.errors_min == 0) return false;
        if (all_.size() >= kMost)
            std::erase_if(all_, [](const auto& e) { return e.second.state == State::closed; });
        if (all_.size() >= kMost) return false;
        at = all_.emplace(key, Breaker{}).first;
    }
    Breaker& breaker = at->second;
    if (breaker.state == State::open) return false;  // begun before: known already
    const bool before = allows(key);
    if (breaker.state == State::half_open) {
        if (breaker.probing == 0) return false;  // begun before it opened
        --breaker.probing;
        if (end == End::failed)
            open(breaker, now_ms);
        else if (end == End::good && ++breaker.good >= options_.probes)
            breaker.state = State::closed;
        return allows(key) != before;
    }
    if (end == End::neutral) return false;
    breaker.ends.emplace_back(now_ms, end == End::failed);
    while (breaker.ends.size() > kEndsMost ||
           breaker.ends.front().first <= now_ms - options_.window_ms)
        breaker.ends.pop_front();
    const auto failed = static_cast<uint64_t>(std::count_if(
        breaker.ends.begin(), breaker.ends.end(), [](const auto& e) { return e.second; }));
    if (end != End::failed || failed < options_.errors_min ||
        static_cast<double>(failed) < options_.share * static_cast<double>(breaker.ends.size()))
        return false;
    open(breaker, now_ms);
    return true;
}

std::vector<Breakers::Key> Breakers::tick(int64_t now_ms) {
    std::vector<Key> out;
    for (auto& [key, breaker] : all_) {
        if (breaker.state != State::open || now_ms < breaker.until_ms) continue;
        breaker.state = State::half_open;
        out.push_back(key);
    }
    return out;
}

size_t Breakers::count(State state) const {
    return static_cast<size_t>(std::count_if(
        all_.begin(), all_.end(), [state](const auto& e) { return e.second.state == state; }));
}

}  // namespace parley::dispatch
