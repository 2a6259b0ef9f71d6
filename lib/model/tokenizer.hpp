// Tokenizer: text to token ids and back, by a model's own vocabulary.
//
// Kinds    byte-level BPE (tokenizer.ggml.model "gpt2") with the file's pre-tokenizer, and
//          SentencePiece ("llama", model/spm.hpp), behind the same calls.
// Source   Byte-level BPE: Radford et al. 2019, "Language models are unsupervised multitask learners";
//          merges by least rank, leftmost on ties, on a heap: O(n log n) in a word's length.
// Text     encode() treats every byte as plain text: what a user writes can never become a control
//          token. Only a template's own text goes through special().
// Errors   Errc::unsupported for a vocabulary or pre-tokenizer of unknown kind, with its name.
// Threads  immutable; any.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::model {

using Token = int32_t;

class Gguf;

class Tokenizer {
  public:
    static base::Result<Tokenizer> from_gguf(const Gguf& file);
    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;
    ~Tokenizer();

    // Appends the ids of `text` taken as plain text (no BOS, no specials). Invalid UTF-8 is encoded
    // byte by byte and comes back byte for byte. A byte for which the vocabulary has no token gives
    // none and is lost, as in the reference tokenizers (SmolLM2 lacks 21, such as 0x04 and 0xff).
    // SentencePiece: `text` is taken as one piece, which begins with a space of its own if the file
    // asks for it (add_space_prefix; on where the file is silent, as its readers have always had it).
    void encode(std::string_view text, std::vector<Token>& out) const;
    std::vector<Token> encode(std::string_view text) const;
    // The id of a control token by its exact spelling; nullopt if the vocabulary has none.
    std::optional<Token> special(std::string_view spelling) const;

    // The bytes of one token; empty for control tokens. May end inside a UTF-8 character.
    std::string_view bytes(Token token) const;
    // The same, but of a control token its spelling: for people to look at, never for an answer.
    std::string_view spelling(Token token) const;
    std::string decode(std::span<const Token> tokens) const;
    bool is_control(Token token) const;
    bool is_end_of_generation(Token token) const;  // EOS, EOT, end of turn

    uint32_t vocab_size() const;
    std::optional<Token> bos() const;
    std::optional<Token> eos() const;
    bool add_bos() const;
    std::string_view kind() const;  // "gpt2" or "llama"
    std::string_view pre() const;   // "smollm"; of kind "llama" a name without effect

    // The parts of HASH.tok that are the tokenizer's (model/artifact.hpp writes the rest).
    void save(std::string& out) const;
    static base::Result<Tokenizer> load(std::string_view bytes);

  private:
    struct Impl;
    explicit Tokenizer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::model
