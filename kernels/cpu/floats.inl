// Products with weights kept as floats, over vector.inl.
#pragma once

#include "kernels/cpu/vector.inl"
#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kFloatSums = 16;
#else
constexpr int kFloatSums = 4;
#endif

PARLEY_INLINE Vector widen(const float* p) { return load(p); }
struct Half {
    uint16_t bits;
};
struct Brain {
    uint16_t bits;
};
PARLEY_INLINE Vector widen(const Half* p) { return load_half(&p->bits); }
PARLEY_INLINE Vector widen(const Brain* p) { return load_brain(&p->bits); }

PARLEY_INLINE void put(const MatmulArgs& args, uint64_t group, uint32_t m, Vector sum) {
    const uint64_t left = args.rows - group * kGroup;
    const uint64_t count = left < kGroup ? left : kGroup;
    float* out = args.out + m * args.stride + (group - args.group_begin) * kGroup;
    if (args.add) sum = add(load_first(out, count), sum);
    store_first(out, sum, count);
}

// M rows from `row`, NG groups side by side: a sum is one chain of products, so it takes several to fill
// the time each of them waits.
template <class W, int M, int NG>
void float_groups(const MatmulArgs& args, uint64_t group, uint32_t row) {
    const auto* weights = reinterpret_cast<const W*>(args.packed) + group * args.cols * kGroup;
    const auto* x = static_cast<const float*>(args.tile) + row;
    const uint64_t next_group = args.cols * kGroup;
    Vector sum[NG][M];
    for (int g = 0; g < NG; ++g) {
        for (int m = 0; m < M; ++m) sum[g][m] = zero();
    }
    for (uint64_t k = 0; k < args.cols; ++k) {
#pragma GCC unroll 8
        for (int g = 0; g < NG; ++g) {
            const Vector w = widen(weights + g * next_group + k * kGroup);
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) sum[g][m] = fma(w, all(x[k * kTileRows + m]), sum[g][m]);
        }
    }
    for (int g = 0; g < NG; ++g) {
        for (int m = 0; m < M; ++m) put(args, group + g, row + m, sum[g][m]);
    }
}

template <class W, int M>
void float_rows(const MatmulArgs& args, uint32_t row) {
    constexpr int kGroups = kFloatSums / M;
    uint64_t group = args.group_begin;
    for (; group + kGroups <= args.group_end; group += kGroups) {
        float_groups<W, M, kGroups>(args, group, row);
    }
    if constexpr (kGroups > 1) {
        for (; group < args.group_end; ++group) float_groups<W, M, 1>(args, group, row);
    }
}

template <class W>
void matmul_floats(const MatmulArgs& args) {
    uint32_t row = 0;
    while (row < args.tile_rows) {
        const uint32_t left = args.tile_rows - row;
        if (kFloatSums >= 16 && left >= 16) {
            float_rows<W, (kFloatSums >= 16 ? 16 : 1)>(args, row), row += 16;
        } else if (kFloatSums >= 8 && left >= 8) {
            float_rows<W, (kFloatSums >= 8 ? 8 : 1)>(args, row), row += 8;
        } else if (left >= 4) {
            float_rows<W, 4>(args, row), row += 4;
        } else if (left >= 2) {
            float_rows<W, 2>(args, row), row += 2;
        } else {
            float_rows<W, 1>(args, row), row += 1;
        }
    }
}

}  // namespace
}  // namespace parley::kernels::cpu
