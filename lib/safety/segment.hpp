// Segment: the words of letters that were written without gaps ("howtobake" → "how to bake").
//
// The cheapest cut by a list of 3,000 common English words, more frequent ones cheaper; letters of no
// word cost most, and stay together.
// Cost     linear: at most 14 look-ups a letter.
// Threads  any; the table is made at first use.
#pragma once

#include <string>
#include <string_view>

namespace parley::safety {

// `letters`: lower case. Characters other than a-z are cut off around and kept.
std::string segment(std::string_view letters);

}  // namespace parley::safety
