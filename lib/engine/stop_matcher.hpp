// StopMatcher: finds the first of several byte strings in a stream of bytes, and says at every
// moment how many of the last bytes may still turn out to be the beginning of one.
//
// Source   Aho, Corasick 1975, "Efficient string matching". One step a byte, whatever the patterns.
// Match    the pattern that ends first; of those ending at one byte, the longest.
// Bounds   memory follows the patterns' bytes; their number and length are the caller's bound.
// Threads  one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace parley::engine {

class StopMatcher {
  public:
    static constexpr int kNone = -1;

    // Empty patterns are ignored.
    explicit StopMatcher(std::span<const std::string> patterns);

    // The index of the pattern that ends with `byte`, or kNone.
    int feed(uint8_t byte);
    // How many of the bytes fed last are the beginning of some pattern (the longest such suffix).
    uint32_t held() const { return nodes_[state_].depth; }

  private:
    struct Node {
        std::vector<std::pair<uint8_t, uint32_t>> next;  // few: searched in line
        uint32_t fallback = 0;                           // the longest proper suffix in the trie
        uint32_t depth = 0;
        int pattern = kNone;  // the longest pattern that ends here
    };
    uint32_t child(uint32_t node, uint8_t byte) const;  // 0: none (the root is nobody's child)

    std::vector<Node> nodes_;
    uint32_t state_ = 0;
};

}  // namespace parley::engine
