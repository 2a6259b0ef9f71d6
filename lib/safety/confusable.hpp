// Confusable: one character as the plain one it is meant to be read as.
//
// Threads  any; the table is made once, at first use or by warm_up_confusables().
#pragma once

#include <cstdint>

namespace parley::safety {

void warm_up_confusables();
// The ASCII letter or digit that a letter of another script, or an ornamented one, looks like; else 0.
char look_alike(char32_t c);
// Invisible: zero width, bidi controls, soft hyphen, variation selectors, fillers.
bool invisible(char32_t c);
// A combining mark (nonspacing or enclosing).
bool combining(char32_t c);

}  // namespace parley::safety
