#include "grammar/json_parts.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "grammar/expression.hpp"

namespace parley::grammar {
namespace {

constexpr int64_t kWholeMost = 999'999'999'999'999;
constexpr int kFractionDigits = 15;

}  // namespace

std::string json_quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        switch (c) {
            case '"':
                out += "\\\"";
                break;
            case '\\':
                out += "\\\\";
                break;
            case '\n':
                out += "\\n";
                break;
            case '\r':
                out += "\\r";
                break;
            case '\t':
                out += "\\t";
                break;
            case '\b':
                out += "\\b";
                break;
            case '\f':
                out += "\\f";
                break;
            default:
                if (static_cast<uint8_t>(c) < 0x20)
                    out += fmt::format("\\u{:04x}", static_cast<uint8_t>(c));
                else
                    out += c;
        }
    }
    return out + '"';
}

Builder::State JsonParts::separator(State from, char c) {
    const State after = b_.text(from, {&c, 1});
    if (spaces_) {
        const State spaced = b_.text(after, " ");
        b_.skip(after, spaced);
        return spaced;
    }
    return after;
}

// ASCII as it stands.
void JsonParts::plain_bytes(State from, State to) {
    b_.bytes(from, 0x20, 0x21, to);
    b_.bytes(from, 0x23, 0x5B, to);
    b_.bytes(from, 0x5D, 0x7F, to);
}

// The other characters: beyond ASCII, and escapes.
void JsonParts::wide(State from, State to) {
    Characters set;
    set.add(0x80, 0x10FFFF);
    emit_characters(b_, from, set, Writing::plain, to);
    const State escape = b_.text(from, "\\");
    for (const char c : std::string_view("\"\\/bfnrt")) {
        const auto byte = static_cast<uint8_t>(c);
        b_.bytes(escape, byte, byte, to);
    }
    const auto hex = [&](State at, State next) {
        b_.bytes(at, '0', '9', next);
        b_.bytes(at, 'a', 'f', next);
        b_.bytes(at, 'A', 'F', next);
    };
    // uXXXX but D800-DFFF; or D8-DB XX \u DC-DF XX.
    const State u = b_.text(escape, "u");
    const State h3 = b_.state(), h2 = b_.state(), h1 = b_.state(), d = b_.state();
    b_.bytes(u, '0', '9', h3);
    b_.bytes(u, 'a', 'c', h3);
    b_.bytes(u, 'A', 'C', h3);
    b_.bytes(u, 'e', 'f', h3);
    b_.bytes(u, 'E', 'F', h3);
    hex(h3, h2);
    hex(h2, h1);
    hex(h1, to);
    b_.bytes(u, 'd', 'd', d);
    b_.bytes(u, 'D', 'D', d);
    b_.bytes(d, '0', '7', h2);
    const State p2 = b_.state(), p1 = b_.state(), p0 = b_.state(), low = b_.state();
    b_.bytes(d, '8', '9', p2);
    b_.bytes(d, 'a', 'b', p2);
    b_.bytes(d, 'A', 'B', p2);
    hex(p2, p1);
    hex(p1, p0);
    const State u2 = b_.text(p0, "\\u");
    b_.bytes(u2, 'd', 'd', low);
    b_.bytes(u2, 'D', 'D', low);
    const State low2 = b_.state();
    b_.bytes(low, 'c', 'f', low2);
    b_.bytes(low, 'C', 'F', low2);
    hex(low2, h1);
}

Builder::Rule JsonParts::wide_rule() {
    if (!wide_) {
        wide_ = b_.rule("character");
        const State start = b_.state(), end = b_.state();
        wide(start, end);
        b_.define(*wide_, start, end);
    }
    return *wide_;
}

Builder::Rule JsonParts::string(uint32_t least, uint32_t most) {
    const auto found = strings_.find({least, most});
    if (found != strings_.end()) return found->second;
    const auto rule = b_.rule("string");
    const State start = b_.state(), end = b_.state();
    State at = b_.text(start, "\"");
    const uint32_t before = b_.new_tag(), within = b_.new_tag();
    for (uint32_t k = 0; !b_.full(); ++k) {
        if (k >= least) b_.bytes(at, '"', '"', end);
        if (k == most) break;
        const bool loops = k == least && most == kNever;
        const State next = loops ? at : b_.state();
        plain_bytes(at, next);
        // Inline where there is but one copy; a call costs a frame.
        if (loops)
            wide(at, at);
        else
            b_.call(at, wide_rule(), next);
        if (loops) break;
        if (k + kTokenBytesMax < least) b_.alike(at, before);
        if (k >= least && most - k >= kTokenBytesMax) b_.alike(at, within);
        at = next;
    }
    b_.define(rule, start, end);
    return strings_[{least, most}] = rule;
}

