#include "engine/block_pool.hpp"

#include <fmt/format.h>

#include <cassert>

namespace parley::engine {

BlockPool::BlockPool(uint32_t blocks_max) : references_(blocks_max, 0) {
    free_.reserve(blocks_max);
    for (uint32_t block = blocks_max; block > 0; --block) free_.push_back(block - 1);
}

base::Result<void> BlockPool::take(uint32_t count, std::vector<uint32_t>& out) {
    if (count > free_.size())
        return base::fail(base::Errc::again, fmt::format("{} KV blocks wanted, {} of {} free",
                                                         count, free_.size(), references_.size()));
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t block = free_.back();
        free_.pop_back();
        references_[block] = 1;
        out.push_back(block);
    }
    return {};
}

void BlockPool::share(uint32_t block) {
    assert(references_[block] > 0);
    ++references_[block];
}

void BlockPool::give_back(std::span<const uint32_t> blocks) {
    for (const uint32_t block : blocks) {
        assert(references_[block] > 0);
        if (--references_[block] == 0) free_.push_back(block);
    }
}

}  // namespace parley::engine
