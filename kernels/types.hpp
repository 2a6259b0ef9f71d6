// The tensor types of GGUF files, with their block shapes, and the types of KV pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/contract.hpp"

namespace parley::kernels {

// Values are GGUF's own type numbers.
enum class Type : uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    bf16 = 30,
};

struct TypeTraits {
    const char* name;        // "Q4_1"; nullptr for a number that is no known type
    uint32_t block_weights;  // weights in a block
    uint32_t block_bytes;    // bytes of a block
};

constexpr TypeTraits traits(Type type) {
    switch (type) {
        case Type::f32:
            return {"F32", 1, 4};
        case Type::f16:
            return {"F16", 1, 2};
        case Type::q4_0:
            return {"Q4_0", 32, 18};
        case Type::q4_1:
            return {"Q4_1", 32, 20};
        case Type::q5_0:
            return {"Q5_0", 32, 22};
        case Type::q5_1:
            return {"Q5_1", 32, 24};
        case Type::q8_0:
            return {"Q8_0", 32, 34};
        case Type::q4_k:
            return {"Q4_K", 256, 144};
        case Type::q5_k:
            return {"Q5_K", 256, 176};
        case Type::q6_k:
            return {"Q6_K", 256, 210};
        case Type::bf16:
            return {"BF16", 1, 2};
    }
    return {nullptr, 0, 0};
}

// How keys and values are kept. A page is kPage positions of one KV head:
//   f16   f16 k[head_dim][kPage], f16 v[kPage][head_dim]
//   int8  int8 k[head_dim][kPage], int8 v[kPage][head_dim], float d_k[kPage], float d_v[kPage]
enum class KvType : uint8_t { f16, int8 };

constexpr std::optional<KvType> kv_type(std::string_view name) {
    if (name == "f16") return KvType::f16;
    if (name == "int8") return KvType::int8;
    return std::nullopt;
}

constexpr uint64_t kv_page_bytes(KvType type, uint32_t head_dim) {
    return type == KvType::f16 ? uint64_t{4} * kPage * head_dim
                               : uint64_t{2} * kPage * head_dim + uint64_t{8} * kPage;
}

}  // namespace parley::kernels
