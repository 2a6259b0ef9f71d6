// Spelling: letters spaced out, digits for letters, letters repeated: words as they are meant.
//
// Input is lower case. All linear; none makes the text longer, but for spaces between found words.
// Threads  pure functions.
#pragma once

#include <string>
#include <string_view>

namespace parley::safety {

// "h o w  t o" and "b.o.m.b" → "how to", "bomb": four single letters or more with one separator
// between; a wider gap is a space between words, and in a long run without one
// the words are found again (segment.hpp).
std::string join_spaced(std::string_view text);
// "h0w t0 h4ck" → "how to hack". Words of letters and look-alike digits or signs; plain numbers only
// where the text is full of such words.
std::string unleet(std::string_view text);
// "kiiiill" → "kill": three or more of a letter become two where English doubles it, else one.
std::string unrepeat(std::string_view text);

}  // namespace parley::safety
