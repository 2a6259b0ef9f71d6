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

uint32_t word_at(const uint8_t* at) {
    uint32_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
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
    constexpr uint32_t kScales = kType == Type::q4_1 || kType == Type::q5_1 ? 2 : 1;
    constexpr uint32_t kHigh = high_bytes(kType) / 16;  // bytes of them in GGUF's block
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
                // GGUF's byte j of a Q4 or Q5 block has columns j and j + 16, as ours.
                const uint8_t* bytes = from + 2 * kScales + kHigh;
                const uint32_t vectors = (kBytes - 2 * kScales - kHigh) / 4;
                for (uint32_t t = 0; t < vectors; ++t) {
                    std::memcpy(q + t * 64 + 4 * r, bytes + 4 * t, 4);
                }
                if constexpr (kHigh != 0) {
                    // The four bits of columns 4t … 4t + 3 go to bit t of four bytes.
                    const uint32_t fifth = word_at(from + 2 * kScales);
                    uint32_t spread = 0;
                    for (uint32_t t = 0; t < 8; ++t) {
                        spread |= ((fifth >> 4 * t & 15) * 0x00204081 & 0x01010101) << t;
                    }
                    std::memcpy(q + 256 + 4 * r, &spread, 4);
                }
            }
        }
    }
}

// The fifth bit, as it weighs, of column i of a packed block.
int32_t fifth(const uint8_t* q, uint64_t r, uint32_t i) {
    return (q[256 + 4 * r + i % 4] >> i / 4 & 1) << 4;
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
                } else if constexpr (kType == Type::q5_0) {
                    out[i] = d * static_cast<float>((nibble | fifth(q, r, i)) - 16);
                } else {
                    const int32_t high = kType == Type::q5_1 ? fifth(q, r, i) : 0;
                    const float m = reference::f16_to_f32(half_at(scales + 2 * (kGroup + r)));
                    out[i] = std::fma(static_cast<float>(nibble | high), d, m);
                }
            }
        }
    }
}

// Sub-block `part` of a GGUF super-block, taken apart: word t has columns 4t … 4t + 3, a byte each.
template <Type kType>
void split(const uint8_t* from, uint32_t part, uint32_t* low, uint32_t* high) {
    constexpr uint32_t kNibbles = 0x0f0f0f0f;
    for (uint32_t t = 0; t < 8; ++t) {
        if constexpr (kType == Type::q6_k) {
            const uint32_t half = part / 4, quarter = part % 4;
            low[t] = word_at(from + 64 * half + quarter % 2 * 32 + 4 * t) >> quarter / 2 * 4;
            high[t] = word_at(from + 128 + 32 * half + 4 * t) >> 2 * quarter & 0x03030303;
        } else {
            constexpr uint32_t kQs = kType == Type::q5_k ? 48 : 16;
            low[t] = word_at(from + kQs + part / 2 * 32 + 4 * t) >> part % 2 * 4;
            if constexpr (kType == Type::q5_k) {
                high[t] = word_at(from + 16 + 4 * t) >> part & 0x01010101;
            }
        }
        low[t] &= kNibbles;
    }
}

