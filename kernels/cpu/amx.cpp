// The AMX path: the products of integer types with a full tile of sixteen rows, by AMX-INT8. All else is the
// AVX-512 VNNI path's, and so are these products with fewer rows.
//
// NO HOST WITH AMX HAS RUN THIS. What is proved is the same source over a software emulation of the tile
// instructions (tests/kernels/amx_emulation.hpp), bit for bit against the reference; the instructions
// themselves, their speed and the operating system's part have to prove themselves where it runs (proof.hpp).
//
// A block's eight vectors of weights are the eight rows of a B tile, sixteen rows of a Q8Block the A tile,
// as they lie; the C tile holds the dot products of 16 rows by 16 outputs, exact. A tile load straight
// after the stores it reads from stalls, so kTiles blocks are unpacked before the first is loaded. Q6_K has
// two dot products in a block: its weights are loaded twice, with the other sixteen columns zero.
//
// Threads  a thread's tiles are configured at its first product and stay so. The process must have been
//          given the tiles before (dispatch.cpp).
#include <cstring>

#include "kernels/cpu/blocks512.inl"
#include "kernels/cpu/cpu.hpp"
#include "kernels/cpu/floats.inl"

#if !defined(PARLEY_AMX_USE)
#define PARLEY_AMX_USE use_amx
#endif

namespace parley::kernels::cpu {
namespace {

constexpr uint32_t kTiles = 6;  // C tiles 0 … 5; A is 6 and B is 7

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

void configure() {
    static thread_local bool configured;
    if (configured) return;
    TileConfig config;
    for (uint32_t t = 0; t < kTiles; ++t) {
        config.row_bytes[t] = kGroup * sizeof(int32_t);
        config.rows[t] = kTileRows;
    }
    config.row_bytes[6] = kBlock;
    config.rows[6] = kTileRows;
    config.row_bytes[7] = 64;
    config.rows[7] = kBlock / 4;
    // GCC 12's _tile_loadconfig says it reads 8 bytes: the stores to the others would be dropped.
    asm volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
    configured = true;
}

// kTiles products in hand: weights, and what a dot product is scaled with.
struct alignas(64) Batch {
    uint8_t weights[kTiles][512];
    int32_t dot[kTiles][kTileRows][kGroup];
    float d[kTiles][kGroup];
    float minimum[kTiles][kGroup];  // to be added times s
};

template <class T>
constexpr uint32_t kDots = T::kType == Type::q6_k ? 2 : 1;  // of a block

template <class T>
constexpr bool has_minimum() {
    return T::kType == Type::q4_1 || T::kType == Type::q5_1 || T::kType == Type::q4_k ||
           T::kType == Type::q5_k;
}

// Where the dot product starts, to make up for the offset of weights that are stored unsigned.
template <class T>
PARLEY_INLINE int32_t start(const Q8Block& x, uint32_t m, uint32_t half) {
    switch (T::kType) {
        case Type::q4_0:
            return x.n128[m] >> 4;
        case Type::q5_0:
            return x.n128[m] >> 3;
        case Type::q8_0:
            return x.n128[m];
        case Type::q6_k:
            return half == 0 ? x.n32_first[m] : (x.n128[m] >> 2) - x.n32_first[m];
        default:
            return 0;
    }
}

PARLEY_INLINE void store_bytes(uint8_t* p, __m512i bytes) {
    _mm512_store_si512(reinterpret_cast<void*>(p), bytes);
}

// Block k of a group's row at `group` as the batch's product `tile` (Q6_K: and the next).
template <class T>
PARLEY_INLINE void unpack(const uint8_t* group, uint64_t blocks, uint64_t k, Batch& batch,
                          uint32_t tile) {
    __m512i w[8];
    if constexpr (has_supers(T::kType)) {
        const uint8_t* super = group + k / kSuperBlocks * super_bytes(T::kType);
        const uint64_t part = k % kSuperBlocks;
        const uint8_t* scales = super + kSuperScales + part * 32;
        T::unpack(super + kSuperQ + part * (256 + high_bytes(T::kType)), w);
        const __m512 d = halves(super);
        if constexpr (T::kType == Type::q6_k) {
            _mm512_store_ps(batch.d[tile], _mm512_mul_ps(d, signed_bytes(scales)));
            _mm512_store_ps(batch.d[tile + 1], _mm512_mul_ps(d, signed_bytes(scales + 16)));
        } else {
            const __m512 minimum = _mm512_mul_ps(halves(super + 32), unsigned_bytes(scales + 16));
            _mm512_store_ps(batch.d[tile], _mm512_mul_ps(d, unsigned_bytes(scales)));
            _mm512_store_ps(batch.minimum[tile], cpu::negate(Vector{minimum}).v);
        }
    } else {
        constexpr PackedBlocks kLayout = packed_blocks(T::kType);
        const uint8_t* scales = group + scales_offset(T::kType, blocks) + k * kLayout.scale_stride;
        T::unpack(group + k * kLayout.q_stride, w);
        _mm512_store_ps(batch.d[tile], halves(scales));
        if constexpr (has_minimum<T>()) {
            _mm512_store_ps(batch.minimum[tile], halves(scales + 32));
        }
    }
    for (int t = 0; t < 8; ++t) {
        if constexpr (kDots<T> == 2) {
            store_bytes(batch.weights[tile] + 64 * t, t < 4 ? w[t] : _mm512_setzero_si512());
            store_bytes(batch.weights[tile + 1] + 64 * t, t < 4 ? _mm512_setzero_si512() : w[t]);
        } else {
            store_bytes(batch.weights[tile] + 64 * t, w[t]);
        }
    }
}

// The intrinsics want tile numbers as written constants.
#define PARLEY_AMX_PRODUCT(t)                          \
    if (count > (t)) {                                 \
        _tile_zero(t);                                 \
        _tile_loadd(6, x[(t) / dots].q, kBlock);       \
        _tile_loadd(7, batch.weights[t], 64);          \
        _tile_dpbsud(t, 6, 7);                         \
    }
#define PARLEY_AMX_STORE(t) \
    if (count > (t)) _tile_stored(t, batch.dot[t], kGroup * sizeof(int32_t));

PARLEY_INLINE void multiply(const Q8Block* x, uint32_t dots, uint32_t count, Batch& batch) {
    // Neither do GCC 12's tile loads say that they read memory.
    asm volatile("" ::"r"(&batch), "r"(x) : "memory");
    PARLEY_AMX_PRODUCT(0)
    PARLEY_AMX_PRODUCT(1)
    PARLEY_AMX_PRODUCT(2)
    PARLEY_AMX_PRODUCT(3)
    PARLEY_AMX_PRODUCT(4)
    PARLEY_AMX_PRODUCT(5)
    PARLEY_AMX_STORE(0)
    PARLEY_AMX_STORE(1)
    PARLEY_AMX_STORE(2)
    PARLEY_AMX_STORE(3)
    PARLEY_AMX_STORE(4)
    PARLEY_AMX_STORE(5)
    asm volatile("" ::"r"(&batch) : "memory");
}
#undef PARLEY_AMX_PRODUCT
#undef PARLEY_AMX_STORE

// sums[m] += the batch's products, in the contract's order.
template <class T>
PARLEY_INLINE void scale(const Q8Block* x, uint32_t count, const Batch& batch, __m512* sums) {
    for (uint32_t m = 0; m < kTileRows; ++m) {
        __m512 sum = sums[m];
        for (uint32_t t = 0; t < count; ++t) {
            const Q8Block& block = x[t / kDots<T>];
            const __m512i dot =
                _mm512_add_epi32(_mm512_load_si512(reinterpret_cast<const void*>(batch.dot[t][m])),
                                 all(start<T>(block, m, t % kDots<T>)));
            const __m512 d =
                _mm512_mul_ps(_mm512_load_ps(batch.d[t]), _mm512_set1_ps(block.d[m]));
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), d, sum);
            if constexpr (has_minimum<T>()) {
                sum = _mm512_fmadd_ps(_mm512_load_ps(batch.minimum[t]), _mm512_set1_ps(block.s[m]),
                                      sum);
            }
        }
        sums[m] = sum;
    }
}

