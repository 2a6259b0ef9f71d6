// Kernels: the operations of a transformer, as one table of functions per path.
//
// Numbers  kernels/contract.hpp; all tables give the same bits.
// Knows    pointers, shapes and strides; no model, file, thread or global state. Every function is
//          re-entrant. None checks its arguments beyond assertions: shapes are the caller's
//          promise.
// Aligned  packed weights at 64 bytes; the rest as its type asks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/contract.hpp"
#include "kernels/types.hpp"

namespace parley::kernels {

// out[m · stride + n] (+)= Σ_k w[16·group_begin + n][k] · x[m][k], for n in the groups asked for
// and below `rows`, m < tile_rows.
struct MatmulArgs {
    const uint8_t* packed = nullptr;  // by the same table's pack()
    uint64_t rows = 0;                // outputs of the whole matrix
    uint64_t cols = 0;                // inputs
    uint64_t group_begin = 0;         // groups of kGroup outputs
    uint64_t group_end = 0;
    const void* tile = nullptr;  // Q8Block[cols / kBlock], or float[cols][kTileRows]
    uint32_t tile_rows = 1;      // 1 … kTileRows
    float* out = nullptr;        // the first column of group_begin
    uint64_t stride = 0;         // floats from one row of `out` to the next
    bool add = false;
    bool cached = false;  // a hint: these groups' weights were just used and need not be fetched ahead
};

// What is particular to one type of weights.
struct TypeOps {
    Type type{};
    bool quantised_input = false;  // tile of Q8Block rather than of floats
    uint64_t (*packed_bytes)(uint64_t rows, uint64_t cols) = nullptr;
    // Lays out groups [group_begin, group_end) of GGUF rows at `source` (the whole tensor) in
    // `packed` (the whole matrix). Groups may be packed by different threads.
    void (*pack)(const uint8_t* source, uint64_t rows, uint64_t cols, uint64_t group_begin,
                 uint64_t group_end, uint8_t* packed) = nullptr;
    // One row as floats (the embedding).
    void (*unpack_row)(const uint8_t* packed, uint64_t rows, uint64_t cols, uint64_t row,
                       float* out) = nullptr;
    void (*matmul)(const MatmulArgs& args) = nullptr;
};

// One split of one KV head for some queries that share it. Pages are as types.hpp says, at 64 bytes.
struct AttentionArgs {
    const float* queries = nullptr;       // [query_count][head_dim], rotated and scaled
    uint32_t query_count = 0;             // 1 … kQueriesMax
    uint32_t head_dim = 0;                // a multiple of 32 up to kHeadDimMax
    KvType kv_type = KvType::f16;
    const void* const* pages = nullptr;   // as many as the largest of `positions` needs
    const uint32_t* positions = nullptr;  // [query_count], 1 … kSplit: what each query sees
    // [query_count], ascending, each below its query's `positions`: what a window hides at the beginning.
    // nullptr: nothing. Pages wholly below the first of them are not read and may be nullptr.
    const uint32_t* hidden = nullptr;
    float* max = nullptr;                 // [query_count]
    float* sum = nullptr;                 // [query_count]
    float* acc = nullptr;                 // [query_count][head_dim]
};

struct Kernels {
    const char* name = nullptr;  // "avx512vnni"
    std::span<const TypeOps> types;

    // Row `slot` of a tile from x[cols]; cols is a multiple of kBlock.
    void (*quantise)(const float* x, uint64_t cols, uint32_t slot, Q8Block* tile) = nullptr;
    // The first `rows` (1 … kTileRows) rows of a tile from x[row · stride + …], each as quantise() would.
    // What the tile's other rows hold afterwards is left open.
    void (*quantise_rows)(const float* x, uint64_t stride, uint64_t cols, uint32_t rows,
                          Q8Block* tile) = nullptr;
    void (*rms_norm)(const float* x, const float* weight, uint64_t n, float eps,
                     float* y) = nullptr;
    // Rotates pairs (2i, 2i+1), i < pairs, in place by cos_sin[2i], cos_sin[2i+1]; scales all n.
    void (*rope_adjacent)(float* x, uint64_t n, const float* cos_sin, uint64_t pairs,
                          float scale) = nullptr;
    void (*silu_mul)(const float* gate, const float* up, uint64_t n, float* out) = nullptr;
    void (*gelu_mul)(const float* gate, const float* up, uint64_t n, float* out) = nullptr;
    // Key and value of position `slot` of a page.
    void (*kv_append)(KvType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot,
                      void* page) = nullptr;
    void (*attention_split)(const AttentionArgs& args) = nullptr;
    // (max, sum, acc) of one query ← folded with the next split's.
    void (*attention_fold)(float* max, float* sum, float* acc, float next_max, float next_sum,
                           const float* next_acc, uint32_t head_dim) = nullptr;
    void (*attention_finish)(const float* acc, float sum, uint32_t head_dim, float* out) = nullptr;

    // nullptr when the path has no kernels for the type.
    const TypeOps* ops(Type type) const {
        for (const TypeOps& entry : types) {
            if (entry.type == type) return &entry;
        }
        return nullptr;
    }
};

// The names this program was built with, best first: "amx", "avx512vnni", "avx2",
// "reference".
std::span<const std::string_view> names();
// nullptr when the name is unknown, or known and not for this host's processor.
const Kernels* find(std::string_view name);
// The best table for this host. "amx" only where it has proved itself (proof.hpp); the first call tries it
// and belongs before threads are started.
const Kernels& best();

}  // namespace parley::kernels
