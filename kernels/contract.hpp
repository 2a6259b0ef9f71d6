// The numeric contract: what every kernel path computes, to the last bit.
//
// kernels/reference/ is the definition, written naively; every other path is compared with it for
// equality, not closeness. In exchange a row's result depends on nothing but the row: not on the
// batch it was in, not on how its prompt was cut into chunks, not on the machine's instruction set.
//
// Arithmetic  IEEE single precision, round to nearest even, subnormals kept (no FTZ, no DAZ),
// nothing
//             contracted (-ffp-contract=off). `fma` below is one rounding.
//
// Lanes       A sum over n values is kept in kLanes = 16 partial sums: lane l takes the values
// whose
//             index is l modulo 16, in ascending order, starting at +0. The lanes are then folded:
//             l += l+8, then l += l+4, l+2, l+1. A missing value adds nothing.
//
// Quantise    per block of kBlock = 32 activations x: amax = max |x| (a NaN does not take part).
//             amax < kAmaxMin: d = 0 and every q = 0. Otherwise d = amax / 127, i = 127 / amax,
//             q = round-to-even(x · i) held to −127 … 127 (a NaN gives −127). s = d · float(Σq).
//
// Matmul, weights in blocks of 32 (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)
//             acc = +0; for each block in ascending order, with dot = Σ q_w·q_x exact in int32:
//               acc = fma(float(dot), d_w · d_x, acc)
//               acc = fma(m_w, s_x, acc)              only for types with a minimum (Q4_1, Q5_1)
//             q_w is the signed value (Q4_0: nibble − 8; Q5_0: five bits − 16; Q4_1, Q5_1: the bits;
//             Q8_0: the byte).
// Matmul, weights in super-blocks of 256 (Q4_K, Q5_K): their eight sub-blocks of 32 are eight blocks as
//             above, with a minimum, where
//               d_w = d · float(sc), m_w = −(dmin · float(mn))
//             Both are exact (11 bits by 6) while d and dmin are finite, so it does not matter that they
//             are computed anew for every use. Nothing is summed over a super-block: a sub-block's sum
//             may be added by whoever has it, and a row of 256 is a row of eight blocks to every loop.
// Matmul, Q6_K: a scale per 16 weights, activations still per 32. For each 32 columns in ascending order,
//             with dot_0 over the first 16 and dot_1 over the others, exact in int32, q_w = six bits − 32:
//               acc = fma(float(dot_0), d_0 · d_x, acc)
//               acc = fma(float(dot_1), d_1 · d_x, acc)           d_i = d · float(sc_i), exact
// Matmul, weights as floats (F32, F16, BF16), widened exactly; activations are not quantised:
//             acc = +0; for k ascending: acc = fma(w[k], x[k], acc)
// Residual    y = y + acc, when the product is added to what is there.
// Embedding   Q4_0, Q5_0, Q8_0, Q6_K: d_w · float(q). Q4_1, Q5_1, Q4_K, Q5_K: fma(float(q), d_w, m_w).
//             Floats: widened.
//
// RMSNorm     sum of squares by lanes, lane = fma(x, x, lane); r = 1 / sqrt(sum / n + eps);
//             y = (x · r) · w.
// RoPE        for a pair (a, b) and its (c, s): a' = fma(a, c, −(b · s)), b' = fma(b, c, a · s);
// then
//             · scale (1 for keys, 1/sqrt(head_dim) for queries, which attention then needs not
//             do). (c, s) are cos and sin computed in double by the caller, rounded once.
// exp         x held to [kExpLow, kExpHigh] (a NaN gives kExpLow); n = round-to-even(x · log2 e);
//             r = fma(−n, ln2_hi, x), r = fma(−n, ln2_lo, r); p by Horner with fma over kExpP;
//             y = fma(p, r·r, r) + 1; times 2^n by adding n to the exponent. exp(0) is exactly 1.
// SiLU        silu(g) = g / (1 + exp(−g)); the gated unit is silu(g) · u.
// GELU        the one with tanh, written as a sigmoid: t = g · fma(g · g, kGeluB, kGeluA),
//             gelu(g) = g / (1 + exp(−t)); the gated unit is gelu(g) · u.
//
// Attention   One query of one head sees positions 0 … p. They are cut into splits of kSplit = 256,
//             [0, 256), [256, 512) …, wherever p is. In one split:
//               score_j = fma chain over the head's dimensions in ascending order, from +0;
//               m = max score; e_j = exp(score_j − m); l = Σ e_j by lanes (lane = j modulo 16);
//               acc[d] = fma chain over j ascending: acc = fma(e_j, v_j[d], acc), from +0.
//             Splits are folded in ascending order into (m, l, acc) of the first:
//               M = max(m, m'), a = exp(m − M), b = exp(m' − M); l = fma(l', b, l · a);
//               acc[d] = fma(acc'[d], b, acc[d] · a); m = M.
//             out[d] = acc[d] / l. Keys and values are stored as f16, rounded to nearest even, or as below.
//             With a window of w the query sees max(0, p + 1 − w) … p only: m, l and the chains run over
//             those j (a lane keeps its positions), and a split of which it sees nothing is left out.
//
// INT8 KV     as int8 with one scale for a head's key at a position and one for its value, quantised as
//             activations are but over the whole head (amax < kAmaxMin: d = 0, q = 0). Then
//               score_j = (fma chain of query[d] and float(q_k[d]), from +0) · d_k_j;
//               acc[d] = fma(e_j · d_v_j, float(q_v[d]), acc[d]);
//             l sums the e_j alone, and all else is as above.
//
// Weights and activations are taken to be finite. What a NaN does is fixed where it is said above
// and otherwise follows IEEE, but two paths need not agree on which NaN.
#pragma once

