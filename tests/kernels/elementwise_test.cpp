// Quantisation, norm, rotation, the gated unit and half precision against the reference and its promises.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/paths.hpp"

namespace parley::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> awkward() {
    std::vector<float> values{0.0f,    -0.0f,   1e-45f,  -1e-40f, 1e-30f,  9e-31f, 1e30f,  -3e38f,
                              0.5f,    1.5f,    2.5f,    -0.5f,   127.0f,  -127.f, 85.99f, 86.0f,
                              86.01f,  88.0f,   -88.f,   88.5f,   -200.0f, 200.0f, 1e4f,   -1e4f,
                              65504.f, 65519.f, 65520.f, 6e-8f,   2.9e-8f, 3e-8f,  1.0f,   -1.0f};
    return values;
}

}  // namespace

TEST_CASE("quantised activations have the reference's bits", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{21};
        for (int round = 0; round < 400; ++round) {
            std::vector<float> x = random.reals(96, std::exp(random.real(8.0f)));
            const std::vector<float> edges = awkward();
            if (round % 3 == 1) {
                for (float& value : x) value = edges[random.below(edges.size())];
            }
            if (round % 3 == 2) std::fill(x.begin(), x.begin() + 32, 0.0f);
            if (round % 7 == 0) std::fill(x.begin() + 32, x.begin() + 64, -1e-35f);
            if (round == 10) x[5] = kNaN;
            if (round == 11) x[40] = kInfinity;
            const uint32_t slot = random.below(kTileRows);
            std::vector<Q8Block> fast(3), slow(3);
            std::memset(static_cast<void*>(fast.data()), 0, 3 * sizeof(Q8Block));
            std::memset(static_cast<void*>(slow.data()), 0, 3 * sizeof(Q8Block));
            path->quantise(x.data(), x.size(), slot, fast.data());
            reference::quantise(x.data(), x.size(), slot, slow.data());
            INFO(path->name << " round " << round);
            for (int k = 0; k < 3; ++k) {
                REQUIRE(std::memcmp(fast[k].q, slow[k].q, sizeof slow[k].q) == 0);
                REQUIRE(std::memcmp(fast[k].d, slow[k].d, sizeof slow[k].d) == 0);
                REQUIRE(std::memcmp(fast[k].n128, slow[k].n128, sizeof slow[k].n128) == 0);
                REQUIRE(std::memcmp(fast[k].n32_first, slow[k].n32_first,
                                    sizeof slow[k].n32_first) == 0);
                // The sum of a block with an infinity is no number, and which one is left open.
                if (round != 11) {
                    REQUIRE(std::memcmp(fast[k].s, slow[k].s, sizeof slow[k].s) == 0);
                }
            }
        }
    }
}

TEST_CASE("rows quantised together have the bits of rows quantised one by one", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{27};
        for (uint32_t round = 0; round < 320; ++round) {
            const uint32_t rows = 1 + round % kTileRows;
            const uint64_t cols = 32 * (1 + random.below(3)), stride = cols + 16 * random.below(2);
            std::vector<float> x = random.reals(stride * rows, std::exp(random.real(8.0f)));
            const std::vector<float> edges = awkward();
            if (round % 3 == 1) {
                for (float& value : x) value = edges[random.below(edges.size())];
            }
            if (round % 3 == 2) std::fill(x.begin(), x.begin() + 32, -1e-35f);
            if (round % 5 == 0) x[random.below(x.size())] = kNaN;
            std::vector<Q8Block> fast(cols / 32), slow(cols / 32);
            path->quantise_rows(x.data(), stride, cols, rows, fast.data());
            for (uint32_t row = 0; row < rows; ++row) {
                reference::quantise(x.data() + row * stride, cols, row, slow.data());
            }
            INFO(path->name << " round " << round << ", " << rows << " rows of " << cols);
            for (size_t k = 0; k < slow.size(); ++k) {
                REQUIRE(std::memcmp(fast[k].q, slow[k].q, rows * kBlock) == 0);
                REQUIRE(std::memcmp(fast[k].d, slow[k].d, rows * sizeof(float)) == 0);
                REQUIRE(std::memcmp(fast[k].s, slow[k].s, rows * sizeof(float)) == 0);
                REQUIRE(std::memcmp(fast[k].n128, slow[k].n128, rows * sizeof(int32_t)) == 0);
                REQUIRE(std::memcmp(fast[k].n32_first, slow[k].n32_first,
                                    rows * sizeof(int32_t)) == 0);
            }
        }
    }
}

TEST_CASE("a quantised value is within half a step of the value", "[kernels]") {
    Random random{22};
    const std::vector<float> x = random.reals(32 * 50, 3.0f);
    std::vector<Q8Block> tile(50);
    reference::quantise(x.data(), x.size(), 4, tile.data());
    for (size_t i = 0; i < x.size(); ++i) {
        const Q8Block& block = tile[i / 32];
        REQUIRE(std::fabs(block.d[4] * block.q[4][i % 32] - x[i]) <= block.d[4] * 0.5001f);
    }
}

