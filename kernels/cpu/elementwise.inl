// Quantisation, norm, rotation and the gated unit, over vector.inl.
#pragma once

#include "kernels/cpu/vector.inl"

namespace parley::kernels::cpu {
namespace {

void quantise(const float* x, uint64_t cols, uint32_t slot, Q8Block* tile) {
    for (uint64_t k = 0; k < cols / kBlock; ++k, x += kBlock) {
        Q8Block& out = tile[k];
        const Vector a = load(x), b = load(x + 16);
        // A NaN does not take part: max gives its second operand.
        const float amax = fold_max(max(abs(b), max(abs(a), zero())));
        const bool nothing = amax < kAmaxMin;
        const float d = nothing ? 0.0f : amax / 127.0f;
        const Vector inverse = all(nothing ? 0.0f : 127.0f / amax);
        const Vector low = all(-127.0f), high = all(127.0f);
        const Vector qa = round_even(min(max(mul(a, inverse), low), high));
        const Vector qb = round_even(min(max(mul(b, inverse), low), high));
        store_bytes(out.q[slot], qa);
        store_bytes(out.q[slot] + 16, qb);
        // Whole numbers, small enough for floats to add them exactly in any order; + 0 since a sum of
        // negative zeros is one.
        float first, second;
        whole_sums(qa, qb, &first, &second);
        const float sum = first + second + 0.0f;
        out.d[slot] = d;
        out.s[slot] = d * sum;
        out.n128[slot] = static_cast<int32_t>(-128.0f * sum);
        out.n32_first[slot] = static_cast<int32_t>(-32.0f * first);
    }
}

void rms_norm(const float* x, const float* weight, uint64_t n, float eps, float* y) {
    Vector lanes = zero();
    const uint64_t whole = n / kLanes * kLanes;
    for (uint64_t i = 0; i < whole; i += kLanes) {
        const Vector v = load(x + i);
        lanes = fma(v, v, lanes);
    }
    if (whole < n) {
        const Vector v = load_first(x + whole, n - whole);
        lanes = fma(v, v, lanes);
    }
    const float mean = fold_sum(lanes) / static_cast<float>(n);
    const Vector r = all(1.0f / __builtin_sqrtf(mean + eps));
    for (uint64_t i = 0; i < whole; i += kLanes) {
        store(y + i, mul(mul(load(x + i), r), load(weight + i)));
    }
    if (whole < n) {
        const Vector v = mul(load_first(x + whole, n - whole), r);
        store_first(y + whole, mul(v, load_first(weight + whole, n - whole)), n - whole);
    }
}

PARLEY_INLINE Vector rotate(Vector x, Vector cos_sin) {
    const Vector other = negate_even(mul(swap_pairs(x), odd_twice(cos_sin)));
    return fma(x, even_twice(cos_sin), other);
}

void rope_adjacent(float* x, uint64_t n, const float* cos_sin, uint64_t pairs, float scale) {
    const uint64_t rotated = 2 * pairs;
    const Vector factor = all(scale);
    uint64_t i = 0;
    for (; i + kLanes <= rotated; i += kLanes) {
        store(x + i, mul(rotate(load(x + i), load(cos_sin + i)), factor));
    }
    if (i < rotated) {
        const uint64_t rest = rotated - i;
        const Vector turned = rotate(load_first(x + i, rest), load_first(cos_sin + i, rest));
        store_first(x + i, mul(turned, factor), rest);
        i = rotated;
    }
    for (; i < n; i += kLanes) {
        const uint64_t count = n - i < kLanes ? n - i : kLanes;
        store_first(x + i, mul(load_first(x + i, count), factor), count);
    }
}

void silu_mul(const float* gate, const float* up, uint64_t n, float* out) {
    for (uint64_t i = 0; i < n; i += kLanes) {
        const uint64_t count = n - i < kLanes ? n - i : kLanes;
        const Vector g = load_first(gate + i, count);
        const Vector silu = div(g, add(all(1.0f), exp(negate(g))));
        store_first(out + i, mul(silu, load_first(up + i, count)), count);
    }
}

void gelu_mul(const float* gate, const float* up, uint64_t n, float* out) {
    for (uint64_t i = 0; i < n; i += kLanes) {
        const uint64_t count = n - i < kLanes ? n - i : kLanes;
        const Vector g = load_first(gate + i, count);
        const Vector t = mul(g, fma(mul(g, g), all(kGeluB), all(kGeluA)));
        const Vector gelu = div(g, add(all(1.0f), exp(negate(t))));
        store_first(out + i, mul(gelu, load_first(up + i, count)), count);
    }
}

}  // namespace
}  // namespace parley::kernels::cpu
