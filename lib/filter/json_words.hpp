// JsonWords: JSON text that comes in pieces, to what it says: the input of a call as a judge should read it.
//
// Promise  a word spelled by escapes is the word. All that is no escape stays as it is, marks and quotes too.
// Bounds   six bytes are held.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace parley::filter {

class JsonWords {
  public:
    // What `piece` adds. An escape that is not whole yet waits; one that is none stays as it is written; half
    // a surrogate pair is U+FFFD.
    std::string feed(std::string_view piece);

  private:
    void escape(std::string& out);
    std::string escape_;  // of an escape that is not whole
    uint32_t high_ = 0;   // a high surrogate waits for its other half
};

}  // namespace parley::filter
