#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/reference/reference.hpp"

namespace parley::kernels::reference {
namespace {

template <class T>
T read(const uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// 32 weights, a GGUF block or the part of one: value = d · q (+ m). Q6_K alone has a scale for each half.
struct Block {
    float d = 0;
    float m = 0;
    int32_t q[kBlock] = {};
    float d_second = 0;
};

struct Q4_0 {
    static constexpr Type kType = Type::q4_0;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at, uint32_t) {
        Block block{.d = f16_to_f32(read<uint16_t>(at)), .q = {}};
        for (uint32_t i = 0; i < 16; ++i) {
            block.q[i] = (at[2 + i] & 15) - 8;
            block.q[i + 16] = (at[2 + i] >> 4) - 8;
        }
        return block;
    }
};

struct Q4_1 {
    static constexpr Type kType = Type::q4_1;
    static constexpr bool kMinimum = true;
    static Block read_block(const uint8_t* at, uint32_t) {
        Block block{
            .d = f16_to_f32(read<uint16_t>(at)), .m = f16_to_f32(read<uint16_t>(at + 2)), .q = {}};
        for (uint32_t i = 0; i < 16; ++i) {
            block.q[i] = at[4 + i] & 15;
            block.q[i + 16] = at[4 + i] >> 4;
        }
        return block;
    }
};

// The fifth bits of a Q5 block: bit j belongs to column j.
int32_t fifth(const uint8_t* at, uint32_t column) {
    return static_cast<int32_t>(read<uint32_t>(at) >> column & 1) << 4;
}
struct Q5_0 {
    static constexpr Type kType = Type::q5_0;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at, uint32_t) {
        Block block{.d = f16_to_f32(read<uint16_t>(at))};
        for (uint32_t i = 0; i < 16; ++i) {
            block.q[i] = ((at[6 + i] & 15) | fifth(at + 2, i)) - 16;
            block.q[i + 16] = ((at[6 + i] >> 4) | fifth(at + 2, i + 16)) - 16;
        }
        return block;
    }
};

struct Q5_1 {
    static constexpr Type kType = Type::q5_1;
    static constexpr bool kMinimum = true;
    static Block read_block(const uint8_t* at, uint32_t) {
        Block block{.d = f16_to_f32(read<uint16_t>(at)), .m = f16_to_f32(read<uint16_t>(at + 2))};
        for (uint32_t i = 0; i < 16; ++i) {
            block.q[i] = (at[8 + i] & 15) | fifth(at + 4, i);
            block.q[i + 16] = (at[8 + i] >> 4) | fifth(at + 4, i + 16);
        }
        return block;
    }
};

// Sub-block j of a Q4_K or Q5_K super-block { f16 d, f16 dmin, six-bit pairs[12], … }: its scale and minimum.
Block k_scales(const uint8_t* at, uint32_t j) {
    const uint8_t* s = at + 4;
    const uint32_t sc = j < 4 ? s[j] & 63u : (s[j + 4] & 15u) | (s[j - 4] >> 6 << 4);
    const uint32_t mn = j < 4 ? s[j + 4] & 63u : (s[j + 4] >> 4u) | (s[j] >> 6 << 4);
    return {.d = f16_to_f32(read<uint16_t>(at)) * static_cast<float>(sc),
            .m = -(f16_to_f32(read<uint16_t>(at + 2)) * static_cast<float>(mn))};
}
struct Q4_K {
    static constexpr Type kType = Type::q4_k;
    static constexpr bool kMinimum = true;
    static Block read_block(const uint8_t* at, uint32_t j) {
        Block block = k_scales(at, j);
        const uint8_t* qs = at + 16 + j / 2 * 32;
        for (uint32_t i = 0; i < kBlock; ++i) block.q[i] = j % 2 == 0 ? qs[i] & 15 : qs[i] >> 4;
        return block;
    }
};
struct Q5_K {
    static constexpr Type kType = Type::q5_k;
    static constexpr bool kMinimum = true;
    static Block read_block(const uint8_t* at, uint32_t j) {
        Block block = k_scales(at, j);
        const uint8_t* qh = at + 16;
        const uint8_t* qs = at + 48 + j / 2 * 32;
        for (uint32_t i = 0; i < kBlock; ++i) {
            const int32_t low = j % 2 == 0 ? qs[i] & 15 : qs[i] >> 4;
            block.q[i] = low | (qh[i] >> j & 1) << 4;
        }
        return block;
    }
};

struct Q6_K {
    static constexpr Type kType = Type::q6_k;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at, uint32_t j) {
        const uint8_t* ql = at + j / 4 * 64 + j % 2 * 32;
        const uint8_t* qh = at + 128 + j / 4 * 32;
        const float d = f16_to_f32(read<uint16_t>(at + 208));
        Block block{.d = d * static_cast<float>(static_cast<int8_t>(at[192 + 2 * j])),
                    .d_second = d * static_cast<float>(static_cast<int8_t>(at[193 + 2 * j]))};
        for (uint32_t i = 0; i < kBlock; ++i) {
            const int32_t low = j % 4 < 2 ? ql[i] & 15 : ql[i] >> 4;
            block.q[i] = (low | (qh[i] >> (j % 4 * 2) & 3) << 4) - 32;
        }
        return block;
    }
};

struct Q8_0 {
    static constexpr Type kType = Type::q8_0;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at, uint32_t) {
        Block block{.d = f16_to_f32(read<uint16_t>(at)), .q = {}};
        for (uint32_t i = 0; i < kBlock; ++i) block.q[i] = static_cast<int8_t>(at[2 + i]);
        return block;
    }
};

