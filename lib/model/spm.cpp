#include "model/spm.hpp"

#include <fmt/format.h>
#include <unicode/utf8.h>

#include <cmath>
#include <functional>

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581
constexpr size_t kPieceBytesMax = 1u << 30;  // a longer piece is cut: its indices are 32 bits wide

// Descending scores as ascending integers. Only a NaN would give Bpe::kNone.
uint32_t key_of(float score) {
    const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // one zero, not two
    return bits >> 31 ? bits : ~(bits | 0x8000'0000u);
}

// Bytes of the character at the front; a byte that is not part of well-formed UTF-8 stands alone.
uint32_t character_bytes(std::string_view text) {
    if (static_cast<uint8_t>(text[0]) < 0x80) return 1;
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    const auto length = static_cast<int32_t>(std::min<size_t>(text.size(), 4));
    int32_t size = 0;
    UChar32 point = 0;
    U8_NEXT(bytes, size, length, point);
    return point < 0 ? 1 : static_cast<uint32_t>(size);
}

}  // namespace

void unescape_spaces(std::string_view text, std::string& out) {
    for (size_t at; (at = text.find(kSpace)) != std::string_view::npos;) {
        out += text.substr(0, at);
        out += ' ';
        text.remove_prefix(at + kSpace.size());
    }
    out += text;
}

Result<Spm> Spm::make(const Vocabulary& vocabulary, std::vector<float> scores, bool space_first) {
    if (scores.size() != vocabulary.size())
        return fail(Errc::corrupt, fmt::format("corrupt tokenizer: {} scores for {} tokens",
                                               scores.size(), vocabulary.size()));
    Spm out;
    out.byte_tokens_.fill(-1);
    for (uint32_t token = 0; token < vocabulary.size(); ++token) {
        if (std::isnan(scores[token]))
            return fail(Errc::corrupt, fmt::format("corrupt tokenizer: the score of token {} is no "
                                                   "number",
                                                   token));
        const uint8_t flags = vocabulary.flags[token];
        const std::string_view text = vocabulary.text(token);
        if (flags == kByte && text.size() == 1) {
            out.byte_tokens_[static_cast<uint8_t>(text[0])] = static_cast<Token>(token);
        } else if (flags == kAdded && !text.empty()) {
            out.added_.push_back(static_cast<Token>(token));
            out.added_first_.set(static_cast<uint8_t>(text[0]));
        } else if (flags == 0) {
            out.longest_ = std::max(out.longest_, text.size());
        }
    }
    std::stable_sort(out.added_.begin(), out.added_.end(), [&](Token a, Token b) {
        return vocabulary.text(static_cast<uint32_t>(a)) <
               vocabulary.text(static_cast<uint32_t>(b));
    });
    out.index_ = TokenIndex::of_plain(vocabulary);
    out.scores_ = std::move(scores);
    out.space_first_ = space_first;
    return out;
}

// The longest token added by hand that `text` begins with. The tokens are sorted: those that share
// the text's first `depth` bytes are one range, which each further byte narrows.
Spm::Found Spm::added_at(const Vocabulary& vocabulary, std::string_view text) const {
    Found found;
    if (!added_first_[static_cast<uint8_t>(text[0])]) return found;
    auto from = added_.begin();
    auto to = added_.end();
    const auto text_of = [&](Token token) { return vocabulary.text(static_cast<uint32_t>(token)); };
    for (size_t depth = 0; depth < text.size(); ++depth) {
        const auto byte = static_cast<uint8_t>(text[depth]);
        const auto at = [&](Token token) {  // -1: it ends here
            const std::string_view spelling = text_of(token);
            return spelling.size() > depth ? static_cast<uint8_t>(spelling[depth]) : -1;
        };
        from = std::partition_point(from, to, [&](Token token) { return at(token) < byte; });
        to = std::partition_point(from, to, [&](Token token) { return at(token) <= byte; });
        if (from == to) break;
        if (text_of(*from).size() == depth + 1) found = {*from, depth + 1};
    }
    return found;
}