// Both ends have the same count of digits.
void JsonParts::same_length(State from, std::string_view low, std::string_view high, State to) {
    if (low.empty()) return b_.skip(from, to);
    const auto all = [](std::string_view text, char c) {
        return std::all_of(text.begin(), text.end(), [c](char x) { return x == c; });
    };
    const auto branch = [&](char first, char last, std::string_view l, std::string_view h) {
        const State next = b_.state();
        b_.bytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), next);
        same_length(next, l, h, to);
    };
    const std::string_view l = low.substr(1), h = high.substr(1);
    const std::string zeros(l.size(), '0'), nines(l.size(), '9');
    if (low[0] == high[0]) return branch(low[0], low[0], l, h);
    char first = low[0], last = high[0];
    if (!all(l, '0')) branch(first++, low[0], l, nines);
    if (!all(h, '9')) branch(last--, high[0], zeros, h);
    if (first <= last) branch(first, last, zeros, nines);
}

void JsonParts::digits(State from, uint64_t low, uint64_t high, State to) {
    for (uint64_t least = low; least <= high;) {
        const std::string l = std::to_string(least);
        const std::string most(l.size(), '9');
        const uint64_t h = std::min<uint64_t>(std::stoull(most), high);
        same_length(from, l, std::to_string(h), to);
        least = h + 1;
    }
}

void JsonParts::fraction(State from, bool positive, State to) {
    State zeros = b_.text(from, ".");  // only zeros so far
    State any = kNever;
    for (int i = 0; i < kFractionDigits; ++i) {
        const State next_any = b_.state(), next_zeros = b_.state();
        if (any != kNever) b_.bytes(any, '0', '9', next_any);
        b_.bytes(zeros, '1', '9', next_any);
        b_.bytes(zeros, '0', '0', next_zeros);
        b_.skip(next_any, to);
        if (!positive) b_.skip(next_zeros, to);
        any = next_any;
        zeros = next_zeros;
    }
}

// Numbers without a sign within bounds ≥ 0.
bool JsonParts::magnitude(State from, Bound low, Bound high, State to) {
    if (low.value > high.value) return false;
    bool some = false;
    const int64_t first = low.value + (low.exclusive ? 1 : 0);
    if (first <= high.value - 1) {
        const State whole = b_.state();
        digits(from, static_cast<uint64_t>(first), static_cast<uint64_t>(high.value - 1), whole);
        b_.skip(whole, to);
        fraction(whole, false, to);
        some = true;
    }
    if (low.exclusive && low.value < high.value) {
        const State whole = b_.state();
        digits(from, static_cast<uint64_t>(low.value), static_cast<uint64_t>(low.value), whole);
        fraction(whole, true, to);
        some = true;
    }
    if (!high.exclusive && first <= high.value) {
        digits(from, static_cast<uint64_t>(high.value), static_cast<uint64_t>(high.value), to);
        some = true;
    }
    return some;
}

std::optional<Builder::Rule> JsonParts::integer(std::optional<int64_t> low,
                                                std::optional<int64_t> high) {
    const bool any = !low && !high;
    if (any && any_integer_) return *any_integer_;
    const int64_t l = std::clamp(low.value_or(-kWholeMost), -kWholeMost, kWholeMost);
    const int64_t h = std::clamp(high.value_or(kWholeMost), -kWholeMost, kWholeMost);
    if (l > h || (low && *low > kWholeMost) || (high && *high < -kWholeMost)) return std::nullopt;
    const auto rule = b_.rule("integer");
    const State start = b_.state(), end = b_.state();
    if (h >= 0)
        digits(start, static_cast<uint64_t>(std::max<int64_t>(l, 0)), static_cast<uint64_t>(h),
               end);
    if (l < 0)
        digits(b_.text(start, "-"), static_cast<uint64_t>(std::max<int64_t>(1, -h)),
               static_cast<uint64_t>(-l), end);
    b_.define(rule, start, end);
    if (any) any_integer_ = rule;
    return rule;
}

