#include "engine/stop_matcher.hpp"

namespace parley::engine {

StopMatcher::StopMatcher(std::span<const std::string> patterns) : nodes_(1) {
    for (size_t p = 0; p < patterns.size(); ++p) {
        if (patterns[p].empty()) continue;
        uint32_t node = 0;
        for (const char c : patterns[p]) {
            const auto byte = static_cast<uint8_t>(c);
            uint32_t next = child(node, byte);
            if (next == 0) {
                next = static_cast<uint32_t>(nodes_.size());
                Node fresh;
                fresh.depth = nodes_[node].depth + 1;
                nodes_.push_back(std::move(fresh));
                nodes_[node].next.emplace_back(byte, next);
            }
            node = next;
        }
        if (nodes_[node].pattern == kNone) nodes_[node].pattern = static_cast<int>(p);
    }
    // Breadth first: a node's fallback is shallower, so it is complete when it is needed.
    std::vector<uint32_t> queue{0};
    for (size_t head = 0; head < queue.size(); ++head) {
        const uint32_t node = queue[head];
        for (const auto& [byte, next] : nodes_[node].next) {
            uint32_t fallback = nodes_[node].fallback;
            while (fallback != 0 && child(fallback, byte) == 0)
                fallback = nodes_[fallback].fallback;
            const uint32_t to = node == 0 ? 0 : child(fallback, byte);
            nodes_[next].fallback = to;
            if (nodes_[next].pattern == kNone) nodes_[next].pattern = nodes_[to].pattern;
            queue.push_back(next);
        }
    }
}

uint32_t StopMatcher::child(uint32_t node, uint8_t byte) const {
    for (const auto& [b, next] : nodes_[node].next)
        if (b == byte) return next;
    return 0;
}

int StopMatcher::feed(uint8_t byte) {
    uint32_t next = child(state_, byte);
    while (next == 0 && state_ != 0) {
        state_ = nodes_[state_].fallback;
        next = child(state_, byte);
    }
    state_ = next;
    return nodes_[state_].pattern;
}

}  // namespace parley::engine
