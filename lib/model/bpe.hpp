// Bpe: byte-pair merges of one word.
//
//   merges by least rank, leftmost on ties, on a heap: O(n log n) in the word's length.
//
// Source   Sennrich, Haddow, Birch 2016, "Neural machine translation of rare words with subword
// units". Owns     the merge table: open addressing, 16 bytes a slot, at most half full. Its hash
// is seeded
//          anew in every process: a hostile file cannot know which pairs collide.
// Threads  add() before, merge() after: then immutable, any (each caller brings its own Scratch).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace parley::model {

// A seed nobody outside knows, and a mix good enough for tables of a power of two.
uint64_t hash_seed();
inline uint64_t mix(uint64_t value, uint64_t seed) {
    value = (value ^ seed) * 0x9E3779B97F4A7C15ull;
    value = (value ^ value >> 32) * 0xD6E8FEB86659FD93ull;
    return value ^ value >> 32;
}

class Bpe {
  public:
    static constexpr uint32_t kNone = 0xFFFFFFFF;

    struct Symbol {
        uint32_t token;
        uint32_t previous, next;  // indices; kNone at the ends
        uint32_t rank, merged;    // of the pair with `next`; kNone: no such pair, or merged away
    };
    struct Scratch {
        std::vector<Symbol> symbols;
        std::vector<uint64_t> heap;  // rank << 32 | index
    };

    explicit Bpe(uint32_t merges);
    // Merges are added by rank; of a pair added twice the first counts.
    void add(uint32_t left, uint32_t right, uint32_t merged);
    // `scratch.symbols[…].token` holds the word's tokens, one a byte, fewer than 2^31; appends what
    // they merge to. A token of kNone merges with nothing and gives nothing.
    void merge(Scratch& scratch, std::vector<int32_t>& out) const;

  private:
    struct Slot {
        uint32_t left = 0, right = 0, rank = kNone, merged = 0;
    };
    const Slot& find(uint32_t left, uint32_t right) const;

    uint64_t seed_;
    uint64_t mask_;
    uint32_t rank_ = 0;
    std::vector<Slot> slots_;
};

}  // namespace parley::model
