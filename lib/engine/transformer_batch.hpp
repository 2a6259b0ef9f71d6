// TransformerBatch: the rows of one run, and how attention over them is cut into tasks.
//
// A task is some consecutive rows of one chunk; it is done once per KV head. For few rows (decoding
// ones, and drafts behind them) with a long context it becomes several tasks, one per split of kSplit
// positions, and the last to finish folds them together. How it is cut never changes the result: splits lie at fixed
// positions and are folded in order.
//
// Threads  built by the caller of run(); read by all; the counters of split rows are atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/forward.hpp"
#include "engine/transformer_shape.hpp"
#include "kernels/contract.hpp"

namespace parley::engine {

struct BatchRow {
    model::Token token = 0;
    uint32_t position = 0;
    uint32_t chunk = 0;
};

struct AttentionTask {
    static constexpr uint32_t kAllSplits = UINT32_MAX;
    uint32_t row = 0;
    uint32_t rows = 0;
    uint32_t split = kAllSplits;
    uint32_t splits = 0;  // of the last row
    uint32_t slot = 0;    // of its first row's partial results, when it is one of several
};

class TransformerBatch {
  public:
    // At most this many rows have their attention split between threads.
    static constexpr uint32_t kSplitRowsMax = 16;

    TransformerBatch(const TransformerShape& shape, uint32_t rows_max, uint32_t context,
                     uint32_t threads);

    void build(std::span<const Chunk> chunks);

    std::span<const Chunk> chunks() const { return chunks_; }
    const std::vector<BatchRow>& rows() const { return rows_; }
    const std::vector<AttentionTask>& tasks() const { return tasks_; }
    const std::vector<uint32_t>& logit_rows() const { return logit_rows_; }
    // Whether keys must be written before any task starts (a task reads other rows' keys, or
    // several tasks share a row).
    bool rope_is_phase() const { return rope_is_phase_; }

    // Partial results of split rows: max, sum and acc of the queries of one (slot, KV head, split).
    float* partial(uint32_t slot, uint32_t kv_head, uint32_t split);
    uint64_t partial_acc_offset() const { return 2 * uint64_t{shape_.heads_per_kv()}; }
    // Counts a finished split; true for the last of (slot, KV head), and the counter starts anew.
    bool last_split(uint32_t slot, uint32_t kv_head, uint32_t splits);

  private:
    const TransformerShape shape_;
    const uint32_t threads_;
    const uint32_t splits_max_;
    std::span<const Chunk> chunks_;
    std::vector<BatchRow> rows_;
    std::vector<AttentionTask> tasks_;
    std::vector<uint32_t> logit_rows_;
    bool rope_is_phase_ = false;
    uint64_t partial_stride_ = 0;
    std::vector<float> partials_;
    std::unique_ptr<std::atomic<uint32_t>[]> counters_;
};

}  // namespace parley::engine
