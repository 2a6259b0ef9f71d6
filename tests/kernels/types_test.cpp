// What the bytes of a block mean, against the tables of the format taken literally, one weight at a time;
// and what bytes that mean nothing do.
#include "kernels/types.hpp"

#include "kernels/tensors.hpp"

namespace parley::kernels {
namespace {

double half_value(const uint8_t* at) {
    const int bits = at[0] | at[1] << 8, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return bits >= 0x8000 ? -magnitude : magnitude;
}

// A K block's six-bit numbers, put in a row of sixteen: eight scales, then eight minimums.
int six_bits(const uint8_t* s, int index) {
    const int j = index % 8;
    const bool minimum = index >= 8;
    if (j < 4) return s[minimum ? j + 4 : j] % 64;
    const int low = minimum ? s[j + 4] / 16 : s[j + 4] % 16;
    return low + s[minimum ? j : j - 4] / 64 * 16;
}

// Weight i of the block at b; exact but for one rounding at most when it becomes a float.
double weight(Type type, const uint8_t* b, int i) {
    const int side = i / 16 % 2;  // of a block of 32: low or high nibbles
    const auto nibble = [](int byte, int high) { return high != 0 ? byte / 16 : byte % 16; };
    const auto bit = [](const uint8_t* bytes, int n) { return bytes[n / 8] >> n % 8 & 1; };
    const double d = half_value(b), m = half_value(b + 2);
    const int sub = i / 32, l = i % 32;
    switch (type) {
        case Type::q4_0:
            return d * (nibble(b[2 + i % 16], side) - 8);
        case Type::q4_1:
            return d * nibble(b[4 + i % 16], side) + m;
        case Type::q5_0:
            return d * (nibble(b[6 + i % 16], side) + 16 * bit(b + 2, i) - 16);
        case Type::q5_1:
            return d * (nibble(b[8 + i % 16], side) + 16 * bit(b + 4, i)) + m;
        case Type::q8_0:
            return d * static_cast<int8_t>(b[2 + i]);
        case Type::q4_k:
            return d * six_bits(b + 4, sub) * nibble(b[16 + sub / 2 * 32 + l], sub % 2) -
                   m * six_bits(b + 4, 8 + sub);
        case Type::q5_k: {
            const int q = nibble(b[48 + sub / 2 * 32 + l], sub % 2) + 16 * (b[16 + l] >> sub & 1);
            return d * six_bits(b + 4, sub) * q - m * six_bits(b + 4, 8 + sub);
        }
        case Type::q6_k: {
            const uint8_t *ql = b + i / 128 * 64, *qh = b + 128 + i / 128 * 32;
            int q = 0;  // the four lines of the format, in their order
            if (sub % 4 == 0) q = (ql[l] & 15) | (qh[l] & 3) << 4;
            if (sub % 4 == 1) q = (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4;
            if (sub % 4 == 2) q = ql[l] >> 4 | (qh[l] >> 4 & 3) << 4;
            if (sub % 4 == 3) q = ql[l + 32] >> 4 | (qh[l] >> 6 & 3) << 4;
            return half_value(b + 208) * static_cast<int8_t>(b[192 + i / 16]) * (q - 32);
        }
        default:
            FAIL("not a type with blocks");
            return 0;
    }
}

std::vector<const Kernels*> all_paths() {
    std::vector<const Kernels*> paths = fast_paths();
    paths.push_back(&reference::table());
    return paths;
}

// NaN where the other has one, the same bits elsewhere.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
        if (std::isnan(a[i]) && std::isnan(b[i])) continue;
        if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return false;
    }
    return a.size() == b.size();
}

}  // namespace

TEST_CASE("every path reads a block's weights as the format says", "[kernels]") {
    for (const Kernels* path : all_paths()) {
        for (const Type type : kTypes) {
            const TypeTraits shape = traits(type);
            if (shape.block_weights == 1) continue;
            Random random{21};
            const uint64_t rows = 19, cols = 512;
            const auto tensor = random_tensor(random, type, rows, cols);
            Weights packed = pack(*path, type, tensor, rows, cols);
            std::vector<float> out(cols);
            for (uint64_t row = 0; row < rows; ++row) {
                packed.ops->unpack_row(packed.packed.data(), rows, cols, row, out.data());
                for (uint64_t k = 0; k < cols; ++k) {
                    const uint64_t block = (row * cols + k) / shape.block_weights;
                    const double exact = weight(type, &tensor[block * shape.block_bytes],
                                                static_cast<int>(k % shape.block_weights));
                    INFO(path->name << " " << shape.name << " row " << row << " column " << k);
                    REQUIRE(out[k] == static_cast<float>(exact));
                }
            }
        }
    }
}