void Spm::encode(const Vocabulary& vocabulary, std::string_view text,
                 std::vector<Token>& out) const {
    Scratch scratch;
    size_t plain = 0;  // where the piece not yet merged begins
    for (size_t i = 0; i < text.size();) {
        const Found found = added_at(vocabulary, text.substr(i));
        if (found.size == 0) {
            ++i;
            continue;
        }
        merge_piece(vocabulary, text.substr(plain, i - plain), scratch, out);
        out.push_back(found.token);
        i += found.size;
        plain = i;
    }
    merge_piece(vocabulary, text.substr(plain), scratch, out);
}

void Spm::merge_piece(const Vocabulary& vocabulary, std::string_view piece, Scratch& scratch,
                      std::vector<Token>& out) const {
    if (piece.empty()) return;
    if (space_first_ || piece.find(kSpace) != std::string_view::npos) {
        scratch.text.assign(space_first_ ? 1 : 0, ' ');
        unescape_spaces(piece, scratch.text);
        piece = scratch.text;
    }
    for (; piece.size() > kPieceBytesMax; piece.remove_prefix(kPieceBytesMax))
        merge(vocabulary, piece.substr(0, kPieceBytesMax), scratch, out);
    merge(vocabulary, piece, scratch, out);
}

void Spm::merge(const Vocabulary& vocabulary, std::string_view text, Scratch& scratch,
                std::vector<Token>& out) const {
    constexpr uint32_t kNone = Bpe::kNone;
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    symbols.clear();
    heap.clear();
    for (uint32_t begin = 0; begin < text.size();) {
        const uint32_t end = begin + character_bytes(text.substr(begin));
        const auto i = static_cast<uint32_t>(symbols.size());
        symbols.push_back({begin, end, i - 1, i + 1, kNone,
                           index_.find(vocabulary, text.substr(begin, end - begin)), -1});
        begin = end;
    }
    symbols.front().previous = kNone;
    symbols.back().next = kNone;

    const auto rate = [&](uint32_t i) {
        Symbol& symbol = symbols[i];
        symbol.key = kNone;
        if (symbol.next == kNone) return false;
        const size_t size = symbols[symbol.next].end - symbol.begin;
        if (size > longest_) return false;
        symbol.merged = index_.find(vocabulary, text.substr(symbol.begin, size));
        if (symbol.merged < 0) return false;
        symbol.key = key_of(scores_[static_cast<size_t>(symbol.merged)]);
        return true;
    };
    for (uint32_t i = 0; i < symbols.size(); ++i)
        if (rate(i)) heap.push_back(uint64_t{symbols[i].key} << 32 | i);
    constexpr std::greater<> kLeastFirst;
    std::make_heap(heap.begin(), heap.end(), kLeastFirst);
    const auto push = [&](uint32_t i) {
        if (!rate(i)) return;
        heap.push_back(uint64_t{symbols[i].key} << 32 | i);
        std::push_heap(heap.begin(), heap.end(), kLeastFirst);
    };
    while (!heap.empty()) {
        const auto key = static_cast<uint32_t>(heap.front() >> 32);
        const auto i = static_cast<uint32_t>(heap.front());
        std::pop_heap(heap.begin(), heap.end(), kLeastFirst);
        heap.pop_back();
        // An entry counts while the symbol's pair has its key, whichever pair that is by now: equal
        // scores have equal keys, and then this is its turn all the same.
        Symbol& left = symbols[i];
        if (left.key != key) continue;
        Symbol& right = symbols[left.next];
        left.token = left.merged;
        left.end = right.end;
        right.key = kNone;
        left.next = right.next;
        if (left.next != kNone) symbols[left.next].previous = i;
        push(i);
        if (left.previous != kNone) push(left.previous);
    }
    for (uint32_t i = 0; i != kNone; i = symbols[i].next) {
        const Symbol& symbol = symbols[i];
        if (symbol.token >= 0) {
            out.push_back(symbol.token);
            continue;
        }
        for (const char byte : text.substr(symbol.begin, symbol.end - symbol.begin)) {
            const Token token = byte_tokens_[static_cast<uint8_t>(byte)];
            if (token >= 0) out.push_back(token);
        }
    }
}

}  // namespace parley::model
