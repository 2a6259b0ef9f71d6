// Predictor: what a request will cost, in compute-seconds, from what those before it have cost.
//
// Prompt   tokens by bytes of the body, a ratio of each model; output tokens by organisation and model
//          (moving average), at most max_tokens.
// Cost     a·(tokens to compute) + b·(output tokens), fitted for each model by least squares over what
//          workers report in END, later ones weighing more; neither is below 0.
// Bounds   kAveragesMax averages by organisation; past it the model's own counts.
// Threads  one. No clock.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "dispatch/fair_queue.hpp"

namespace parley::dispatch {

struct Prediction {
    double prompt_tokens = 0, output_tokens = 0;
    double prefill_s = 0, total_s = 0;
};

struct Observed {
    uint64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
    double cost_s = 0;
};

class Predictor {
  public:
    static constexpr size_t kAveragesMax = 65'536;
    static constexpr uint64_t kKnownAfter =
        16;  // requests of a model until its figures are trusted

    // `cached_bytes` of the body are in the worker's prefix cache. max_tokens 0: no bound.
    Prediction predict(const std::string& org, ModelId model, uint64_t bytes, uint64_t cached_bytes,
                       uint64_t max_tokens) const;
    void learn(const std::string& org, ModelId model, uint64_t bytes, const Observed& observed);
    bool known(ModelId model) const {
        return model < models_.size() && models_[model].seen >= kKnownAfter;
    }
    double prefill_s(ModelId model, uint64_t bytes) const;  // of so many bytes
    // |predicted − actual| / actual of the total, moving average.
    double error() const { return error_; }

  private:
    struct Model {
        double tokens_per_byte = 0.25;
        double prompt_s = 0.001, output_s = 0.01;  // per token, until something is known
        double output_tokens = 128;
        double pp = 0, po = 0, oo = 0, pc = 0, oc = 0;  // sums of products: prompt, output, cost
        uint64_t seen = 0;
    };
    const Model& model(ModelId id) const;

    std::vector<Model> models_;
    std::unordered_map<std::string, double> averages_;  // org + model → output tokens
    double error_ = 0;
};

}  // namespace parley::dispatch
