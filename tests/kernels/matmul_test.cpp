// Products of every type and path against the reference, bit for bit.
#include <cmath>

#include "kernels/tensors.hpp"

namespace parley::kernels {
namespace {

void compare(const Kernels& path, Type type, uint64_t rows, uint64_t cols,
             const std::vector<uint32_t>& row_counts, uint32_t seed) {
    Random random{seed};
    cols = whole_blocks(type, cols);
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
            const uint64_t cols = whole_blocks(type, 64);
            const auto tensor = random_tensor(random, type, 40, cols);
            Weights weights = pack(*path, type, tensor, 40, cols);
            const auto x = random.reals(16 * cols);
            const auto together = product(*path, weights, x, 16, false);
            for (uint32_t i = 0; i < 16; ++i) {
                const std::vector<float> row(x.begin() + i * cols, x.begin() + (i + 1) * cols);
                const std::vector<float> alone = product(*path, weights, row, 1, false);
                const std::vector<float> part(together.begin() + i * 40,
                                              together.begin() + (i + 1) * 40);
                INFO(path->name << " " << traits(type).name << " row " << i);
                REQUIRE(first_difference(alone, part) == -1);
            }
        }
    }
}

TEST_CASE("no path's operation is another's: what is forced by name is what runs", "[kernels]") {
    std::vector<const Kernels*> paths = fast_paths();
    paths.push_back(&reference::table());
    for (size_t a = 0; a < paths.size(); ++a) {
        for (size_t b = a + 1; b < paths.size(); ++b) {
            const Kernels& one = *paths[a];
            const Kernels& other = *paths[b];
            CAPTURE(one.name, other.name);
            for (const TypeOps& type : one.types) {
                const TypeOps* same = other.ops(type.type);
                REQUIRE(same != nullptr);
                CAPTURE(static_cast<int>(type.type));
                const bool floats =
                    type.type == Type::f32 || type.type == Type::f16 || type.type == Type::bf16;
                // Tiles are for integers: the rest of that path is AVX-512's.
                const bool shared = floats && one.name == std::string_view("amx") &&
                                    other.name == std::string_view("avx512vnni");
                CHECK((type.matmul == same->matmul) == shared);
            }
            if (one.name == std::string_view("amx") || other.name == std::string_view("amx"))
                continue;
            CHECK(one.quantise != other.quantise);
            CHECK(one.rms_norm != other.rms_norm);
            CHECK(one.rope_adjacent != other.rope_adjacent);
            CHECK(one.silu_mul != other.silu_mul);
            CHECK(one.gelu_mul != other.gelu_mul);
            CHECK(one.kv_append != other.kv_append);
            CHECK(one.attention_split != other.attention_split);
            CHECK(one.attention_fold != other.attention_fold);
            CHECK(one.attention_finish != other.attention_finish);
        }
    }
}

TEST_CASE("a row of the embedding has the reference's bits", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            Random random{9};
            const uint64_t rows = 37, cols = whole_blocks(type, 96);
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
                const std::vector<uint32_t> halves = halves_of(type);
                set_half(tensor, at + halves[0], reference::f32_to_f16(0.01f));
                if (halves.size() == 1) continue;
                const float minimum = shape.block_weights == kSuper ? 0.07f : -0.07f;
                set_half(tensor, at + halves[1], reference::f32_to_f16(minimum));
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
