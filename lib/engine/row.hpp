// Row: passes over one row of logits, in blocks of kRowBlock, for the sampler.
//
// Numbers  the same bits on every path and host: plain IEEE single steps, nothing contracted, sums over
//          sixteen lanes in a fixed order. The path is the best of the host; they differ in speed alone.
// NaN      is never the greatest, and weighs 0.
// Threads  pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace parley::engine {

inline constexpr size_t kRowBlock = 64;

struct RowPath {
    const char* name;
    void (*max_blocks)(const float* row, size_t blocks, float* block_max);
    void (*weigh_blocks)(const float* row, size_t blocks, float most, float scale, float* weights,
                         float* block_sum, float* block_max);
};
std::vector<RowPath> row_paths();  // those that the host can run, the best first, "plain" last
const RowPath& row_path();         // the best

// Writes the greatest value of each block (-inf where there is none); returns the greatest of all.
float row_max(std::span<const float> row, std::vector<float>& block_max,
              const RowPath& path = row_path());

// weights[i] = e^((row[i] - most) · scale), within 2 units in the last place, 0 below e^-87; and the
// sum and the greatest of each block. `most` is not below any of the row; weights are filled up to
// whole blocks with 0.
void row_weigh(std::span<const float> row, float most, float scale, std::vector<float>& weights,
               std::vector<float>& block_sum, std::vector<float>& block_max,
               const RowPath& path = row_path());

}  // namespace parley::engine
