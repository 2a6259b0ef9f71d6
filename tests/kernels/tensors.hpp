// Tensors of random weights, as files have them and as a path packs them, and whole products.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/paths.hpp"

namespace parley::kernels {

inline constexpr Type kTypes[] = {Type::q4_1, Type::q4_0, Type::q8_0, Type::q5_0,
                                  Type::q5_1, Type::q4_k, Type::q5_k, Type::q6_k,
                                  Type::f32,  Type::f16,  Type::bf16};

// Where the halves of a block stand; a minimum's is the second.
inline std::vector<uint32_t> halves_of(Type type) {
    switch (type) {
        case Type::q4_1:
        case Type::q5_1:
        case Type::q4_k:
        case Type::q5_k:
            return {0, 2};
        case Type::q6_k:
            return {208};
        default:
            return {0};
    }
}

// The next number of columns that has whole blocks.
inline uint64_t whole_blocks(Type type, uint64_t cols) {
    const uint64_t block = traits(type).block_weights;
    return (cols + block - 1) / block * block;
}

inline void set_half(std::vector<uint8_t>& data, uint64_t at, uint16_t half) {
    std::memcpy(&data[at], &half, 2);
}

// A tensor of random bytes whose scales are the halves that files have, and now and then the edges: zero,
// subnormal, large, negative.
inline std::vector<uint8_t> random_tensor(Random& random, Type type, uint64_t rows, uint64_t cols) {
    const TypeTraits shape = traits(type);
    std::vector<uint8_t> data(rows * cols / shape.block_weights * shape.block_bytes);
    if (shape.block_weights == 1) {
        for (uint64_t i = 0; i < rows * cols; ++i) {
            const float value = random.below(50) == 0 ? 0.0f : random.real(0.05f);
            if (type == Type::f32) {
                std::memcpy(&data[i * 4], &value, 4);
                continue;
            }
            uint16_t half = reference::f32_to_f16(value);
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            if (type == Type::bf16) half = static_cast<uint16_t>(bits >> 16);
            std::memcpy(&data[i * 2], &half, 2);
        }
        return data;
    }
    for (uint8_t& byte : data) byte = random.byte();
    for (uint64_t at = 0; at < data.size(); at += shape.block_bytes) {
        for (const uint32_t s : halves_of(type)) {
            constexpr std::array<uint16_t, 5> kEdges{0, 0x8000, 1, 0x03ff, 0x7bff};
            uint16_t half = reference::f32_to_f16(random.real(0.01f));
            if (random.below(40) == 0) half = kEdges[random.below(kEdges.size())];
            set_half(data, at + s, half);
        }
    }
    return data;
}

struct Weights {
    const TypeOps* ops;
    Aligned packed;
    uint64_t rows, cols;
};

inline Weights pack(const Kernels& kernels, Type type, const std::vector<uint8_t>& tensor,
                    uint64_t rows, uint64_t cols) {
    const TypeOps* ops = kernels.ops(type);
    REQUIRE(ops != nullptr);
    Weights weights{ops, Aligned{ops->packed_bytes(rows, cols)}, rows, cols};
    const uint64_t groups = (rows + kGroup - 1) / kGroup, middle = groups / 2;
    ops->pack(tensor.data(), rows, cols, middle, groups, weights.packed.data());
    ops->pack(tensor.data(), rows, cols, 0, middle, weights.packed.data());
    return weights;
}

// y[m][rows] over as many tiles as m needs; groups in two calls.
inline std::vector<float> product(const Kernels& kernels, Weights& weights,
                                  const std::vector<float>& x, uint32_t m, bool add) {
    const uint64_t rows = weights.rows, cols = weights.cols;
    std::vector<float> out(m * rows, 0.5f);
    const uint64_t groups = (rows + kGroup - 1) / kGroup;
    for (uint32_t begin = 0; begin < m; begin += kTileRows) {
        const uint32_t count = std::min(kTileRows, m - begin);
        std::vector<Q8Block> blocks(cols / kBlock + 1);
        std::vector<float> floats(cols * kTileRows, NAN);
        for (uint32_t i = 0; i < count; ++i) {
            const float* row = x.data() + (begin + i) * cols;
            if (weights.ops->quantised_input) {
                kernels.quantise(row, cols, i, blocks.data());
            } else {
                for (uint64_t k = 0; k < cols; ++k) floats[k * kTileRows + i] = row[k];
            }
        }
        MatmulArgs args{.packed = weights.packed.data(),
                        .rows = rows,
                        .cols = cols,
                        .tile = weights.ops->quantised_input
                                    ? static_cast<const void*>(blocks.data())
                                    : floats.data(),
                        .tile_rows = count,
                        .stride = rows,
                        .add = add};
        const uint64_t cut = groups / 3;
        for (const auto& [from, to] : {std::pair{uint64_t{0}, cut}, std::pair{cut, groups}}) {
            args.group_begin = from;
            args.group_end = to;
            args.out = out.data() + begin * rows + from * kGroup;
            weights.ops->matmul(args);
        }
    }
    return out;
}

}  // namespace parley::kernels
