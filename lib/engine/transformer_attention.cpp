// Transformer: rotation, the append to the KV cache, and attention.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "engine/transformer.hpp"

namespace parley::engine {

using kernels::kPage;
using kernels::kQueriesMax;
using kernels::kSplit;
using kernels::kSplitPages;

static_assert(kBlockTokens == kPage);

// Bias, norm and rotation of one head, in place. Where RoPE rotates halves the pairs are first laid side by
// side and stay so: queries and keys are permuted alike, which no dot product sees.
void Transformer::rotate(float* x, const float* bias, const std::vector<float>& head_norm,
                         const float* cos_sin, float scale) const {
    const uint32_t dim = shape_.head_dim, pairs = shape_.rope_dims / 2;
    for (uint32_t i = 0; bias != nullptr && i < dim; ++i) x[i] += bias[i];
    float other[kernels::kHeadDimMax];
    if (!head_norm.empty()) {
        kernels_.rms_norm(x, head_norm.data(), dim, shape_.rms_eps, other);
        std::memcpy(x, other, dim * sizeof(float));
    }
    if (shape_.rope_halves) {
        std::memcpy(other, x, shape_.rope_dims * sizeof(float));
        for (uint32_t i = 0; i < pairs; ++i) {
            x[2 * i] = other[i];
            x[2 * i + 1] = other[pairs + i];
        }
    }
    kernels_.rope_adjacent(x, dim, cos_sin, pairs, scale);
}

uint64_t Transformer::kv_read_bytes(uint32_t depth) const {
    const uint64_t layer_bytes = kv_.bytes() / kv_blocks() / kBlockTokens / shape_.layers;
    uint64_t positions = 0;  // over the layers
    for (uint32_t i = 0; i < shape_.layers; ++i) {
        positions += shape_.windowed(i) ? std::min(depth, shape_.window) : depth;
    }
    return layer_bytes * positions;
}

const float* Transformer::cos_sin(uint32_t layer, uint32_t row) const {
    return cos_sin_.data() + uint64_t{row} * cos_sin_stride_ +
           (shape_.windowed(layer) ? shape_.rope_dims : 0);
}

// Rotates the queries of one KV head in place; its key and value go to the cache.
void Transformer::rope(uint32_t layer, uint32_t row, uint32_t kv_head) {
    const BatchRow& at = batch_.rows()[row];
    const uint32_t dim = shape_.head_dim, group = shape_.heads_per_kv();
    float* q = qkv_.data() + uint64_t{row} * (shape_.q_width() + 2 * shape_.kv_width());
    float* k = q + shape_.q_width() + uint64_t{kv_head} * dim;
    float* v = k + shape_.kv_width();
    const LayerWeights& weights = weights_.layers[layer];
    const auto bias = [](const std::vector<float>& of, uint64_t at) {
        return of.empty() ? nullptr : of.data() + at;
    };
    const float* turns = this->cos_sin(layer, row);
    for (uint32_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
        rotate(q + uint64_t{h} * dim, bias(weights.q_bias, uint64_t{h} * dim), weights.q_norm, turns,
               shape_.query_scale);
    }
    rotate(k, bias(weights.k_bias, uint64_t{kv_head} * dim), weights.k_norm, turns, 1.0f);
    for (uint32_t i = 0; !weights.v_bias.empty() && i < dim; ++i) {
        v[i] += weights.v_bias[uint64_t{kv_head} * dim + i];
    }
    const uint32_t block = batch_.chunks()[at.chunk].blocks[at.position / kPage];
    assert(block < kv_.shape().blocks);
    kernels_.kv_append(kv_.shape().type, k, v, dim, at.position % kPage,
                       kv_.page(block, layer, kv_head));
}

void Transformer::attention(uint32_t layer, uint32_t unit, Scratch& scratch) {
    const AttentionTask& task = batch_.tasks()[unit / shape_.kv_heads];
    const uint32_t kv_head = unit % shape_.kv_heads;
    if (!batch_.rope_is_phase()) rope(layer, task.row, kv_head);
    if (task.split == AttentionTask::kAllSplits) {
        attend(layer, task, kv_head, scratch);
    } else {
        attend_split(layer, task, kv_head, scratch);
    }
}

uint32_t Transformer::first_seen(uint32_t layer, uint32_t position) const {
    return shape_.windowed(layer) && position >= shape_.window ? position + 1 - shape_.window : 0;
}

// All splits of the rows of a task, kQueriesMax queries at a time.
void Transformer::attend(uint32_t layer, const AttentionTask& task, uint32_t kv_head,
                         Scratch& scratch) {
    const uint32_t dim = shape_.head_dim, group = shape_.heads_per_kv();
    const uint64_t stride = shape_.q_width() + 2 * shape_.kv_width();
    const BatchRow& first_row = batch_.rows()[task.row];
    const std::span<const uint32_t> blocks = batch_.chunks()[first_row.chunk].blocks;
    const uint32_t queries = task.rows * group;  // row-major: query i is row i / group
    for (uint32_t begin = 0; begin < queries; begin += kQueriesMax) {
        const uint32_t count = std::min(kQueriesMax, queries - begin);
        uint32_t position[kQueriesMax] = {}, start[kQueriesMax] = {};  // start: the first one seen
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t row = (begin + i) / group, head = (begin + i) % group;
            position[i] = first_row.position + row;
            start[i] = first_seen(layer, position[i]);
            std::memcpy(
                scratch.queries.data() + uint64_t{i} * dim,
                qkv_.data() + (task.row + row) * stride + (uint64_t{kv_head} * group + head) * dim,
                dim * sizeof(float));
        }
        float max[kQueriesMax], sum[kQueriesMax], next_max[kQueriesMax], next_sum[kQueriesMax];
        const uint32_t splits = position[count - 1] / kSplit + 1;
        for (uint32_t split = start[0] / kSplit; split < splits; ++split) {
            // Positions ascend over the queries: the first ones have not come to this split, and the
            // last ones' windows may be past it.
            const uint32_t split_begin = split * kSplit;
            uint32_t from = 0, to = count;
            while (position[from] < split_begin) ++from;
            while (start[to - 1] >= split_begin + kSplit) --to;
            uint32_t seen[kQueriesMax], hidden[kQueriesMax];
            for (uint32_t i = from; i < to; ++i) {
                seen[i] = std::min(kSplit, position[i] + 1 - split_begin);
                hidden[i] = start[i] > split_begin ? start[i] - split_begin : 0;
            }
            const void* pages[kSplitPages];
            const uint32_t page_count = (seen[to - 1] + kPage - 1) / kPage;
            for (uint32_t p = hidden[from] / kPage; p < page_count; ++p) {
                pages[p] = kv_.page(blocks[split * kSplitPages + p], layer, kv_head);
            }
            // Straight into the totals where it is the first split of all that see it.
            const bool first = split == start[from] / kSplit && split == start[to - 1] / kSplit;
            float* acc = (first ? scratch.acc : scratch.next_acc).data();
            kernels_.attention_split({.queries = scratch.queries.data() + uint64_t{from} * dim,
                                      .query_count = to - from,
                                      .head_dim = dim,
                                      .kv_type = kv_.shape().type,
                                      .pages = pages,
                                      .positions = seen + from,
                                      .hidden = hidden + from,
                                      .max = (first ? max : next_max) + from,
                                      .sum = (first ? sum : next_sum) + from,
                                      .acc = acc + uint64_t{from} * dim});
            for (uint32_t i = from; !first && i < to; ++i) {
                float* total = scratch.acc.data() + uint64_t{i} * dim;
                if (split == start[i] / kSplit) {
                    max[i] = next_max[i];
                    sum[i] = next_sum[i];
                    std::memcpy(total, acc + uint64_t{i} * dim, dim * sizeof(float));
                } else {
                    kernels_.attention_fold(max + i, sum + i, total, next_max[i], next_sum[i],
                                            acc + uint64_t{i} * dim, dim);
                }
            }
        }
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t row = (begin + i) / group, head = (begin + i) % group;
            kernels_.attention_finish(scratch.acc.data() + uint64_t{i} * dim, sum[i], dim,
                                      scratch.row.data());
            attended_.write(kernels_, task.row + row, scratch.row.data(),
                            (kv_head * group + head) * dim, dim);
        }
    }
}

