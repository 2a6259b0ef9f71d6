#include "engine/kv_cache.hpp"

#include <cstring>
#include <string>

namespace parley::engine {

base::Result<KvCache> KvCache::create(const KvShape& shape) {
    KvCache cache;
    cache.shape_ = shape;
    cache.page_ = kernels::kv_page_bytes(shape.type, shape.head_dim);
    uint64_t bytes = cache.page_;
    for (const uint32_t factor : {shape.kv_heads, shape.layers, shape.blocks}) {
        if (__builtin_mul_overflow(bytes, uint64_t{factor}, &bytes)) {
            return base::fail(base::Errc::too_large,
                              "a KV cache of " + std::to_string(shape.blocks) +
                                  " blocks has more bytes than can be counted");
        }
    }
    auto memory = HugeMemory::map(bytes);
    if (!memory) return base::fail("KV cache", memory.error());
    cache.memory_ = std::move(*memory);
    cache.bytes_ = bytes;
    return cache;
}

void KvCache::copy(uint32_t from, uint32_t to) const {
    if (from == to) return;
    std::memcpy(page(to, 0, 0), page(from, 0, 0),
                page_ * uint64_t{shape_.layers} * shape_.kv_heads);
}

}  // namespace parley::engine
