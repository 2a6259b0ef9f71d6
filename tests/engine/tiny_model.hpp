// A llama (or qwen2, qwen3, gemma3) of a few thousand weights with random values: every kind of tensor, odd sizes, several attention
// splits. Small enough for the naive kernels, so that whole passes can be compared with them.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/reference/reference.hpp"
#include "support/gguf_writer.hpp"

namespace parley::test {

struct TinyModel {
    std::string architecture = "llama";  // or qwen2, qwen3, gemma3
    uint32_t layers = 2;
    uint32_t embedding = 96;
    uint32_t heads = 6;
    uint32_t kv_heads = 2;
    uint32_t head_dim = 32;
    uint32_t feed_forward = 160;
    uint32_t vocab = 83;
    uint32_t context = 1024;
    bool own_output = true;
    uint32_t rope_dims = 32;
    float rope_base = 10000.0f;
    uint32_t window = 20;  // gemma3 only: five layers of six see no more
    std::vector<float> rope_divisors;  // not empty: rope_freqs.weight
    // Types in turn, tensor by tensor, so that each is somewhere.
    std::vector<kernels::Type> types{kernels::Type::q4_1, kernels::Type::q8_0, kernels::Type::q4_0,
                                     kernels::Type::f16,  kernels::Type::bf16, kernels::Type::f32};
    // Last changes to the file, for the refusals.
    std::function<void(GgufWriter&)> change;
    std::string leave_out;  // a tensor's name

    std::vector<uint8_t> build() const {
        std::mt19937 random{5};
        GgufWriter file;
        file.string("general.architecture", architecture)
            .u32(architecture + ".block_count", layers)
            .u32(architecture + ".context_length", context)
            .u32(architecture + ".embedding_length", embedding)
            .u32(architecture + ".feed_forward_length", feed_forward)
            .u32(architecture + ".attention.head_count", heads)
            .u32(architecture + ".attention.head_count_kv", kv_heads)
            .u32(architecture + ".attention.key_length", head_dim)
            .u32(architecture + ".attention.value_length", head_dim)
            .u32(architecture + ".rope.dimension_count", rope_dims)
            .f32(architecture + ".rope.freq_base", rope_base)
            .f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
        const bool gemma3 = architecture == "gemma3";
        if (gemma3) file.u32("gemma3.attention.sliding_window", window);
        if (change) change(file);
        size_t turn = 0;
        const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t cols) {
            const kernels::Type type = types[turn++ % types.size()];
            if (name != leave_out)
                file.tensor(name, type, {cols, rows}, weights(random, type, rows * cols));
        };
        const auto vector = [&](const std::string& name, uint64_t n) {
            std::vector<float> values(n);
            for (float& v : values) v = std::normal_distribution<float>{1.0f, 0.2f}(random);
            if (name != leave_out) file.tensor_f32(name, {n}, values);
        };
        matrix("token_embd.weight", vocab, embedding);
        for (uint32_t i = 0; i < layers; ++i) {
            const std::string at = "blk." + std::to_string(i) + ".";
            vector(at + "attn_norm.weight", embedding);
            matrix(at + "attn_q.weight", heads * head_dim, embedding);
            matrix(at + "attn_k.weight", kv_heads * head_dim, embedding);
            matrix(at + "attn_v.weight", kv_heads * head_dim, embedding);
            if (architecture == "qwen2") {
                vector(at + "attn_q.bias", heads * head_dim);
                vector(at + "attn_k.bias", kv_heads * head_dim);
                vector(at + "attn_v.bias", kv_heads * head_dim);
            }
            if (architecture == "qwen3" || gemma3) {
                vector(at + "attn_q_norm.weight", head_dim);
                vector(at + "attn_k_norm.weight", head_dim);
            }
            matrix(at + "attn_output.weight", embedding, heads * head_dim);
            if (gemma3) vector(at + "post_attention_norm.weight", embedding);
            vector(at + "ffn_norm.weight", embedding);
            matrix(at + "ffn_gate.weight", feed_forward, embedding);
            matrix(at + "ffn_up.weight", feed_forward, embedding);
            matrix(at + "ffn_down.weight", embedding, feed_forward);
            if (gemma3) vector(at + "post_ffw_norm.weight", embedding);
        }
        if (!rope_divisors.empty()) {
            file.tensor_f32("rope_freqs.weight", {rope_divisors.size()}, rope_divisors);
        }
        vector("output_norm.weight", embedding);
        if (own_output) matrix("output.weight", vocab, embedding);
        return file.build();
    }

  private:
    static std::vector<uint8_t> weights(std::mt19937& random, kernels::Type type, uint64_t count) {
        const kernels::TypeTraits traits = kernels::traits(type);
        std::vector<uint8_t> data(count / traits.block_weights * traits.block_bytes);
        std::normal_distribution<float> normal{0.0f, 0.1f};
        const auto half_at = [&](uint64_t at, float value) {
            const uint16_t half = kernels::reference::f32_to_f16(value);
            std::memcpy(&data[at], &half, 2);
        };
        if (traits.block_weights == 1) {
            for (uint64_t i = 0; i < count; ++i) {
                const float value = normal(random);
                if (type == kernels::Type::f32) std::memcpy(&data[i * 4], &value, 4);
                if (type == kernels::Type::f16) half_at(i * 2, value);
                if (type == kernels::Type::bf16) {
                    std::memcpy(&data[i * 2], reinterpret_cast<const char*>(&value) + 2, 2);
                }
            }
            return data;
        }
        for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
        // Bits are random, so that a scale gives weights of the same spread whatever the type.
        for (uint64_t at = 0; at < data.size(); at += traits.block_bytes) {
            switch (type) {
                case kernels::Type::q8_0:
                    half_at(at, 0.0015f);
                    break;
                case kernels::Type::q5_0:
                    half_at(at, 0.011f);
                    break;
                case kernels::Type::q5_1:
                    half_at(at, 0.011f);
                    half_at(at + 2, -0.17f);
                    break;
                case kernels::Type::q4_k:
                case kernels::Type::q5_k:  // scales and minimums are 0 … 63
                    half_at(at, type == kernels::Type::q4_k ? 0.0007f : 0.00035f);
                    half_at(at + 2, 0.0052f);
                    break;
                case kernels::Type::q6_k:  // scales are −128 … 127
                    half_at(at + 208, 0.00008f);
                    break;
                default:
                    half_at(at, 0.022f);
                    if (type == kernels::Type::q4_1) half_at(at + 2, -0.16f);
            }
        }
        return data;
    }
};

}  // namespace parley::test
