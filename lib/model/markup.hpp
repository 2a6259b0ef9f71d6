// Markup: text in which control tokens are spelled out, to ids.
//
// For tools and tests that are given a whole prompt as a template would write it. Never for text that
// came from a user or a model: whatever is spelled here becomes a control token. Tokenizer::encode()
// is the one for that.
// Threads  pure function.
#pragma once

#include <string_view>
#include <vector>

#include "model/tokenizer.hpp"

namespace parley::model {

// Where two spellings begin at one place the longer one counts.
std::vector<Token> encode_markup(const Tokenizer& tokenizer, std::string_view text);

}  // namespace parley::model