struct F32 {
    static constexpr Type kType = Type::f32;
    static float value(const uint8_t* at) { return read<float>(at); }
};
struct F16 {
    static constexpr Type kType = Type::f16;
    static float value(const uint8_t* at) { return f16_to_f32(read<uint16_t>(at)); }
};
struct BF16 {
    static constexpr Type kType = Type::bf16;
    static float value(const uint8_t* at) {
        return std::bit_cast<float>(uint32_t{read<uint16_t>(at)} << 16);
    }
};

template <class T>
constexpr uint64_t row_bytes(uint64_t cols) {
    return cols / traits(T::kType).block_weights * traits(T::kType).block_bytes;
}

template <class T>
uint64_t packed_bytes(uint64_t rows, uint64_t cols) {
    return rows * row_bytes<T>(cols);
}

template <class T>
void pack(const uint8_t* source, uint64_t rows, uint64_t cols, uint64_t group_begin,
          uint64_t group_end, uint8_t* packed) {
    const uint64_t bytes = row_bytes<T>(cols);
    const uint64_t begin = group_begin * kGroup, end = std::min(rows, group_end * kGroup);
    std::memcpy(packed + begin * bytes, source + begin * bytes, (end - begin) * bytes);
}

void store(const MatmulArgs& args, uint32_t m, uint64_t row, float acc) {
    float& y = args.out[m * args.stride + (row - args.group_begin * kGroup)];
    y = args.add ? y + acc : acc;
}

// Columns [32k, 32k + 32) of a row.
template <class T>
Block block_of_row(const uint8_t* row, uint64_t k) {
    constexpr uint64_t kParts = traits(T::kType).block_weights / kBlock;
    return T::read_block(row + k / kParts * traits(T::kType).block_bytes,
                         static_cast<uint32_t>(k % kParts));
}

template <class T>
void matmul_blocks(const MatmulArgs& args) {
    const auto* tile = static_cast<const Q8Block*>(args.tile);
    const uint64_t end = std::min(args.rows, args.group_end * kGroup);
    for (uint64_t row = args.group_begin * kGroup; row < end; ++row) {
        const uint8_t* weights = args.packed + row * row_bytes<T>(args.cols);
        float acc[kTileRows] = {};
        for (uint64_t k = 0; k < args.cols / kBlock; ++k) {
            const Block w = block_of_row<T>(weights, k);
            const Q8Block& x = tile[k];
            for (uint32_t m = 0; m < args.tile_rows; ++m) {
                int32_t dot = 0;
                for (uint32_t i = 0; i < kBlock; ++i) {
                    if (T::kType == Type::q6_k && i == kBlock / 2) {
                        acc[m] = std::fma(static_cast<float>(dot), w.d * x.d[m], acc[m]);
                        dot = 0;
                    }
                    dot += w.q[i] * x.q[m][i];
                }
                const float d = T::kType == Type::q6_k ? w.d_second : w.d;
                acc[m] = std::fma(static_cast<float>(dot), d * x.d[m], acc[m]);
                if constexpr (T::kMinimum) acc[m] = std::fma(w.m, x.s[m], acc[m]);
            }
        }
        for (uint32_t m = 0; m < args.tile_rows; ++m) store(args, m, row, acc[m]);
    }
}

template <class T>
void unpack_row_blocks(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    for (uint64_t k = 0; k < cols / kBlock; ++k, out += kBlock) {
        const Block w = block_of_row<T>(packed + row * row_bytes<T>(cols), k);
        for (uint32_t i = 0; i < kBlock; ++i) {
            const auto q = static_cast<float>(w.q[i]);
            const float d = T::kType == Type::q6_k && i >= kBlock / 2 ? w.d_second : w.d;
            out[i] = T::kMinimum ? std::fma(q, d, w.m) : d * q;
        }
    }
}

template <class T>
void matmul_floats(const MatmulArgs& args) {
    const auto* tile = static_cast<const float*>(args.tile);
    const uint64_t end = std::min(args.rows, args.group_end * kGroup);
    const uint32_t bytes = traits(T::kType).block_bytes;
    for (uint64_t row = args.group_begin * kGroup; row < end; ++row) {
        float acc[kTileRows] = {};
        for (uint64_t k = 0; k < args.cols; ++k) {
            const float w = T::value(args.packed + (row * args.cols + k) * bytes);
            for (uint32_t m = 0; m < args.tile_rows; ++m) {
                acc[m] = std::fma(w, tile[k * kTileRows + m], acc[m]);
            }
        }
        for (uint32_t m = 0; m < args.tile_rows; ++m) store(args, m, row, acc[m]);
    }
}

template <class T>
void unpack_row_floats(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    const uint32_t bytes = traits(T::kType).block_bytes;
    for (uint64_t k = 0; k < cols; ++k) out[k] = T::value(packed + (row * cols + k) * bytes);
}

template <class T>
constexpr TypeOps blocks_ops() {
    return {T::kType, true, packed_bytes<T>, pack<T>, unpack_row_blocks<T>, matmul_blocks<T>};
}
template <class T>
constexpr TypeOps floats_ops() {
    return {T::kType, false, packed_bytes<T>, pack<T>, unpack_row_floats<T>, matmul_floats<T>};
}

constexpr TypeOps kTypes[] = {blocks_ops<Q4_1>(), blocks_ops<Q8_0>(), blocks_ops<Q4_0>(),
                              blocks_ops<Q5_0>(), blocks_ops<Q5_1>(), blocks_ops<Q4_K>(),
                              blocks_ops<Q5_K>(), blocks_ops<Q6_K>(), floats_ops<F32>(),
                              floats_ops<F16>(),  floats_ops<BF16>()};

}  // namespace

std::span<const TypeOps> types() { return kTypes; }

}  // namespace parley::kernels::reference
