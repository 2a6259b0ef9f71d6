// Perplexity of a text, in windows, as llama.cpp's llama-perplexity has it, so that the two can be compared.
//
// The text's tokens (BOS first where the vocabulary asks for it; nothing in the text is a control token) are
// cut into windows of `window` tokens, side by side; what is left over at the end is not used. In every window
// the first token gives way to BOS, where there is one, and each token behind the middle is scored by what the
// model says before it: of N tokens the last N/2 − 1 (N even), so that a scored one has at least N/2 before it.
// The perplexity is exp of the mean negative logarithm over the scored tokens of all windows.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"
#include "engine/forward.hpp"
#include "model/tokenizer.hpp"

namespace parley::infer_worker {

struct Perplexity {
    uint64_t text_tokens = 0;
    uint32_t windows = 0;
    uint64_t scored_tokens = 0;
    double nll = 0;         // mean, natural logarithm
    double perplexity = 0;  // exp of it
    double error = 0;       // of it: its standard error by the spread of the single tokens
};

// Errors: Errc::invalid when the text has fewer than two windows of tokens, or `window` is not 4 to the
// model's context. `rows_max`: as forward was made with.
base::Result<Perplexity> measure_perplexity(engine::Forward& forward, const model::Tokenizer& tokenizer,
                                            std::string_view text, uint32_t window, uint32_t rows_max);

}  // namespace parley::infer_worker
