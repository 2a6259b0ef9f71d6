// tokenizer_impl: what the parts of Tokenizer share: reading a GGUF file (tokenizer_gguf.cpp), the
// stored form (tokenizer_stored.cpp) and the calls (tokenizer.cpp). Internal to lib/model.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/bpe.hpp"
#include "model/pretokenizer.hpp"
#include "model/spm.hpp"
#include "model/tokenizer.hpp"
#include "model/vocabulary.hpp"

namespace parley::model {

inline constexpr uint32_t kVocabMax = 1u << 22;
inline constexpr uint32_t kMergesMax = 1u << 22;
inline constexpr size_t kTokenBytesMax = 65'535;

inline constexpr std::string_view kBpeKind = "gpt2";
inline constexpr std::string_view kSpmKind = "llama";

struct Tokenizer::Impl : Vocabulary {
    struct Merge {
        uint32_t left, right, merged;
    };

    std::string kind;
    std::string pre;
    Token bos_id = -1;
    Token eos_id = -1;
    bool bos_first = false;
    std::vector<Token> controls;  // by spelling

    // kBpeKind
    Pretokenizer pretokenizer{};
    std::vector<Merge> merges;  // by rank
    std::array<uint32_t, 256> byte_tokens{};
    Bpe bpe{0};
    bool whole_words = false;  // a word that is a token is that token, whatever the merges say
    TokenIndex words;          // if whole_words

    // kSpmKind
    Spm spm;

    bool is_spm() const { return kind == kSpmKind; }
    // Checks what is there and builds what is derived: the same for a GGUF file and for an artifact.
    base::Result<void> finish();
    base::Result<void> finish_spm();
    base::Result<void> finish_bpe();
};

// The kinds and pre-tokenizers that are offered, for messages.
base::Result<void> known_kind(std::string_view kind);

}  // namespace parley::model
