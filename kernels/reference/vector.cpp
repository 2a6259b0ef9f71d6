#include <bit>
#include <cmath>

#include "kernels/reference/reference.hpp"

namespace parley::kernels::reference {

float f16_to_f32(uint16_t half) {
    const uint32_t sign = uint32_t{half & 0x8000u} << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
        return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
    }
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
    if (std::isnan(value)) return sign | 0x7e00u;
    if (magnitude == 0.0f) return sign;
    if (magnitude >= 65520.0f)
        return sign | 0x7c00u;  // half way to the first one that is too large
    // The spacing of halves at this magnitude; the scaled value then rounds as an integer would.
    int exponent = 0;
    (void)std::frexp(magnitude, &exponent);  // magnitude = f · 2^exponent, f in [0.5, 1)
    const int ulp = exponent - 11 < -24 ? -24 : exponent - 11;
    const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -ulp)));
    // steps ≤ 2048; 2048 carries into the next exponent by plain addition.
    if (ulp == -24) return static_cast<uint16_t>(sign | steps);
    const uint32_t biased = static_cast<uint32_t>(ulp + 25);
    return static_cast<uint16_t>(sign | ((biased << 10) + (steps - 1024)));
}

float exp(float x) {
    x = x > kExpLow ? x : kExpLow;
    x = x < kExpHigh ? x : kExpHigh;
    const float n = std::nearbyint(x * kLog2E);
    float r = std::fma(-n, kLn2Hi, x);
    r = std::fma(-n, kLn2Lo, r);
    float p = kExpP[0];
    for (int i = 1; i < 6; ++i) p = std::fma(p, r, kExpP[i]);
    const float y = std::fma(p, r * r, r) + 1.0f;
    return std::bit_cast<float>(std::bit_cast<int32_t>(y) + static_cast<int32_t>(n) * (1 << 23));
}

void quantise(const float* x, uint64_t cols, uint32_t slot, Q8Block* tile) {
    for (uint64_t block = 0; block < cols / kBlock; ++block, x += kBlock) {
        Q8Block& out = tile[block];
        float amax = 0;
        for (uint32_t i = 0; i < kBlock; ++i) {
            const float a = std::fabs(x[i]);
            amax = a > amax ? a : amax;
        }
        const bool zero = amax < kAmaxMin;
        const float d = zero ? 0.0f : amax / 127.0f;
        const float inverse = zero ? 0.0f : 127.0f / amax;
        int32_t sum = 0, first = 0;
        for (uint32_t i = 0; i < kBlock; ++i) {
            float q = std::nearbyint(x[i] * inverse);
            q = q > -127.0f ? q : -127.0f;
            q = q < 127.0f ? q : 127.0f;
            out.q[slot][i] = static_cast<int8_t>(q);
            sum += out.q[slot][i];
            if (i < kBlock / 2) first += out.q[slot][i];
        }
        out.d[slot] = d;
        out.s[slot] = d * static_cast<float>(sum);
        out.n128[slot] = -128 * sum;
        out.n32_first[slot] = -32 * first;
    }
}

void quantise_rows(const float* x, uint64_t stride, uint64_t cols, uint32_t rows, Q8Block* tile) {
    for (uint32_t row = 0; row < rows; ++row) quantise(x + row * stride, cols, row, tile);
}

namespace {
float fold_lanes(float* lane) {
    for (uint32_t step = kLanes / 2; step > 0; step /= 2) {
        for (uint32_t l = 0; l < step; ++l) lane[l] = lane[l] + lane[l + step];
    }
    return lane[0];
}
}  // namespace

void rms_norm(const float* x, const float* weight, uint64_t n, float eps, float* y) {
    float lane[kLanes] = {};
    for (uint64_t i = 0; i < n; ++i) lane[i % kLanes] = std::fma(x[i], x[i], lane[i % kLanes]);
    const float mean = fold_lanes(lane) / static_cast<float>(n);
    const float r = 1.0f / std::sqrt(mean + eps);
    for (uint64_t i = 0; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

void rope_adjacent(float* x, uint64_t n, const float* cos_sin, uint64_t pairs, float scale) {
    for (uint64_t i = 0; i < pairs; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        const float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        x[2 * i] = std::fma(a, c, -(b * s));
        x[2 * i + 1] = std::fma(b, c, a * s);
    }
    for (uint64_t i = 0; i < n; ++i) x[i] = x[i] * scale;
}

void silu_mul(const float* gate, const float* up, uint64_t n, float* out) {
    for (uint64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + exp(-gate[i])) * up[i];
}

void gelu_mul(const float* gate, const float* up, uint64_t n, float* out) {
    for (uint64_t i = 0; i < n; ++i) {
        const float t = gate[i] * std::fma(gate[i] * gate[i], kGeluB, kGeluA);
        out[i] = gate[i] / (1.0f + exp(-t)) * up[i];
    }
}

}  // namespace parley::kernels::reference
