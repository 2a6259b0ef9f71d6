// The AVX2 path: AVX2, FMA and F16C.
//
// Half a group (8 outputs) × 32 columns at a time, for up to four rows. Nibbles are small enough
// (15 · 127 · 2 · 8 = 30,480) for all eight pairs of products to be summed in 16 bits; of five bits four
// are (31,496), of six bits two (32,004).
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/cpu.hpp"
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/floats.inl"
#include "kernels/cpu/pack.hpp"

namespace parley::kernels::cpu {
namespace {

PARLEY_INLINE __m256i load_bytes(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
PARLEY_INLINE __m256i four_bytes(const int8_t* p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
PARLEY_INLINE __m256 halves(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

PARLEY_INLINE void unpack_nibbles(const uint8_t* q, __m256i* w) {
    const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
        const __m256i both = load_bytes(q + 64 * t);
        w[t] = _mm256_and_si256(both, mask);
        w[t + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    }
}
PARLEY_INLINE __m256i dot_nibbles(const __m256i* w, const int8_t* x) {
    __m256i sum = _mm256_maddubs_epi16(w[0], four_bytes(x));
#pragma GCC unroll 8
    for (int t = 1; t < 8; ++t) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[t], four_bytes(x + 4 * t)));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

struct Q4_1 {
    static constexpr Type kType = Type::q4_1;
    static constexpr bool kMinimum = true;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) { unpack_nibbles(q, w); }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return dot_nibbles(w, x.q[m]);
    }
};
struct Q4_0 {
    static constexpr Type kType = Type::q4_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) { unpack_nibbles(q, w); }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return _mm256_add_epi32(dot_nibbles(w, x.q[m]), _mm256_set1_epi32(x.n128[m] >> 4));
    }
};
// The fifth bit of vector t is bit t of the same byte of one vector.
PARLEY_INLINE void add_fifth(const uint8_t* high, __m256i* w) {
    const __m256i bits = load_bytes(high), bit = _mm256_set1_epi8(16);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) {
        const __m256i at_4 =
            t < 4 ? _mm256_slli_epi16(bits, 4 - t) : _mm256_srli_epi16(bits, t < 4 ? 0 : t - 4);
        w[t] = _mm256_or_si256(w[t], _mm256_and_si256(at_4, bit));
    }
}
// Σ over N vectors, small enough for 16 bits, widened.
template <int N>
PARLEY_INLINE __m256i dot_words(const __m256i* w, const int8_t* x) {
    __m256i sum = _mm256_maddubs_epi16(w[0], four_bytes(x));
#pragma GCC unroll 8
    for (int t = 1; t < N; ++t) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[t], four_bytes(x + 4 * t)));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}
PARLEY_INLINE __m256i dot_fives(const __m256i* w, const int8_t* x) {
    return _mm256_add_epi32(dot_words<4>(w, x), dot_words<4>(w + 4, x + 16));
}
struct Q5_0 {
    static constexpr Type kType = Type::q5_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return _mm256_add_epi32(dot_fives(w, x.q[m]), _mm256_set1_epi32(x.n128[m] >> 3));
    }
};
struct Q5_1 {
    static constexpr Type kType = Type::q5_1;
    static constexpr bool kMinimum = true;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return dot_fives(w, x.q[m]);
    }
};
struct Q4_K {
    static constexpr Type kType = Type::q4_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) { unpack_nibbles(q, w); }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return dot_nibbles(w, x.q[m]);
    }
};
struct Q5_K {
    static constexpr Type kType = Type::q5_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) {
        unpack_nibbles(q, w);
        add_fifth(q + 256, w);
    }
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        return dot_fives(w, x.q[m]);
    }
};
struct Q6_K {
    static constexpr Type kType = Type::q6_k;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) {
        unpack_nibbles(q, w);
        const __m256i bits = _mm256_set1_epi8(48);
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            const __m256i high = load_bytes(q + 256 + 64 * v);
            const __m256i at_4[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                                     _mm256_srli_epi16(high, 2)};
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) {
                w[4 * v + t] = _mm256_or_si256(w[4 * v + t], _mm256_and_si256(at_4[t], bits));
            }
        }
    }
    // Sixteen columns, from an integer that makes up for the offset.
    PARLEY_INLINE static __m256i dot_half(const __m256i* w, const int8_t* x, int32_t start) {
        const __m256i both = _mm256_add_epi32(dot_words<2>(w, x), dot_words<2>(w + 2, x + 8));
        return _mm256_add_epi32(both, _mm256_set1_epi32(start));
    }
};

