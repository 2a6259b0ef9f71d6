#include "engine/transformer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <new>
#include <thread>

namespace parley::engine {
namespace {

using base::Errc;
using kernels::kBlock;
using kernels::kGroup;
using kernels::kQueriesMax;
using kernels::kSplit;
using kernels::kTileRows;

// Up to here each thread norms the rows for itself: some 150 ns a row against a meeting of threads.
constexpr uint32_t kRowsNormedByAll = 2;
constexpr uint32_t kRowsMax = 65'536;
// Half of a first-level cache of 48 KiB: the other half is for the tile that passes.
constexpr uint64_t kWeightsInCache = 24'576;
// Where inputs are so wide that a tile fills that cache: groups for which it is then fetched once.
constexpr uint64_t kGroupsOfWide = 4;

uint32_t tiles_for(uint32_t rows) { return (rows + kTileRows - 1) / kTileRows; }

base::Result<const kernels::Kernels*> choose(const std::string& name) {
    if (name.empty()) return &kernels::best();
    if (const kernels::Kernels* table = kernels::find(name)) return table;
    std::string known, usable;
    bool is_known = false;
    for (const std::string_view candidate : kernels::names()) {
        is_known = is_known || candidate == name;
        known += (known.empty() ? "" : ", ") + std::string{candidate};
        if (kernels::find(candidate) != nullptr) {
            usable += (usable.empty() ? "" : ", ") + std::string{candidate};
        }
    }
    if (!is_known) {
        return base::fail(Errc::config,
                          fmt::format("unknown kernel '{}' (there are {})", name, known));
    }
    return base::fail(Errc::unsupported,
                      fmt::format("kernel '{}' needs instructions this processor does not have "
                                  "(usable here: {})",
                                  name, usable));
}

}  // namespace

Tiles::Tiles(uint32_t rows, uint32_t cols, bool quantised, bool floats) : cols_(cols) {
    if (quantised) q8_.resize(uint64_t{tiles_for(rows)} * (cols / kBlock));
    if (floats) f32_.resize(uint64_t{tiles_for(rows)} * cols * kTileRows);
}

void Tiles::write(const kernels::Kernels& kernels, uint32_t row, const float* x, uint32_t col,
                  uint32_t count) {
    const uint64_t tile = row / kTileRows;
    const uint32_t slot = row % kTileRows;
    if (!q8_.empty()) {
        kernels.quantise(x, count, slot, q8_.data() + tile * (cols_ / kBlock) + col / kBlock);
    }
    if (!f32_.empty()) {
        float* to = f32_.data() + (tile * cols_ + col) * kTileRows + slot;
        for (uint32_t i = 0; i < count; ++i) to[i * kTileRows] = x[i];
    }
}

void Tiles::write_rows(const kernels::Kernels& kernels, uint32_t row, uint32_t rows, const float* x,
                       uint32_t col, uint32_t count) {
    assert(row % kTileRows == 0 && rows <= kTileRows);
    if (f32_.empty()) {
        kernels.quantise_rows(x, count, count, rows,
                              q8_.data() + row / kTileRows * (cols_ / kBlock) + col / kBlock);
        return;
    }
    for (uint32_t i = 0; i < rows; ++i) write(kernels, row + i, x + uint64_t{i} * count, col, count);
}

const void* Tiles::tile(uint32_t index, bool quantised) const {
    if (quantised) return q8_.data() + uint64_t{index} * (cols_ / kBlock);
    return f32_.data() + uint64_t{index} * cols_ * kTileRows;
}

base::Result<std::unique_ptr<Forward>> Forward::create(const model::Gguf& file,
                                                       const ForwardOptions& options) {
    try {
        return Transformer::create(file, options);
    } catch (const std::bad_alloc&) {
        return base::fail(Errc::again, "not enough memory for the model's working space");
    }
}

base::Result<std::unique_ptr<Forward>> Transformer::create(const model::Gguf& file,
                                                           const ForwardOptions& options) {
    auto kernels = choose(options.kernel);
    if (!kernels) return base::fail(kernels.error());
    auto shape = read_shape(file);
    if (!shape) return base::fail(shape.error());
    if (options.context_tokens > shape->context) {
        return base::fail(Errc::config,
                          fmt::format("a context of {} tokens is more than the model's {}",
                                      options.context_tokens, shape->context));
    }
    if (options.rows_max < 1 || options.rows_max > kRowsMax) {
        return base::fail(Errc::config, fmt::format("rows_max must be 1 to {}, not {}", kRowsMax,
                                                    options.rows_max));
    }
    const auto kv_type = kernels::kv_type(options.kv_type);
    if (!kv_type) {
        return base::fail(Errc::config,
                          fmt::format("unknown KV type '{}' (there are f16, int8)", options.kv_type));
    }
    if (options.kv_blocks < 1) return base::fail(Errc::config, "kv_blocks must be at least 1");
    const uint32_t cores =
        std::clamp(std::thread::hardware_concurrency(), 1u, ThreadPool::kThreadsMax);
    auto pool = ThreadPool::create(options.threads != 0 ? options.threads : cores);
    if (!pool) return base::fail(pool.error());
    auto kv = KvCache::create({.blocks = options.kv_blocks,
                               .layers = shape->layers,
                               .kv_heads = shape->kv_heads,
                               .head_dim = shape->head_dim,
                               .type = *kv_type});
    if (!kv) return base::fail(kv.error());
    auto weights = TransformerWeights::load(file, *shape, **kernels, **pool);
    if (!weights) return base::fail(weights.error());
    return std::unique_ptr<Forward>{new Transformer(*shape, std::move(*weights), std::move(*kv),
                                                    **kernels, std::move(*pool), options)};
}

Transformer::Transformer(TransformerShape shape, TransformerWeights weights, KvCache kv,
                         const kernels::Kernels& kernels, std::unique_ptr<ThreadPool> pool,
                         const ForwardOptions& options)
    : shape_(shape),
      context_(options.context_tokens != 0 ? options.context_tokens : shape.context),
      rows_max_(options.rows_max),
      weights_(std::move(weights)),
      kv_(std::move(kv)),
      kernels_(kernels),
      pool_(std::move(pool)),
      batch_(shape_, rows_max_, context_, pool_->threads()) {
    const uint64_t rows = rows_max_;
    x_.resize(rows * shape.embedding);
    qkv_.resize(rows * (shape.q_width() + 2 * shape.kv_width()));
    rope_ = RopeTable::make(shape.rope_base, shape.rope_dims, shape.rope_scaling,
                            weights_.rope_factors);
    if (shape.window != 0) {
        window_rope_ = RopeTable::make(shape.window_rope_base, shape.rope_dims, {}, {});
    }
    cos_sin_stride_ = (shape.window != 0 ? 2 : 1) * shape.rope_dims;
    cos_sin_.resize(rows * cos_sin_stride_);
    if (shape.post_norms) added_.resize(x_.size());
    // An input is kept in the forms that the matrices it feeds ask for.
    const auto tiles = [&](uint32_t rows_of, uint32_t cols, auto... members) {
        bool quantised = false, floats = false;
        const auto look = [&](const Matrix& matrix) {
            (matrix.ops->quantised_input ? quantised : floats) = true;
        };
        for (const LayerWeights& layer : weights_.layers) (look(layer.*members), ...);
        if (cols == shape.embedding) look(weights_.output);
        return Tiles(rows_of, cols, quantised, floats);
    };
    using L = LayerWeights;
    normed_ = tiles(rows_max_, shape.embedding, &L::q, &L::k, &L::v, &L::gate, &L::up);
    attended_ = tiles(rows_max_, shape.q_width(), &L::output);
    hidden_ = tiles(rows_max_, shape.feed_forward, &L::down);
    scratch_.resize(pool_->threads());
    for (Scratch& scratch : scratch_) {
        scratch.input =
            tiles(kRowsNormedByAll, shape.embedding, &L::q, &L::k, &L::v, &L::gate, &L::up);
        scratch.row.resize(std::max(shape.embedding, shape.q_width()));
        scratch.gate.resize(kTileRows * kBlock);
        scratch.up.resize(kTileRows * kBlock);
        for (auto* buffer : {&scratch.queries, &scratch.acc, &scratch.next_acc}) {
            buffer->resize(kQueriesMax * shape.head_dim);
        }
    }
    phases_.reserve(1 + uint64_t{shape.layers} * kStages + 2);
}

void Transformer::run(std::span<const Chunk> chunks, std::span<float> logits) {
    batch_.build(chunks);
    const auto rows = static_cast<uint32_t>(batch_.rows().size());
    const auto wanted = static_cast<uint32_t>(batch_.logit_rows().size());
    assert(rows <= rows_max_ && logits.size() == uint64_t{wanted} * shape_.vocab);
    if (rows == 0) return;
    logits_ = logits;
    ++runs_;
    norms_are_phases_ = shape_.post_norms || rows > kRowsNormedByAll;
    phases_.clear();
    phases_.push_back({.units = rows});
    for (const LayerWeights& layer : weights_.layers) {
        const uint32_t norm_units = norms_are_phases_ ? rows : 0;
        const uint32_t rope_units = batch_.rope_is_phase() ? rows * shape_.kv_heads : 0;
        const auto attention_units = static_cast<uint32_t>(batch_.tasks().size()) * shape_.kv_heads;
        phases_.push_back({.units = norm_units});
        phases_.push_back({.units = layer.q.groups() + layer.k.groups() + layer.v.groups()});
        phases_.push_back({.units = rope_units});
        phases_.push_back({.units = attention_units, .one_by_one = true});
        phases_.push_back({.units = layer.output.groups()});
        phases_.push_back({.units = norm_units});
        phases_.push_back({.units = shape_.feed_forward / kBlock});
        phases_.push_back({.units = layer.down.groups()});
    }
    phases_.push_back({.units = wanted});
    phases_.push_back({.units = wanted > 0 ? weights_.output.groups() : 0});
    pool_->run(phases_, *this);
}

void Transformer::units(uint32_t phase, uint32_t begin, uint32_t end, uint32_t thread) {
    Scratch& scratch = scratch_[thread];
    if (phase == 0) {
        for (uint32_t row = begin; row < end; ++row) embed(row);
        return;
    }
    const uint32_t index = (phase - 1) / kStages;
    const uint32_t stage = (phase - 1) % kStages;
    const auto rows = static_cast<uint32_t>(batch_.rows().size());
    if (index == shape_.layers) {
        const auto& wanted = batch_.logit_rows();
        if (stage == 0) {
            for (uint32_t i = begin; i < end; ++i) {
                if (shape_.post_norms) {
                    settle(weights_.layers.back().post_feed_forward_norm, wanted[i], scratch);
                }
                const float* x = x_.data() + uint64_t{wanted[i]} * shape_.embedding;
                norm(x, weights_.output_norm, i, normed_, scratch);
            }
        } else {
            multiply(weights_.output, begin, end, normed_, static_cast<uint32_t>(wanted.size()),
                     logits_.data() + uint64_t{begin} * kGroup, shape_.vocab, false);
        }
        return;
    }
    const LayerWeights& layer = weights_.layers[index];
    switch (stage) {
        case kNormA:
        case kNormF:
            for (uint32_t row = begin; row < end; ++row) {
                if (shape_.post_norms && stage == kNormF) {
                    settle(layer.post_attention_norm, row, scratch);
                } else if (shape_.post_norms && index > 0) {
                    settle(weights_.layers[index - 1].post_feed_forward_norm, row, scratch);
                }
                norm(x_.data() + uint64_t{row} * shape_.embedding,
                     stage == kNormA ? layer.attention_norm : layer.feed_forward_norm, row, normed_,
                     scratch);
            }
            break;
        case kQkv:
            qkv(layer, begin, end, normed(phase, layer.attention_norm, normed_, scratch));
            break;
        case kRope:
            for (uint32_t i = begin; i < end; ++i) {
                rope(index, i / shape_.kv_heads, i % shape_.kv_heads);
            }
            break;
        case kAttention:
            for (uint32_t i = begin; i < end; ++i) attention(index, i, scratch);
            break;
        case kProject:
            multiply(layer.output, begin, end, attended_, rows,
                     (shape_.post_norms ? added_ : x_).data() + uint64_t{begin} * kGroup,
                     shape_.embedding, !shape_.post_norms);
            break;
        case kGateUp: {
            const Tiles& input = normed(phase, layer.feed_forward_norm, normed_, scratch);
            for (uint32_t i = begin; i < end; ++i) gate_up(layer, i, input, scratch);
            break;
        }
        case kDown:
            multiply(layer.down, begin, end, hidden_, rows,
                     (shape_.post_norms ? added_ : x_).data() + uint64_t{begin} * kGroup,
                     shape_.embedding, !shape_.post_norms);
            break;
    }
}

void Transformer::embed(uint32_t row) {
    const BatchRow& at = batch_.rows()[row];
    assert(at.token >= 0 && static_cast<uint32_t>(at.token) < shape_.vocab);
    const Matrix& embedding = weights_.embedding;
    float* x = x_.data() + uint64_t{row} * shape_.embedding;
    embedding.ops->unpack_row(embedding.packed, embedding.rows, embedding.cols,
                              static_cast<uint32_t>(at.token), x);
    if (shape_.embedding_scale != 1) {
        for (uint32_t i = 0; i < shape_.embedding; ++i) x[i] *= shape_.embedding_scale;
    }
    float* cos_sin = cos_sin_.data() + uint64_t{row} * cos_sin_stride_;
    rope_.write(at.position, cos_sin);
    window_rope_.write(at.position, cos_sin + shape_.rope_dims);
}

void Transformer::settle(const std::vector<float>& weight, uint32_t row, Scratch& scratch) {
    const uint64_t first = uint64_t{row} * shape_.embedding;
    kernels_.rms_norm(added_.data() + first, weight.data(), shape_.embedding, shape_.rms_eps,
                      scratch.row.data());
    for (uint32_t i = 0; i < shape_.embedding; ++i) x_[first + i] += scratch.row[i];
}

void Transformer::norm(const float* x, const std::vector<float>& weight, uint32_t row, Tiles& into,
                       Scratch& scratch) const {
    kernels_.rms_norm(x, weight.data(), shape_.embedding, shape_.rms_eps, scratch.row.data());
    into.write(kernels_, row, scratch.row.data(), 0, shape_.embedding);
}

const Tiles& Transformer::normed(uint32_t phase, const std::vector<float>& weight,
                                 const Tiles& shared, Scratch& scratch) {
    if (norms_are_phases_) return shared;
    const uint64_t wanted = runs_ << 32 | phase;
    if (scratch.prepared != wanted) {
        for (uint32_t row = 0; row < batch_.rows().size(); ++row) {
            norm(x_.data() + uint64_t{row} * shape_.embedding, weight, row, scratch.input, scratch);
        }
        scratch.prepared = wanted;
    }
    return scratch.input;
}

// out[row][n − kGroup · begin] for the groups [begin, end) and all rows. With several tiles the
// group stays in the first cache while they pass.
void Transformer::multiply(const Matrix& matrix, uint32_t begin, uint32_t end, const Tiles& input,
                           uint32_t rows, float* out, uint64_t stride, bool add) const {
    kernels::MatmulArgs args{.packed = matrix.packed,
                             .rows = matrix.rows,
                             .cols = matrix.cols,
                             .group_begin = begin,
                             .group_end = end,
                             .stride = stride,
                             .add = add};
    const bool quantised = matrix.ops->quantised_input;
    if (rows <= kTileRows) {
        args.tile = input.tile(0, quantised);
        args.tile_rows = rows;
        args.out = out;
        matrix.ops->matmul(args);
        return;
    }
    const uint64_t group_bytes = matrix.ops->packed_bytes(kGroup, matrix.cols);
    const auto step =
        static_cast<uint32_t>(std::clamp<uint64_t>(kWeightsInCache / group_bytes, kGroupsOfWide, 8));
    for (uint32_t group = begin; group < end; group += step) {
        args.group_begin = group;
        args.group_end = std::min(group + step, end);
        for (uint32_t row = 0; row < rows; row += kTileRows) {
            args.cached = row > 0;
            args.tile = input.tile(row / kTileRows, quantised);
            args.tile_rows = std::min(kTileRows, rows - row);
            args.out = out + row * stride + uint64_t{group - begin} * kGroup;
            matrix.ops->matmul(args);
        }
    }
}

void Transformer::qkv(const LayerWeights& layer, uint32_t begin, uint32_t end, const Tiles& input) {
    const uint64_t stride = shape_.q_width() + 2 * shape_.kv_width();
    const auto rows = static_cast<uint32_t>(batch_.rows().size());
    uint32_t first = 0;  // group, counted over the three matrices
    float* out = qkv_.data();
    for (const Matrix* matrix : {&layer.q, &layer.k, &layer.v}) {
        const uint32_t last = first + matrix->groups();
        const uint32_t from = std::max(begin, first), to = std::min(end, last);
        if (from < to) {
            multiply(*matrix, from - first, to - first, input, rows,
                     out + uint64_t{from - first} * kGroup, stride, false);
        }
        first = last;
        out += matrix->rows;
    }
}

void Transformer::gate_up(const LayerWeights& layer, uint32_t unit, const Tiles& input,
                          Scratch& scratch) {
    constexpr uint32_t kGroups = kBlock / kGroup;
    const auto rows = static_cast<uint32_t>(batch_.rows().size());
    for (uint32_t row = 0; row < rows; row += kTileRows) {
        const uint32_t count = std::min(kTileRows, rows - row);
        for (const bool is_gate : {true, false}) {
            const Matrix& matrix = is_gate ? layer.gate : layer.up;
            matrix.ops->matmul({.packed = matrix.packed,
                                .rows = matrix.rows,
                                .cols = matrix.cols,
                                .group_begin = uint64_t{unit} * kGroups,
                                .group_end = uint64_t{unit + 1} * kGroups,
                                .tile = input.tile(row / kTileRows, matrix.ops->quantised_input),
                                .tile_rows = count,
                                .out = (is_gate ? scratch.gate : scratch.up).data(),
                                .stride = kBlock,
                                .cached = row > 0});
        }
        const auto gated = shape_.gelu ? kernels_.gelu_mul : kernels_.silu_mul;
        gated(scratch.gate.data(), scratch.up.data(), uint64_t{count} * kBlock, scratch.gate.data());
        hidden_.write_rows(kernels_, row, count, scratch.gate.data(), unit * kBlock, kBlock);
    }
}

}  // namespace parley::engine