template <Type kType>
void pack_super(const uint8_t* from, uint64_t r, uint8_t* to) {
    constexpr bool kSixBits = kType == Type::q6_k;
    std::memcpy(to + 2 * r, from + (kSixBits ? 208 : 0), 2);
    if constexpr (!kSixBits) std::memcpy(to + 2 * (kGroup + r), from + 2, 2);
    for (uint32_t part = 0; part < kSuperBlocks; ++part) {
        uint8_t* scales = to + kSuperScales + part * 32;
        if constexpr (kSixBits) {
            scales[r] = from[192 + 2 * part];
            scales[kGroup + r] = from[193 + 2 * part];
        } else {
            const uint8_t* s = from + 4;
            const uint32_t j = part;
            scales[r] =
                static_cast<uint8_t>(j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4);
            scales[kGroup + r] =
                static_cast<uint8_t>(j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4);
        }
        uint32_t low[8], high[8];
        split<kType>(from, part, low, high);
        uint8_t* q = to + kSuperQ + part * (256 + high_bytes(kType)) + 4 * r;
        for (uint32_t t = 0; t < 4; ++t) {
            const uint32_t both = low[t] | low[t + 4] << 4;
            std::memcpy(q + t * 64, &both, 4);
        }
        constexpr uint32_t kWidth = kSixBits ? 2 : 1;  // high bits of a weight
        for (uint32_t v = 0; v < high_bytes(kType) / 64; ++v) {
            uint32_t bits = 0;
            for (uint32_t t = 0; t < 8 / kWidth; ++t)
                bits |= high[8 / kWidth * v + t] << kWidth * t;
            std::memcpy(q + 256 + 64 * v, &bits, 4);
        }
    }
}

template <Type kType>
void pack_supers(const uint8_t* source, uint64_t rows, uint64_t cols, uint64_t group_begin,
                 uint64_t group_end, uint8_t* packed) {
    const uint64_t supers = cols / kSuper, row_bytes = supers * traits(kType).block_bytes;
    for (uint64_t group = group_begin; group < group_end; ++group) {
        uint8_t* to = packed + group * supers * super_bytes(kType);
        std::memset(to, 0, supers * super_bytes(kType));
        for (uint64_t r = 0; r < kGroup && group * kGroup + r < rows; ++r) {
            const uint8_t* from = source + (group * kGroup + r) * row_bytes;
            for (uint64_t k = 0; k < supers; ++k) {
                pack_super<kType>(from + k * traits(kType).block_bytes, r,
                                  to + k * super_bytes(kType));
            }
        }
    }
}

template <Type kType>
void unpack_row_supers(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    const uint64_t supers = cols / kSuper, r = row % kGroup;
    const uint8_t* at = packed + row / kGroup * supers * super_bytes(kType);
    for (uint64_t k = 0; k < supers; ++k, at += super_bytes(kType)) {
        const float d = reference::f16_to_f32(half_at(at + 2 * r));
        const float dmin = reference::f16_to_f32(half_at(at + 2 * (kGroup + r)));
        for (uint32_t part = 0; part < kSuperBlocks; ++part, out += kBlock) {
            const uint8_t* scales = at + kSuperScales + part * 32 + r;
            const uint8_t* q = at + kSuperQ + part * (256 + high_bytes(kType));
            for (uint32_t i = 0; i < kBlock; ++i) {
                const uint32_t byte = i % 16 / 4 * 64 + 4 * r + i % 4;
                const int32_t nibble = i < 16 ? q[byte] & 15 : q[byte] >> 4;
                if constexpr (kType == Type::q6_k) {
                    const auto sc = static_cast<int8_t>(scales[i / 16 * kGroup]);
                    const int32_t high = q[256 + i / 16 * 64 + 4 * r + i % 4] >> i % 16 / 4 * 2 & 3;
                    out[i] =
                        d * static_cast<float>(sc) * static_cast<float>((nibble | high << 4) - 32);
                } else {
                    const int32_t high = kType == Type::q5_k ? fifth(q, r, i) : 0;
                    const float scale = d * static_cast<float>(scales[0]);
                    const float minimum = -(dmin * static_cast<float>(scales[kGroup]));
                    out[i] = std::fma(static_cast<float>(nibble | high), scale, minimum);
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
TypeOps supers() {
    return {kType,  true, packed_bytes_blocks<kType>, pack_supers<kType>, unpack_row_supers<kType>,
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
        case Type::q5_0:
            return blocks<Type::q5_0>();
        case Type::q5_1:
            return blocks<Type::q5_1>();
        case Type::q4_k:
            return supers<Type::q4_k>();
        case Type::q5_k:
            return supers<Type::q5_k>();
        case Type::q6_k:
            return supers<Type::q6_k>();
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
