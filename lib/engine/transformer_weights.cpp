#include "engine/transformer_weights.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <unordered_set>

namespace parley::engine {
namespace {

using base::Errc;

constexpr uint64_t kAlign = 4096;

struct Planned {
    Matrix* matrix;
    const model::Tensor* tensor;
    uint64_t offset;
};

// First all matrices are found and checked, then there is one mapping, then they are packed into
// it.
class Loader {
  public:
    Loader(const model::Gguf& file, const kernels::Kernels& kernels)
        : file_(file), kernels_(kernels) {}

    base::Result<void> matrix(Matrix& into, const std::string& name, uint64_t rows, uint64_t cols) {
        auto tensor = find(name, {cols, rows});
        if (!tensor) return base::fail(tensor.error());
        const kernels::Type type = (*tensor)->type;
        into.ops = kernels_.ops(type);
        if (into.ops == nullptr) {
            const char* type_name = kernels::traits(type).name;
            return base::fail(
                Errc::unsupported,
                fmt::format("tensor '{}' is {}, which the {} kernels do not compute", name,
                            type_name != nullptr ? type_name : "of unknown type", kernels_.name));
        }
        into.rows = rows;
        into.cols = cols;
        plan_.push_back({&into, *tensor, bytes_});
        const uint64_t packed = into.ops->packed_bytes(rows, cols);
        bytes_ += (packed + kAlign - 1) / kAlign * kAlign;
        return {};
    }

    base::Result<void> vector(std::vector<float>& into, const std::string& name, uint64_t n) {
        auto tensor = find(name, {n, 1});
        if (!tensor) return base::fail(tensor.error());
        if ((*tensor)->type != kernels::Type::f32) {
            return base::fail(Errc::unsupported, fmt::format("tensor '{}' is not F32", name));
        }
        into.resize(n);
        std::memcpy(into.data(), (*tensor)->data.data(), n * sizeof(float));
        return {};
    }

    // A tensor we would leave out is a model we would compute wrongly.
    base::Result<void> all_used() const {
        for (const model::Tensor& tensor : file_.tensors()) {
            if (!used_.contains(tensor.name)) {
                return base::fail(
                    Errc::unsupported,
                    fmt::format("tensor '{}' is not known in this architecture", tensor.name));
            }
        }
        return {};
    }

    base::Result<HugeMemory> pack(ThreadPool& pool) {
        auto memory = HugeMemory::map(bytes_);
        if (!memory) return base::fail("weights", memory.error());
        std::vector<Phase> phases;
        for (Planned& planned : plan_) {
            planned.matrix->packed = memory->data() + planned.offset;
            phases.push_back({.units = planned.matrix->groups()});
        }
        struct Body final : ThreadPool::Body {
            void units(uint32_t phase, uint32_t begin, uint32_t end, uint32_t) override {
                const Planned& planned = (*plan)[phase];
                const Matrix& matrix = *planned.matrix;
                matrix.ops->pack(planned.tensor->data.data(), matrix.rows, matrix.cols, begin, end,
                                 memory + planned.offset);
            }
            const std::vector<Planned>* plan = nullptr;
            uint8_t* memory = nullptr;
        } body;
        body.plan = &plan_;
        body.memory = memory->data();
        pool.run(phases, body);
        return memory;
    }

  private:
    base::Result<const model::Tensor*> find(const std::string& name, std::array<uint64_t, 2> dims) {
        const model::Tensor* tensor = file_.tensor(name);
        if (tensor == nullptr) {
            return base::fail(Errc::corrupt, fmt::format("the file has no tensor '{}'", name));
        }
        used_.insert(name);
        const std::array<uint64_t, 4>& has = tensor->dims;
        if (has[0] != dims[0] || has[1] != dims[1] || has[2] != 1 || has[3] != 1) {
            return base::fail(Errc::corrupt, fmt::format("tensor '{}' is [{}, {}], not [{}, {}]",
                                                         name, has[0], has[1], dims[0], dims[1]));
        }
        const kernels::TypeTraits traits = kernels::traits(tensor->type);
        if (traits.name == nullptr || dims[0] % traits.block_weights != 0 ||
            tensor->data.size() != dims[0] / traits.block_weights * traits.block_bytes * dims[1]) {
            return base::fail(Errc::corrupt,
                              fmt::format("tensor '{}' has {} bytes, which its shape does not give",
                                          name, tensor->data.size()));
        }
        return tensor;
    }

