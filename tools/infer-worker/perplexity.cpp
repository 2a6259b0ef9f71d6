#include "perplexity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace parley::infer_worker {
namespace {

// Rows whose logits are held at a time: 16 MiB with a vocabulary of 256k.
constexpr uint32_t kScoredAtOnce = 16;

// −log of the probability of `token`.
double surprise(std::span<const float> logits, model::Token token) {
    const float top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float x : logits) sum += std::exp(x - top);
    return top + std::log(sum) - logits[static_cast<size_t>(token)];
}

}  // namespace

base::Result<Perplexity> measure_perplexity(engine::Forward& forward, const model::Tokenizer& tokenizer,
                                            std::string_view text, uint32_t window, uint32_t rows_max) {
    using base::Errc;
    if (window < 4 || window > forward.context_tokens())
        return base::fail(Errc::invalid, fmt::format("a window of {} tokens is not 4 to {}", window,
                                                     forward.context_tokens()));
    const bool bos = tokenizer.add_bos() && tokenizer.bos().has_value();
    std::vector<model::Token> tokens;
    if (bos) tokens.push_back(*tokenizer.bos());
    tokenizer.encode(text, tokens);
    // As there: a mean over one window's half says too little.
    if (tokens.size() < 2 * uint64_t{window})
        return base::fail(Errc::invalid, fmt::format("the text has {} tokens, fewer than two windows of {}",
                                                     tokens.size(), window));
    Perplexity result;
    result.text_tokens = tokens.size();
    result.windows = static_cast<uint32_t>(tokens.size() / window);
    std::vector<uint32_t> blocks((window + engine::kBlockTokens - 1) / engine::kBlockTokens);
    std::iota(blocks.begin(), blocks.end(), 0);
    const uint32_t vocab = forward.vocab_size(), first = window / 2;
    std::vector<float> logits(uint64_t{kScoredAtOnce} * vocab);
    double sum = 0, squares = 0;
    for (uint32_t w = 0; w < result.windows; ++w) {
        const std::span<model::Token> own = std::span(tokens).subspan(uint64_t{w} * window, window);
        if (bos) own[0] = *tokenizer.bos();
        // The last token is only scored, nothing comes after it.
        for (uint32_t at = 0, count = 0; at < window - 1; at += count) {
            const bool scored = at >= first;
            count = scored ? std::min({kScoredAtOnce, rows_max, window - 1 - at})
                           : std::min(rows_max, first - at);
            const engine::Chunk chunk{own.subspan(at, count), at, blocks, scored ? count : 0};
            forward.run({&chunk, 1}, std::span(logits).first(scored ? uint64_t{count} * vocab : 0));
            for (uint32_t i = 0; scored && i < count; ++i) {
                const double s =
                    surprise(std::span(logits).subspan(uint64_t{i} * vocab, vocab), own[at + i + 1]);
                sum += s;
                squares += s * s;
                ++result.scored_tokens;
            }
        }
    }
    const auto n = static_cast<double>(result.scored_tokens);
    result.nll = sum / n;
    result.perplexity = std::exp(result.nll);
    const double variance = squares / n - result.nll * result.nll;
    if (n > 1 && variance > 0) result.error = std::sqrt(variance / (n - 1)) * result.perplexity;
    return result;
}

}  // namespace parley::infer_worker