template <class T>
void full_tiles(const MatmulArgs& args) {
    constexpr uint64_t kBlocks = kTiles / kDots<T>;  // at once
    const uint64_t blocks = args.cols / kBlock;
    const auto* x = static_cast<const Q8Block*>(args.tile);
    configure();
    Batch batch;
    for (uint64_t group = args.group_begin; group < args.group_end; ++group) {
        const uint8_t* weights = args.packed + group * group_bytes(T::kType, blocks);
        __m512 sums[kTileRows];
        for (__m512& sum : sums) sum = _mm512_setzero_ps();
        for (uint64_t k = 0; k < blocks; k += kBlocks) {
            const uint64_t n = blocks - k < kBlocks ? blocks - k : kBlocks;
            const auto count = static_cast<uint32_t>(n) * kDots<T>;
            for (uint32_t i = 0; i < n; ++i) {
                unpack<T>(weights, blocks, k + i, batch, i * kDots<T>);
            }
            multiply(x + k, kDots<T>, count, batch);
            scale<T>(x + k, count, batch, sums);
        }
        for (uint32_t m = 0; m < kTileRows; ++m) put(args, group, m, Vector{sums[m]});
    }
}

template <class T, auto kFewer>
void matmul(const MatmulArgs& args) {
    if (args.tile_rows == kTileRows) {
        full_tiles<T>(args);
    } else {
        (kAvx512Vnni.*kFewer)(args);
    }
}

}  // namespace

void PARLEY_AMX_USE(Operations& operations) {
    operations.matmul_q4_1 = matmul<Q4_1, &Operations::matmul_q4_1>;
    operations.matmul_q4_0 = matmul<Q4_0, &Operations::matmul_q4_0>;
    operations.matmul_q8_0 = matmul<Q8_0, &Operations::matmul_q8_0>;
    operations.matmul_q5_0 = matmul<Q5_0, &Operations::matmul_q5_0>;
    operations.matmul_q5_1 = matmul<Q5_1, &Operations::matmul_q5_1>;
    operations.matmul_q4_k = matmul<Q4_K, &Operations::matmul_q4_k>;
    operations.matmul_q5_k = matmul<Q5_K, &Operations::matmul_q5_k>;
    operations.matmul_q6_k = matmul<Q6_K, &Operations::matmul_q6_k>;
}

}  // namespace parley::kernels::cpu
