// Attention over pages, over vector.inl.
//
// A page's keys lie with 16 positions side by side, so a vector of scores is a chain of products over the
// head's dimensions and no sum ever crosses lanes. Several queries share each load of keys and values,
// and several pages run side by side where the queries are too few to hide the latency of a product.
#pragma once

#include "kernels/cpu/vector.inl"
#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {
namespace {

// Vectors of running sums that the registers hold.
#if defined(__AVX512F__)
constexpr int kScoreSums = 12, kValueSums = 24;
#else
constexpr int kScoreSums = 4, kValueSums = 6;
#endif

static_assert(kPage == kLanes);

// A page by the type of its elements; a scaled one ends in its scales.
struct HalfPage {
    using Element = uint16_t;
    static constexpr bool kScaled = false;
    PARLEY_INLINE static Vector widen(const Element* p) { return load_half(p); }
};
struct BytePage {
    using Element = int8_t;
    static constexpr bool kScaled = true;
    PARLEY_INLINE static Vector widen(const Element* p) { return load_signed_bytes(p); }
};

template <class P>
PARLEY_INLINE const typename P::Element* elements(const void* page) {
    return static_cast<const typename P::Element*>(page);
}
// The scales of a page's keys; its values' follow.
PARLEY_INLINE const float* page_scales(const void* page, uint32_t dim) {
    return reinterpret_cast<const float*>(static_cast<const int8_t*>(page) + 2 * kPage * dim);
}

template <class E>
PARLEY_INLINE void fetch(const E* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// scores[q][16p …] for NP pages from `page`. `queries` is [dim][NQ]. Pages lie far apart, where no
// prefetcher of the processor's follows: the next ones' keys and these ones' values are asked for here.
template <class P, int NQ, int NP>
PARLEY_INLINE void score_pages(const float* queries, uint32_t dim, const void* const* pages,
                               uint32_t page, uint32_t page_count, float* scores) {
    constexpr uint32_t kLine = 64 / sizeof(typename P::Element);  // elements in a cache line
    constexpr uint32_t kStep = kLine / kPage;                     // dimensions in one
    Vector sum[NP][NQ];
    for (int p = 0; p < NP; ++p) {
        for (int q = 0; q < NQ; ++q) sum[p][q] = zero();
    }
    const typename P::Element *here[NP], *next[NP];
    for (int p = 0; p < NP; ++p) {
        here[p] = elements<P>(pages[page + p]);
        next[p] = elements<P>(pages[page + p + NP < page_count ? page + p + NP : page + p]);
    }
    for (uint32_t d = 0; d < dim; d += kStep) {
#pragma GCC unroll 8
        for (int p = 0; p < NP; ++p) {
            fetch(next[p] + d * kPage);
            fetch(here[p] + (dim + d) * kPage);
        }
#pragma GCC unroll 4
        for (uint32_t e = d; e < d + kStep; ++e) {
#pragma GCC unroll 8
            for (int p = 0; p < NP; ++p) {
                const Vector key = P::widen(here[p] + e * kPage);
#pragma GCC unroll 16
                for (int q = 0; q < NQ; ++q) {
                    sum[p][q] = fma(all(queries[e * NQ + q]), key, sum[p][q]);
                }
            }
        }
    }
    for (int p = 0; p < NP; ++p) {
        for (int q = 0; q < NQ; ++q) {
            if constexpr (P::kScaled) {
                sum[p][q] = mul(sum[p][q], load(page_scales(pages[page + p], dim)));
            }
            store(scores + q * kSplit + (page + p) * kPage, sum[p][q]);
        }
    }
}

// acc[q][d0 …] over positions [from, to), NV vectors of the head at a time.
template <class P, int NQ, int NV>
PARLEY_INLINE void add_values(const float* weights, const void* const* pages, uint32_t dim,
                              uint32_t d0, uint32_t from, uint32_t to, float* acc) {
    Vector sum[NQ][NV];
#pragma GCC unroll 16
    for (int q = 0; q < NQ; ++q) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sum[q][v] = load(acc + q * dim + d0 + v * 16);
    }
    for (uint32_t j = from; j < to;) {
        const uint32_t end = (j / kPage + 1) * kPage < to ? (j / kPage + 1) * kPage : to;
        const typename P::Element* value =
            elements<P>(pages[j / kPage]) + (kPage + j % kPage) * dim + d0;
        for (; j < end; ++j, value += dim) {
            Vector loaded[NV];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) loaded[v] = P::widen(value + v * 16);
#pragma GCC unroll 16
            for (int q = 0; q < NQ; ++q) {
                const Vector weight = all(weights[q * kSplit + j]);
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) sum[q][v] = fma(weight, loaded[v], sum[q][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int q = 0; q < NQ; ++q) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) store(acc + q * dim + d0 + v * 16, sum[q][v]);
    }
}

template <class P, int NQ>
void add_all_values(const float* weights, const void* const* pages, uint32_t dim, uint32_t from,
                    uint32_t to, float* acc) {
    uint32_t d = 0;
    if constexpr (NQ * 4 <= kValueSums) {
        for (; d + 64 <= dim; d += 64) {
            add_values<P, NQ, 4>(weights, pages, dim, d, from, to, acc);
        }
    }
    for (; d < dim; d += 32) add_values<P, NQ, 2>(weights, pages, dim, d, from, to, acc);
}

// exp(score − max) in place for [hidden, n), times the values' scales where pages have them; returns the
// sum by lanes of the exponentials alone.
template <class P>
PARLEY_INLINE float soften(float* scores, uint32_t hidden, uint32_t n, const void* const* pages, uint32_t dim,
                           float* max_out) {
    const uint32_t start = hidden / kLanes * kLanes;
    Vector top = all(-__builtin_inff());
    for (uint32_t j = start; j < n; j += kLanes) {
        Vector s = load(scores + j);
        if (n - j < kLanes) s = keep_first(s, n - j, -__builtin_inff());
        if (j < hidden) s = drop_first(s, hidden - j, -__builtin_inff());
        top = max(s, top);
    }
    const float highest = fold_max(top);
    const Vector shift = all(highest);
    Vector lanes = zero();
    for (uint32_t j = start; j < n; j += kLanes) {
        Vector e = exp(sub(load(scores + j), shift));
        if (n - j < kLanes) e = keep_first(e, n - j, 0.0f);
        if (j < hidden) e = drop_first(e, hidden - j, 0.0f);
        lanes = add(lanes, e);
        if constexpr (P::kScaled) {
            // Past the last position this may be anything, which nobody reads.
            e = mul(e, load(page_scales(pages[j / kPage], dim) + kPage));
        }
        store(scores + j, e);
    }
    *max_out = highest;
    return fold_sum(lanes);
}

template <class P, int NQ>
void attend(const AttentionArgs& args, uint32_t begin) {
    constexpr int kPagesAtOnce = kScoreSums / NQ < 1   ? 1
                                 : kScoreSums / NQ > 4 ? 4
                                                       : kScoreSums / NQ;
    const uint32_t dim = args.head_dim;
    const uint32_t* positions = args.positions + begin;
    float* acc = args.acc + uint64_t{begin} * dim;
    alignas(64) float queries[kHeadDimMax * NQ];
    alignas(64) float scores[NQ * kSplit];
    uint32_t hidden[NQ];
    uint32_t most = 0, least = kSplit, hidden_most = 0;
    for (int q = 0; q < NQ; ++q) {
        const float* from = args.queries + uint64_t{begin + q} * dim;
        for (uint32_t d = 0; d < dim; ++d) queries[d * NQ + q] = from[d];
        if (positions[q] > most) most = positions[q];
        if (positions[q] < least) least = positions[q];
        hidden[q] = args.hidden == nullptr ? 0 : args.hidden[begin + q];
        if (hidden[q] > hidden_most) hidden_most = hidden[q];
    }
    const uint32_t pages = (most + kPage - 1) / kPage;
    uint32_t page = hidden[0] / kPage;
    for (; page + kPagesAtOnce <= pages; page += kPagesAtOnce) {
        score_pages<P, NQ, kPagesAtOnce>(queries, dim, args.pages, page, pages, scores);
    }
    for (; page < pages; ++page) score_pages<P, NQ, 1>(queries, dim, args.pages, page, pages, scores);
    for (int q = 0; q < NQ; ++q) {
        args.sum[begin + q] = soften<P>(scores + q * kSplit, hidden[q], positions[q], args.pages,
                                        dim, args.max + begin + q);
    }
    memset(acc, 0, NQ * dim * sizeof(float));
    // What all queries see, together; before it what only the earlier ones do (at a window's edge) and
    // after it what only the later ones do (the last rows of a prompt's chunk), each for itself: a value a
    // query does not see must not even be multiplied by zero.
    if (hidden_most > least) hidden_most = least;
    for (int q = 0; q < NQ; ++q) {
        if (hidden[q] < hidden_most) {
            add_all_values<P, 1>(scores + q * kSplit, args.pages, dim, hidden[q], hidden_most,
                                 acc + q * dim);
        }
    }
    if constexpr (NQ * 2 <= kValueSums) {
        add_all_values<P, NQ>(scores, args.pages, dim, hidden_most, least, acc);
    } else {
        constexpr int kHalf = NQ / 2;
        add_all_values<P, kHalf>(scores, args.pages, dim, hidden_most, least, acc);
        add_all_values<P, NQ - kHalf>(scores + kHalf * kSplit, args.pages, dim, hidden_most, least,
                                      acc + kHalf * dim);
    }
    for (int q = 0; q < NQ; ++q) {
        if (positions[q] > least) {
            // Where queries are further apart than the window is wide, it may begin after `least`.
            add_all_values<P, 1>(scores + q * kSplit, args.pages, dim,
                                 hidden[q] > least ? hidden[q] : least, positions[q],
                                 acc + q * dim);
        }
    }
}

template <class P>
void attend_all(const AttentionArgs& args) {
    uint32_t begin = 0;
    while (begin < args.query_count) {
        const uint32_t left = args.query_count - begin;
        if (kScoreSums >= 12 && left >= 12) {
            attend<P, 12>(args, begin), begin += 12;
        } else if (kScoreSums >= 12 && left >= 8) {
            attend<P, 8>(args, begin), begin += 8;
        } else if (kScoreSums >= 12 && left >= 6) {
            attend<P, 6>(args, begin), begin += 6;
        } else if (left >= 4) {
            attend<P, 4>(args, begin), begin += 4;
        } else if (left == 3) {
            attend<P, 3>(args, begin), begin += 3;
        } else if (left == 2) {
            attend<P, 2>(args, begin), begin += 2;
        } else {
            attend<P, 1>(args, begin), begin += 1;
        }
    }
}

void attention_split(const AttentionArgs& args) {
    if (args.kv_type == KvType::int8) {
        attend_all<BytePage>(args);
    } else {
        attend_all<HalfPage>(args);
    }
}

void attention_fold(float* max_io, float* sum, float* acc, float next_max, float next_sum,
                    const float* next_acc, uint32_t head_dim) {
    const float both = *max_io > next_max ? *max_io : next_max;
    const Vector a = exp(all(*max_io - both)), b = exp(all(next_max - both));
    float a0[kLanes], b0[kLanes];
    store(a0, a);
    store(b0, b);
    *max_io = both;
    *sum = __builtin_fmaf(next_sum, b0[0], *sum * a0[0]);
    for (uint32_t d = 0; d < head_dim; d += kLanes) {
        store(acc + d, fma(load(next_acc + d), b, mul(load(acc + d), a)));
    }
}

void attention_finish(const float* acc, float sum, uint32_t head_dim, float* out) {
    const Vector divisor = all(sum);
    for (uint32_t d = 0; d < head_dim; d += kLanes) store(out + d, div(load(acc + d), divisor));
}

// A whole head's key or value as bytes in steps of 16, to put(d, bytes); returns its scale.
template <class Put>
PARLEY_INLINE float quantise_head(const float* x, uint32_t head_dim, Put put_bytes) {
    Vector top = zero();
    for (uint32_t d = 0; d < head_dim; d += kLanes) top = max(abs(load(x + d)), top);
    const float amax = fold_max(top);
    const bool nothing = amax < kAmaxMin;
    const Vector inverse = all(nothing ? 0.0f : 127.0f / amax);
    for (uint32_t d = 0; d < head_dim; d += kLanes) {
        int8_t bytes[kLanes];
        store_bytes(bytes, round_even(min(max(mul(load(x + d), inverse), all(-127.0f)), all(127.0f))));
        put_bytes(d, bytes);
    }
    return nothing ? 0.0f : amax / 127.0f;
}

void append_bytes(const float* k, const float* v, uint32_t head_dim, uint32_t slot, int8_t* page) {
    float* scale = reinterpret_cast<float*>(page + 2 * kPage * head_dim) + slot;
    scale[0] = quantise_head(k, head_dim, [&](uint32_t d, const int8_t* bytes) {
        for (uint32_t i = 0; i < kLanes; ++i) page[(d + i) * kPage + slot] = bytes[i];
    });
    scale[kPage] = quantise_head(v, head_dim, [&](uint32_t d, const int8_t* bytes) {
        memcpy(page + (kPage + slot) * head_dim + d, bytes, kLanes);
    });
}

void append_halves(const float* k, const float* v, uint32_t head_dim, uint32_t slot,
                   uint16_t* page) {
    for (uint32_t d = 0; d < head_dim; d += kLanes) {
        uint16_t halves[kLanes];
        store_half(halves, load(k + d));
        for (uint32_t i = 0; i < kLanes; ++i) page[(d + i) * kPage + slot] = halves[i];
        store_half(page + (kPage + slot) * head_dim + d, load(v + d));
    }
}

void kv_append(KvType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot,
               void* page) {
    if (type == KvType::int8) {
        append_bytes(k, v, head_dim, slot, static_cast<int8_t*>(page));
    } else {
        append_halves(k, v, head_dim, slot, static_cast<uint16_t*>(page));
    }
}

}  // namespace
}  // namespace parley::kernels::cpu
