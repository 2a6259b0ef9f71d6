// Sampler: one row of logits to one token.
//
// Order    penalties → temperature → top-k → top-p → min-p → draw. Temperature 0 is greedy: the
//          greatest logit after the penalties, the lowest id on ties.
// Numbers  the same bits on every host: one exp of our own in plain IEEE single steps, sums in
// double in
//          a fixed order, no libm. Ties are ordered by id. The draw takes number (seed, index) of
//          engine/random.hpp, where index counts the produced tokens of the request from 0.
// Counts   repetition_penalty looks at prompt and produced tokens (CTRL, Keskar et al. 2019: divide
// a
//          positive logit, multiply a negative one); presence and frequency penalties at produced
//          ones only, as in the OpenAI API.
// Threads  one sampler, one thread; a scratch may serve many samplers of that thread.
// Errors   pick() gives kNoToken when no logit is a number: the weights or the host are broken.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

inline constexpr model::Token kNoToken = -1;

struct SamplingOptions {
    float temperature = 1.0f;         // 0 = greedy
    uint32_t top_k = 0;               // 0 = off
    float top_p = 1.0f;               // 1 = off
    float min_p = 0.0f;               // 0 = off
    float repetition_penalty = 1.0f;  // 1 = off; above 0
    float presence_penalty = 0.0f;    // 0 = off; -2 … 2
    float frequency_penalty = 0.0f;   // 0 = off; -2 … 2
    uint64_t seed = 0;
};

// Errc::invalid, naming the field, for a value out of its range or not a number.
base::Result<void> check(const SamplingOptions& options);

struct SamplerScratch {
    std::vector<float> weights, block_sum, block_max, ranks;
    struct Candidate {
        float weight;
        model::Token token;
    };
    std::vector<Candidate> candidates;
};

class Sampler {
  public:
    explicit Sampler(const SamplingOptions& options) : options_(options) {}

    void saw_prompt(std::span<const model::Token> tokens);
    void produced(model::Token token);
    // Changes `logits` (penalties, and what is not allowed). `allowed`: one bit a token, tokens past
    // its end are not; empty: all are.
    model::Token pick(std::span<float> logits, uint64_t index, SamplerScratch& scratch,
                      std::span<const uint64_t> allowed = {}) const;

  private:
    struct Seen {
        bool anywhere = false;
        uint32_t produced = 0;
    };
    bool has_penalties() const;
    void penalise(std::span<float> logits) const;

    SamplingOptions options_;
    std::unordered_map<model::Token, Seen> seen_;  // kept only where a penalty asks for it
};

}  // namespace parley::engine
