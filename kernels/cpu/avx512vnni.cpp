// The AVX-512 VNNI path: AVX-512 F, BW, DQ, VL and VNNI.
//
// A block of 16 outputs × 32 columns is eight vpdpbusd a row. Weights are unpacked once for up to
// sixteen rows, whose sums stay in registers.
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/blocks512.inl"
#include "kernels/cpu/cpu.hpp"
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/floats.inl"
#include "kernels/cpu/pack.hpp"

namespace parley::kernels::cpu {
namespace {

PARLEY_INLINE __m512i dot4(__m512i sum, __m512i weights, const int8_t* x) {
    // GCC 12 would spend a register and an instruction on the broadcast. Volatile, so that products stay
    // in the order they are written in.
    asm volatile("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum)
        : "v"(weights), "m"(*reinterpret_cast<const int32_t(*)>(x)));
    return sum;
}

// How far ahead of the block in hand memory is asked for. A matrix is one stream, so past the end of a
// group this is the next group.
constexpr uint64_t kAheadBytes = 8192;

// Rows whose products are written in turns: each product waits for the one before it in its chain, and with
// four chains side by side the processor need not look far ahead to fill the time.
constexpr int kChains = 4;

// sum[0 … J) += the block's products with rows m … m + J.
template <class T, int J>
PARLEY_INLINE void block_rows(const Q8Block& x, int m, const __m512i* w, __m512 d, __m512 minimum,
                              __m512* sum) {
    __m512i dot[J];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) dot[j] = T::start(x, m + j);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) {
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) dot[j] = dot4(dot[j], w[t], x.q[m + j] + 4 * t);
    }
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
        const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x.d[m + j]));
        sum[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[j]), scale, sum[j]);
        if constexpr (T::kMinimum) {
            sum[j] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.s[m + j]), sum[j]);
        }
    }
}

template <class T, int M>
__attribute__((noinline)) void groups(const MatmulArgs& args) {
    constexpr PackedBlocks kLayout = packed_blocks(T::kType);
    const uint64_t blocks = args.cols / kBlock;
    const auto* tile = static_cast<const Q8Block*>(args.tile);
    const uint64_t ahead = args.cached ? 0 : kAheadBytes;
    for (uint64_t group = args.group_begin; group < args.group_end; ++group) {
        const uint8_t* q = args.packed + group * group_bytes(T::kType, blocks);
        const uint8_t* scales = q + scales_offset(T::kType, blocks);
        __m512 sum[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) sum[m] = _mm512_setzero_ps();
        for (uint64_t k = 0; k < blocks; ++k) {
            const Q8Block& x = tile[k];
#pragma GCC unroll 8
            for (uint32_t i = 0; i < kLayout.q_stride; i += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(q + ahead + i), _MM_HINT_T0);
            }
            __m512i w[8];
            T::unpack(q, w);
            const __m512 d = halves(scales);
            __m512 minimum{};
            if constexpr (T::kMinimum) minimum = halves(scales + 32);
#pragma GCC unroll 4
            for (int m = 0; m + kChains <= M; m += kChains) {
                block_rows<T, kChains>(x, m, w, d, minimum, sum + m);
            }
            if constexpr (M % kChains != 0) {
                constexpr int kFrom = M / kChains * kChains;
                block_rows<T, M % kChains>(x, kFrom, w, d, minimum, sum + kFrom);
            }
            q += kLayout.q_stride;
            scales += kLayout.scale_stride;
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) put(args, group, m, Vector{sum[m]});
    }
}

