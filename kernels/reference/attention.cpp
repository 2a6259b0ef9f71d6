#include <cmath>

#include "kernels/reference/reference.hpp"

namespace parley::kernels::reference {

void kv_append(const float* k, const float* v, uint32_t head_dim, uint32_t slot, uint16_t* page) {
    for (uint32_t d = 0; d < head_dim; ++d) {
        page[d * kPage + slot] = f32_to_f16(k[d]);
        page[(kPage + slot) * head_dim + d] = f32_to_f16(v[d]);
    }
}

void attention_split(const AttentionArgs& args) {
    for (uint32_t i = 0; i < args.query_count; ++i) {
        const float* query = args.queries + uint64_t{i} * args.head_dim;
        float* acc = args.acc + uint64_t{i} * args.head_dim;
        float score[kSplit];
        float max = -INFINITY;
        for (uint32_t j = 0; j < args.positions[i]; ++j) {
            const uint16_t* keys = args.pages[j / kPage];
            float s = 0;
            for (uint32_t d = 0; d < args.head_dim; ++d) {
                s = std::fma(query[d], f16_to_f32(keys[d * kPage + j % kPage]), s);
            }
            score[j] = s;
            max = s > max ? s : max;
        }
        float lane[kLanes] = {};
        for (uint32_t d = 0; d < args.head_dim; ++d) acc[d] = 0;
        for (uint32_t j = 0; j < args.positions[i]; ++j) {
            const float e = exp(score[j] - max);
            lane[j % kLanes] = lane[j % kLanes] + e;
            const uint16_t* value = args.pages[j / kPage] + (kPage + j % kPage) * args.head_dim;
            for (uint32_t d = 0; d < args.head_dim; ++d) {
                acc[d] = std::fma(e, f16_to_f32(value[d]), acc[d]);
            }
        }
        for (uint32_t step = kLanes / 2; step > 0; step /= 2) {
            for (uint32_t l = 0; l < step; ++l) lane[l] = lane[l] + lane[l + step];
        }
        args.max[i] = max;
        args.sum[i] = lane[0];
    }
}

void attention_fold(float* max, float* sum, float* acc, float next_max, float next_sum,
                    const float* next_acc, uint32_t head_dim) {
    const float both = *max > next_max ? *max : next_max;
    const float a = exp(*max - both), b = exp(next_max - both);
    *max = both;
    *sum = std::fma(next_sum, b, *sum * a);
    for (uint32_t d = 0; d < head_dim; ++d) acc[d] = std::fma(next_acc[d], b, acc[d] * a);
}

void attention_finish(const float* acc, float sum, uint32_t head_dim, float* out) {
    for (uint32_t d = 0; d < head_dim; ++d) out[d] = acc[d] / sum;
}

}  // namespace parley::kernels::reference
