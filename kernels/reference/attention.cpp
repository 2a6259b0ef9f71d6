#include <cmath>
#include <cstring>

#include "kernels/reference/reference.hpp"

namespace parley::kernels::reference {

namespace {

// One head's key or value; the whole-head scale of the contract's INT8 KV.
float quantise_head(const float* x, uint32_t head_dim, int8_t* q, uint32_t stride) {
    float amax = 0;
    for (uint32_t d = 0; d < head_dim; ++d) {
        const float a = std::fabs(x[d]);
        amax = a > amax ? a : amax;
    }
    const bool zero = amax < kAmaxMin;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    for (uint32_t d = 0; d < head_dim; ++d) {
        float v = std::nearbyint(x[d] * inverse);
        v = v > -127.0f ? v : -127.0f;
        v = v < 127.0f ? v : 127.0f;
        q[d * stride] = static_cast<int8_t>(v);
    }
    return zero ? 0.0f : amax / 127.0f;
}

// What a page holds, widened.
struct Page {
    KvType type;
    uint32_t head_dim;
    const void* at;

    float value(uint64_t i) const {
        return type == KvType::f16 ? f16_to_f32(static_cast<const uint16_t*>(at)[i])
                                   : static_cast<float>(static_cast<const int8_t*>(at)[i]);
    }
    float k(uint32_t slot, uint32_t d) const { return value(uint64_t{d} * kPage + slot); }
    float v(uint32_t slot, uint32_t d) const { return value(uint64_t{kPage + slot} * head_dim + d); }
    float scale(uint32_t i) const {
        float d;
        std::memcpy(&d, static_cast<const uint8_t*>(at) + uint64_t{2} * kPage * head_dim + 4 * i,
                    sizeof d);
        return d;
    }
};

}  // namespace

void kv_append(KvType type, const float* k, const float* v, uint32_t head_dim, uint32_t slot,
               void* page) {
    if (type == KvType::int8) {
        auto* q = static_cast<int8_t*>(page);
        const float d_k = quantise_head(k, head_dim, q + slot, kPage);
        const float d_v = quantise_head(v, head_dim, q + (kPage + slot) * head_dim, 1);
        int8_t* scales = q + uint64_t{2} * kPage * head_dim;
        std::memcpy(scales + 4 * slot, &d_k, sizeof d_k);
        std::memcpy(scales + 4 * (kPage + slot), &d_v, sizeof d_v);
        return;
    }
    auto* half = static_cast<uint16_t*>(page);
    for (uint32_t d = 0; d < head_dim; ++d) {
        half[d * kPage + slot] = f32_to_f16(k[d]);
        half[(kPage + slot) * head_dim + d] = f32_to_f16(v[d]);
    }
}

void attention_split(const AttentionArgs& args) {
    const bool scaled = args.kv_type == KvType::int8;
    const auto page_of = [&](uint32_t j) {
        return Page{args.kv_type, args.head_dim, args.pages[j / kPage]};
    };
    for (uint32_t i = 0; i < args.query_count; ++i) {
        const float* query = args.queries + uint64_t{i} * args.head_dim;
        float* acc = args.acc + uint64_t{i} * args.head_dim;
        const uint32_t hidden = args.hidden == nullptr ? 0 : args.hidden[i];
        float score[kSplit];
        float max = -INFINITY;
        for (uint32_t j = hidden; j < args.positions[i]; ++j) {
            const Page page = page_of(j);
            float s = 0;
            for (uint32_t d = 0; d < args.head_dim; ++d) {
                s = std::fma(query[d], page.k(j % kPage, d), s);
            }
            if (scaled) s = s * page.scale(j % kPage);
            score[j] = s;
            max = s > max ? s : max;
        }
        float lane[kLanes] = {};
        for (uint32_t d = 0; d < args.head_dim; ++d) acc[d] = 0;
        for (uint32_t j = hidden; j < args.positions[i]; ++j) {
            const Page page = page_of(j);
            float e = exp(score[j] - max);
            lane[j % kLanes] = lane[j % kLanes] + e;
            if (scaled) e = e * page.scale(kPage + j % kPage);
            for (uint32_t d = 0; d < args.head_dim; ++d) {
                acc[d] = std::fma(e, page.v(j % kPage, d), acc[d]);
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
