#include "safety/spelling.hpp"

#include <algorithm>
#include <vector>

#include "safety/decode.hpp"
#include "safety/language.hpp"
#include "safety/segment.hpp"

namespace parley::safety {
namespace {

bool letter(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}
bool digit(unsigned char c) { return c >= '0' && c <= '9'; }
bool separator(char c) {
    return std::string_view(" .-_*|/,~+\n\t").find(c) != std::string_view::npos;
}

// Bytes of the character at `at` if it is one letter or sign of a word.
size_t single(std::string_view text, size_t at) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (separator(static_cast<char>(c)) || c < 33) return 0;
    size_t end = at;
    next_utf8(text, end);
    return end - at;
}

constexpr size_t kGapMax = 5;
constexpr size_t kSinglesMin = 4;
constexpr size_t kGaplessBytes = 14;

const char* leet_letters(char c) {
    switch (c) {
        case '0':
            return "o";
        case '1':
            return "il";
        case '2':
            return "z";
        case '3':
            return "e";
        case '4':
            return "a";
        case '5':
            return "s";
        case '6':
            return "g";
        case '7':
            return "t";
        case '8':
            return "b";
        case '9':
            return "g";
        case '@':
            return "a";
        case '$':
            return "s";
        case '!':
            return "i";
        case '|':
            return "il";
        case '+':
            return "t";
        default:
            return nullptr;
    }
}

struct Token {
    size_t at, end;
    uint32_t letters = 0, digits = 0, signs = 0;
};

bool mixed(const Token& t) { return t.letters > 0 && t.digits + t.signs > 0; }

void append_unleet(std::string_view word, std::string& out) {
    unsigned char previous = ' ';
    for (size_t i = 0; i < word.size(); ++i) {
        char c = word[i];
        if (const char* choices = leet_letters(c)) {
            const auto next = i + 1 < word.size() ? static_cast<unsigned char>(word[i + 1]) : ' ';
            const char* after = leet_letters(static_cast<char>(next));
            const auto follow = after ? static_cast<unsigned char>(after[0]) : next;
            int best = 1 << 20;
            for (const char* p = choices; *p; ++p) {
                const auto candidate = static_cast<unsigned char>(*p);
                // The first choice is the usual one: another has to be better by a bit and a half.
                const int cost = pair_cost(previous, candidate) + pair_cost(candidate, follow) +
                                 (p == choices ? 0 : 3);
                if (cost < best) {
                    best = cost;
                    c = *p;
                }
            }
        }
        out += c;
        previous = static_cast<unsigned char>(c);
    }
}

}  // namespace

std::string join_spaced(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    std::string joined;
    for (size_t at = 0; at < text.size();) {
        const bool starts =
            at == 0 || separator(text[at - 1]) || static_cast<unsigned char>(text[at - 1]) < 33;
        size_t size = starts ? single(text, at) : 0;
        if (size == 0) {
            size_t end = at;
            next_utf8(text, end);
            out.append(text.substr(at, end - at));
            at = end;
            continue;
        }
        joined.assign(text.substr(at, size));
        size_t singles = 1, end = at + size;
        char inside = 0;
        bool wide_gap = false;
        while (end < text.size()) {
            size_t gap = end;
            while (gap < text.size() && gap - end < kGapMax && separator(text[gap])) ++gap;
            if (gap == end || gap >= text.size()) break;
            const size_t next = single(text, gap);
            if (next == 0) break;
            const size_t behind = gap + next;
            if (behind < text.size() && !separator(text[behind])) {
                // A closing mark ("b o m b?") may follow the last letter.
                const char mark = text[behind];
                const bool closes =
                    mark == '?' || mark == '!' || mark == '"' || mark == '\'' || mark == ')';
                if (!closes || (behind + 1 < text.size() && !separator(text[behind + 1]))) break;
            }
            if (inside == 0) inside = text[end];
            const bool within = gap - end == 1 && text[end] == inside;
            if (!within) {
                const std::string_view between = text.substr(end, gap - end);
                wide_gap |= std::all_of(between.begin(), between.end(), [&](char c) {
                    return c == ' ' || c == '\n' || c == '\t' || c == inside;
                });
                for (char c : between)
                    if (c != ' ' && c != inside) joined += c;
                if (joined.back() != '\n') joined += ' ';
            }
            joined.append(text.substr(gap, next));
            ++singles;
            end = behind;
        }
        if (singles >= kSinglesMin) {
            // Without a wider gap in a long run the gaps between words are lost: find them again.
            const bool gapless = joined.size() >= kGaplessBytes && !wide_gap;
            out += gapless ? segment(unleet(joined)) : joined;
            at = end;
        } else {
            // Not a run: its first character is passed, the rest is looked at again (at most 3 times).
            out.append(text.substr(at, size));
            at += size;
        }
    }
    return out;
}

std::string unleet(std::string_view text) {
    std::vector<Token> tokens;
    for (size_t at = 0; at < text.size();) {
        auto member = [&](size_t i) {
            const auto c = static_cast<unsigned char>(text[i]);
            return letter(c) || leet_letters(static_cast<char>(c)) != nullptr;
        };
        if (!member(at)) {
            ++at;
            continue;
        }
        Token t{at, at};
        while (t.end < text.size() && member(t.end)) ++t.end;
        const size_t behind = t.end;
        // Signs at the end are punctuation, unless doubled inside a word as in "a$$".
        while (t.end > t.at &&
               (text[t.end - 1] == '!' || text[t.end - 1] == '|' || text[t.end - 1] == '+'))
            --t.end;
        while (t.at < t.end && (text[t.at] == '|' || text[t.at] == '+')) ++t.at;
        for (size_t i = t.at; i < t.end; ++i) {
            const auto c = static_cast<unsigned char>(text[i]);
            letter(c) ? ++t.letters : digit(c) ? ++t.digits : ++t.signs;
        }
        if (t.end > t.at) tokens.push_back(t);
        at = behind;
    }
    size_t mixed_count = 0;
    for (const Token& t : tokens) mixed_count += mixed(t);
    const bool full = mixed_count >= 2 && mixed_count * 4 >= tokens.size();
    std::string out;
    out.reserve(text.size());
    size_t done = 0;
    for (const Token& t : tokens) {
        if (!mixed(t) && !(full && t.letters == 0)) continue;
        out.append(text.substr(done, t.at - done));
        append_unleet(text.substr(t.at, t.end - t.at), out);
        done = t.end;
    }
    out.append(text.substr(done));
    return out;
}

std::string unrepeat(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const char c = text[at];
        size_t end = at + 1;
        while (end < text.size() && text[end] == c) ++end;
        size_t keep = end - at;
        if (keep >= 3 && letter(static_cast<unsigned char>(c)) &&
            static_cast<unsigned char>(c) < 128) {
            constexpr std::string_view kDoubled = "elostfprnmcdgb";
            keep =
                kDoubled.find(static_cast<char>(c | 32)) != std::string_view::npos &&
                        pair_cost(static_cast<unsigned char>(c), static_cast<unsigned char>(c)) <= 9
                    ? 2
                    : 1;
        }
        out.append(keep, c);
        at = end;
    }
    return out;
}

}  // namespace parley::safety
