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

// One GGUF block of 32 weights: value = d · q (+ m).
struct Block {
    float d = 0;
    float m = 0;
    int32_t q[kBlock];
};

struct Q4_0 {
    static constexpr Type kType = Type::q4_0;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at) {
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
    static Block read_block(const uint8_t* at) {
        Block block{
            .d = f16_to_f32(read<uint16_t>(at)), .m = f16_to_f32(read<uint16_t>(at + 2)), .q = {}};
        for (uint32_t i = 0; i < 16; ++i) {
            block.q[i] = at[4 + i] & 15;
            block.q[i + 16] = at[4 + i] >> 4;
        }
        return block;
    }
};

struct Q8_0 {
    static constexpr Type kType = Type::q8_0;
    static constexpr bool kMinimum = false;
    static Block read_block(const uint8_t* at) {
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

template <class T>
void matmul_blocks(const MatmulArgs& args) {
    const auto* tile = static_cast<const Q8Block*>(args.tile);
    const uint64_t end = std::min(args.rows, args.group_end * kGroup);
    for (uint64_t row = args.group_begin * kGroup; row < end; ++row) {
        const uint8_t* weights = args.packed + row * row_bytes<T>(args.cols);
        float acc[kTileRows] = {};
        for (uint64_t k = 0; k < args.cols / kBlock; ++k) {
            const Block w = T::read_block(weights + k * traits(T::kType).block_bytes);
            const Q8Block& x = tile[k];
            for (uint32_t m = 0; m < args.tile_rows; ++m) {
                int32_t dot = 0;
                for (uint32_t i = 0; i < kBlock; ++i) dot += w.q[i] * x.q[m][i];
                acc[m] = std::fma(static_cast<float>(dot), w.d * x.d[m], acc[m]);
                if constexpr (T::kMinimum) acc[m] = std::fma(w.m, x.s[m], acc[m]);
            }
        }
        for (uint32_t m = 0; m < args.tile_rows; ++m) store(args, m, row, acc[m]);
    }
}

template <class T>
void unpack_row_blocks(const uint8_t* packed, uint64_t, uint64_t cols, uint64_t row, float* out) {
    for (uint64_t k = 0; k < cols / kBlock; ++k, out += kBlock) {
        const Block w =
            T::read_block(packed + row * row_bytes<T>(cols) + k * traits(T::kType).block_bytes);
        for (uint32_t i = 0; i < kBlock; ++i) {
            const auto q = static_cast<float>(w.q[i]);
            out[i] = T::kMinimum ? std::fma(q, w.d, w.m) : w.d * q;
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
                              floats_ops<F32>(),  floats_ops<F16>(),  floats_ops<BF16>()};

}  // namespace

std::span<const TypeOps> types() { return kTypes; }

}  // namespace parley::kernels::reference
