// Weights as the x86 paths read them: groups of kGroup outputs, one after another, so that a matrix is
// one stream of memory.
//
// Blocks of 32 columns; a vector is 64 bytes, and byte 4r + i of vector t belongs to output r of the group:
//   Q4_1   [block]{ nibbles 4 × 64, f16 d[16], f16 m[16] }: 320 bytes, no growth
//   Q4_0   [block]{ nibbles 4 × 64 }, then [block]{ f16 d[16] }, padded to 64
//   Q8_0   [block]{ signed bytes 8 × 64 }, then [block]{ f16 d[16] }, padded to 64
// A nibble vector t holds column 4t + i in its low and 4t + i + 16 in its high halves; a byte vector t
// holds column 4t + i. As they stand these are operands of vpdpbusd and vpmaddubsw, and rows of an AMX
// tile.
// Floats: [column][16 outputs] in the type's own width.
// Outputs past the last are zero.
//
// Threads  pure functions.
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {

struct PackedBlocks {
    uint32_t q_stride;      // bytes from one block's weights to the next
    uint32_t scale_stride;  // the same for scales
    uint32_t scales_apart;  // 0: scales follow at q + 256; 1: they follow all blocks of the group
};

constexpr PackedBlocks packed_blocks(Type type) {
    switch (type) {
        case Type::q4_1:
            return {320, 320, 0};
        case Type::q4_0:
            return {256, 32, 1};
        case Type::q8_0:
            return {512, 32, 1};
        default:
            return {};
    }
}

// Bytes of one group whose rows have `blocks` blocks.
constexpr uint64_t group_bytes(Type type, uint64_t blocks) {
    const PackedBlocks layout = packed_blocks(type);
    const uint64_t scales = layout.scales_apart * blocks * layout.scale_stride;
    return blocks * layout.q_stride + (scales + 63) / 64 * 64;
}
constexpr uint64_t scales_offset(Type type, uint64_t blocks) {
    const PackedBlocks layout = packed_blocks(type);
    return layout.scales_apart != 0 ? blocks * layout.q_stride : 256;
}

// Everything of TypeOps but the product.
TypeOps packing(Type type);

}  // namespace parley::kernels::cpu
