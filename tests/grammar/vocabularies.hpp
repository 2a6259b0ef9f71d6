#pragma once

#include <string>
#include <vector>

#include "grammar/vocabulary.hpp"

namespace parley::test {

// Token 0 ends the answer; all single bytes; and pieces of JSON as tokenizers make them.
class ByteVocabulary final : public grammar::Vocabulary {
  public:
    std::vector<std::string> words{""};

    explicit ByteVocabulary(bool pieces = true) {
        for (int b = 0; b < 256; ++b) words.emplace_back(1, static_cast<char>(b));
        if (!pieces) return;
        for (const char* piece :
             {"{\"",   "\":", "\",\"",   "\"}",   "},{",      "}]",   "]}",       "[[",
              "[]",    "{}",  "true",    "false", "null",     "tr",   "name",     "na",
              "me\":", "12",  "00",      "0.",    "-1",       "e+",   ",\"",      "\":\"",
              "\\\"",  "\\u", "\\ud83d", "\\n",   "é",        "\xC3", "\xF0\x9F", "\x98\x80",
              "ab",    "abc", " ",       "  ",    "\", \"",   ": ",   "a\"",      "\"a",
              "0,",    ",1",  "}}",      "}}}",   "aaaaaaaa", "b}"})
            words.emplace_back(piece);
    }
    uint32_t size() const override { return static_cast<uint32_t>(words.size()); }
    std::string_view bytes(int32_t token) const override {
        return words[static_cast<size_t>(token)];
    }
    bool ends_answer(int32_t token) const override { return token == 0; }
};

inline bool allowed(std::span<const uint64_t> mask, int32_t token) {
    return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

}  // namespace parley::test
