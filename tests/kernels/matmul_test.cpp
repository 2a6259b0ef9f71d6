// Products of every type and path against the reference, bit for bit.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/paths.hpp"

namespace parley::kernels {
namespace {

constexpr Type kTypes[] = {Type::q4_1, Type::q4_0, Type::q8_0, Type::f32, Type::f16, Type::bf16};

// A tensor of random bytes whose scales are the halves that files have, and now and then the edges: zero,
// subnormal, large, negative.
std::vector<uint8_t> random_tensor(Random& random, Type type, uint64_t rows, uint64_t cols) {
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
    const uint32_t scales = type == Type::q4_1 ? 2 : 1;
    for (uint64_t at = 0; at < data.size(); at += shape.block_bytes) {
        for (uint32_t s = 0; s < scales; ++s) {
            constexpr std::array<uint16_t, 5> kEdges{0, 0x8000, 1, 0x03ff, 0x7bff};
            uint16_t half = reference::f32_to_f16(random.real(0.01f));
            if (random.below(40) == 0) half = kEdges[random.below(kEdges.size())];
            std::memcpy(&data[at + 2 * s], &half, 2);
        }
    }
    return data;
}

struct Weights {
    const TypeOps* ops;
    Aligned packed;
    uint64_t rows, cols;
};

Weights pack(const Kernels& kernels, Type type, const std::vector<uint8_t>& tensor, uint64_t rows,
             uint64_t cols) {
    const TypeOps* ops = kernels.ops(type);
    REQUIRE(ops != nullptr);
    Weights weights{ops, Aligned{ops->packed_bytes(rows, cols)}, rows, cols};
    const uint64_t groups = (rows + kGroup - 1) / kGroup, middle = groups / 2;
    ops->pack(tensor.data(), rows, cols, middle, groups, weights.packed.data());
    ops->pack(tensor.data(), rows, cols, 0, middle, weights.packed.data());
    return weights;
}

// y[m][rows] over as many tiles as m needs; groups in two calls.
std::vector<float> product(const Kernels& kernels, Weights& weights, const std::vector<float>& x,
                           uint32_t m, bool add) {
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

void compare(const Kernels& path, Type type, uint64_t rows, uint64_t cols,
             const std::vector<uint32_t>& row_counts, uint32_t seed) {
    Random random{seed};
    const std::vector<uint8_t> tensor = random_tensor(random, type, rows, cols);
    Weights fast = pack(path, type, tensor, rows, cols);
    Weights slow = pack(reference::table(), type, tensor, rows, cols);
    for (const uint32_t m : row_counts) {
        const std::vector<float> x = random.reals(m * cols);
        const bool add = m % 2 == 0;
        const auto expected = product(reference::table(), slow, x, m, add);
        const auto actual = product(path, fast, x, m, add);
        INFO(path.name << " " << traits(type).name << " rows " << rows << " cols " << cols << " m "
                       << m << " seed " << seed);
        REQUIRE(first_difference(actual, expected) == -1);
    }
}

}  // namespace

TEST_CASE("a product has the reference's bits for every number of rows up to 64", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            std::vector<uint32_t> counts;
            for (uint32_t m = 1; m <= 64; ++m) counts.push_back(m);
            compare(*path, type, 48, 96, counts, 1);
        }
    }
}

TEST_CASE("a product has the reference's bits for odd shapes", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        uint32_t seed = 100;
        for (const Type type : kTypes) {
            for (const uint64_t rows : {1, 7, 15, 16, 17, 33, 79, 160}) {
                for (uint64_t cols : {32, 64, 544, 1536}) {
                    compare(*path, type, rows, cols, {1, 3, 16}, ++seed);
                    if (traits(type).block_weights > 1) continue;
                    compare(*path, type, rows, cols - 1, {1, 5, 17}, ++seed);
                }
            }
        }
    }
}

TEST_CASE("a row of a product does not depend on the rows beside it", "[kernels]") {
    std::vector<const Kernels*> paths = fast_paths();
    paths.push_back(&reference::table());
    for (const Kernels* path : paths) {
        for (const Type type : kTypes) {
            Random random{7};
            const auto tensor = random_tensor(random, type, 40, 64);
            Weights weights = pack(*path, type, tensor, 40, 64);
            const auto x = random.reals(16 * 64);
            const auto together = product(*path, weights, x, 16, false);
            for (uint32_t i = 0; i < 16; ++i) {
                const std::vector<float> row(x.begin() + i * 64, x.begin() + (i + 1) * 64);
                const std::vector<float> alone = product(*path, weights, row, 1, false);
                const std::vector<float> part(together.begin() + i * 40,
                                              together.begin() + (i + 1) * 40);
                INFO(path->name << " " << traits(type).name << " row " << i);
                REQUIRE(first_difference(alone, part) == -1);
            }
        }
    }
}

TEST_CASE("a row of the embedding has the reference's bits", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            Random random{9};
            const uint64_t rows = 37, cols = 96;
            const auto tensor = random_tensor(random, type, rows, cols);
            Weights fast = pack(*path, type, tensor, rows, cols);
            Weights slow = pack(reference::table(), type, tensor, rows, cols);
            for (uint64_t row = 0; row < rows; ++row) {
                std::vector<float> a(cols), b(cols);
                fast.ops->unpack_row(fast.packed.data(), rows, cols, row, a.data());
                slow.ops->unpack_row(slow.packed.data(), rows, cols, row, b.data());
                INFO(path->name << " " << traits(type).name << " row " << row);
                REQUIRE(first_difference(a, b) == -1);
            }
        }
    }
}

TEST_CASE("the reference's product is the sum of products up to rounding", "[kernels]") {
    // The definition itself against plain arithmetic in double over unpacked weights; what is left is the
    // activations' quantisation (1/254 of a block's largest, averaged out) for types that have one.
    for (const Type type : kTypes) {
        Random random{11};
        const uint64_t rows = 32, cols = 1024;
        std::vector<uint8_t> tensor = random_tensor(random, type, rows, cols);
        const TypeTraits shape = traits(type);
        if (shape.block_weights > 1) {
            for (size_t at = 0; at < tensor.size(); at += shape.block_bytes) {
                const uint16_t half = reference::f32_to_f16(0.01f);
                std::memcpy(&tensor[at], &half, 2);
            }
        }
        if (type == Type::q4_1) {
            for (size_t at = 0; at < tensor.size(); at += shape.block_bytes) {
                const uint16_t half = reference::f32_to_f16(-0.07f);
                std::memcpy(&tensor[at + 2], &half, 2);
            }
        }
        Weights weights = pack(reference::table(), type, tensor, rows, cols);
        const auto x = random.reals(cols);
        const auto y = product(reference::table(), weights, x, 1, false);
        for (uint64_t row = 0; row < rows; ++row) {
            std::vector<float> w(cols);
            weights.ops->unpack_row(weights.packed.data(), rows, cols, row, w.data());
            double exact = 0, norm = 0;
            for (uint64_t k = 0; k < cols; ++k) {
                exact += double{w[k]} * x[k];
                norm += double{w[k]} * w[k];
            }
            const double tolerance = weights.ops->quantised_input ? 0.04 * std::sqrt(norm)
                                                                  : 1e-5 * std::sqrt(norm * cols);
            INFO(traits(type).name << " row " << row);
            REQUIRE(std::fabs(y[row] - exact) < tolerance);
        }
    }
}

}  // namespace parley::kernels