TEST_CASE("the norm has the reference's bits for every length", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{23};
        for (uint64_t n = 1; n <= 600; n += n < 70 ? 1 : 53) {
            const auto x = random.reals(n, 4.0f), weight = random.reals(n);
            std::vector<float> fast(n), slow(n);
            path->rms_norm(x.data(), weight.data(), n, 1e-5f, fast.data());
            reference::rms_norm(x.data(), weight.data(), n, 1e-5f, slow.data());
            INFO(path->name << " n " << n);
            REQUIRE(first_difference(fast, slow) == -1);
        }
    }
}

TEST_CASE("rotation has the reference's bits for whole and partial heads", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{24};
        for (const uint64_t n : {2, 32, 64, 80, 128}) {
            for (uint64_t pairs = 0; pairs <= n / 2; ++pairs) {
                std::vector<float> fast = random.reals(n), cos_sin(2 * pairs + 1);
                for (uint64_t i = 0; i < pairs; ++i) {
                    const float angle = random.real(10.0f);
                    cos_sin[2 * i] = std::cos(angle);
                    cos_sin[2 * i + 1] = std::sin(angle);
                }
                std::vector<float> slow = fast;
                path->rope_adjacent(fast.data(), n, cos_sin.data(), pairs, 0.125f);
                reference::rope_adjacent(slow.data(), n, cos_sin.data(), pairs, 0.125f);
                INFO(path->name << " n " << n << " pairs " << pairs);
                REQUIRE(first_difference(fast, slow) == -1);
            }
        }
    }
}

TEST_CASE("the gated units, SiLU and GELU, have the reference's bits, edges included", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{25};
        for (uint64_t n = 1; n <= 70; ++n) {
            auto gate = random.reals(n, 6.0f);
            const auto up = random.reals(n);
            const auto edges = awkward();
            for (uint64_t i = 0; i < n; i += 2) gate[i] = edges[(i + n) % edges.size()];
            std::vector<float> fast(n), slow(n);
            path->silu_mul(gate.data(), up.data(), n, fast.data());
            reference::silu_mul(gate.data(), up.data(), n, slow.data());
            INFO(path->name << " n " << n);
            REQUIRE(first_difference(fast, slow) == -1);
            path->gelu_mul(gate.data(), up.data(), n, fast.data());
            reference::gelu_mul(gate.data(), up.data(), n, slow.data());
            REQUIRE(first_difference(fast, slow) == -1);
        }
    }
}

TEST_CASE("GELU is the one with tanh to a millionth", "[kernels]") {
    const float one = 1.0f;
    for (float g = -12.0f; g <= 12.0f; g += 0.003f) {
        float got = 0;
        reference::gelu_mul(&g, &one, 1, &got);
        const double x = g, root = std::sqrt(2.0 / std::acos(-1.0));
        const double exact = 0.5 * x * (1 + std::tanh(root * (x + 0.044715 * x * x * x)));
        REQUIRE(std::fabs(got - exact) <= 1e-6 * std::max(1.0, std::fabs(x)));
    }
}

TEST_CASE("exp is within 3e-7 of the true one and exact at zero", "[kernels]") {
    REQUIRE(reference::exp(0.0f) == 1.0f);
    for (float x = -86.0f; x <= 88.0f; x += 0.01f) {
        const double exact = std::exp(double{x});
        REQUIRE(std::fabs(reference::exp(x) / exact - 1.0) < 3e-7);
    }
    REQUIRE(reference::exp(-1000.0f) == reference::exp(kExpLow));
    REQUIRE(reference::exp(1000.0f) == reference::exp(kExpHigh));
}

TEST_CASE("every half is its own value back", "[kernels]") {
    for (uint32_t half = 0; half < 65536; ++half) {
        const float value = reference::f16_to_f32(static_cast<uint16_t>(half));
        if (std::isnan(value)) continue;
        REQUIRE(reference::f32_to_f16(value) == half);
    }
}

TEST_CASE("keys and values are rounded to halves as the reference does", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{26};
        const uint32_t dim = 64;
        for (int round = 0; round < 2000; ++round) {
            std::vector<float> k(dim), v(dim);
            for (auto* values : {&k, &v}) {
                for (float& value : *values) {
                    // Any bits but a NaN's; mostly in the range of halves.
                    do {
                        value = std::bit_cast<float>(random.below(0xffffffffu));
                        if (random.below(4) != 0) value = random.real(std::exp(random.real(6.0f)));
                    } while (std::isnan(value));
                }
            }
            if (round == 0) {
                const auto edges = awkward();
                std::copy(edges.begin(), edges.end(), k.begin());
            }
            const uint64_t halves = kv_page_bytes(KvType::f16, dim) / 2;  // the larger of the two
            std::vector<uint16_t> fast(halves, 7), slow(halves, 7);
            const uint32_t slot = random.below(kPage);
            for (const KvType type : {KvType::f16, KvType::int8}) {
                path->kv_append(type, k.data(), v.data(), dim, slot, fast.data());
                reference::kv_append(type, k.data(), v.data(), dim, slot, slow.data());
                INFO(path->name << " round " << round << " type " << static_cast<int>(type));
                REQUIRE(fast == slow);
            }
        }
    }
}

}  // namespace parley::kernels
