// Partial: the pattern of all beginnings of what a pattern matches, so that a stream can tell text
// that may still grow into a match from text that cannot.
//
// For R it gives P with L(P) = every prefix of every string of L(R), the empty one too; assertions at
// the cut are taken as fulfilled. Anchored at the end of a text, P's leftmost match begins where the
// earliest match still in the making begins. P is at most about depth times as long as R.
// Errors   Errc::unsupported for syntax that is not understood (\C, \Q…\E, flags with '-' in mid-group
//          are not), Errc::invalid for unbalanced brackets. RE2 itself has the last word on R.
// Threads  pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::safety {

base::Result<std::string> partial_pattern(std::string_view pattern);

}  // namespace parley::safety
