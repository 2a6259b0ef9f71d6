// TransformerShape: the numbers that make one transformer, read from a GGUF file and checked.
//
// Kinds    architectures `llama`, `qwen2` (biases on q, k and v; RoPE rotates halves) and `qwen3` (RMS norm
//          of every head of q and k before RoPE; halves).
// Errors   read_shape(): Errc::unsupported (architecture, RoPE scaling, experts, head size: named),
//          Errc::corrupt (a key missing or a number that cannot be: named).
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "model/gguf.hpp"

namespace parley::engine {

struct TransformerShape {
    uint32_t layers = 0;
    uint32_t embedding = 0;
    uint32_t feed_forward = 0;
    uint32_t heads = 0;
    uint32_t kv_heads = 0;
    uint32_t head_dim = 0;
    uint32_t rope_dims = 0;
    uint32_t vocab = 0;
    uint32_t context = 0;
    float rms_eps = 0;
    double rope_base = 10000;
    double rope_factor = 1;  // linear scaling: positions are divided by it
    bool rope_halves = false;  // pairs are (i, i + rope_dims / 2), not (2i, 2i + 1)
    bool qkv_bias = false;
    bool head_norm = false;  // q and k, before RoPE

    uint32_t q_width() const { return heads * head_dim; }
    uint32_t kv_width() const { return kv_heads * head_dim; }
    uint32_t heads_per_kv() const { return heads / kv_heads; }
};

base::Result<TransformerShape> read_shape(const model::Gguf& file);

}  // namespace parley::engine
