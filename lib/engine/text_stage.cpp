#include "engine/text_stage.hpp"

namespace parley::engine {

TextStage::TextStage(std::vector<std::string> stops, uint64_t released)
    : stops_(std::move(stops)), matcher_(stops_), released_(released) {}

bool TextStage::replay(std::string_view bytes) {
    for (const char c : bytes) byte_in(static_cast<uint8_t>(c));
    return stopped();
}

bool TextStage::feed(model::Token token, std::string_view bytes) {
    if (stopped()) return true;
    replay(bytes);
    // Inside a character the token ends with the first byte that the character adds to the text. A
    // token that completed a stop sequence ends beyond the text: its id is never reported.
    if (!stopped()) ends_.push_back({token, text_bytes() + (wanted_ > 0 ? 1 : 0)});
    return stopped();
}

void TextStage::finish() {
    finished_ = true;
    character_.clear();
    wanted_ = 0;
}

// The states of RFC 3629: after the first byte only the second has narrower bounds.
void TextStage::byte_in(uint8_t byte) {
    if (wanted_ > 0) {
        if (byte >= least_ && byte <= most_) {
            character_.push_back(static_cast<char>(byte));
            least_ = 0x80;
            most_ = 0xBF;
            if (--wanted_ == 0) {
                character_out(character_);
                character_.clear();
            }
            return;
        }
        character_.clear();
        wanted_ = 0;
        character_out("\xEF\xBF\xBD");
    }
    least_ = 0x80;
    most_ = 0xBF;
    if (byte < 0x80) {
        const char c = static_cast<char>(byte);
        character_out({&c, 1});
        return;
    }
    if (byte >= 0xC2 && byte <= 0xDF) {
        wanted_ = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
        wanted_ = 2;
        if (byte == 0xE0) least_ = 0xA0;
        if (byte == 0xED) most_ = 0x9F;
    } else if (byte >= 0xF0 && byte <= 0xF4) {
        wanted_ = 3;
        if (byte == 0xF0) least_ = 0x90;
        if (byte == 0xF4) most_ = 0x8F;
    } else {
        character_out("\xEF\xBF\xBD");
        return;
    }
    character_.assign(1, static_cast<char>(byte));
}

void TextStage::character_out(std::string_view bytes) {
    if (stopped()) return;
    for (const char c : bytes) {
        text_.push_back(c);
        matched_ = matcher_.feed(static_cast<uint8_t>(c));
        if (stopped()) {
            text_.resize(text_.size() - matched().size());
            return;
        }
    }
}

bool TextStage::take(Piece& piece) {
    // A held suffix begins like a stop sequence, so with a whole character: the cut splits none.
    const size_t held = stopped() || finished_ ? 0 : matcher_.held();
    const size_t ready = text_.size() - held;
    const uint64_t out = base_ + ready;
    if (out > released_) {
        uint64_t from = released_ > base_ ? released_ - base_ : 0;
        while (from < ready && (static_cast<uint8_t>(text_[from]) & 0xC0) == 0x80) ++from;
        piece.text = text_.substr(from, ready - from);
        released_ = out;
    } else {
        piece.text.clear();
    }
    text_.erase(0, ready);
    base_ = out;
    if (piece.text.empty()) return false;
    piece.ids.clear();
    while (!ends_.empty() && ends_.front().at <= out) {
        piece.ids.push_back(ends_.front().token);
        ends_.pop_front();
    }
    return true;
}

}  // namespace parley::engine