#include <cstddef>
#include <cstdint>

namespace parley::kernels {

inline constexpr uint32_t kLanes = 16;
inline constexpr uint32_t kBlock = 32;     // activations that share a scale
inline constexpr uint32_t kSuper = 256;    // weights in a super-block of the K types
inline constexpr uint32_t kGroup = 16;     // outputs (rows of a weight matrix) computed together
inline constexpr uint32_t kTileRows = 16;  // activation rows computed together
inline constexpr uint32_t kPage = 16;      // positions in a KV page
inline constexpr uint32_t kSplit = 256;    // positions in an attention split
inline constexpr uint32_t kSplitPages = kSplit / kPage;
inline constexpr uint32_t kQueriesMax = 24;  // queries of one attention call
inline constexpr uint32_t kHeadDimMax = 256;

inline constexpr float kAmaxMin = 1e-30f;

inline constexpr float kExpLow = -86.0f;
inline constexpr float kExpHigh = 88.0f;
// 2·√(2/π), and 0.044715 times that.
inline constexpr float kGeluA = 1.5957691216057308f;
inline constexpr float kGeluB = 0.0713548162726009f;

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2Hi = 0.693359375f;
inline constexpr float kLn2Lo = -2.12194440e-4f;
// Highest power first (Cephes expf; relative error about 2e-7 over the whole range).
inline constexpr float kExpP[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                   4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};

// One block of kBlock columns of a tile of quantised activations; a tile is columns/kBlock of them.
// Rows past the tile's own are never read.
struct alignas(64) Q8Block {
    int8_t q[kTileRows][kBlock];
    float d[kTileRows];
    float s[kTileRows];
    int32_t n128[kTileRows];  // −128 · Σq: where weights are stored with an offset, dot starts here
    int32_t n32_first[kTileRows];  // −32 · Σq of the first 16 columns: the same for Q6_K's halves
};
static_assert(sizeof(Q8Block) == 768);

// A tile of activations that are not quantised is float[columns][kTileRows].

}  // namespace parley::kernels
