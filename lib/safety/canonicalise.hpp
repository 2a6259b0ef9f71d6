// Canonicalise: the readings of a text that a judge has to look at, so that a disguise does not hide
// what it says.
//
// Views    [0] is always the text as it came ("raw"). Then, where they differ from it (if only in
//          case):
//          "canonical"  HTML entities, percent and backslash escapes and tag characters decoded;
//                       invisible characters (zero width, bidi, soft hyphen, variation selectors) and
//                       combining marks stripped; NFKC; confusable letters as the Latin ones they
//                       look like; lower case; spaced and dotted letters joined; leetspeak inside
//                       words; repeated letters; base64 and hex runs replaced by what they hold
//          "base64", "hex"  what such a run holds, canonical, by itself
//          "rot13", "reversed", "words reversed"  only where that looks more like language
// Errors   Errc::invalid for invalid UTF-8 or NUL, Errc::too_large over a limit. Limits are looked at
//          first, so this stage cannot be used to burn time: all of it is linear in the text.
// Bounds   CanonLimits; a decoded run is decoded again up to depth_max, then left as it stands.
// Threads  pure; a table of confusables is made at first use (about 10 ms).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::safety {

struct CanonLimits {
    uint64_t bytes_max = 4u << 20;          // of the text
    uint64_t expansion_max = 4;             // canonical bytes per byte of text, above 64 KiB
    uint32_t depth_max = 2;                 // encodings inside encodings
    uint64_t decoded_bytes_max = 1u << 20;  // in all of one text
    uint32_t views_max = 10;
};

struct View {
    std::string how;
    std::string text;
};

base::Result<std::vector<View>> canonicalise(std::string_view text, const CanonLimits& limits = {});

// The part of "canonical" that works a character at a time (no joining, no decoding), with the byte of
// `text` at which each canonical byte began: for rules over a stream. `text` must be valid UTF-8.
struct Folded {
    std::string text;
    std::vector<uint32_t> from;  // as many as bytes in text
};
void fold_append(std::string_view text, uint32_t base, Folded& out);

// Makes the table of confusables now rather than at first use.
void warm_up_canonicalise();

}  // namespace parley::safety
