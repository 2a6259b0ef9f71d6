// Vocabulary: a model's tokens as they lie in memory, and TokenIndex, to find one by its bytes.
//
// Layout   the bytes of all tokens one after the other in `arena`; token t is
//          arena[offsets[t], offsets[t + 1]), with flags[t].
// Threads  immutable once read; any.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "model/bpe.hpp"
#include "model/cursor.hpp"
#include "model/tokenizer.hpp"

namespace parley::model {

// Stored in HASH.tok as they are (man/parley-tok.5).
enum TokenFlag : uint8_t { kControl = 1, kEnd = 2, kAdded = 4, kByte = 8 };

struct Vocabulary {
    std::string arena;
    std::vector<uint32_t> offsets;  // tokens + 1
    std::vector<uint8_t> flags;

    uint32_t size() const { return static_cast<uint32_t>(flags.size()); }
    bool valid(Token token) const { return token >= 0 && static_cast<uint32_t>(token) < size(); }
    std::string_view text(uint32_t token) const {
        return std::string_view(arena).substr(offsets[token], offsets[token + 1] - offsets[token]);
    }
};

// Open addressing, at most half full; the hash is seeded anew in every process. Of tokens with equal
// bytes the last one put counts.
class TokenIndex {
  public:
    TokenIndex() = default;
    explicit TokenIndex(size_t tokens)
        : mask_(std::bit_ceil(tokens * 2 + 2) - 1), slots_(mask_ + 1, -1) {}
    // Of the tokens that text may become: those without any flag.
    static TokenIndex of_plain(const Vocabulary& vocabulary) {
        TokenIndex index(vocabulary.size());
        for (uint32_t token = 0; token < vocabulary.size(); ++token)
            if (vocabulary.flags[token] == 0) index.put(vocabulary, static_cast<Token>(token));
        return index;
    }

    void put(const Vocabulary& vocabulary, Token token) {
        slots_[position(vocabulary, vocabulary.text(static_cast<uint32_t>(token)))] = token;
    }
    // -1: there is none.
    Token find(const Vocabulary& vocabulary, std::string_view bytes) const {
        return slots_[position(vocabulary, bytes)];
    }

  private:
    size_t position(const Vocabulary& vocabulary, std::string_view bytes) const {
        uint64_t hash = hash_seed() ^ bytes.size();
        size_t i = 0;
        for (; i + 8 <= bytes.size(); i += 8) hash = mix(load<uint64_t>(bytes.data() + i), hash);
        if (i < bytes.size()) {
            uint64_t tail = 0;
            std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
            hash = mix(tail, hash);
        }
        hash = mix(hash, 0);
        size_t at = hash & mask_;
        while (slots_[at] >= 0 && vocabulary.text(static_cast<uint32_t>(slots_[at])) != bytes)
            at = (at + 1) & mask_;
        return at;
    }

    size_t mask_ = 1;
    std::vector<Token> slots_ = std::vector<Token>(2, -1);
};

}  // namespace parley::model
