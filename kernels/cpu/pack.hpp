// Weights as the x86 paths read them: groups of kGroup outputs, one after another, so that a matrix is
// one stream of memory.
//
// Blocks of 32 columns; a vector is 64 bytes, and byte 4r + i of vector t belongs to output r of the group:
//   Q4_1   [block]{ nibbles 4 × 64, f16 d[16], f16 m[16] }: 320 bytes, no growth
//   Q4_0   [block]{ nibbles 4 × 64 }, then [block]{ f16 d[16] }, padded to 64
//   Q8_0   [block]{ signed bytes 8 × 64 }, then [block]{ f16 d[16] }, padded to 64
//   Q5_0   [block]{ nibbles 4 × 64, fifth bits 64 }, then [block]{ f16 d[16] }, padded to 64
//   Q5_1   [block]{ nibbles 4 × 64, fifth bits 64, f16 d[16], f16 m[16] }: 384 bytes, no growth
// and super-blocks of 256 columns, which have eight such blocks and start with their scales:
//   [super]{ f16 d[16], f16 dmin[16] (Q6_K: nothing), [block]{ sc[16], mn[16] }, [block]{ … } }
//   Q4_K   2,368 bytes, [block]{ nibbles 4 × 64 }: 4.625 bits a weight, of GGUF's 4.5
//   Q5_K   2,880 bytes, [block]{ nibbles 4 × 64, fifth bits 64 }: 5.625 of 5.5
//   Q6_K   3,392 bytes, [block]{ nibbles 4 × 64, fifth and sixth bits 2 × 64 }: 6.625 of 6.5625; signed sc,
//          the second sixteen of which are those of columns 16 to 31 in place of mn
// The six-bit scales are spread to bytes, which costs 3 % of memory and saves their puzzle in every product.
// A nibble vector t holds column 4t + i in its low and 4t + i + 16 in its high halves; a byte vector t
// holds column 4t + i. As they stand these are operands of vpdpbusd and vpmaddubsw, and rows of an AMX
// tile. The high bits of what would be byte vectors 0 … 7 lie in the same bytes of one vector, vector t's
// fifth bit in bit t; or of two, vector t's pair in bits 2(t mod 4) of vector t / 4.
// Floats: [column][16 outputs] in the type's own width.
// Outputs past the last are zero.
//
// Threads  pure functions.
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {

// Bytes of a block's high bits, which follow its nibbles.
constexpr uint32_t high_bytes(Type type) {
    switch (type) {
        case Type::q5_0:
        case Type::q5_1:
        case Type::q5_k:
            return 64;
        case Type::q6_k:
            return 128;
        default:
            return 0;
    }
}
constexpr bool has_supers(Type type) { return traits(type).block_weights == kSuper; }

constexpr uint32_t kSuperBlocks = kSuper / kBlock;
constexpr uint32_t kSuperScales = 64;  // where the bytes of scales start in a super-block
constexpr uint32_t kSuperQ = kSuperScales + kSuperBlocks * 32;  // and where its blocks do
constexpr uint32_t super_bytes(Type type) {
    return kSuperQ + kSuperBlocks * (256 + high_bytes(type));
}

struct PackedBlocks {
    uint32_t q_stride;      // bytes from one block's weights to the next
    uint32_t scale_stride;  // the same for scales
    uint32_t scales_apart;  // 0: scales follow the block's bits; 1: they follow all of the group
};

constexpr PackedBlocks packed_blocks(Type type) {
    switch (type) {
        case Type::q4_1:
            return {320, 320, 0};
        case Type::q4_0:
            return {256, 32, 1};
        case Type::q8_0:
            return {512, 32, 1};
        case Type::q5_0:
            return {320, 32, 1};
        case Type::q5_1:
            return {384, 384, 0};
        default:
            return {};
    }
}

// Bytes of one group whose rows have `blocks` blocks.
constexpr uint64_t group_bytes(Type type, uint64_t blocks) {
    if (has_supers(type)) return blocks / kSuperBlocks * super_bytes(type);
    const PackedBlocks layout = packed_blocks(type);
    const uint64_t scales = layout.scales_apart * blocks * layout.scale_stride;
    return blocks * layout.q_stride + (scales + 63) / 64 * 64;
}
constexpr uint64_t scales_offset(Type type, uint64_t blocks) {
    const PackedBlocks layout = packed_blocks(type);
    return layout.scales_apart != 0 ? blocks * layout.q_stride : 256 + high_bytes(type);
}

// Everything of TypeOps but the product.
TypeOps packing(Type type);

}  // namespace parley::kernels::cpu
