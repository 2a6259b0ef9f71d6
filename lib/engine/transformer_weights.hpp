// TransformerWeights: the matrices of one model, laid out for one kernel path.
//
// Owns     all of it: the file's pages are not needed once load() has returned.
// Errors   load(): Errc::corrupt (tensor missing or of another shape: named), Errc::unsupported
// (type
//          without a kernel on this path, or a tensor this architecture does not have: named),
//          Errc::again (memory).
// Threads  immutable after load().
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "engine/huge_memory.hpp"
#include "engine/thread_pool.hpp"
#include "engine/transformer_shape.hpp"
#include "kernels/kernels.hpp"
#include "model/gguf.hpp"

namespace parley::engine {

struct Matrix {
    const kernels::TypeOps* ops = nullptr;
    const uint8_t* packed = nullptr;
    uint64_t rows = 0;
    uint64_t cols = 0;

    uint32_t groups() const {
        return static_cast<uint32_t>((rows + kernels::kGroup - 1) / kernels::kGroup);
    }
};

struct LayerWeights {
    std::vector<float> attention_norm, feed_forward_norm;
    std::vector<float> post_attention_norm, post_feed_forward_norm;  // empty likewise
    std::vector<float> q_bias, k_bias, v_bias;  // empty where the architecture has none
    std::vector<float> q_norm, k_norm;          // [head_dim], or empty
    Matrix q, k, v, output;
    Matrix gate, up, down;
};

class TransformerWeights {
  public:
    static base::Result<TransformerWeights> load(const model::Gguf& file,
                                                 const TransformerShape& shape,
                                                 const kernels::Kernels& kernels, ThreadPool& pool);

    std::vector<LayerWeights> layers;
    std::vector<float> output_norm;
    std::vector<float> rope_factors;  // empty, or [rope_dims / 2]: divisors of the frequencies
    Matrix embedding;
    Matrix output;  // the embedding again where the file has no own

    uint64_t bytes_per_token() const { return bytes_per_token_; }

  private:
    HugeMemory memory_;
    uint64_t bytes_per_token_ = 0;
};

}  // namespace parley::engine
