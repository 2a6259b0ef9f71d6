#include "engine/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "engine/random.hpp"
#include "engine/row.hpp"

namespace parley::engine {
namespace {

using model::Token;
using Candidate = SamplerScratch::Candidate;

// The first of the greatest: the lowest id on ties.
Token greatest(std::span<const float> logits, std::vector<float>& block_max) {
    const float most = row_max(logits, block_max);
    if (!(most > -std::numeric_limits<float>::infinity())) return kNoToken;
    size_t block = 0;
    while (block_max[block] != most) ++block;
    size_t i = block * kRowBlock;
    while (logits[i] != most) ++i;
    return static_cast<Token>(i);
}

bool before(const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

// Nothing is cut: walks the blocks, then the one that the draw fell into, in the order of ids.
Token draw_all(double left, const SamplerScratch& s, Token best) {
    size_t block = 0;
    while (block + 1 < s.block_sum.size() && left >= static_cast<double>(s.block_sum[block]))
        left -= static_cast<double>(s.block_sum[block++]);
    Token last = kNoToken;
    for (size_t i = block * kRowBlock; i < (block + 1) * kRowBlock; ++i) {
        if (s.weights[i] <= 0.0f) continue;
        last = static_cast<Token>(i);
        left -= static_cast<double>(s.weights[i]);
        if (left < 0) break;
    }
    return last == kNoToken ? best : last;  // rounding used up the sum
}

// All tokens that weigh at least `least`, in the order of ids; whole blocks are passed over.
void collect(float least, SamplerScratch& s) {
    s.candidates.clear();
    for (size_t block = 0; block < s.block_max.size(); ++block) {
        if (s.block_max[block] < least) continue;
        for (size_t i = block * kRowBlock; i < (block + 1) * kRowBlock; ++i)
            if (s.weights[i] >= least)
                s.candidates.push_back({s.weights[i], static_cast<Token>(i)});
    }
}

// A weight that at least `count` tokens reach: so many blocks have one of that weight.
float reached_by(uint32_t count, SamplerScratch& s) {
    if (count > s.block_max.size()) return 0;
    s.ranks = s.block_max;
    std::nth_element(s.ranks.begin(), s.ranks.begin() + (count - 1), s.ranks.end(),
                     std::greater<>());
    return s.ranks[count - 1];
}

double sum_of(std::span<const Candidate> candidates) {
    double sum = 0;
    for (const Candidate& c : candidates) sum += static_cast<double>(c.weight);
    return sum;
}

// Takes the tokens without a bit out of the row. Most words are all or nothing.
void forbid(std::span<float> logits, std::span<const uint64_t> allowed) {
    constexpr float kNo = -std::numeric_limits<float>::infinity();
    for (size_t first = 0; first < logits.size(); first += 64) {
        const uint64_t bits = first / 64 < allowed.size() ? allowed[first / 64] : 0;
        if (bits == ~uint64_t{0}) continue;
        const size_t count = std::min<size_t>(64, logits.size() - first);
        for (size_t i = 0; i < count; ++i)
            if ((bits >> i & 1) == 0) logits[first + i] = kNo;
    }
}

// Sorts just so many that their sum reaches `wanted`, and drops the rest. Most rows need a few.
void nucleus(double wanted, std::vector<Candidate>& kept) {
    size_t sorted = 0;
    size_t count = 0;
    double sum = 0;
    while (count < kept.size()) {
        if (count == sorted) {
            const size_t end = std::min(kept.size(), std::max<size_t>(64, sorted * 4));
            const auto from = kept.begin() + static_cast<std::ptrdiff_t>(sorted);
            const auto to = kept.begin() + static_cast<std::ptrdiff_t>(end);
            if (to != kept.end()) std::nth_element(from, to, kept.end(), before);
            std::sort(from, to, before);
            sorted = end;
        }
        sum += static_cast<double>(kept[count++].weight);
        if (sum >= wanted) break;
    }
    kept.resize(std::max<size_t>(count, 1));
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

Token Sampler::pick(std::span<float> logits, uint64_t index, SamplerScratch& scratch,
                    std::span<const uint64_t> allowed) const {
    if (!allowed.empty()) forbid(logits, allowed);
    if (has_penalties()) penalise(logits);
    const Token best = greatest(logits, scratch.block_max);
    if (best == kNoToken || options_.temperature <= 0.0f || options_.top_k == 1) return best;

    const float most = logits[static_cast<size_t>(best)];
    if (!std::isfinite(most)) return kNoToken;
    row_weigh(logits, most, 1.0f / options_.temperature, scratch.weights, scratch.block_sum,
              scratch.block_max);
    double total = 0;
    for (const float sum : scratch.block_sum) total += static_cast<double>(sum);
    const double draw = uniform(options_.seed, index);
    const bool cuts_k = options_.top_k > 0 && options_.top_k < logits.size();
    const bool cuts_p = options_.top_p < 1.0f;
    if (!cuts_k && !cuts_p && options_.min_p <= 0.0f) return draw_all(draw * total, scratch, best);

    // What cannot be kept is left out before any sort. top-k: its own bound. top-p: tokens below
    // (1-p)·total/n weigh less than (1-p)·total together, so the nucleus does without them.
    float least = std::numeric_limits<float>::min();
    if (cuts_k) {
        least = std::max(least, reached_by(options_.top_k, scratch));
    } else {
        least = std::max(least, options_.min_p);
        if (cuts_p)
            least = std::max(least, static_cast<float>((1.0 - static_cast<double>(options_.top_p)) *
                                                       total / static_cast<double>(logits.size())));
    }
    collect(least, scratch);
    auto& kept = scratch.candidates;
    if (cuts_k) {
        if (kept.size() > options_.top_k) {
            std::nth_element(kept.begin(), kept.begin() + options_.top_k, kept.end(), before);
            kept.resize(options_.top_k);
        }
        std::sort(kept.begin(), kept.end(), before);
        total = sum_of(kept);
    }
    if (cuts_p)
        nucleus(static_cast<double>(options_.top_p) * total, kept);
    else if (!cuts_k)
        std::sort(kept.begin(), kept.end(), before);
    while (kept.size() > 1 && kept.back().weight < options_.min_p) kept.pop_back();
    double left = draw * sum_of(kept);
    for (const Candidate& c : kept) {
        left -= static_cast<double>(c.weight);
        if (left < 0) return c.token;
    }
    return kept.back().token;
}

}  // namespace parley::engine