TEST_CASE("a product of one weight is that weight", "[kernels]") {
    // An activation alone in its block is quantised to 127 exactly, so that nothing but the weights'
    // layout and the order of columns is tried: a swapped pair of columns shows here.
    for (const Kernels* path : all_paths()) {
        for (const Type type : {Type::q5_0, Type::q4_k, Type::q5_k, Type::q6_k}) {
            Random random{22};
            const uint64_t rows = 16, cols = 256;
            const auto tensor = random_tensor(random, type, rows, cols);
            Weights packed = pack(*path, type, tensor, rows, cols);
            for (uint64_t k = 0; k < cols; ++k) {
                std::vector<float> x(cols, 0.0f);
                x[k] = 127.0f;
                const auto y = product(*path, packed, x, 1, false);
                for (uint64_t row = 0; row < rows; ++row) {
                    const uint64_t at = row * cols + k;
                    const double exact =
                        127 *
                        weight(type,
                               &tensor[at / traits(type).block_weights * traits(type).block_bytes],
                               static_cast<int>(at % traits(type).block_weights));
                    INFO(path->name << " " << traits(type).name << " row " << row << " column "
                                    << k);
                    REQUIRE(std::fabs(y[row] - exact) <= 1e-5 * (std::fabs(exact) + 127 * 64));
                }
            }
        }
    }
}

TEST_CASE("the largest sums of a block do not overflow on any path", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            const TypeTraits shape = traits(type);
            if (shape.block_weights == 1) continue;
            for (const int fill : {0x00, 0x80, 0xff}) {
                const uint64_t rows = 16, cols = 256;
                std::vector<uint8_t> tensor(rows * cols / shape.block_weights * shape.block_bytes,
                                            static_cast<uint8_t>(fill));
                for (uint64_t at = 0; at < tensor.size(); at += shape.block_bytes) {
                    for (const uint32_t s : halves_of(type)) {
                        set_half(tensor, at + s, reference::f32_to_f16(1.0f));
                    }
                }
                Weights fast = pack(*path, type, tensor, rows, cols);
                Weights slow = pack(reference::table(), type, tensor, rows, cols);
                for (const float sign : {1.0f, -1.0f}) {
                    const std::vector<float> x(5 * cols, sign);
                    INFO(path->name << " " << shape.name << " filled with " << fill);
                    REQUIRE(first_difference(product(*path, fast, x, 5, false),
                                             product(reference::table(), slow, x, 5, false)) == -1);
                }
            }
        }
    }
}

TEST_CASE("bytes that are no weights give NaN where the reference does, and harm nothing",
          "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            const uint64_t rows = 35, cols = 512;
            const TypeTraits shape = traits(type);
            Random random{23};
            std::vector<uint8_t> tensor(rows * cols / shape.block_weights * shape.block_bytes);
            for (uint8_t& byte : tensor) byte = random.byte();
            if (shape.block_weights > 1) {
                constexpr std::array<uint16_t, 6> kHostile{0x7e00, 0xfe01, 0x7c00,
                                                           0xfc00, 0x7d55, 0x3c00};
                for (uint64_t at = 0; at < tensor.size(); at += shape.block_bytes) {
                    if (random.below(8) != 0) continue;
                    for (const uint32_t s : halves_of(type)) {
                        set_half(tensor, at + s, kHostile[random.below(kHostile.size())]);
                    }
                }
            }
            Weights fast = pack(*path, type, tensor, rows, cols);
            Weights slow = pack(reference::table(), type, tensor, rows, cols);
            const auto x = random.reals(7 * cols);
            INFO(path->name << " " << shape.name);
            REQUIRE(same(product(*path, fast, x, 7, false),
                         product(reference::table(), slow, x, 7, false)));
            for (uint64_t row = 0; row < rows; ++row) {
                std::vector<float> a(cols), b(cols);
                fast.ops->unpack_row(fast.packed.data(), rows, cols, row, a.data());
                slow.ops->unpack_row(slow.packed.data(), rows, cols, row, b.data());
                REQUIRE(same(a, b));
            }
        }
    }
}

}  // namespace parley::kernels