    const model::Gguf& file_;
    const kernels::Kernels& kernels_;
    std::vector<Planned> plan_;
    std::unordered_set<std::string> used_;
    uint64_t bytes_ = 0;
};

}  // namespace

base::Result<TransformerWeights> TransformerWeights::load(const model::Gguf& file,
                                                          const TransformerShape& shape,
                                                          const kernels::Kernels& kernels,
                                                          ThreadPool& pool) {
    Loader loader{file, kernels};
    TransformerWeights weights;
    weights.layers.resize(shape.layers);
    const uint64_t n = shape.embedding;
    base::Result<void> ok;
    for (uint32_t i = 0; i < shape.layers; ++i) {
        LayerWeights& layer = weights.layers[i];
        const std::string at = fmt::format("blk.{}.", i);
        if (!(ok = loader.vector(layer.attention_norm, at + "attn_norm.weight", n)) ||
            !(ok = loader.matrix(layer.q, at + "attn_q.weight", shape.q_width(), n)) ||
            !(ok = loader.matrix(layer.k, at + "attn_k.weight", shape.kv_width(), n)) ||
            !(ok = loader.matrix(layer.v, at + "attn_v.weight", shape.kv_width(), n)) ||
            !(ok = loader.matrix(layer.output, at + "attn_output.weight", n, shape.q_width())) ||
            !(ok = loader.vector(layer.feed_forward_norm, at + "ffn_norm.weight", n)) ||
            !(ok = loader.matrix(layer.gate, at + "ffn_gate.weight", shape.feed_forward, n)) ||
            !(ok = loader.matrix(layer.up, at + "ffn_up.weight", shape.feed_forward, n)) ||
            !(ok = loader.matrix(layer.down, at + "ffn_down.weight", n, shape.feed_forward))) {
            return base::fail(ok.error());
        }
        if (shape.qkv_bias &&
            (!(ok = loader.vector(layer.q_bias, at + "attn_q.bias", shape.q_width())) ||
             !(ok = loader.vector(layer.k_bias, at + "attn_k.bias", shape.kv_width())) ||
             !(ok = loader.vector(layer.v_bias, at + "attn_v.bias", shape.kv_width())))) {
            return base::fail(ok.error());
        }
        if (shape.head_norm &&
            (!(ok = loader.vector(layer.q_norm, at + "attn_q_norm.weight", shape.head_dim)) ||
             !(ok = loader.vector(layer.k_norm, at + "attn_k_norm.weight", shape.head_dim)))) {
            return base::fail(ok.error());
        }
        if (shape.post_norms &&
            (!(ok = loader.vector(layer.post_attention_norm, at + "post_attention_norm.weight", n)) ||
             !(ok = loader.vector(layer.post_feed_forward_norm, at + "post_ffw_norm.weight", n)))) {
            return base::fail(ok.error());
        }
    }
    if (!(ok = loader.vector(weights.output_norm, "output_norm.weight", n)) ||
        !(ok = loader.matrix(weights.embedding, "token_embd.weight", shape.vocab, n))) {
        return base::fail(ok.error());
    }
    const bool tied = file.tensor("output.weight") == nullptr;
    if (!tied && !(ok = loader.matrix(weights.output, "output.weight", shape.vocab, n))) {
        return base::fail(ok.error());
    }
    if (file.tensor("rope_freqs.weight") != nullptr) {
        ok = loader.vector(weights.rope_factors, "rope_freqs.weight", shape.rope_dims / 2);
        if (!ok) return base::fail(ok.error());
        for (const float factor : weights.rope_factors) {
            if (!std::isfinite(factor) || factor <= 0) {
                return base::fail(Errc::corrupt,
                                  "tensor 'rope_freqs.weight' has a factor not above zero");
            }
        }
    }
    if (ok = loader.all_used(); !ok) return base::fail(ok.error());

    auto memory = loader.pack(pool);
    if (!memory) return base::fail(memory.error());
    weights.memory_ = std::move(*memory);
    if (tied) weights.output = weights.embedding;
    const auto count = [&](const Matrix& matrix) {
        weights.bytes_per_token_ += matrix.ops->packed_bytes(matrix.rows, matrix.cols);
    };
    for (const LayerWeights& layer : weights.layers) {
        for (const Matrix* matrix :
             {&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down}) {
            count(*matrix);
        }
    }
    count(weights.output);
    return weights;
}

}  // namespace parley::engine
