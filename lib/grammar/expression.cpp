#include "grammar/expression.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace parley::grammar {
namespace {

constexpr uint32_t kLast = 0x10FFFF;

void put(uint32_t c, uint8_t* out, int size) {
    if (size == 1) {
        out[0] = static_cast<uint8_t>(c);
        return;
    }
    for (int i = size - 1; i > 0; --i) {
        out[i] = static_cast<uint8_t>(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = static_cast<uint8_t>((size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0) | c);
}

// Both ends have `size` bytes. Cuts the range until each byte has a range of its own.
void utf8_range(Builder& b, Builder::State from, uint32_t low, uint32_t high, int size,
                Builder::State to) {
    for (int i = 1; i < size; ++i) {
        const uint32_t m = (1u << (6 * i)) - 1;
        if ((low & ~m) == (high & ~m)) continue;
        if ((low & m) != 0) {
            utf8_range(b, from, low, low | m, size, to);
            utf8_range(b, from, (low | m) + 1, high, size, to);
            return;
        }
        if ((high & m) != m) {
            utf8_range(b, from, low, (high & ~m) - 1, size, to);
            utf8_range(b, from, high & ~m, high, size, to);
            return;
        }
    }
    uint8_t l[4], h[4];
    put(low, l, size);
    put(high, h, size);
    for (int i = 0; i < size; ++i) {
        const Builder::State next = i + 1 == size ? to : b.state();
        b.bytes(from, l[i], h[i], next);
        from = next;
    }
}

void utf8(Builder& b, Builder::State from, uint32_t low, uint32_t high, Builder::State to) {
    constexpr uint32_t kEnds[] = {0x7F, 0x7FF, 0xFFFF, kLast};
    uint32_t start = 0;
    for (int size = 1; size <= 4; ++size) {
        const uint32_t l = std::max(low, start);
        const uint32_t h = std::min(high, kEnds[size - 1]);
        if (l <= h) utf8_range(b, from, l, h, size, to);
        start = kEnds[size - 1] + 1;
    }
}

}  // namespace

void Characters::add(uint32_t low, uint32_t high) {
    if (low <= 0xDFFF && high >= 0xD800) {
        if (low < 0xD800) add(low, 0xD7FF);
        if (high > 0xDFFF) add(0xE000, high);
        return;
    }
    ranges_.emplace_back(low, high);
    std::sort(ranges_.begin(), ranges_.end());
    std::vector<std::pair<uint32_t, uint32_t>> joined;
    for (const auto& r : ranges_) {
        if (!joined.empty() && r.first <= joined.back().second + 1)
            joined.back().second = std::max(joined.back().second, r.second);
        else
            joined.push_back(r);
    }
    ranges_ = std::move(joined);
}

void Characters::add(const Characters& other) {
    for (const auto& [low, high] : other.ranges_) add(low, high);
}

Characters Characters::inverse() const {
    Characters out;
    uint32_t next = 0;
    for (const auto& [low, high] : ranges_) {
        if (low > next) out.add(next, low - 1);
        next = high + 1;
    }
    if (next <= kLast) out.add(next, kLast);
    return out;
}

Expression Expression::of(Characters set) {
    Expression e;
    e.kind = Kind::characters;
    e.characters = std::move(set);
    return e;
}

Expression Expression::repeated(Expression inner, uint32_t least, uint32_t most) {
    Expression e;
    e.kind = Kind::repeat;
    e.parts.push_back(std::move(inner));
    e.least = least;
    e.most = most;
    return e;
}

void emit_characters(Builder& b, Builder::State from, const Characters& set, Writing writing,
                     Builder::State to) {
    for (auto [low, high] : set.ranges()) {
        if (writing == Writing::plain) {
            utf8(b, from, low, high, to);
            continue;
        }
        for (uint32_t c = low; c <= std::min(high, 0x1Fu); ++c) {
            std::string escape;
            switch (c) {
                case '\b':
                    escape = "\\b";
                    break;
                case '\f':
                    escape = "\\f";
                    break;
                case '\n':
                    escape = "\\n";
                    break;
                case '\r':
                    escape = "\\r";
                    break;
                case '\t':
                    escape = "\\t";
                    break;
                default:
                    escape = fmt::format("\\u{:04x}", c);
            }
            b.skip(b.text(from, escape), to);
        }
        low = std::max(low, 0x20u);
        for (const uint32_t quoted : {uint32_t{'"'}, uint32_t{'\\'}}) {
            if (low > quoted || high < quoted) continue;
            const char escape[] = {'\\', static_cast<char>(quoted)};
            b.skip(b.text(from, {escape, 2}), to);
            if (low < quoted) utf8(b, from, low, quoted - 1, to);
            low = quoted + 1;
        }
        if (low <= high) utf8(b, from, low, high, to);
    }
}

Builder::State emit(Builder& b, Builder::State from, const Expression& e, Writing writing) {
    if (b.full()) return from;
    Builder::State to = from;
    switch (e.kind) {
        case Expression::Kind::characters:
            to = b.state();
            emit_characters(b, from, e.characters, writing, to);
            return to;
        case Expression::Kind::sequence:
            for (const Expression& part : e.parts) to = emit(b, to, part, writing);
            return to;
        case Expression::Kind::choice:
            to = b.state();
            for (const Expression& part : e.parts) {
                const auto begin = b.state();
                b.skip(from, begin);
                b.skip(emit(b, begin, part, writing), to);
            }
            return to;
        case Expression::Kind::call:
            to = b.state();
            b.call(from, e.rule, to);
            return to;
        case Expression::Kind::repeat:
            break;
    }
    for (uint32_t i = 0; i < e.least && !b.full(); ++i) to = emit(b, to, e.parts[0], writing);
    const auto end = b.state();
    if (e.most == kNever) {
        const auto loop = b.state();
        b.skip(to, loop);
        b.skip(emit(b, loop, e.parts[0], writing), loop);
        b.skip(loop, end);
        return end;
    }
    b.skip(to, end);
    for (uint32_t i = e.least; i < e.most && !b.full(); ++i) {
        const auto begin = b.state();
        b.skip(to, begin);
        to = emit(b, begin, e.parts[0], writing);
        b.skip(to, end);
    }
    return end;
}

uint32_t read_character(std::string_view text, size_t& at) {
    const auto first = static_cast<uint8_t>(text[at]);
    const int size = first < 0x80   ? 1
                     : first < 0xC2 ? 0
                     : first < 0xE0 ? 2
                     : first < 0xF0 ? 3
                     : first < 0xF5 ? 4
                                    : 0;
    if (size == 0 || at + static_cast<size_t>(size) > text.size()) return kNever;
    uint32_t c = size == 1 ? first : first & (0x7Fu >> size);
    for (int i = 1; i < size; ++i) {
        const auto next = static_cast<uint8_t>(text[at + static_cast<size_t>(i)]);
        if ((next & 0xC0) != 0x80) return kNever;
        c = c << 6 | (next & 0x3F);
    }
    if ((c >= 0xD800 && c <= 0xDFFF) || c > kLast || (size == 3 && c < 0x800) ||
        (size == 4 && c < 0x10000))
        return kNever;
    at += static_cast<size_t>(size);
    return c;
}

}  // namespace parley::grammar
