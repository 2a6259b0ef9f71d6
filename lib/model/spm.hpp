// Spm: a SentencePiece vocabulary (tokenizer.ggml.model "llama"): scores instead of merges.
//
//   "Hello world" → ▁Hello ▁world: two neighbours that together are a token become it, highest score
//   first, leftmost on ties, on a heap; a character that no token has is spelled in byte tokens.
//
// Source   Kudo, Richardson 2018, "SentencePiece"; the order of llama.cpp, whose ids the tests hold.
// Text     tokens hold a plain space where the file spells U+2581: so does text, in which U+2581 itself
//          counts as a space (and comes back as one: the vocabulary has no other way to say it).
//          Tokens added by hand (runs of line breaks, HTML tags) are found in the text first, leftmost
//          and longest; what lies between is merged piece by piece, each led by a space if the file
//          asks for it. No text becomes a control token.
// Time     O(n · L + n log n) for n bytes, L those of the longest token: no lookup is tried past L.
// Threads  immutable; any.
#pragma once

#include <array>
#include <bitset>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/vocabulary.hpp"

namespace parley::model {

class Spm {
  public:
    Spm() = default;
    // One score a token. Errc::corrupt: of another number, or not a number.
    static base::Result<Spm> make(const Vocabulary& vocabulary, std::vector<float> scores,
                                  bool space_first);

    // Appends the ids of `text`. `vocabulary` is the one it was made from.
    void encode(const Vocabulary& vocabulary, std::string_view text, std::vector<Token>& out) const;

    const std::vector<float>& scores() const { return scores_; }
    bool space_first() const { return space_first_; }

  private:
    struct Symbol {
        uint32_t begin, end;      // its bytes
        uint32_t previous, next;  // indices; kNone at the ends
        uint32_t key;  // of the pair with `next`, least first; kNone: no token, or merged away
        Token token, merged;  // -1: none
    };
    struct Scratch {
        std::string text;
        std::vector<Symbol> symbols;
        std::vector<uint64_t> heap;  // key << 32 | index
    };
    struct Found {
        Token token = -1;
        size_t size = 0;
    };

    Found added_at(const Vocabulary& vocabulary, std::string_view text) const;
    void merge_piece(const Vocabulary& vocabulary, std::string_view piece, Scratch& scratch,
                     std::vector<Token>& out) const;
    void merge(const Vocabulary& vocabulary, std::string_view text, Scratch& scratch,
               std::vector<Token>& out) const;

    std::vector<float> scores_;
    bool space_first_ = false;
    TokenIndex index_;
    size_t longest_ = 0;            // bytes of the longest token in the index
    std::vector<Token> added_;      // by bytes
    std::bitset<256> added_first_;  // the bytes they begin with
    std::array<Token, 256> byte_tokens_{};
};

// U+2581 to the space it stands for.
void unescape_spaces(std::string_view text, std::string& out);

}  // namespace parley::model