PARLEY_INLINE __m128i load_8(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
PARLEY_INLINE __m256 unsigned_bytes(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8(p)));
}
PARLEY_INLINE __m256 signed_bytes(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8(p)));
}

struct Q8_0 {
    static constexpr Type kType = Type::q8_0;
    static constexpr bool kMinimum = false;
    PARLEY_INLINE static void unpack(const uint8_t* q, __m256i* w) {
#pragma GCC unroll 8
        for (int t = 0; t < 8; ++t) w[t] = load_bytes(q + 64 * t);
    }
    // |w| · (x with w's sign): 128 · 127 · 2 fits in 16 bits, two of them do not.
    PARLEY_INLINE static __m256i dot(const __m256i* w, const Q8Block& x, uint32_t m) {
        const __m256i ones = _mm256_set1_epi16(1);
        __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int t = 0; t < 8; ++t) {
            const __m256i signed_x = _mm256_sign_epi8(four_bytes(x.q[m] + 4 * t), w[t]);
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[t]), signed_x);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        }
        return sum;
    }
};

// Outputs [8 · half, 8 · half + 8) of a group for M rows from `row`.
template <class T, int M>
PARLEY_INLINE void half_group(const MatmulArgs& args, uint64_t group, uint32_t half, uint32_t row,
                              __m256* sum) {
    constexpr PackedBlocks kLayout = packed_blocks(T::kType);
    const uint64_t blocks = args.cols / kBlock;
    const auto* tile = static_cast<const Q8Block*>(args.tile);
    const uint8_t* q = args.packed + group * group_bytes(T::kType, blocks) + half * 32;
    const uint8_t* scales = args.packed + group * group_bytes(T::kType, blocks) +
                            scales_offset(T::kType, blocks) + half * 16;
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sum[m] = _mm256_setzero_ps();
    for (uint64_t k = 0; k < blocks; ++k) {
        const Q8Block& x = tile[k];
        __m256i w[8];
        T::unpack(q, w);
        const __m256 d = halves(scales);
        __m256 minimum{};
        if constexpr (T::kMinimum) minimum = halves(scales + 32);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
            const __m256 dot = _mm256_cvtepi32_ps(T::dot(w, x, row + m));
            const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(x.d[row + m]));
            sum[m] = _mm256_fmadd_ps(dot, scale, sum[m]);
            if constexpr (T::kMinimum) {
                sum[m] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(x.s[row + m]), sum[m]);
            }
        }
        q += kLayout.q_stride;
        scales += kLayout.scale_stride;
    }
}

