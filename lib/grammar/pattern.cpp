#include <fmt/format.h>

#include "grammar/expression.hpp"

namespace parley::grammar {
namespace {

using base::Errc;
using base::Result;

constexpr uint32_t kRepeatMax = 10'000;

class Reader {
  public:
    Reader(std::string_view text, uint32_t nesting_max) : text_(text), nesting_left_(nesting_max) {}

    // Each alternative at the top has its own anchors.
    Result<Expression> whole() {
        Expression choice;
        choice.kind = Expression::Kind::choice;
        for (;;) {
            Expression one;
            const bool begins = take('^');
            if (!begins) one.parts.push_back(anything());
            auto body = sequence();
            if (!body) return body;
            one.parts.push_back(std::move(*body));
            if (!take('$')) one.parts.push_back(anything());
            choice.parts.push_back(std::move(one));
            if (at_ == text_.size()) return choice;
            if (!take('|')) return unexpected();
        }
    }

  private:
    static Expression anything() {
        return Expression::repeated(Expression::of(Characters().inverse()), 0, kNever);
    }
    bool more() const { return at_ < text_.size(); }
    bool take(char c) {
        if (!more() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    tl::unexpected<base::Error> unexpected() const {
        return base::fail(Errc::unsupported, more()
                                                 ? fmt::format("'{}' at byte {}", text_[at_], at_)
                                                 : std::string("it ends too early"));
    }

    Result<Expression> choices() {
        Expression choice;
        choice.kind = Expression::Kind::choice;
        do {
            auto part = sequence();
            if (!part) return part;
            choice.parts.push_back(std::move(*part));
        } while (take('|'));
        return choice;
    }

    Result<Expression> sequence() {
        Expression out;
        while (more() && text_[at_] != '|' && text_[at_] != ')' && text_[at_] != '$') {
            auto one = atom();
            if (!one) return one;
            auto repeated = repeats(std::move(*one));
            if (!repeated) return repeated;
            out.parts.push_back(std::move(*repeated));
        }
        return out;
    }

    bool number(uint32_t& value) {
        if (!more() || text_[at_] < '0' || text_[at_] > '9') return false;
        value = 0;
        while (more() && text_[at_] >= '0' && text_[at_] <= '9') {
            value = std::min(value * 10 + static_cast<uint32_t>(text_[at_] - '0'), kRepeatMax + 1);
            ++at_;
        }
        return true;
    }

    Result<Expression> repeats(Expression one) {
        uint32_t least = 0;
        uint32_t most = kNever;
        if (take('*')) {
        } else if (take('+')) {
            least = 1;
        } else if (take('?')) {
            most = 1;
        } else if (take('{')) {
            if (!number(least)) return unexpected();
            most = least;
            if (take(',')) {
                most = kNever;
                if (more() && text_[at_] != '}' && !number(most)) return unexpected();
            }
            if (!take('}')) return unexpected();
            if (least > kRepeatMax || (most != kNever && most > kRepeatMax))
                return base::fail(Errc::too_large,
                                  fmt::format("more than {} repetitions", kRepeatMax));
            if (most < least) return base::fail(Errc::invalid, "a repetition of nothing");
        } else {
            return one;
        }
        take('?');  // lazy: the same language
        if (more() && (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '{'))
            return unexpected();
        return Expression::repeated(std::move(one), least, most);
    }

    Result<Expression> atom() {
        const char c = text_[at_];
        if (c == '(') {
            if (nesting_left_ == 0) return base::fail(Errc::too_large, "groups nest too deep");
            ++at_;
            if (take('?') && !take(':')) return unexpected();
            --nesting_left_;
            auto inner = choices();
            ++nesting_left_;
            if (!inner) return inner;
            if (!take(')')) return unexpected();
            return inner;
        }
        if (c == '[') return bracket();
        if (c == '*' || c == '+' || c == '?' || c == '{' || c == '^' || c == ']' || c == '}')
            return unexpected();
        Characters set;
        if (c == '.') {
            ++at_;
            for (const uint32_t end : {0x0Au, 0x0Du, 0x2028u, 0x2029u}) set.add(end, end);
            return Expression::of(set.inverse());
        }
        uint32_t single = kNever;
        if (auto ok = member(set, single); !ok) return base::fail(ok.error());
        return Expression::of(std::move(set));
    }

    // One character or one class such as \d; `single` is the character, if it is one.
    Result<void> member(Characters& set, uint32_t& single) {
        single = kNever;
        if (!more()) return unexpected();
        if (text_[at_] != '\\') {
            single = read_character(text_, at_);
            if (single == kNever) return base::fail(Errc::invalid, "it is not UTF-8");
            set.add(single, single);
            return {};
        }
        ++at_;
        if (!more()) return unexpected();
        const char c = text_[at_];
        Characters named;
        switch (c) {
            case 'd':
            case 'D':
                named.add('0', '9');
                break;
            case 'w':
            case 'W':
                named.add('0', '9');
                named.add('A', 'Z');
                named.add('a', 'z');
                named.add('_', '_');
                break;
            case 's':
            case 'S':
                named.add(0x09, 0x0D);
                for (const uint32_t s :
                     {0x20u, 0xA0u, 0x1680u, 0x2028u, 0x2029u, 0x202Fu, 0x205Fu, 0x3000u, 0xFEFFu})
                    named.add(s, s);
                named.add(0x2000, 0x200A);
                break;
            case 'n':
                single = '\n';
                break;
            case 'r':
                single = '\r';
                break;
            case 't':
                single = '\t';
                break;
            case 'f':
                single = '\f';
                break;
            case 'v':
                single = '\v';
                break;
            case 'x':
            case 'u': {
                const size_t digits = c == 'x' ? 2 : 4;
                if (at_ + digits >= text_.size()) return unexpected();
                single = 0;
                for (size_t i = 1; i <= digits; ++i) {
                    const char h = text_[at_ + i];
                    const int v = h >= '0' && h <= '9'   ? h - '0'
                                  : h >= 'a' && h <= 'f' ? h - 'a' + 10
                                  : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                         : -1;
                    if (v < 0) return unexpected();
                    single = single * 16 + static_cast<uint32_t>(v);
                }
                if (single >= 0xD800 && single <= 0xDFFF)
                    return base::fail(Errc::unsupported, "a surrogate");
                at_ += digits;
                break;
            }
            default:
                if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    static_cast<uint8_t>(c) >= 0x80)
                    return unexpected();
                single = static_cast<uint8_t>(c);
        }
        ++at_;
        if (single != kNever)
            set.add(single, single);
        else
            set.add(c < 'a' ? named.inverse() : named);
        return {};
    }

    Result<Expression> bracket() {
        ++at_;
        const bool negated = take('^');
        Characters set;
        size_t members = 0;
        while (more() && text_[at_] != ']') {
            if (++members > 1000) return base::fail(Errc::too_large, "a class of over 1000 parts");
            uint32_t low = kNever;
            if (auto ok = member(set, low); !ok) return base::fail(ok.error());
            if (low == kNever || at_ + 1 >= text_.size() || text_[at_] != '-' ||
                text_[at_ + 1] == ']')
                continue;
            ++at_;
            uint32_t high = kNever;
            if (auto ok = member(set, high); !ok) return base::fail(ok.error());
            if (high == kNever || high < low)
                return base::fail(Errc::invalid, fmt::format("a range before byte {}", at_));
            set.add(low, high);
        }
        if (!take(']')) return unexpected();
        return Expression::of(negated ? set.inverse() : std::move(set));
    }

    std::string_view text_;
    size_t at_ = 0;
    uint32_t nesting_left_;
};

}  // namespace

Result<Expression> parse_pattern(std::string_view pattern, uint32_t nesting_max) {
    return Reader(pattern, nesting_max).whole();
}

}  // namespace parley::grammar
