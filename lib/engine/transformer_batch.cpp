#include "engine/transformer_batch.hpp"

#include <algorithm>
#include <cassert>

namespace parley::engine {
namespace {
uint32_t splits_for(uint32_t positions) {
    return (positions + kernels::kSplit - 1) / kernels::kSplit;
}
}  // namespace

TransformerBatch::TransformerBatch(const TransformerShape& shape, uint32_t rows_max,
                                   uint32_t context, uint32_t threads)
    : shape_(shape), threads_(threads), splits_max_(splits_for(context)) {
    rows_.reserve(rows_max);
    logit_rows_.reserve(rows_max);
    tasks_.reserve(std::max<uint64_t>(rows_max, uint64_t{kSplitRowsMax} * splits_max_));
    partial_stride_ = uint64_t{shape.heads_per_kv()} * (shape.head_dim + 2);
    partials_.resize(uint64_t{kSplitRowsMax} * shape.kv_heads * splits_max_ * partial_stride_);
    counters_ = std::make_unique<std::atomic<uint32_t>[]>(kSplitRowsMax * shape.kv_heads);
}

void TransformerBatch::build(std::span<const Chunk> chunks) {
    chunks_ = chunks;
    rows_.clear();
    tasks_.clear();
    logit_rows_.clear();
    rope_is_phase_ = false;
    for (uint32_t c = 0; c < chunks.size(); ++c) {
        const Chunk& chunk = chunks[c];
        assert(!chunk.tokens.empty());
        assert(chunk.position + chunk.tokens.size() <= uint64_t{splits_max_} * kernels::kSplit);
        assert(chunk.blocks.size() * kBlockTokens >= chunk.position + chunk.tokens.size());
        for (uint32_t i = 0; i < chunk.tokens.size(); ++i) {
            rows_.push_back({chunk.tokens[i], chunk.position + i, c});
        }
        assert(chunk.logit_rows <= chunk.tokens.size());
        for (uint32_t left = chunk.logit_rows; left > 0; --left)
            logit_rows_.push_back(static_cast<uint32_t>(rows_.size()) - left);
    }
    const uint32_t tile = std::max<uint32_t>(1, kernels::kQueriesMax / shape_.heads_per_kv());
    uint64_t whole = 0;
    for (const Chunk& chunk : chunks) whole += (chunk.tokens.size() + tile - 1) / tile;
    // With this many (task, KV head) pairs the threads are busy anyway.
    const bool cut_rows = rows_.size() <= kSplitRowsMax &&
                          whole * shape_.kv_heads <= 8 * threads_ && threads_ > 1;
    uint32_t row = 0, slot = 0;
    for (const Chunk& chunk : chunks) {
        const auto count = static_cast<uint32_t>(chunk.tokens.size());
        const uint32_t splits = splits_for(chunk.position + count);
        const bool cut = cut_rows && splits > 1;
        if (count > 1 || cut) rope_is_phase_ = true;
        for (uint32_t i = 0; i < count; i += tile) {
            AttentionTask task{.row = row + i, .rows = std::min(tile, count - i)};
            task.splits = splits_for(chunk.position + i + task.rows);
            if (!cut) {
                tasks_.push_back(task);
                continue;
            }
            task.slot = slot;
            slot += task.rows;
            for (task.split = 0; task.split < task.splits; ++task.split) tasks_.push_back(task);
        }
        row += count;
    }
}

float* TransformerBatch::partial(uint32_t slot, uint32_t kv_head, uint32_t split) {
    const uint64_t index = (uint64_t{slot} * shape_.kv_heads + kv_head) * splits_max_ + split;
    return partials_.data() + index * partial_stride_;
}

bool TransformerBatch::last_split(uint32_t slot, uint32_t kv_head, uint32_t splits) {
    std::atomic<uint32_t>& counter = counters_[slot * shape_.kv_heads + kv_head];
    if (counter.fetch_add(1, std::memory_order_acq_rel) + 1 < splits) return false;
    counter.store(0, std::memory_order_relaxed);
    return true;
}

}  // namespace parley::engine
