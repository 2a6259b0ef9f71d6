// Language: does a text look like written language, and which of two readings of it looks more so.
//
// A table of 27 x 27 letter pairs (a-z and "anything else"), measured on ordinary English text. It is
// only asked to tell plain text from encoded, turned or enciphered text: other languages in Latin
// letters pass as language, noise does not.
// Threads  pure functions.
#pragma once

#include <cstdint>
#include <string_view>

namespace parley::safety {

// Cost of `next` after `previous` in half bits, 0..25; whatever is no ASCII letter counts as a space.
int pair_cost(unsigned char previous, unsigned char next);

struct Likeness {
    double bits = 99;      // average cost of a letter in bits: English about 3.5, its rot13 about 6
    uint32_t letters = 0;  // ASCII letters counted
};
Likeness likeness(std::string_view text);

// Valid UTF-8, almost no control characters, mostly letters and spaces, and cheap enough by pairs.
bool looks_like_language(std::string_view text);

}  // namespace parley::safety
