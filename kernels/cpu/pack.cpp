#include "kernels/cpu/pack.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/reference/reference.hpp"

namespace parley::kernels::cpu {
namespace {

uint16_t half_at(const uint8_t* at) {
    uint16_t half;
    std::memcpy(&half, at, sizeof half);
    return half;
}

template <Type kType>
uint64_t packed_bytes_blocks(uint64_t rows, uint64_t cols) {
    return (rows + kGroup - 1) / kGroup * group_bytes(kType, cols / kBlock);
}

template <Type kType>
void pack_blocks(const uint8_t* source, uint64_t rows, uint64_t cols, uint64_t group_begin,
                 uint64_t group_end, uint8_t* packed) {
    constexpr PackedBlocks kLayout = packed_blocks(kType);
    constexpr uint32_t kBytes = traits(kType).block_bytes;
    constexpr uint32_t kScales = kType == Type::q4_1 ? 2 : 1;
    const uint64_t blocks = cols / kBlock;
    for (uint64_t group = group_begin; group < group_end; ++group) {
        uint8_t* to = packed + group * group_bytes(kType, blocks);
        std::memset(to, 0, group_bytes(kType, blocks));
        for (uint64_t r = 0; r < kGroup && group * kGroup + r < rows; ++r) {
            const uint8_t* from = source + (group * kGroup + r) * blocks * kBytes;
            for (uint64_t k = 0; k < blocks; ++k, from += kBytes) {
                uint8_t* q = to + k * kLayout.q_stride;
                uint8_t* scales = to + scales_offset(kType, blocks) + k * kLayout.scale_stride;
                for (uint32_t s = 0; s < kScales; ++s) {
                    std::memcpy(scales + (s * kGroup + r) * 2, from + 2 * s, 2);
                }
                // GGUF's byte j of a Q4 block has columns j and j + 16, as ours.
                const uint8_t* bytes = from + 2 * kScales;
                const uint32_t vectors = (kBytes - 2 * kScales) / 4;
                for (uint32_t t = 0; t < vectors; ++t) {
                    std::memcpy(q + t * 64 + 4 * r, bytes + 4 * t, 4);
                }
            }
        }
    }
}

template <Type kType>
void unpack_row_blocks(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    constexpr PackedBlocks kLayout = packed_blocks(kType);
    const uint64_t blocks = cols / kBlock;
    const uint8_t* group = packed + row / kGroup * group_bytes(kType, blocks);
    const uint64_t r = row % kGroup;
    for (uint64_t k = 0; k < blocks; ++k, out += kBlock) {
        const uint8_t* q = group + k * kLayout.q_stride;
        const uint8_t* scales = group + scales_offset(kType, blocks) + k * kLayout.scale_stride;
        const float d = reference::f16_to_f32(half_at(scales + 2 * r));
        for (uint32_t i = 0; i < kBlock; ++i) {
            if constexpr (kType == Type::q8_0) {
                out[i] = d * static_cast<int8_t>(q[i / 4 * 64 + 4 * r + i % 4]);
            } else {
                const uint8_t byte = q[i % 16 / 4 * 64 + 4 * r + i % 4];
                const int32_t nibble = i < 16 ? byte & 15 : byte >> 4;
                if constexpr (kType == Type::q4_0) {
                    out[i] = d * static_cast<float>(nibble - 8);
                } else {
                    const float m = reference::f16_to_f32(half_at(scales + 2 * (kGroup + r)));
                    out[i] = std::fma(static_cast<float>(nibble), d, m);
                }
            }
        }
    }
}

template <Type kType>
uint64_t packed_bytes_floats(uint64_t rows, uint64_t cols) {
    return (rows + kGroup - 1) / kGroup * kGroup * cols * traits(kType).block_bytes;
}

template <Type kType>
void pack_floats(const uint8_t* source, uint64_t rows, uint64_t cols, uint64_t group_begin,
                 uint64_t group_end, uint8_t* packed) {
    constexpr uint32_t kBytes = traits(kType).block_bytes;
    for (uint64_t row = group_begin * kGroup; row < group_end * kGroup; ++row) {
        uint8_t* to = packed + (row / kGroup * cols * kGroup + row % kGroup) * kBytes;
        for (uint64_t k = 0; k < cols; ++k, to += kGroup * kBytes) {
            if (row < rows) {
                std::memcpy(to, source + (row * cols + k) * kBytes, kBytes);
            } else {
                std::memset(to, 0, kBytes);
            }
        }
    }
}

template <Type kType>
void unpack_row_floats(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    constexpr uint32_t kBytes = traits(kType).block_bytes;
    const uint8_t* at = packed + (row / kGroup * cols * kGroup + row % kGroup) * kBytes;
    for (uint64_t k = 0; k < cols; ++k, at += kGroup * kBytes) {
        if constexpr (kType == Type::f32) {
            std::memcpy(out + k, at, 4);
        } else if constexpr (kType == Type::f16) {
            out[k] = reference::f16_to_f32(half_at(at));
        } else {
            out[k] = std::bit_cast<float>(uint32_t{half_at(at)} << 16);
        }
    }
}

template <Type kType>
TypeOps blocks() {
    return {kType,  true, packed_bytes_blocks<kType>, pack_blocks<kType>, unpack_row_blocks<kType>,
            nullptr};
}
template <Type kType>
TypeOps floats() {
    return {kType,  false, packed_bytes_floats<kType>, pack_floats<kType>, unpack_row_floats<kType>,
            nullptr};
}

}  // namespace

TypeOps packing(Type type) {
    switch (type) {
        case Type::q4_1:
            return blocks<Type::q4_1>();
        case Type::q4_0:
            return blocks<Type::q4_0>();
        case Type::q8_0:
            return blocks<Type::q8_0>();
        case Type::f32:
            return floats<Type::f32>();
        case Type::f16:
            return floats<Type::f16>();
        case Type::bf16:
            return floats<Type::bf16>();
        default:
            return {};
    }
}

}  // namespace parley::kernels::cpu
