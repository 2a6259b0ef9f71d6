#include "engine/transformer_shape.hpp"

#include <fmt/format.h>

#include <cmath>

#include "kernels/contract.hpp"

namespace parley::engine {
namespace {

using base::Errc;

// Generous: far above every model known, far below where a product of two could overflow 32 bits.
constexpr uint64_t kLayersMax = 1024;
constexpr uint64_t kWidthMax = uint64_t{1} << 18;
constexpr uint64_t kHeadsMax = 1024;
constexpr uint64_t kVocabMax = uint64_t{1} << 22;
constexpr uint64_t kContextMax = uint64_t{1} << 24;

class Reader {
  public:
    Reader(const model::Gguf& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

    base::Result<uint32_t> number(std::string_view key, uint64_t max,
                                  std::optional<uint64_t> fallback = {}) const {
        const std::string name = prefix_ + std::string{key};
        auto value = file_.uint(name);
        if (!value) value = fallback;
        if (!value) return base::fail(Errc::corrupt, fmt::format("the file has no '{}'", name));
        if (*value < 1 || *value > max) {
            return base::fail(Errc::corrupt,
                              fmt::format("'{}' is {}, not 1 to {}", name, *value, max));
        }
        return static_cast<uint32_t>(*value);
    }

    base::Result<double> real(std::string_view key, std::optional<double> fallback = {}) const {
        const std::string name = prefix_ + std::string{key};
        auto value = file_.real(name);
        if (!value) value = fallback;
        if (!value) return base::fail(Errc::corrupt, fmt::format("the file has no '{}'", name));
        if (!std::isfinite(*value) || *value <= 0) {
            return base::fail(Errc::corrupt,
                              fmt::format("'{}' is {}, not above zero", name, *value));
        }
        return *value;
    }

  private:
    const model::Gguf& file_;
    std::string prefix_;
};

// What Gemma 3 has besides.
base::Result<void> read_gemma3(const model::Gguf& file, const Reader& reader, TransformerShape& shape) {
    const auto take = [](uint32_t& into, base::Result<uint32_t> value) -> base::Result<void> {
        if (!value) return base::fail(value.error());
        into = *value;
        return {};
    };
    base::Result<void> ok;
    if (!(ok = take(shape.window, reader.number("attention.sliding_window", kContextMax))) ||
        !(ok = take(shape.window_period,
                    reader.number("attention.sliding_window_pattern", kLayersMax, 6)))) {
        return ok;
    }
    auto base = reader.real("rope.freq_base_swa", 10000.0);
    if (!base) return base::fail(base.error());
    shape.window_rope_base = *base;
    shape.embedding_scale = std::sqrt(static_cast<float>(shape.embedding));
    // The largest one (27B) was trained with embedding / heads instead of the head's width; no key says so.
    constexpr uint32_t kLayersOf27B = 62;
    if (shape.layers == kLayersOf27B) {
        shape.query_scale = 1.0f / std::sqrt(static_cast<float>(shape.embedding / shape.heads));
    }
    for (const char* key : {"gemma3.attn_logit_softcapping", "gemma3.final_logit_softcapping"}) {
        if (file.real(key).value_or(0) != 0) {
            return base::fail(Errc::unsupported, fmt::format("'{}' is not supported", key));
        }
    }
    return {};
}

}  // namespace

base::Result<TransformerShape> read_shape(const model::Gguf& file) {
    const auto architecture = file.string("general.architecture");
    if (!architecture) return base::fail(Errc::corrupt, "the file has no 'general.architecture'");
    const bool gemma3 = *architecture == "gemma3";
    if (*architecture != "llama" && *architecture != "qwen2" && *architecture != "qwen3" && !gemma3) {
        return base::fail(
            Errc::unsupported,
            fmt::format("architecture '{}' is not supported ('llama', 'qwen2', 'qwen3' and "
                        "'gemma3' are)",
                        *architecture));
    }
    const Reader reader{file, std::string{*architecture} + "."};
    TransformerShape shape;
    shape.rope_halves = *architecture != "llama";
    shape.qkv_bias = *architecture == "qwen2";
    shape.head_norm = *architecture == "qwen3" || gemma3;
    shape.post_norms = shape.gelu = gemma3;
    const auto take = [](uint32_t& into, base::Result<uint32_t> value) -> base::Result<void> {
        if (!value) return base::fail(value.error());
        into = *value;
        return {};
    };
    base::Result<void> ok;
    if (!(ok = take(shape.layers, reader.number("block_count", kLayersMax))) ||
        !(ok = take(shape.embedding, reader.number("embedding_length", kWidthMax))) ||
        !(ok = take(shape.feed_forward, reader.number("feed_forward_length", kWidthMax))) ||
        !(ok = take(shape.heads, reader.number("attention.head_count", kHeadsMax))) ||
        !(ok = take(shape.kv_heads,
                    reader.number("attention.head_count_kv", kHeadsMax, shape.heads))) ||
        !(ok = take(shape.context, reader.number("context_length", kContextMax)))) {
        return base::fail(ok.error());
    }
    if (shape.heads % shape.kv_heads != 0) {
        return base::fail(Errc::corrupt, fmt::format("{} heads cannot share {} KV heads evenly",
                                                     shape.heads, shape.kv_heads));
    }
    const uint64_t head_dim = shape.embedding / shape.heads;
    if (!(ok = take(shape.head_dim, reader.number("attention.key_length", kWidthMax, head_dim)))) {
        return base::fail(ok.error());
    }
    uint32_t value_dim = 0;
    if (!(ok = take(value_dim,
                    reader.number("attention.value_length", kWidthMax, shape.head_dim)))) {
        return base::fail(ok.error());
    }
    if (value_dim != shape.head_dim) {
        return base::fail(Errc::unsupported,
                          fmt::format("keys of {} and values of {} dimensions: they must be equal",
                                      shape.head_dim, value_dim));
    }
    if (shape.head_dim % kernels::kBlock != 0 || shape.head_dim > kernels::kHeadDimMax) {
        return base::fail(Errc::unsupported,
                          fmt::format("a head of {} dimensions is not supported (multiples of {} "
                                      "up to {} are)",
                                      shape.head_dim, kernels::kBlock, kernels::kHeadDimMax));
    }
    if (shape.embedding % kernels::kBlock != 0 || shape.feed_forward % kernels::kBlock != 0) {
        return base::fail(Errc::unsupported,
                          fmt::format("widths {} and {} must be multiples of {}", shape.embedding,
                                      shape.feed_forward, kernels::kBlock));
    }
    if (!(ok = take(shape.rope_dims,
                    reader.number("rope.dimension_count", shape.head_dim, shape.head_dim)))) {
        return base::fail(ok.error());
    }
    if (shape.rope_dims % 2 != 0) {
        return base::fail(Errc::corrupt,
                          fmt::format("RoPE over {} dimensions: not even", shape.rope_dims));
    }
    if (file.uint(std::string{*architecture} + ".expert_count").value_or(0) > 0) {
        return base::fail(Errc::unsupported, "mixtures of experts are not supported");
    }
    auto eps = reader.real("attention.layer_norm_rms_epsilon");
    if (!eps) return base::fail(eps.error());
    shape.rms_eps = static_cast<float>(*eps);
    auto base = reader.real("rope.freq_base", 10000.0);
    if (!base) return base::fail(base.error());
    shape.rope_base = *base;
    auto scaling = read_rope_scaling(file, std::string{*architecture}, shape.context);
    if (!scaling) return base::fail(scaling.error());
    shape.rope_scaling = *scaling;
    shape.query_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    if (gemma3 && !(ok = read_gemma3(file, reader, shape))) return base::fail(ok.error());

    const model::Tensor* embedding = file.tensor("token_embd.weight");
    if (embedding == nullptr) {
        return base::fail(Errc::corrupt, "the file has no tensor 'token_embd.weight'");
    }
    if (embedding->dims[1] < 1 || embedding->dims[1] > kVocabMax) {
        return base::fail(Errc::corrupt, fmt::format("a vocabulary of {} is not 1 to {}",
                                                     embedding->dims[1], kVocabMax));
    }
    shape.vocab = static_cast<uint32_t>(embedding->dims[1]);
    return shape;
}

}  // namespace parley::engine
