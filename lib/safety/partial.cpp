#include "safety/partial.hpp"

#include <fmt/format.h>

#include <cctype>
#include <memory>
#include <vector>

namespace parley::safety {
namespace {

struct Node {
    enum class Kind { cat, alt, group, repeat, atom, assertion } kind = Kind::cat;
    std::string text;  // atom, assertion: itself; group: its opening; repeat: the quantifier
    int most = -1;     // repeat: -1 without bound
    std::vector<std::unique_ptr<Node>> parts;
};
using NodePtr = std::unique_ptr<Node>;

NodePtr make(Node::Kind kind, std::string text = {}) {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->text = std::move(text);
    return node;
}

class Parser {
  public:
    explicit Parser(std::string_view pattern) : p_(pattern) {}

    base::Result<NodePtr> parse() {
        NodePtr node = alternation(0);
        if (!error_.empty()) return base::fail(code_, error_);
        if (at_ != p_.size()) return base::fail(base::Errc::invalid, "unexpected ')'");
        return node;
    }

  private:
    static constexpr int kDepthMax = 32;

    void stop(base::Errc code, std::string what) {
        if (error_.empty()) {
            code_ = code;
            error_ = std::move(what);
        }
        at_ = p_.size();
    }
    bool more() const { return at_ < p_.size(); }

    NodePtr alternation(int depth) {
        NodePtr alt = make(Node::Kind::alt);
        if (depth > kDepthMax) {
            stop(base::Errc::unsupported, "groups nested more than 32 deep");
            return alt;
        }
        alt->parts.push_back(concatenation(depth));
        while (more() && p_[at_] == '|') {
            ++at_;
            alt->parts.push_back(concatenation(depth));
        }
        return alt;
    }

    NodePtr concatenation(int depth) {
        NodePtr cat = make(Node::Kind::cat);
        while (more() && p_[at_] != '|' && p_[at_] != ')') {
            if (p_.substr(at_, 2) == "(?" && flags_only()) {
                // "(?i)" holds to the end of its group: the rest becomes a group with that flag.
                const size_t close = p_.find(')', at_);
                NodePtr group =
                    make(Node::Kind::group, std::string(p_.substr(at_, close - at_)) + ":");
                at_ = close + 1;
                group->parts.push_back(alternation(depth + 1));
                cat->parts.push_back(std::move(group));
                return cat;
            }
            NodePtr part = atom(depth);
            if (!error_.empty()) return cat;
            while (more() && quantifier(part)) {
            }
            cat->parts.push_back(std::move(part));
        }
        return cat;
    }

    bool flags_only() const {
        size_t i = at_ + 2;
        while (i < p_.size() && (std::isalpha(static_cast<unsigned char>(p_[i])) || p_[i] == '-'))
            ++i;
        return i > at_ + 2 && i < p_.size() && p_[i] == ')' && p_[at_ + 2] != 'P';
    }

    NodePtr atom(int depth) {
        const char c = p_[at_];
        if (c == '(') return group(depth);
        if (c == '[') return char_class();
        if (c == '\\') return escape();
        if (c == '^' || c == '$') {
            ++at_;
            return make(Node::Kind::assertion, std::string(1, c));
        }
        if (c == '*' || c == '+' || c == '?') {
            stop(base::Errc::invalid, fmt::format("nothing to repeat before '{}'", c));
            return make(Node::Kind::atom);
        }
        size_t size = 1;
        while (at_ + size < p_.size() &&
               (static_cast<unsigned char>(p_[at_ + size]) & 0xC0) == 0x80)
            ++size;
        NodePtr node = make(Node::Kind::atom, std::string(p_.substr(at_, size)));
        at_ += size;
        return node;
    }

    NodePtr group(int depth) {
        std::string opening = "(?:";
        ++at_;
        if (more() && p_[at_] == '?') {
            const size_t colon = p_.find_first_of(":>)", at_);
            if (colon == std::string_view::npos || p_[colon] == ')') {
                stop(base::Errc::unsupported, "a group of this kind");
                return make(Node::Kind::group);
            }
            const std::string_view flags = p_.substr(at_ + 1, colon - at_ - 1);
            if (p_[colon] == ':') {
                for (char f : flags)
                    if (std::string_view("imsU-").find(f) == std::string_view::npos) {
                        stop(base::Errc::unsupported, "a group of this kind");
                        return make(Node::Kind::group);
                    }
                opening = fmt::format("(?{}:", flags);
            } else if (flags.substr(0, 2) != "P<") {  // a named group is a group
                stop(base::Errc::unsupported, "a group of this kind");
                return make(Node::Kind::group);
            }
            at_ = colon + 1;
        }
        NodePtr node = make(Node::Kind::group, opening);
        node->parts.push_back(alternation(depth + 1));
        if (!error_.empty()) return node;
        if (!more()) {
            stop(base::Errc::invalid, "missing ')'");
            return node;
        }
        ++at_;
        return node;
    }