// The same for super-blocks.
template <class T, int M>
__attribute__((noinline)) void super_groups(const MatmulArgs& args) {
    constexpr uint32_t kStride = 256 + high_bytes(T::kType);
    const uint64_t supers = args.cols / kSuper;
    for (uint64_t group = args.group_begin; group < args.group_end; ++group) {
        const uint8_t* at = args.packed + group * supers * super_bytes(T::kType);
        const auto* x = static_cast<const Q8Block*>(args.tile);
        __m512 sum[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) sum[m] = _mm512_setzero_ps();
        for (uint64_t k = 0; k < supers; ++k, at += super_bytes(T::kType)) {
#pragma GCC unroll 5
            for (uint32_t i = 0; i < kSuperQ; i += 64) {
                _mm_prefetch(reinterpret_cast<const char*>(at + kAheadBytes + i), _MM_HINT_T0);
            }
            const uint8_t* q = at + kSuperQ;
            const uint8_t* scales = at + kSuperScales;
            for (uint32_t part = 0; part < kSuperBlocks; ++part, ++x) {
#pragma GCC unroll 6
                for (uint32_t i = 0; i < kStride; i += 64) {
                    _mm_prefetch(reinterpret_cast<const char*>(q + kAheadBytes + i), _MM_HINT_T0);
                }
                __m512i w[8];
                T::unpack(q, w);
                if constexpr (T::kType == Type::q6_k) {
                    const __m512 d = halves(at);
                    const __m512 first = _mm512_mul_ps(d, signed_bytes(scales));
                    const __m512 second = _mm512_mul_ps(d, signed_bytes(scales + 16));
#pragma GCC unroll 16
                    for (int m = 0; m < M; ++m) {
                        const int32_t start = x->n32_first[m];
                        __m512i a = all(start), b = all((x->n128[m] >> 2) - start);
#pragma GCC unroll 4
                        for (int t = 0; t < 4; ++t) {
                            a = dot4(a, w[t], x->q[m] + 4 * t);
                            b = dot4(b, w[t + 4], x->q[m] + 16 + 4 * t);
                        }
                        const __m512 d_x = _mm512_set1_ps(x->d[m]);
                        sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), _mm512_mul_ps(first, d_x),
                                                 sum[m]);
                        sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(b), _mm512_mul_ps(second, d_x),
                                                 sum[m]);
                    }
                } else {
                    const __m512 d = _mm512_mul_ps(halves(at), unsigned_bytes(scales));
                    const __m512 minimum =
                        _mm512_mul_ps(halves(at + 32), unsigned_bytes(scales + 16));
#pragma GCC unroll 16
                    for (int m = 0; m < M; ++m) {
                        __m512i dot = _mm512_setzero_si512();
#pragma GCC unroll 8
                        for (int t = 0; t < 8; ++t) dot = dot4(dot, w[t], x->q[m] + 4 * t);
                        const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x->d[m]));
                        sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum[m]);
                        sum[m] = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(x->s[m]), sum[m]);
                    }
                }
                q += kStride;
                scales += 32;
            }
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) put(args, group, m, Vector{sum[m]});
    }
}

template <class T, int M>
PARLEY_INLINE void groups_of(const MatmulArgs& args) {
    if constexpr (has_supers(T::kType)) {
        super_groups<T, M>(args);
    } else {
        groups<T, M>(args);
    }
}

template <class T>
void matmul_blocks(const MatmulArgs& args) {
    switch (args.tile_rows) {
        case 1:
            return groups_of<T, 1>(args);
        case 2:
            return groups_of<T, 2>(args);
        case 3:
            return groups_of<T, 3>(args);
        case 4:
            return groups_of<T, 4>(args);
        case 5:
            return groups_of<T, 5>(args);
        case 6:
            return groups_of<T, 6>(args);
        case 7:
            return groups_of<T, 7>(args);
        case 8:
            return groups_of<T, 8>(args);
        case 9:
            return groups_of<T, 9>(args);
        case 10:
            return groups_of<T, 10>(args);
        case 11:
            return groups_of<T, 11>(args);
        case 12:
            return groups_of<T, 12>(args);
        case 13:
            return groups_of<T, 13>(args);
        case 14:
            return groups_of<T, 14>(args);
        case 15:
            return groups_of<T, 15>(args);
        default:
            return groups_of<T, 16>(args);
    }
}

}  // namespace

extern constexpr Operations kAvx512Vnni{
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