// The same for super-blocks.
template <class T, int M>
PARLEY_INLINE void half_group_supers(const MatmulArgs& args, uint64_t group, uint32_t half,
                                     uint32_t row, __m256* sum) {
    const uint64_t supers = args.cols / kSuper;
    const auto* x = static_cast<const Q8Block*>(args.tile);
    const uint8_t* at = args.packed + group * supers * super_bytes(T::kType);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sum[m] = _mm256_setzero_ps();
    for (uint64_t k = 0; k < supers; ++k, at += super_bytes(T::kType)) {
        const __m256 d = halves(at + half * 16);
        const uint8_t* q = at + kSuperQ + half * 32;
        const uint8_t* scales = at + kSuperScales + half * 8;
        for (uint32_t part = 0; part < kSuperBlocks; ++part, ++x) {
            __m256i w[8];
            T::unpack(q, w);
            if constexpr (T::kType == Type::q6_k) {
                const __m256 first = _mm256_mul_ps(d, signed_bytes(scales));
                const __m256 second = _mm256_mul_ps(d, signed_bytes(scales + 16));
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m) {
                    const int32_t start = x->n32_first[row + m];
                    const int8_t* q_x = x->q[row + m];
                    const __m256 d_x = _mm256_set1_ps(x->d[row + m]);
                    const __m256i a = T::dot_half(w, q_x, start);
                    const __m256i b = T::dot_half(w + 4, q_x + 16, (x->n128[row + m] >> 2) - start);
                    sum[m] =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), _mm256_mul_ps(first, d_x), sum[m]);
                    sum[m] =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(b), _mm256_mul_ps(second, d_x), sum[m]);
                }
            } else {
                const __m256 scale = _mm256_mul_ps(d, unsigned_bytes(scales));
                const __m256 minimum =
                    _mm256_mul_ps(halves(at + 32 + half * 16), unsigned_bytes(scales + 16));
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m) {
                    const __m256 dot = _mm256_cvtepi32_ps(T::dot(w, *x, row + m));
                    const __m256 d_x = _mm256_set1_ps(x->d[row + m]);
                    sum[m] = _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, d_x), sum[m]);
                    sum[m] = _mm256_fnmadd_ps(minimum, _mm256_set1_ps(x->s[row + m]), sum[m]);
                }
            }
            q += 256 + high_bytes(T::kType);
            scales += 32;
        }
    }
}

template <class T, int M>
void rows(const MatmulArgs& args, uint64_t group, uint32_t row) {
    __m256 lower_sum[M], upper_sum[M];
    if constexpr (has_supers(T::kType)) {
        half_group_supers<T, M>(args, group, 0, row, lower_sum);
        half_group_supers<T, M>(args, group, 1, row, upper_sum);
    } else {
        half_group<T, M>(args, group, 0, row, lower_sum);
        half_group<T, M>(args, group, 1, row, upper_sum);
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) put(args, group, row + m, Vector{lower_sum[m], upper_sum[m]});
}

template <class T>
void matmul_blocks(const MatmulArgs& args) {
    for (uint64_t group = args.group_begin; group < args.group_end; ++group) {
        for (uint32_t row = 0; row < args.tile_rows; row += 4) {
            switch (args.tile_rows - row) {
                case 1:
                    rows<T, 1>(args, group, row);
                    break;
                case 2:
                    rows<T, 2>(args, group, row);
                    break;
                case 3:
                    rows<T, 3>(args, group, row);
                    break;
                default:
                    rows<T, 4>(args, group, row);
                    break;
            }
        }
    }
}

}  // namespace

extern constexpr Operations kAvx2{
    .matmul_q4_1 = matmul_blocks<Q4_1>,
    .matmul_q4_0 = matmul_blocks<Q4_0>,
    .matmul_q8_0 = matmul_blocks<Q8_0>,
    .matmul_q5_0 = matmul_blocks<Q5_0>,
    .matmul_q5_1 = matmul_blocks<Q5_1>,
    .matmul_q4_k = matmul_blocks<Q4_K>,
    .matmul_q5_k = matmul_blocks<Q5_K>,
    .matmul_q6_k = matmul_blocks<Q6_K>,
    .matmul_f32 = matmul_floats<float>,
    .matmul_f16 = matmul_floats<Half>,
    .matmul_bf16 = matmul_floats<Brain>,
    .quantise = quantise,
    .quantise_rows = quantise_rows,
    .rms_norm = rms_norm,
    .rope_adjacent = rope_adjacent,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .kv_append = kv_append,
    .attention_split = attention_split,
    .attention_fold = attention_fold,
    .attention_finish = attention_finish,
};

}  // namespace parley::kernels::cpu
