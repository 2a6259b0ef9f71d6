// TransformerShape: the numbers that make one transformer, read from a GGUF file and checked.
//
// Kinds    architectures `llama`, `qwen2` (biases on q, k and v; RoPE rotates halves) and `qwen3` (RMS norm
//          of every head of q and k before RoPE; halves),
//          and `gemma3` (as qwen3, and: norms behind attention and feed-forward too, GELU, embeddings times
//          √embedding, and of every six layers five attend to a window only and have a RoPE base of their own).
// Errors   read_shape(): Errc::unsupported (architecture, RoPE scaling, experts, head size: named),
//          Errc::corrupt (a key missing or a number that cannot be: named).
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "engine/rope_table.hpp"
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
    RopeScaling rope_scaling;
    bool rope_halves = false;  // pairs are (i, i + rope_dims / 2), not (2i, 2i + 1)
    bool qkv_bias = false;
    bool head_norm = false;   // q and k, before RoPE
    bool post_norms = false;  // of what attention and feed-forward add to the residual
    bool gelu = false;        // instead of SiLU
    float embedding_scale = 1;
    float query_scale = 1;  // of q·k
    // Layers that see the last `window` positions only, their own included; 0: there are none. Of every
    // window_period layers the last one sees all. RoPE in the others is unscaled, on a base of its own.
    uint32_t window = 0;
    uint32_t window_period = 1;
    double window_rope_base = 10000;

    uint32_t q_width() const { return heads * head_dim; }
    uint32_t kv_width() const { return kv_heads * head_dim; }
    bool windowed(uint32_t layer) const {
        return window != 0 && (layer + 1) % window_period != 0;
    }
    uint32_t heads_per_kv() const { return heads / kv_heads; }
};

base::Result<TransformerShape> read_shape(const model::Gguf& file);

}  // namespace parley::engine
