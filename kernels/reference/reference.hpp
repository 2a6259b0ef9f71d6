// The naive definition of every operation; see kernels/contract.hpp.
//
// Threads  pure functions.
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels::reference {

float f16_to_f32(uint16_t half);
uint16_t f32_to_f16(float value);  // round to nearest even
float exp(float x);

void quantise(const float* x, uint64_t cols, uint32_t slot, Q8Block* tile);
void quantise_rows(const float* x, uint64_t stride, uint64_t cols, uint32_t rows, Q8Block* tile);
void rms_norm(const float* x, const float* weight, uint64_t n, float eps, float* y);
void rope_adjacent(float* x, uint64_t n, const float* cos_sin, uint64_t pairs, float scale);
void silu_mul(const float* gate, const float* up, uint64_t n, float* out);
void gelu_mul(const float* gate, const float* up, uint64_t n, float* out);

void kv_append(KvType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot,
               void* page);
void attention_split(const AttentionArgs& args);
void attention_fold(float* max, float* sum, float* acc, float next_max, float next_sum,
                    const float* next_acc, uint32_t head_dim);
void attention_finish(const float* acc, float sum, uint32_t head_dim, float* out);

// "Packed" weights of this path are GGUF's own rows.
std::span<const TypeOps> types();
const Kernels& table();

}  // namespace parley::kernels::reference
