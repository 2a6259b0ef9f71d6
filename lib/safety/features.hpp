// FeatureStream: the hashed n-grams of a text, byte by byte, so that a stream and a whole text give
// exactly the same counts.
//
// Text     bytes are folded first: A-Z to a-z, digits to '0', ' dropped, control characters and
//          spaces to one space; bytes over 127 count as letters. A space stands before the text and,
//          after finish(), behind it.
// Features character n-grams of 2 to 5 folded bytes, words, and pairs of neighbouring words. A word is
//          known once the byte behind it is, so the last word counts only after finish().
// Sink     called as sink(hash) with 64 well-mixed bits: the top b bits are the bucket of 2^b.
// Cost     at most 6 features a byte.
// Threads  a stream belongs to one.
#pragma once

#include <cstdint>
#include <string_view>

namespace parley::safety {

class FeatureStream {
  public:
    static constexpr int kCharsMin = 2;
    static constexpr int kCharsMax = 5;

    template <class Sink>
    void push(std::string_view bytes, Sink&& sink) {
        for (char c : bytes) fold(static_cast<unsigned char>(c), sink);
    }
    template <class Sink>
    void finish(Sink&& sink) {
        fold(' ', sink);
    }

  private:
    static uint64_t mix(uint64_t v) {
        v *= 0x9E3779B97F4A7C15ull;
        v ^= v >> 29;
        v *= 0xBF58476D1CE4E5B9ull;
        return v;
    }
    template <class Sink>
    void fold(unsigned char c, Sink& sink) {
        bool in_word = true;
        if (c >= 'A' && c <= 'Z') {
            c += 32;
        } else if (c >= '0' && c <= '9') {
            c = '0';
        } else if (c == '\'') {
            return;
        } else if (c < 'a' || (c > 'z' && c < 128)) {
            in_word = false;
            if (c <= 32 || c == 127) {
                c = ' ';
                if ((last_ & 0xff) == ' ') return;
            }
        }
        last_ = (last_ << 8 | c) & 0xff'ffff'ffff;
        if (seen_ < kCharsMax) ++seen_;
        for (int n = kCharsMin; n <= seen_; ++n) {
            const uint64_t gram = last_ & ((1ull << (8 * n)) - 1);
            sink(mix(gram | static_cast<uint64_t>(n) << 56));
        }
        if (in_word) {
            word_ = (word_ ^ c) * 0x100000001b3ull + 7;
        } else if (word_ != 0) {
            sink(mix(word_ ^ 0xabcdef1234567ull));
            sink(mix(word_ * 31 + previous_ * 0x9E3779B1ull + 99));
            previous_ = word_;
            word_ = 0;
        }
    }

    uint64_t last_ = ' ';  // the last five folded bytes
    int seen_ = 1;
    uint64_t word_ = 0;
    uint64_t previous_ = 0;
};

}  // namespace parley::safety
