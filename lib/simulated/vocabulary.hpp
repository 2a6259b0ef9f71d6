// vocabulary: the tokenizer, template and limits of the simulated model, made in code: no file is
// read, and HASH.tok goes to the router as that of any model does.
//
// Tokens   three control tokens (ChatML), the 256 bytes, some hundred frequent English words and
//          those that answers are made of, each with the beginnings that its merges pass through.
//          Any text can be encoded; English comes to about twice the tokens that SmolLM2 has for it.
// Hash     "simulated" in hexadecimal, then SHA-256 of the vocabulary and of the answers' mean
//          length, cut to 64 digits: workers whose answers would differ are different versions.
// Threads  pure functions; the same bytes on every host.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/artifact.hpp"

namespace parley::simulated {

inline constexpr std::string_view kName = "simulated";

// `context_tokens` 1 … INT32_MAX.
base::Result<model::Artifact> make_artifact(uint32_t context_tokens, uint32_t answer_tokens_mean);

// What every answer begins with, and the words that it goes on with (each with its space).
std::string_view opening();
std::vector<std::string> answer_words();

}  // namespace parley::simulated
