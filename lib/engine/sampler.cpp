#include "engine/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/random.hpp"

namespace parley::engine {
namespace {

using model::Token;
using Candidate = SamplerScratch::Candidate;

constexpr float kExpLeast = -87.0f;  // e^-87 is the last one whose exponent is a normal number

// Cephes expf (S. Moshier, public domain): e^x = 2^n · e^r, |r| ≤ ln2/2, ln2 in two parts.
inline float exp_core(float x) {
    const int n = static_cast<int>(x * 1.44269504088896341f - 0.5f);  // x ≤ 0: rounds to nearest
    const float fn = static_cast<float>(n);
    float r = x - fn * 0.693359375f;
    r = r - fn * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * std::bit_cast<float>((n + 127) << 23);
}

Token greatest(std::span<const float> logits) {
    Token best = kNoToken;
    float most = -std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] > most) {  // never true for NaN; strict, so the lowest id stays on ties
            most = logits[i];
            best = static_cast<Token>(i);
        }
    }
    return best;
}

bool before(const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

// Weights of all tokens relative to the greatest, and their sum over eight lanes in a fixed order.
// Its own function at O3: the loop must become vector code, it runs over the whole vocabulary.
[[gnu::optimize("O3")]] double weigh(const float* logits, size_t count, float most, float scale,
                                     float* weights) {
    for (size_t i = 0; i < count; ++i) {
        const float x = (logits[i] - most) * scale;
        const float safe = x > kExpLeast ? x : kExpLeast;
        const float e = exp_core(safe);
        weights[i] = x > kExpLeast ? e : 0.0f;
    }
    double lanes[8] = {};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (size_t lane = 0; lane < 8; ++lane)
            lanes[lane] += static_cast<double>(weights[i + lane]);
    for (; i < count; ++i) lanes[i % 8] += static_cast<double>(weights[i]);
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

base::Result<void> check(const SamplingOptions& o) {
    const auto within = [](const char* name, float value, float least,
                           float most) -> base::Result<void> {
        if (value >= least && value <= most) return {};
        return base::fail(base::Errc::invalid, fmt::format("{}: range: {}..{}", name, least, most));
    };
    for (const auto& result : {within("temperature", o.temperature, 0, 2),
                               within("top_p", o.top_p, 0, 1), within("min_p", o.min_p, 0, 1),
                               within("repetition_penalty", o.repetition_penalty, 0.01f, 10),
                               within("presence_penalty", o.presence_penalty, -2, 2),
                               within("frequency_penalty", o.frequency_penalty, -2, 2)})
        if (!result) return result;
    return {};
}

float exp_nonpositive(float x) { return x > kExpLeast ? exp_core(x) : 0.0f; }

bool Sampler::has_penalties() const {
    return options_.repetition_penalty != 1.0f || options_.presence_penalty != 0.0f ||
           options_.frequency_penalty != 0.0f;
}

void Sampler::saw_prompt(std::span<const Token> tokens) {
    if (options_.repetition_penalty == 1.0f) return;
    for (const Token token : tokens) seen_[token].anywhere = true;
}

void Sampler::produced(Token token) {
    if (!has_penalties()) return;
    Seen& seen = seen_[token];
    seen.anywhere = true;
    ++seen.produced;
}

void Sampler::penalise(std::span<float> logits) const {
    for (const auto& [token, seen] : seen_) {
        if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
        float& logit = logits[static_cast<size_t>(token)];
        if (options_.repetition_penalty != 1.0f && seen.anywhere)
            logit = logit > 0 ? logit / options_.repetition_penalty
                              : logit * options_.repetition_penalty;
        if (seen.produced > 0) {
            logit -= options_.presence_penalty;
            logit -= options_.frequency_penalty * static_cast<float>(seen.produced);
        }
    }
}

Token Sampler::pick(std::span<float> logits, uint64_t index, SamplerScratch& scratch) const {
    if (has_penalties()) penalise(logits);
    const Token best = greatest(logits);
    if (best == kNoToken || options_.temperature <= 0.0f || options_.top_k == 1) return best;

    const float most = logits[static_cast<size_t>(best)];
    if (!std::isfinite(most)) return kNoToken;
    scratch.weights.resize(logits.size());
    const float* weights = scratch.weights.data();
    double total = weigh(logits.data(), logits.size(), most, 1.0f / options_.temperature,
                         scratch.weights.data());
    const double draw = uniform(options_.seed, index);

    const bool cuts_k = options_.top_k > 0 && options_.top_k < logits.size();
    const bool cuts_p = options_.top_p < 1.0f;
    if (!cuts_k && !cuts_p && options_.min_p <= 0.0f) {
        // Nothing to cut: walk in the order of ids, no sort.
        double left = draw * total;
        Token last = best;
        for (size_t i = 0; i < logits.size(); ++i) {
            if (weights[i] <= 0.0f) continue;
            last = static_cast<Token>(i);
            left -= static_cast<double>(weights[i]);
            if (left < 0) return last;
        }
        return last;  // rounding used up the sum
    }

    // What cannot be kept is left out before the sort. top-p: tokens below (1-p)·total/n weigh less
    // than (1-p)·total together, so the nucleus does without them. min-p: its own bound.
    float least = std::max(options_.min_p, std::numeric_limits<float>::min());
    if (!cuts_k && cuts_p)
        least = std::max(least, static_cast<float>((1.0 - static_cast<double>(options_.top_p)) *
                                                   total / static_cast<double>(logits.size())));
    auto& kept = scratch.candidates;
    kept.clear();
    for (size_t i = 0; i < logits.size(); ++i)
        if (weights[i] >= (cuts_k ? std::numeric_limits<float>::min() : least))
            kept.push_back({weights[i], static_cast<Token>(i)});
    if (cuts_k && kept.size() > options_.top_k) {
        std::nth_element(kept.begin(), kept.begin() + options_.top_k, kept.end(), before);
        kept.resize(options_.top_k);
    }
    std::sort(kept.begin(), kept.end(), before);
    if (cuts_k) {
        total = 0;
        for (const Candidate& c : kept) total += static_cast<double>(c.weight);
    }
    if (cuts_p) {
        const double wanted = static_cast<double>(options_.top_p) * total;
        double sum = 0;
        size_t count = 0;
        while (count < kept.size()) {
            sum += static_cast<double>(kept[count++].weight);
            if (sum >= wanted) break;
        }
        kept.resize(std::max<size_t>(count, 1));
    }
    while (kept.size() > 1 && kept.back().weight < options_.min_p) kept.pop_back();
    double sum = 0;
    for (const Candidate& c : kept) sum += static_cast<double>(c.weight);
    double left = draw * sum;
    for (const Candidate& c : kept) {
        left -= static_cast<double>(c.weight);
        if (left < 0) return c.token;
    }
    return kept.back().token;
}

}  // namespace parley::engine