std::optional<Builder::Rule> JsonParts::number(std::optional<Bound> low,
                                               std::optional<Bound> high) {
    const bool any = !low && !high;
    if (any && any_number_) return *any_number_;
    const State start = b_.state(), end = b_.state();
    bool some = true;
    if (any) {
        const State sign = b_.text(start, "-");
        b_.skip(start, sign);
        const State whole = b_.state(), mantissa = b_.state();
        digits(sign, 0, static_cast<uint64_t>(kWholeMost), whole);
        b_.skip(whole, mantissa);
        fraction(whole, false, mantissa);
        b_.skip(mantissa, end);
        const State e = b_.state(), e1 = b_.state(), e2 = b_.state(), e3 = b_.state();
        b_.bytes(mantissa, 'e', 'e', e);
        b_.bytes(mantissa, 'E', 'E', e);
        b_.bytes(e, '+', '+', e1);
        b_.bytes(e, '-', '-', e1);
        b_.skip(e, e1);
        b_.bytes(e1, '0', '9', e2);
        b_.bytes(e2, '0', '9', e3);
        b_.skip(e2, end);
        b_.skip(e3, end);
    } else {
        const Bound l = low.value_or(Bound{-kWholeMost, false});
        const Bound h = high.value_or(Bound{kWholeMost, false});
        some = l.value >= -kWholeMost && h.value <= kWholeMost;
        bool positive = false, negative = false;
        if (some && h.value >= 0)
            positive = magnitude(start, l.value < 0 ? Bound{0, false} : l, h, end);
        if (some && l.value < 0)
            negative = magnitude(b_.text(start, "-"),
                                 h.value >= 0 ? Bound{0, true} : Bound{-h.value, h.exclusive},
                                 Bound{-l.value, l.exclusive}, end);
        some = positive || negative;
    }
    if (!some) return std::nullopt;
    const auto rule = b_.rule("number");
    b_.define(rule, start, end);
    if (any) any_number_ = rule;
    return rule;
}

Builder::Rule JsonParts::literals(std::string name, const std::vector<std::string>& texts) {
    const auto rule = b_.rule(std::move(name));
    const State start = b_.state(), end = b_.state();
    for (const std::string& text : texts) b_.skip(b_.text(start, text), end);
    b_.define(rule, start, end);
    return rule;
}

Builder::Rule JsonParts::any() {
    if (any_) return *any_;
    any_ = b_.rule("value");
    const State start = b_.state(), end = b_.state();
    const auto text = string(0, kNever);
    b_.call(start, text, end);
    b_.call(start, *number({}, {}), end);
    for (const char* word : {"true", "false", "null", "[]", "{}"})
        b_.skip(b_.text(start, word), end);
    State item = b_.text(start, "["), after = b_.state();
    b_.call(item, *any_, after);
    b_.skip(separator(after, ','), item);
    b_.skip(b_.text(after, "]"), end);
    const State key = b_.text(start, "{"), colon = b_.state();
    after = b_.state();
    b_.call(key, text, colon);
    b_.call(separator(colon, ':'), *any_, after);
    b_.skip(separator(after, ','), key);
    b_.skip(b_.text(after, "}"), end);
    b_.define(*any_, start, end);
    return *any_;
}

Builder::Rule JsonParts::other_key(const std::vector<std::string>& names) {
    struct Node {
        std::map<uint32_t, size_t> next;
        bool name = false;
    };
    std::vector<Node> tree(1);
    for (const std::string& name : names) {
        size_t node = 0;
        for (size_t i = 0; i < name.size();) {
            const uint32_t c = read_character(name, i);
            if (c == kNever) break;  // not to be had from a parsed schema
            auto [it, fresh] = tree[node].next.emplace(c, tree.size());
            node = it->second;
            if (fresh) tree.emplace_back();
        }
        tree[node].name = true;
    }
    const auto rule = b_.rule("key");
    const State start = b_.state(), end = b_.state(), rest = b_.state();
    const auto characters = [](const Node& but) {
        Characters out;
        out.add(0, 0x1F);
        out.add('"', '"');
        out.add('\\', '\\');
        for (const auto& [c, node] : but.next) out.add(c, c);
        return out.inverse();
    };
    emit_characters(b_, rest, characters({}), Writing::plain, rest);
    b_.bytes(rest, '"', '"', end);
    std::vector<State> states{b_.text(start, "\"")};
    for (size_t n = 1; n < tree.size() && !b_.full(); ++n) states.push_back(b_.state());
    for (size_t n = 0; n < tree.size() && !b_.full(); ++n) {
        emit_characters(b_, states[n], characters(tree[n]), Writing::plain, rest);
        if (!tree[n].name) b_.bytes(states[n], '"', '"', end);
        for (const auto& [c, node] : tree[n].next) {
            if (c < 0x20 || c == '"' || c == '\\') continue;  // only an escape could write it
            Characters one;
            one.add(c, c);
            emit_characters(b_, states[n], one, Writing::plain, states[node]);
        }
    }
    b_.define(rule, start, end);
    return rule;
}

}  // namespace parley::grammar
