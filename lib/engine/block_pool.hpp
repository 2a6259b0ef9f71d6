// BlockPool: the KV blocks of one model, handed out one by one.
//
// Units    a block holds kBlockTokens positions of every layer (engine/forward.hpp); here it is an
// id. Shape    ids 0 … blocks_max-1, each with a count of references: 0 is free. Owns     the
// counts, not the storage (that is Forward's). Threads  the engine's thread only; nothing here
// locks. Errors   Errc::again when fewer than `count` are free: none is taken, the caller may
// preempt.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"

namespace parley::engine {

class BlockPool {
  public:
    explicit BlockPool(uint32_t blocks_max);

    // Appends `count` ids to `out`, each with one reference.
    base::Result<void> take(uint32_t count, std::vector<uint32_t>& out);
    // One more reference to a block that is in use: a second sequence reads the same prefix.
    void share(uint32_t block);
    // One reference less for each; a block without any is free at once.
    void give_back(std::span<const uint32_t> blocks);

    uint32_t blocks_free() const { return static_cast<uint32_t>(free_.size()); }
    uint32_t blocks_max() const { return static_cast<uint32_t>(references_.size()); }
    uint32_t references(uint32_t block) const { return references_[block]; }

  private:
    std::vector<uint32_t> references_;
    std::vector<uint32_t> free_;  // a stack: the block used last is the one still in the cache
};

}  // namespace parley::engine
