// Words: text cut into what can be searched for. The index, the query and the snippet cut alike.
//
// Word     a run of letters, digits and combining marks; of a script that is written without spaces
//          (Han, Kana, Thai, Lao, Khmer, Burmese) each character by itself, so that neighbours are a
//          phrase. Folded by NFKC and case, so that é is é however it was typed; no stemming, since a
//          conversation may be in any language.
// Bounds   a folded word is cut at kWordBytesMax, at a character.
// Errors   bytes that are no UTF-8 separate words; text is never refused.
// Threads  pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::search {

inline constexpr size_t kWordBytesMax = 64;

struct Word {
    std::string text;      // folded
    uint32_t position = 0;  // counts words, from 1
    size_t begin = 0;       // bytes of the text as it was given
    size_t end = 0;
};

// The words of the first `bytes_max` bytes.
std::vector<Word> words_of(std::string_view text, size_t bytes_max);

// The text blocks of a message's content (raw JSON array of blocks), joined by a blank line. What is no
// text (tool calls, thinking) is left out.
std::string text_of_content(std::string_view content_json);

}  // namespace parley::search
