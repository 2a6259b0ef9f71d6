// Transformer: Forward for the architectures of transformer_shape.hpp.
//
// One run is one list of phases for the thread pool (thread_pool.hpp), the same numbers whatever
// the batch: embed, then per layer
//   norm  qkv  rope  attention  o-proj  norm  gate-up  down
// and at the end norm and output. Between two phases all threads meet, so what can be fused is:
// RMSNorm ends in quantised activations; attention and SiLU·up leave their result quantised for the
// next product; o-proj and down add to the residual. With few rows the norms are not phases either:
// each thread computes them for itself, which is cheaper than meeting. Where the architecture norms what
// attention and feed-forward give before it is added (post_norms), o-proj and down leave it beside the
// residual, and the norm that follows, then always a phase, adds it first.
//
// Units    qkv, o-proj, down, output: a group of 16 outputs, for all rows, so that weights are read
// once
//          an iteration. gate-up: 32 columns of both. Attention: (task, KV head); see
//          transformer_batch.hpp.
#pragma once

#include <memory>
#include <vector>

#include "engine/forward.hpp"
#include "engine/kv_cache.hpp"
#include "engine/thread_pool.hpp"
#include "engine/transformer_batch.hpp"
#include "engine/transformer_shape.hpp"
#include "engine/transformer_weights.hpp"
#include "kernels/kernels.hpp"

namespace parley::engine {

// Activations as the input of matrices: tiles of kTileRows rows, in one or both of the two forms.
class Tiles {
  public:
    Tiles() = default;
    Tiles(uint32_t rows, uint32_t cols, bool quantised, bool floats);
    bool empty() const { return q8_.empty() && f32_.empty(); }
    // Columns [col, col + count) of a row; both multiples of kBlock.
    void write(const kernels::Kernels& kernels, uint32_t row, const float* x, uint32_t col,
               uint32_t count);
    // Rows row … row + rows of one tile (row its first), side by side in x; no other row of the tile may
    // hold anything in these columns yet.
    void write_rows(const kernels::Kernels& kernels, uint32_t row, uint32_t rows, const float* x,
                    uint32_t col, uint32_t count);
    const void* tile(uint32_t index, bool quantised) const;

  private:
    uint32_t cols_ = 0;
    std::vector<kernels::Q8Block> q8_;
    std::vector<float> f32_;
};

class Transformer final : public Forward, private ThreadPool::Body {
  public:
    static base::Result<std::unique_ptr<Forward>> create(const model::Gguf& file,
                                                         const ForwardOptions& options);

    void run(std::span<const Chunk> chunks, std::span<float> logits) override;
    void copy_block(uint32_t from, uint32_t to) override { kv_.copy(from, to); }
    uint32_t vocab_size() const override { return shape_.vocab; }
    uint32_t context_tokens() const override { return context_; }
    uint32_t kv_blocks() const override { return kv_.shape().blocks; }
    uint64_t kv_bytes() const override { return kv_.bytes(); }
    uint64_t kv_read_bytes(uint32_t depth) const override;
    uint64_t weight_bytes() const override { return weights_.bytes_per_token(); }
    const char* kernel() const override { return kernels_.name; }
    uint32_t threads() const override { return pool_->threads(); }

  private:
    enum Stage : uint32_t {
        kNormA,
        kQkv,
        kRope,
        kAttention,
        kProject,
        kNormF,
        kGateUp,
        kDown,
        kStages
    };

    // What one thread works in.
    struct Scratch {
        uint64_t prepared = 0;  // run and phase whose norm `input` holds
        Tiles input;
        std::vector<float> row;                     // max(embedding, q width)
        std::vector<float> gate, up;                // [kTileRows][kBlock]
        std::vector<float> queries, acc, next_acc;  // [kQueriesMax][head_dim]
    };

    Transformer(TransformerShape shape, TransformerWeights weights, KvCache kv,
                const kernels::Kernels& kernels, std::unique_ptr<ThreadPool> pool,
                const ForwardOptions& options);

    void units(uint32_t phase, uint32_t begin, uint32_t end, uint32_t thread) override;
    void embed(uint32_t row);
    // x += norm of what the last product left: of a row, where the architecture has post norms.
    void settle(const std::vector<float>& weight, uint32_t row, Scratch& scratch);
    void norm(const float* x, const std::vector<float>& weight, uint32_t row, Tiles& into,
              Scratch& scratch) const;
    // The norm's result for the product that follows: computed by its own phase, or here and now.
    const Tiles& normed(uint32_t phase, const std::vector<float>& weight, const Tiles& shared,
                        Scratch& scratch);
    void multiply(const Matrix& matrix, uint32_t begin, uint32_t end, const Tiles& input,
                  uint32_t rows, float* out, uint64_t stride, bool add) const;
    void qkv(const LayerWeights& layer, uint32_t begin, uint32_t end, const Tiles& input);
    void gate_up(const LayerWeights& layer, uint32_t unit, const Tiles& input, Scratch& scratch);
    void rotate(float* x, const float* bias, const std::vector<float>& head_norm,
                const float* cos_sin, float scale) const;
    void rope(uint32_t layer, uint32_t row, uint32_t kv_head);
    uint32_t first_seen(uint32_t layer, uint32_t position) const;
    void attention(uint32_t layer, uint32_t unit, Scratch& scratch);
    void attend(uint32_t layer, const AttentionTask& task, uint32_t kv_head, Scratch& scratch);
    void attend_split(uint32_t layer, const AttentionTask& task, uint32_t kv_head,
                      Scratch& scratch);

    const TransformerShape shape_;
    const uint32_t context_;
    const uint32_t rows_max_;
    const TransformerWeights weights_;
    const KvCache kv_;
    const kernels::Kernels& kernels_;
    std::unique_ptr<ThreadPool> pool_;

    // The first of a row's cos_sin_ that `layer` turns by.
    const float* cos_sin(uint32_t layer, uint32_t row) const;

    RopeTable rope_, window_rope_;  // the second is empty where no layer has a window
    std::vector<float> x_;          // [rows][embedding]: the residual stream
    std::vector<float> added_;      // the same, with post norms: what is still to be added to it
    std::vector<float> qkv_;        // [rows][q width + 2 · kv width]
    std::vector<float> cos_sin_;    // [rows][tables][rope_dims]
    uint32_t cos_sin_stride_ = 0;   // tables · rope_dims
    Tiles normed_, attended_, hidden_;
    std::vector<Scratch> scratch_;  // one a thread

    TransformerBatch batch_;
    std::vector<Phase> phases_;
    std::span<float> logits_;
    uint64_t runs_ = 0;
    bool norms_are_phases_ = false;
};

}  // namespace parley::engine
