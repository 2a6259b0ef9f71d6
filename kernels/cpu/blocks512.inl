// Blocks of packed weights as eight 512-bit vectors of unsigned bytes: what the AVX-512 VNNI and the AMX path
// share.
//
// Vector t holds columns 4t … 4t + 3 of 16 outputs, byte 4r + i column 4t + i of output r.
#pragma once

#include "kernels/cpu/pack.hpp"
#include "kernels/cpu/vector.inl"

namespace parley::kernels::cpu {
namespace {

PARLEY_INLINE __m512i all(int32_t x) { return _mm512_set1_epi32(x); }
PARLEY_INLINE __m512 halves(const uint8_t* p) {
    return load_half(reinterpret_cast<const uint16_t*>(p)).v;
}
PARLEY_INLINE __m512i load_bytes(const uint8_t* p) {
    return _mm512_loadu_si512(reinterpret_cast<const void*>(p));
}

PARLEY_INLINE void unpack_nibbles(const uint8_t* q, __m512i* w) {
    const __m512i mask = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
        const __m512i both = load_bytes(q + 64 * t);
        w[t] = _mm512_and_si512(both, mask);
        w[t + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
}

// A type: weights as unsigned bytes, and where the integer sum starts to make up for the offset.
struct Q4_1 {
    static constexpr Type kType = Type::q4_1;
    static constexpr bool kMinimum = true;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) { unpack_nibbles(q, w); }
    PARLEY_INLINE static __m512i start(const Q8Block&, int) { return _mm512_setzero_si512(); }
};
struct Q4_0 {
    static constexpr Type kType = Type::q4_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) { unpack_nibbles(q, w); }
    PARLEY_INLINE static __m512i start(const Q8Block& x, int m) { return all(x.n128[m] >> 4); }
};
struct Q8_0 {
    static constexpr Type kType = Type::q8_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) {
        const __m512i offset = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
        for (int t = 0; t < 8; ++t) w[t] = _mm512_xor_si512(load_bytes(q + 64 * t), offset);
    }
    PARLEY_INLINE static __m512i start(const Q8Block& x, int m) { return all(x.n128[m]); }
};

// The fifth bit of vector t is bit t of the same byte of one vector.
PARLEY_INLINE void add_fifth(const uint8_t* high, __m512i* w) {
    const __m512i bits = load_bytes(high), bit = _mm512_set1_epi8(16);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) {
        const __m512i at_4 =
            t < 4 ? _mm512_slli_epi16(bits, 4 - t) : _mm512_srli_epi16(bits, t < 4 ? 0 : t - 4);
        w[t] = _mm512_ternarylogic_epi32(w[t], at_4, bit, 0xf8);  // w | (at_4 & bit)
    }
}
struct Q5_0 {
    static constexpr Type kType = Type::q5_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
    PARLEY_INLINE static __m512i start(const Q8Block& x, int m) { return all(x.n128[m] >> 3); }
};
struct Q5_1 {
    static constexpr Type kType = Type::q5_1;
    static constexpr bool kMinimum = true;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
    PARLEY_INLINE static __m512i start(const Q8Block&, int) { return _mm512_setzero_si512(); }
};
struct Q4_K {
    static constexpr Type kType = Type::q4_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) { unpack_nibbles(q, w); }
};
struct Q5_K {
    static constexpr Type kType = Type::q5_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
};
struct Q6_K {
    static constexpr Type kType = Type::q6_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m512i* w) {
        unpack_nibbles(q, w);
        const __m512i bits = _mm512_set1_epi8(48);
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            const __m512i high = load_bytes(q + 256 + 64 * v);
            const __m512i at_4[4] = {_mm512_slli_epi16(high, 4), _mm512_slli_epi16(high, 2), high,
                                     _mm512_srli_epi16(high, 2)};
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) {
                w[4 * v + t] = _mm512_ternarylogic_epi32(w[4 * v + t], at_4[t], bits, 0xf8);
            }
        }
    }
};

PARLEY_INLINE __m128i load_16(const uint8_t* p) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
}
PARLEY_INLINE __m512 unsigned_bytes(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_16(p)));
}
PARLEY_INLINE __m512 signed_bytes(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16(p)));
}

}  // namespace
}  // namespace parley::kernels::cpu