    NodePtr char_class() {
        const size_t from = at_++;
        if (more() && p_[at_] == '^') ++at_;
        if (more() && p_[at_] == ']') ++at_;
        while (more() && p_[at_] != ']') {
            if (p_[at_] == '\\') {
                at_ += 2;
            } else if (p_.substr(at_, 2) == "[:") {
                const size_t end = p_.find(":]", at_);
                at_ = end == std::string_view::npos ? at_ + 1 : end + 2;
            } else {
                ++at_;
            }
        }
        if (!more()) {
            stop(base::Errc::invalid, "missing ']'");
            return make(Node::Kind::atom);
        }
        ++at_;
        return make(Node::Kind::atom, std::string(p_.substr(from, at_ - from)));
    }

    NodePtr escape() {
        const size_t from = at_++;
        if (!more()) {
            stop(base::Errc::invalid, "a '\\' at the end");
            return make(Node::Kind::atom);
        }
        const char c = p_[at_++];
        if (c == 'b' || c == 'B' || c == 'A' || c == 'z')
            return make(Node::Kind::assertion, std::string(p_.substr(from, 2)));
        if (c == 'Q' || c == 'E' || c == 'C') {
            stop(base::Errc::unsupported, fmt::format("'\\{}'", c));
            return make(Node::Kind::atom);
        }
        if ((c == 'x' || c == 'p' || c == 'P') && more()) {
            if (p_[at_] == '{') {
                const size_t close = p_.find('}', at_);
                at_ = close == std::string_view::npos ? p_.size() : close + 1;
            } else {
                at_ = std::min(p_.size(), at_ + (c == 'x' ? 2 : 1));
            }
        } else if (c >= '0' && c <= '7') {
            for (int i = 0; i < 2 && more() && p_[at_] >= '0' && p_[at_] <= '7'; ++i) ++at_;
        }
        return make(Node::Kind::atom, std::string(p_.substr(from, at_ - from)));
    }

    // Wraps `part` in a repeat if a quantifier stands here.
    bool quantifier(NodePtr& part) {
        const size_t from = at_;
        int most = -1;
        const char c = p_[at_];
        if (c == '*' || c == '+') {
            ++at_;
        } else if (c == '?') {
            most = 1;
            ++at_;
        } else if (c == '{') {
            size_t i = at_ + 1;
            auto number = [&]() {
                int value = -1;
                while (i < p_.size() && p_[i] >= '0' && p_[i] <= '9' && value < 100'000)
                    value = std::max(0, value) * 10 + (p_[i++] - '0');
                return value;
            };
            const int least = number();
            if (least < 0) {
                // A '{' that opens no count is a plain character to RE2.
                return false;
            }
            most = least;
            if (i < p_.size() && p_[i] == ',') {
                ++i;
                most = number();
            }
            if (i >= p_.size() || p_[i] != '}') return false;
            at_ = i + 1;
        } else {
            return false;
        }
        if (more() && p_[at_] == '?') ++at_;
        NodePtr repeat = make(Node::Kind::repeat, std::string(p_.substr(from, at_ - from)));
        repeat->most = most;
        repeat->parts.push_back(std::move(part));
        part = std::move(repeat);
        return true;
    }

    std::string_view p_;
    size_t at_ = 0;
    base::Errc code_ = base::Errc::invalid;
    std::string error_;
};

std::string whole(const Node& node) {
    switch (node.kind) {
        case Node::Kind::atom:
        case Node::Kind::assertion:
            return node.text;
        case Node::Kind::group:
            return node.text + whole(*node.parts[0]) + ")";
        case Node::Kind::repeat:
            return "(?:" + whole(*node.parts[0]) + ")" + node.text;
        case Node::Kind::cat: {
            std::string out;
            for (const NodePtr& part : node.parts) out += whole(*part);
            return out;
        }
        case Node::Kind::alt: {
            std::string out;
            for (size_t i = 0; i < node.parts.size(); ++i) {
                if (i > 0) out += '|';
                out += whole(*node.parts[i]);
            }
            return out;
        }
    }
    return {};
}

std::string beginnings(const Node& node) {
    switch (node.kind) {
        case Node::Kind::atom:
            return "(?:" + node.text + ")?";
        case Node::Kind::assertion:
            return "";
        case Node::Kind::group:
            return node.text + beginnings(*node.parts[0]) + ")";
        case Node::Kind::repeat: {
            if (node.most == 0) return "";
            const std::string once = "(?:" + whole(*node.parts[0]) + ")";
            std::string before;
            if (node.most < 0)
                before = once + "*";
            else if (node.most > 1)
                before = fmt::format("{}{{0,{}}}", once, node.most - 1);
            return before + "(?:" + beginnings(*node.parts[0]) + ")";
        }
        case Node::Kind::cat: {
            std::string out;
            size_t open = 0;
            for (const NodePtr& part : node.parts) {
                out += "(?:" + beginnings(*part) + "|" + whole(*part);
                ++open;
            }
            out.append(open, ')');
            return out;
        }
        case Node::Kind::alt: {
            std::string out;
            for (size_t i = 0; i < node.parts.size(); ++i) {
                if (i > 0) out += '|';
                out += beginnings(*node.parts[i]);
            }
            return out;
        }
    }
    return {};
}

}  // namespace

base::Result<std::string> partial_pattern(std::string_view pattern) {
    auto node = Parser(pattern).parse();
    if (!node) return base::fail(node.error());
    return beginnings(**node);
}

}  // namespace parley::safety