// One split of a task's rows; who finishes the last one folds them all.
void Transformer::attend_split(uint32_t layer, const AttentionTask& task, uint32_t kv_head,
                               Scratch& scratch) {
    const uint32_t dim = shape_.head_dim, group = shape_.heads_per_kv();
    const uint64_t stride = shape_.q_width() + 2 * shape_.kv_width();
    const BatchRow& first = batch_.rows()[task.row];
    const std::span<const uint32_t> blocks = batch_.chunks()[first.chunk].blocks;
    const uint32_t before = task.split * kSplit;
    const uint32_t seen_last = std::min(kSplit, first.position + task.rows - before);
    // Positions ascend over the rows: the first ones have not come to this split, and the last ones'
    // windows may be past it. Where nobody sees it the task does nothing, but it may be the last one.
    const uint32_t from = before > first.position ? before - first.position : 0;
    uint32_t to = task.rows;
    while (to > from && first_seen(layer, first.position + to - 1) >= before + kSplit) --to;
    const auto unseen = [&](uint32_t row) {
        const uint32_t start = first_seen(layer, first.position + row);
        return start > before ? start - before : 0;
    };
    const void* pages[kSplitPages];
    for (uint32_t p = unseen(from) / kPage; p < (seen_last + kPage - 1) / kPage; ++p) {
        pages[p] = kv_.page(blocks[task.split * kSplitPages + p], layer, kv_head);
    }
    const uint32_t queries = (to - from) * group;  // row-major, as in attend()
    for (uint32_t begin = 0; begin < queries; begin += kQueriesMax) {
        const uint32_t count = std::min(kQueriesMax, queries - begin);
        uint32_t seen[kQueriesMax], hidden[kQueriesMax];
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t row = from + (begin + i) / group, head = (begin + i) % group;
            seen[i] = std::min(kSplit, first.position + row + 1 - before);
            hidden[i] = unseen(row);
            std::memcpy(
                scratch.queries.data() + uint64_t{i} * dim,
                qkv_.data() + (task.row + row) * stride + (uint64_t{kv_head} * group + head) * dim,
                dim * sizeof(float));
        }
        float max[kQueriesMax], sum[kQueriesMax];
        kernels_.attention_split({.queries = scratch.queries.data(),
                                  .query_count = count,
                                  .head_dim = dim,
                                  .kv_type = kv_.shape().type,
                                  .pages = pages,
                                  .positions = seen,
                                  .hidden = hidden,
                                  .max = max,
                                  .sum = sum,
                                  .acc = scratch.acc.data()});
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t row = from + (begin + i) / group, head = (begin + i) % group;
            float* out = batch_.partial(task.slot + row, kv_head, task.split);
            out[head] = max[i];
            out[group + head] = sum[i];
            std::memcpy(out + batch_.partial_acc_offset() + uint64_t{head} * dim,
                        scratch.acc.data() + uint64_t{i} * dim, dim * sizeof(float));
        }
    }
    if (!batch_.last_split(task.slot, kv_head, task.splits)) return;
    for (uint32_t row = 0; row < task.rows; ++row) {
        const uint32_t first_split = first_seen(layer, first.position + row) / kSplit;
        float* total = batch_.partial(task.slot + row, kv_head, first_split);
        float* total_acc = total + batch_.partial_acc_offset();
        const uint32_t splits = (first.position + row) / kSplit + 1;
        for (uint32_t split = first_split + 1; split < splits; ++split) {
            const float* next = batch_.partial(task.slot + row, kv_head, split);
            const float* next_acc = next + batch_.partial_acc_offset();
            for (uint32_t h = 0; h < group; ++h) {
                kernels_.attention_fold(total + h, total + group + h, total_acc + uint64_t{h} * dim,
                                        next[h], next[group + h], next_acc + uint64_t{h} * dim, dim);
            }
        }
        for (uint32_t h = 0; h < group; ++h) {
            kernels_.attention_finish(total_acc + uint64_t{h} * dim, total[group + h], dim,
                                      scratch.row.data());
            attended_.write(kernels_, task.row + row, scratch.row.data(),
                            (kv_head * group + h) * dim, dim);
        }
    }
}

}  // namespace parley::engine
