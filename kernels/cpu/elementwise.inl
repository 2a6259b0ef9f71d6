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

#if defined(__AVX512F__)

// Lane r of the result: what `both` makes of the 16 lanes of v[r]; for operations that any order suits.
template <class Both>
PARLEY_INLINE __m512i fold_rows(const __m512i* v, Both both) {
    __m512i a[8], b[4], c[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        a[i] = both(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                    _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        b[i] = both(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                    _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        c[i] = both(_mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88),
                    _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xdd));
    }
    return both(_mm512_shuffle_i32x4(c[0], c[1], 0x88), _mm512_shuffle_i32x4(c[0], c[1], 0xdd));
}

// Sixteen rows together: their scales and sums are vectors, and nothing is folded row by row.
void quantise_rows(const float* x, uint64_t stride, uint64_t cols, uint32_t rows, Q8Block* tile) {
    const __m512 low = _mm512_set1_ps(-127.0f), high = _mm512_set1_ps(127.0f);
    const auto add = [](__m512i a, __m512i b) { return _mm512_add_epi32(a, b); };
    for (uint64_t k = 0; k < cols / kBlock; ++k, x += kBlock) {
        Q8Block& out = tile[k];
        __m512i v[kTileRows], w[kTileRows];
        for (uint32_t r = 0; r < kTileRows; ++r) {
            const float* row = x + (r < rows ? r : 0) * stride;
            // A NaN does not take part, as in quantise(). Such floats are ordered as whole numbers are.
            v[r] = _mm512_castps_si512(
                max(abs(load(row + 16)), max(abs(load(row)), zero())).v);
        }
        const __m512 amax = _mm512_castsi512_ps(
            fold_rows(v, [](__m512i a, __m512i b) { return _mm512_max_epi32(a, b); }));
        const __mmask16 some = _mm512_cmp_ps_mask(amax, _mm512_set1_ps(kAmaxMin), _CMP_NLT_UQ);
        const __m512 d = _mm512_maskz_div_ps(some, amax, high);
        alignas(64) float inverse[kTileRows];
        _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, high, amax));
        for (uint32_t r = 0; r < kTileRows; ++r) {
            const float* row = x + (r < rows ? r : 0) * stride;
            const __m512 i = _mm512_set1_ps(inverse[r]);
            // A conversion to whole numbers rounds to even.
            const auto whole = [&](const float* p) {
                return _mm512_cvtps_epi32(_mm512_min_ps(
                    _mm512_max_ps(_mm512_mul_ps(_mm512_loadu_ps(p), i), low), high));
            };
            v[r] = whole(row);
            w[r] = whole(row + 16);
            if (r >= rows) continue;
            auto* q = reinterpret_cast<__m128i*>(out.q[r]);
            _mm_store_si128(q, _mm512_cvtepi32_epi8(v[r]));
            _mm_store_si128(q + 1, _mm512_cvtepi32_epi8(w[r]));
        }
        const __m512i first = fold_rows(v, add);
        const __m512i sum = _mm512_add_epi32(first, fold_rows(w, add));
        _mm512_store_ps(out.d, d);
        _mm512_store_ps(out.s, _mm512_mul_ps(d, _mm512_cvtepi32_ps(sum)));
        _mm512_store_si512(out.n128, _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7)));
        _mm512_store_si512(out.n32_first, _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(first, 5)));
    }
}

#else

void quantise_rows(const float* x, uint64_t stride, uint64_t cols, uint32_t rows, Q8Block* tile) {
    for (uint32_t row = 0; row < rows; ++row) quantise(x + row * stride, cols, row, tile);
}

#endif

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
