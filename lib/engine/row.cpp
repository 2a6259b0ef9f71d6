// The loops must become vector code in every build, the debug ones too: they run over the whole
// vocabulary for every token.
#pragma GCC optimize("O3")

#include "engine/row.hpp"

#include <limits>

namespace parley::engine {
namespace {

constexpr size_t kLanes = 16;
constexpr float kExpLeast = -87.0f;  // e^-87 is the last one whose exponent is a normal number
constexpr float kLowest = -std::numeric_limits<float>::infinity();

#define PARLEY_ROW_PATH plain
#define PARLEY_ROW_BYTES 16
#include "engine/row.inl"
#undef PARLEY_ROW_PATH
#undef PARLEY_ROW_BYTES

#if defined(__x86_64__) && !defined(__clang__)
#define PARLEY_ROW_X86 1
#pragma GCC push_options
#pragma GCC target("avx2")
#define PARLEY_ROW_PATH avx2
#define PARLEY_ROW_BYTES 32
#include "engine/row.inl"
#undef PARLEY_ROW_PATH
#undef PARLEY_ROW_BYTES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f")
#define PARLEY_ROW_PATH avx512
#define PARLEY_ROW_BYTES 64
#include "engine/row.inl"
#undef PARLEY_ROW_PATH
#undef PARLEY_ROW_BYTES
#pragma GCC pop_options
#endif

// The last block, where it is not whole, filled up with -inf: it weighs 0 and is never the greatest.
struct Tail {
    float values[kRowBlock];
    explicit Tail(std::span<const float> rest) {
        for (size_t i = 0; i < kRowBlock; ++i) values[i] = i < rest.size() ? rest[i] : kLowest;
    }
};

}  // namespace

std::vector<RowPath> row_paths() {
    std::vector<RowPath> paths;
#ifdef PARLEY_ROW_X86
    if (__builtin_cpu_supports("avx512f"))
        paths.push_back({"avx512", avx512::max_blocks, avx512::weigh_blocks});
    if (__builtin_cpu_supports("avx2"))
        paths.push_back({"avx2", avx2::max_blocks, avx2::weigh_blocks});
#endif
    paths.push_back({"plain", plain::max_blocks, plain::weigh_blocks});
    return paths;
}

const RowPath& row_path() {
    static const RowPath best = row_paths().front();
    return best;
}

float row_max(std::span<const float> row, std::vector<float>& block_max, const RowPath& path) {
    const size_t whole = row.size() / kRowBlock;
    const size_t blocks = (row.size() + kRowBlock - 1) / kRowBlock;
    block_max.resize(blocks);
    path.max_blocks(row.data(), whole, block_max.data());
    if (whole < blocks) {
        const Tail tail(row.subspan(whole * kRowBlock));
        path.max_blocks(tail.values, 1, block_max.data() + whole);
    }
    float most = kLowest;
    for (const float m : block_max) most = m > most ? m : most;
    return most;
}

void row_weigh(std::span<const float> row, float most, float scale, std::vector<float>& weights,
               std::vector<float>& block_sum, std::vector<float>& block_max, const RowPath& path) {
    const size_t whole = row.size() / kRowBlock;
    const size_t blocks = (row.size() + kRowBlock - 1) / kRowBlock;
    weights.resize(blocks * kRowBlock);
    block_sum.resize(blocks);
    block_max.resize(blocks);
    path.weigh_blocks(row.data(), whole, most, scale, weights.data(), block_sum.data(),
                      block_max.data());
    if (whole < blocks) {
        const Tail tail(row.subspan(whole * kRowBlock));
        path.weigh_blocks(tail.values, 1, most, scale, weights.data() + whole * kRowBlock,
                          block_sum.data() + whole, block_max.data() + whole);
    }
}

}  // namespace parley::engine
