// Decode: encodings that hide text inside text, found and undone.
//
// All are linear in the text and write at most as many bytes as they read.
// Threads  pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace parley::safety {

// HTML entities (numeric, and the handful of named ones that matter), %XX, \xXX, \uXXXX decoded where
// they stand. Sequences that would not give valid UTF-8 stay. `changed` says whether any was found.
std::string decode_escapes(std::string_view text, bool& changed);

struct Run {
    size_t at = 0, size = 0;  // bytes of the text that the run takes
    std::string decoded;
    const char* how = "";  // "base64", "hex"
};
// Runs of base64 (12 characters or more, either alphabet) and hex (16 digits or more, or pairs with
// one separator between) whose contents are printable UTF-8. In order, not overlapping; decoded
// bytes in all at most `bytes_max`.
std::vector<Run> find_encoded(std::string_view text, size_t bytes_max);

std::string rot13(std::string_view text);
std::string reversed(std::string_view text);        // by code points
std::string words_reversed(std::string_view text);  // letters inside each word

void append_utf8(std::string& out, char32_t code_point);
// The code point at `at` of valid UTF-8; moves `at` behind it.
char32_t next_utf8(std::string_view text, size_t& at);

}  // namespace parley::safety
