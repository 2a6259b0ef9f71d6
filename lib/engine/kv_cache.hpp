// KvCache: the storage of keys and values, in blocks of kBlockTokens positions.
//
// Shape    [blocks][layers][kv_heads] pages; a page is as kernels::KvType says
// (kernels/types.hpp). A block is contiguous, so it can be copied or sent whole.
// Owns     the memory; taken from the system block by block, as it is first written.
// Threads  plain memory: different pages may be written by different threads.
// Errors   create(): Errc::too_large for a product that no memory could hold; Errc::again
// otherwise.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "engine/huge_memory.hpp"
#include "kernels/types.hpp"

namespace parley::engine {

struct KvShape {
    uint32_t blocks = 0;
    uint32_t layers = 0;
    uint32_t kv_heads = 0;
    uint32_t head_dim = 0;
    kernels::KvType type = kernels::KvType::f16;
};

class KvCache {
  public:
    static base::Result<KvCache> create(const KvShape& shape);

    uint8_t* page(uint32_t block, uint32_t layer, uint32_t kv_head) const {
        return data() +
               ((uint64_t{block} * shape_.layers + layer) * shape_.kv_heads + kv_head) * page_;
    }
    void copy(uint32_t from, uint32_t to) const;
    uint64_t bytes() const { return bytes_; }
    const KvShape& shape() const { return shape_; }

  private:
    uint8_t* data() const { return reinterpret_cast<uint8_t*>(memory_.data()); }

    KvShape shape_;
    uint64_t page_ = 0;  // bytes of a page
    uint64_t bytes_ = 0;
    HugeMemory memory_;
};

}  // namespace parley::engine
