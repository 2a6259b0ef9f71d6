// TextStage: tokens' bytes to text that may be shown: whole UTF-8 characters only, nothing that may
// still be the beginning of a stop sequence, and for every piece the ids of the tokens that end in
// it.
//
// Text     valid UTF-8 always. A character split over tokens is held until it is whole; bytes that
// can
//          never become one are U+FFFD, one for each maximal invalid part (WHATWG Encoding); an
//          unfinished character at the very end is dropped.
// Ids      a token whose last byte lies inside a character ends where that character ends.
// Replay   a continuation feeds its earlier tokens with replay(): text and matcher come to the same
//          state, their ids are not reported again, and text before byte `released` is not given
//          out.
// Bounds   what is held: the longest stop sequence and three bytes more.
// Threads  one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "engine/stop_matcher.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

struct Piece {
    std::string text;
    std::vector<model::Token> ids;
};

class TextStage {
  public:
    // `released`: bytes of the text that the reader has already.
    TextStage(std::vector<std::string> stops, uint64_t released);

    // True when a stop sequence is complete; text from its first byte on is gone, and so is all
    // that is fed later.
    bool feed(model::Token token, std::string_view bytes);
    bool replay(std::string_view bytes);
    // No more tokens: what was held as a possible stop sequence is text after all.
    void finish();
    // Takes what may be shown now. False, and `piece` unchanged, when that is nothing.
    bool take(Piece& piece);

    bool stopped() const { return matched_ != StopMatcher::kNone; }
    const std::string& matched() const { return stops_[static_cast<size_t>(matched_)]; }
    uint64_t text_bytes() const { return base_ + text_.size(); }  // so far, held ones included

  private:
    void byte_in(uint8_t byte);
    void character_out(std::string_view bytes);

    std::vector<std::string> stops_;
    StopMatcher matcher_;
    int matched_ = StopMatcher::kNone;

    std::string character_;  // of an unfinished character
    uint32_t wanted_ = 0;    // bytes that it lacks
    uint8_t least_ = 0x80;   // bounds of its next byte
    uint8_t most_ = 0xBF;

    std::string text_;   // not given out yet
    uint64_t base_ = 0;  // bytes before text_
    uint64_t released_;  // the reader's
    bool finished_ = false;
    struct End {
        model::Token token;
        uint64_t at;  // reported once this many bytes are out
    };
    std::deque<End> ends_;
};

}  // namespace parley::engine
