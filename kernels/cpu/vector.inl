// Sixteen floats: one register of AVX-512, two of AVX2. Everything that is not an integer product is
// written once over this type (elementwise.inl, attention.inl) and compiled for each path.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/contract.hpp"

#define PARLEY_INLINE __attribute__((always_inline)) inline

namespace parley::kernels::cpu {
namespace {

#if defined(__AVX512F__)

struct Vector {
    __m512 v;
};
PARLEY_INLINE Vector zero() { return {_mm512_setzero_ps()}; }
PARLEY_INLINE Vector all(float x) { return {_mm512_set1_ps(x)}; }
PARLEY_INLINE Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
PARLEY_INLINE Vector load_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
PARLEY_INLINE Vector load_signed_bytes(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
PARLEY_INLINE Vector load_brain(const uint16_t* p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
PARLEY_INLINE void store(float* p, Vector a) { _mm512_storeu_ps(p, a.v); }
PARLEY_INLINE void store_half(uint16_t* p, Vector a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The first n (0 … 16) values; the rest are zero.
PARLEY_INLINE __mmask16 first(uint64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
PARLEY_INLINE Vector load_first(const float* p, uint64_t n) {
    return {_mm512_maskz_loadu_ps(first(n), p)};
}
PARLEY_INLINE void store_first(float* p, Vector a, uint64_t n) {
    _mm512_mask_storeu_ps(p, first(n), a.v);
}
PARLEY_INLINE Vector keep_first(Vector a, uint64_t n, float other) {
    return {_mm512_mask_blend_ps(first(n), _mm512_set1_ps(other), a.v)};
}
// Without the first n.
PARLEY_INLINE Vector drop_first(Vector a, uint64_t n, float other) {
    return {_mm512_mask_blend_ps(first(n), a.v, _mm512_set1_ps(other))};
}
PARLEY_INLINE Vector add(Vector a, Vector b) { return {_mm512_add_ps(a.v, b.v)}; }
PARLEY_INLINE Vector sub(Vector a, Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }
PARLEY_INLINE Vector mul(Vector a, Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }
PARLEY_INLINE Vector div(Vector a, Vector b) { return {_mm512_div_ps(a.v, b.v)}; }
PARLEY_INLINE Vector fma(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
PARLEY_INLINE Vector fnma(Vector a, Vector b, Vector c) {  // −a·b + c
    return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
// A NaN in `a` gives b.
PARLEY_INLINE Vector max(Vector a, Vector b) { return {_mm512_max_ps(a.v, b.v)}; }
PARLEY_INLINE Vector min(Vector a, Vector b) { return {_mm512_min_ps(a.v, b.v)}; }
PARLEY_INLINE Vector abs(Vector a) { return {_mm512_abs_ps(a.v)}; }
PARLEY_INLINE Vector negate(Vector a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
PARLEY_INLINE Vector round_even(Vector a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a · 2^n by exponent; n holds integers.
PARLEY_INLINE Vector scale_exponent(Vector a, Vector n) {
    const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(n.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), shift))};
}
PARLEY_INLINE Vector even_twice(Vector a) { return {_mm512_moveldup_ps(a.v)}; }
PARLEY_INLINE Vector odd_twice(Vector a) { return {_mm512_movehdup_ps(a.v)}; }
PARLEY_INLINE Vector swap_pairs(Vector a) { return {_mm512_permute_ps(a.v, 0xb1)}; }
PARLEY_INLINE Vector negate_even(Vector a) {
    const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000));
    return {_mm512_xor_ps(a.v, sign)};
}
// Whole numbers in the range of int8.
PARLEY_INLINE void store_bytes(int8_t* p, Vector a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
PARLEY_INLINE __m256 lower(Vector a) { return _mm512_castps512_ps256(a.v); }
PARLEY_INLINE __m256 upper(Vector a) { return _mm512_extractf32x8_ps(a.v, 1); }

#else

struct Vector {
    __m256 lo, hi;
};
PARLEY_INLINE Vector zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
PARLEY_INLINE Vector all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
PARLEY_INLINE Vector load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
PARLEY_INLINE __m128i load_128(const uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
PARLEY_INLINE Vector load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
PARLEY_INLINE Vector load_signed_bytes(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
PARLEY_INLINE __m256 brain(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
PARLEY_INLINE Vector load_brain(const uint16_t* p) {
    return {brain(load_128(p)), brain(load_128(p + 8))};
}
PARLEY_INLINE void store(float* p, Vector a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
PARLEY_INLINE void store_half(uint16_t* p, Vector a) {
    constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kRound));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kRound));
}
// All ones in the lanes below n − from.
PARLEY_INLINE __m256i first(uint64_t n, int from) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n) - from), lane);
}
PARLEY_INLINE Vector load_first(const float* p, uint64_t n) {
    return {_mm256_maskload_ps(p, first(n, 0)), _mm256_maskload_ps(p + 8, first(n, 8))};
}
PARLEY_INLINE void store_first(float* p, Vector a, uint64_t n) {
    _mm256_maskstore_ps(p, first(n, 0), a.lo);
    _mm256_maskstore_ps(p + 8, first(n, 8), a.hi);
}
PARLEY_INLINE Vector keep_first(Vector a, uint64_t n, float other) {
    const __m256 rest = _mm256_set1_ps(other);
    return {_mm256_blendv_ps(rest, a.lo, _mm256_castsi256_ps(first(n, 0))),
            _mm256_blendv_ps(rest, a.hi, _mm256_castsi256_ps(first(n, 8)))};
}
// Without the first n.
PARLEY_INLINE Vector drop_first(Vector a, uint64_t n, float other) {
    const __m256 instead = _mm256_set1_ps(other);
    return {_mm256_blendv_ps(a.lo, instead, _mm256_castsi256_ps(first(n, 0))),
            _mm256_blendv_ps(a.hi, instead, _mm256_castsi256_ps(first(n, 8)))};
}
PARLEY_INLINE Vector add(Vector a, Vector b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector sub(Vector a, Vector b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector mul(Vector a, Vector b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector div(Vector a, Vector b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector fma(Vector a, Vector b, Vector c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
PARLEY_INLINE Vector fnma(Vector a, Vector b, Vector c) {  // −a·b + c
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
// A NaN in `a` gives b.
PARLEY_INLINE Vector max(Vector a, Vector b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector min(Vector a, Vector b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
PARLEY_INLINE Vector abs(Vector a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
PARLEY_INLINE Vector negate(Vector a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
PARLEY_INLINE Vector round_even(Vector a) {
    constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, kRound), _mm256_round_ps(a.hi, kRound)};
}
PARLEY_INLINE __m256 scale_exponent_256(__m256 a, __m256 n) {
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shift));
}
// a · 2^n by exponent; n holds integers.
PARLEY_INLINE Vector scale_exponent(Vector a, Vector n) {
    return {scale_exponent_256(a.lo, n.lo), scale_exponent_256(a.hi, n.hi)};
}
PARLEY_INLINE Vector even_twice(Vector a) {
    return {_mm256_moveldup_ps(a.lo), _mm256_moveldup_ps(a.hi)};
}
PARLEY_INLINE Vector odd_twice(Vector a) {
    return {_mm256_movehdup_ps(a.lo), _mm256_movehdup_ps(a.hi)};
}
PARLEY_INLINE Vector swap_pairs(Vector a) {
    return {_mm256_permute_ps(a.lo, 0xb1), _mm256_permute_ps(a.hi, 0xb1)};
}
PARLEY_INLINE Vector negate_even(Vector a) {
    const __m256 sign = _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000));
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
// Whole numbers in the range of int8.
PARLEY_INLINE void store_bytes(int8_t* p, Vector a) {
    const __m256i lo = _mm256_cvtps_epi32(a.lo), hi = _mm256_cvtps_epi32(a.hi);
    const __m128i words_lo =
        _mm_packs_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
    const __m128i words_hi =
        _mm_packs_epi32(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words_lo, words_hi));
}
PARLEY_INLINE __m256 lower(Vector a) { return a.lo; }
PARLEY_INLINE __m256 upper(Vector a) { return a.hi; }

#endif

// The contract's fold of lanes: l += l + 8, then 4, 2, 1.
PARLEY_INLINE float fold_sum(Vector a) {
    const __m256 eight = _mm256_add_ps(lower(a), upper(a));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
// Σa and Σb at half the work, in an order of its own: for whole numbers.
PARLEY_INLINE void whole_sums(Vector a, Vector b, float* sum_a, float* sum_b) {
    const __m256 eight_a = _mm256_add_ps(lower(a), upper(a));
    const __m256 eight_b = _mm256_add_ps(lower(b), upper(b));
    const __m256 four = _mm256_add_ps(_mm256_permute2f128_ps(eight_a, eight_b, 0x20),
                                      _mm256_permute2f128_ps(eight_a, eight_b, 0x31));
    const __m256 two = _mm256_add_ps(four, _mm256_permute_ps(four, 0x0e));
    const __m256 one = _mm256_add_ps(two, _mm256_permute_ps(two, 0x01));
    *sum_a = _mm256_cvtss_f32(one);
    *sum_b = _mm_cvtss_f32(_mm256_extractf128_ps(one, 1));
}
PARLEY_INLINE float fold_max(Vector a) {
    const __m256 eight = _mm256_max_ps(lower(a), upper(a));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

PARLEY_INLINE Vector exp(Vector x) {
    x = min(max(x, all(kExpLow)), all(kExpHigh));
    const Vector n = round_even(mul(x, all(kLog2E)));
    Vector r = fnma(n, all(kLn2Hi), x);
    r = fnma(n, all(kLn2Lo), r);
    Vector p = all(kExpP[0]);
    for (int i = 1; i < 6; ++i) p = fma(p, r, all(kExpP[i]));
    const Vector y = add(fma(p, mul(r, r), r), all(1.0f));
    return scale_exponent(y, n);
}

}  // namespace
}  // namespace parley::kernels::cpu
