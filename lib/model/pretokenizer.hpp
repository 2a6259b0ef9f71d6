// Pretokenizer: cuts text into the words inside which byte-pair merges happen.
//
// Kinds    gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//          smollm  each \p{N} alone first, then the above on what lies between
//          qwen2   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|
//                   ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//          llama-bpe  the same with \p{N}{1,3} for \p{N}
//          Written by hand: the look-ahead and the two passes are one pass forward here, and its
//          time is linear whatever the text.
// Source   the patterns: Radford et al. 2019, the tokenizers of SmolLM2, Qwen2 and Llama 3; classes: Unicode 15 by ICU.
// Text     any bytes. A byte that is not part of well-formed UTF-8 counts as a symbol of its own.
// Threads  pure function.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace parley::model {

enum class Pretokenizer { gpt2, smollm, qwen2, llama_bpe };

// By the name that stands in tokenizer.ggml.pre; nullopt for one that is not offered.
std::optional<Pretokenizer> pretokenizer(std::string_view name);

// The end of the word that begins at `start` < text.size(): in (start, text.size()].
size_t word_end(Pretokenizer kind, std::string_view text, size_t start);

}  // namespace parley::model
