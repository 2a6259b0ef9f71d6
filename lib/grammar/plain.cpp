#include "grammar/plain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "grammar/expression.hpp"

namespace parley::grammar {
namespace {

using base::Errc;
using base::Result;

constexpr uint32_t kRepeatMax = 10'000;

class Reader {
  public:
    Reader(std::string_view text, const Limits& limits)
        : text_(text), builder_(limits), nesting_left_(limits.nesting_max) {}

    Result<Automaton> compile() {
        blanks();
        while (more()) {
            const std::string name = word();
            if (name.empty() || !defines()) return wrong("a rule 'name ::=' was expected");
            const Builder::Rule rule = rule_of(name);
            if (builder_.defined(rule)) return wrong(fmt::format("'{}' is defined twice", name));
            auto body = choices();
            if (!body) return base::fail(body.error());
            const auto start = builder_.state();
            builder_.define(rule, start, emit(builder_, start, *body, Writing::plain));
            if (auto ok = builder_.check(); !ok) return base::fail(ok.error());
        }
        const auto root = rules_.find("root");
        if (root == rules_.end()) return base::fail(Errc::invalid, "there is no rule 'root'");
        return builder_.build(root->second);
    }

  private:
    bool more() const { return at_ < text_.size(); }
    bool take(char c) {
        if (!more() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    tl::unexpected<base::Error> wrong(std::string what) const {
        const auto line =
            1 + std::count(text_.begin(),
                           text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size())),
                           '\n');
        return base::fail(Errc::invalid, fmt::format("line {}: {}", line, what));
    }
    void blanks() {
        while (more()) {
            const char c = text_[at_];
            if (c == '#')
                while (more() && text_[at_] != '\n') ++at_;
            else if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
                ++at_;
            else
                return;
        }
    }
    static bool is_word(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
    }
    std::string word() {
        const size_t from = at_;
        while (more() && is_word(text_[at_])) ++at_;
        return std::string(text_.substr(from, at_ - from));
    }
    bool defines() {
        blanks();
        if (text_.substr(at_, 3) != "::=") return false;
        at_ += 3;
        blanks();
        return true;
    }
    Builder::Rule rule_of(const std::string& name) {
        const auto found = rules_.find(name);
        if (found != rules_.end()) return found->second;
        return rules_[name] = builder_.rule(name);
    }

    Result<Expression> choices() {
        Expression choice;
        choice.kind = Expression::Kind::choice;
        do {
            blanks();
            auto part = sequence();
            if (!part) return part;
            choice.parts.push_back(std::move(*part));
        } while (take('|'));
        return choice;
    }

    Result<Expression> sequence() {
        Expression out;
        while (more() && text_[at_] != '|' && text_[at_] != ')') {
            const size_t from = at_;
            if (is_word(text_[at_])) {  // the next rule, perhaps
                (void)word();
                const bool next = defines();
                at_ = from;
                if (next) break;
            }
            auto one = atom();
            if (!one) return one;
            auto repeated = repeats(std::move(*one));
            if (!repeated) return repeated;
            out.parts.push_back(std::move(*repeated));
            blanks();
        }
        return out;
    }

    bool number(uint32_t& value) {
        if (!more() || text_[at_] < '0' || text_[at_] > '9') return false;
        value = 0;
        while (more() && text_[at_] >= '0' && text_[at_] <= '9')
            value =
                std::min(value * 10 + static_cast<uint32_t>(text_[at_++] - '0'), kRepeatMax + 1);
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
            if (!number(least)) return wrong("a count was expected");
            most = least;
            if (take(',')) {
                most = kNever;
                if (more() && text_[at_] != '}' && !number(most))
                    return wrong("a count was expected");
            }
            if (!take('}')) return wrong("'}' was expected");
            if (least > kRepeatMax || (most != kNever && most > kRepeatMax))
                return wrong(fmt::format("more than {} repetitions", kRepeatMax));
            if (most < least) return wrong("a repetition of nothing");
        } else {
            return one;
        }
        return Expression::repeated(std::move(one), least, most);
    }

    Result<Expression> atom() {
        const char c = text_[at_];
        if (is_word(c)) {
            Expression call;
            call.kind = Expression::Kind::call;
            call.rule = rule_of(word());
            return call;
        }
        ++at_;
        if (c == '.') return Expression::of(Characters().inverse());
        if (c == '(') {
            if (nesting_left_ == 0) return wrong("groups nest too deep");
            --nesting_left_;
            auto inner = choices();
            ++nesting_left_;
            if (!inner) return inner;
            if (!take(')')) return wrong("')' was expected");
            return inner;
        }
        if (c == '"' || c == '\'') {
            Expression out;
            while (more() && text_[at_] != c) {
                auto one = character();
                if (!one) return base::fail(one.error());
                Characters set;
                set.add(*one, *one);
                out.parts.push_back(Expression::of(std::move(set)));
            }
            if (!take(c)) return wrong("a text without an end");
            return out;
        }
        if (c == '[') {
            const bool negated = take('^');
            Characters set;
            size_t members = 0;
            while (more() && text_[at_] != ']') {
                if (++members > 1000) return wrong("a class of over 1000 parts");
                auto low = character();
                if (!low) return base::fail(low.error());
                uint32_t high = *low;
                if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
                    ++at_;
                    auto end = character();
                    if (!end) return base::fail(end.error());
                    high = *end;
                    if (high < *low) return wrong("a range that runs backwards");
                }
                set.add(*low, high);
            }
            if (!take(']')) return wrong("']' was expected");
            return Expression::of(negated ? set.inverse() : std::move(set));
        }
        --at_;
        return wrong(fmt::format("'{}' was not expected", c));
    }

    Result<uint32_t> character() {
        if (text_[at_] != '\\') {
            const uint32_t c = read_character(text_, at_);
            if (c == kNever) return wrong("it is not UTF-8");
            return c;
        }
        ++at_;
        if (!more()) return wrong("a '\\' at the end");
        const char c = text_[at_++];
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        if (digits == 0) {
            if (c == 'n') return '\n';
            if (c == 'r') return '\r';
            if (c == 't') return '\t';
            if (std::string_view("\\\"'[]-^").find(c) != std::string_view::npos)
                return static_cast<uint8_t>(c);
            return wrong(fmt::format("'\\{}' is not known", c));
        }
        uint32_t value = 0;
        for (size_t i = 0; i < digits; ++i, ++at_) {
            const char h = more() ? text_[at_] : ' ';
            const int v = h >= '0' && h <= '9'   ? h - '0'
                          : h >= 'a' && h <= 'f' ? h - 'a' + 10
                          : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                 : -1;
            if (v < 0) return wrong("a hexadecimal digit was expected");
            value = value * 16 + static_cast<uint32_t>(v);
        }
        if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
            return wrong("that is no character");
        return value;
    }

    std::string_view text_;
    size_t at_ = 0;
    Builder builder_;
    uint32_t nesting_left_;
    std::map<std::string, Builder::Rule> rules_;
};

}  // namespace

Result<Automaton> compile_plain(std::string_view text, const Limits& limits) {
    if (text.size() > limits.source_bytes_max)
        return base::fail(Errc::too_large, fmt::format("a grammar of {} bytes; at most {} are read",
                                                       text.size(), limits.source_bytes_max));
    return Reader(text, limits).compile();
}

}  // namespace parley::grammar
