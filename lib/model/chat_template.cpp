#include "model/chat_template.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";

bool has(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

std::string_view role_name(Role role) {
    switch (role) {
        case Role::system:
            return "system";
        case Role::user:
            return "user";
        case Role::assistant:
            break;
    }
    return "assistant";
}

// The string literal of a Jinja text whose first content byte is at `start`, escapes resolved;
// empty if it has no end.
std::string literal(std::string_view jinja, size_t start, char quote) {
    std::string out;
    for (size_t i = start; i < jinja.size(); ++i) {
        if (jinja[i] == quote) return out;
        if (jinja[i] == '\\' && i + 1 < jinja.size()) {
            ++i;
            switch (jinja[i]) {
                case 'n':
                    out += '\n';
                    break;
                case 't':
                    out += '\t';
                    break;
                case 'r':
                    out += '\r';
                    break;
                default:
                    out += jinja[i];
            }
        } else {
            out += jinja[i];
        }
    }
    return {};
}

// The text of the system turn that a ChatML template writes by itself: the first literal that holds
// a whole one, '<|im_start|>system\nTEXT<|im_end|>\n'. Turns with a text from outside are put
// together from several literals, none of which is whole.
std::string default_system(std::string_view jinja) {
    const std::string head = std::string(kStart) + "system\n";
    for (size_t at = jinja.find(kStart); at != std::string_view::npos;
         at = jinja.find(kStart, at + 1)) {
        if (at == 0 || (jinja[at - 1] != '\'' && jinja[at - 1] != '"')) continue;
        const std::string text = literal(jinja, at, jinja[at - 1]);
        const size_t end = text.find(kEnd);
        if (text.starts_with(head) && end != std::string::npos)
            return text.substr(head.size(), end - head.size());
    }
    return "";
}

// What a template of another family looks like, so that the refusal can say it.
std::string_view other_family(std::string_view jinja) {
    if (has(jinja, "<start_of_turn>")) return "gemma";
    if (has(jinja, "<|start_header_id|>")) return "llama3";
    if (has(jinja, "<|im_sep|>")) return "phi4";
    if (has(jinja, "<|user|>")) return "zephyr";
    return "";
}

}  // namespace

Result<ChatTemplate> ChatTemplate::recognise(std::string_view jinja, std::string_view family) {
    constexpr std::string_view kHint = "set the template family by hand to override (chatml)";
    if (family.empty()) {
        if (jinja.empty())
            return fail(Errc::unsupported,
                        fmt::format("the model file has no chat template: {}", kHint));
        if (const auto other = other_family(jinja); !other.empty())
            return fail(
                Errc::unsupported,
                fmt::format("the model's chat template looks like '{}', which is not offered: {}",
                            other, kHint));
        if (!has(jinja, kStart) || !has(jinja, kEnd))
            return fail(Errc::unsupported,
                        fmt::format("the model's chat template is of no known family: {}", kHint));
    } else if (family != "chatml") {
        return fail(Errc::unsupported,
                    fmt::format("the chat template family '{}' is not offered (chatml is)",
                                family.substr(0, 64)));
    }
    ChatTemplate out;
    out.family_ = "chatml";
    out.jinja_ = jinja;
    out.default_system_ = default_system(jinja);
    // The only condition we render. One that asks for something else would be followed wrongly.
    if (family.empty() && !out.default_system_.empty() && !has(jinja, "messages[0]"))
        return fail(
            Errc::unsupported,
            fmt::format(
                "the model's chat template adds a system turn under a condition that is not "
                "known: {}",
                kHint));
    return out;
}

Result<void> ChatTemplate::fits(const Tokenizer& tokenizer) const {
    for (const std::string_view marker : {kStart, kEnd}) {
        if (!tokenizer.special(marker))
            return fail(Errc::unsupported, fmt::format("the chat template '{}' needs the control "
                                                       "token '{}', which the vocabulary lacks",
                                                       family_, marker));
    }
    return {};
}

std::vector<Token> ChatTemplate::render(const Tokenizer& tokenizer,
                                        std::span<const Turn> turns) const {
    const auto start = tokenizer.special(kStart);
    const auto end = tokenizer.special(kEnd);
    assert(start && end);  // fits() was asked at load
    std::vector<Token> out;
    std::string text;
    const auto open = [&](Role role, std::string_view content) {
        out.push_back(start.value_or(0));
        // Encoded as one: a content that begins with a line break merges with the role's.
        text = role_name(role);
        text += '\n';
        text += content;
        tokenizer.encode(text, out);
    };
    const auto close = [&] {
        out.push_back(end.value_or(0));
        tokenizer.encode("\n", out);
    };
    if (tokenizer.add_bos() && tokenizer.bos()) out.push_back(*tokenizer.bos());
    if (!default_system_.empty() && !turns.empty() && turns[0].role != Role::system) {
        open(Role::system, default_system_);
        close();
    }
    for (size_t i = 0; i < turns.size(); ++i) {
        open(turns[i].role, turns[i].text);
        if (i + 1 == turns.size() && turns[i].role == Role::assistant) return out;
        close();
    }
    open(Role::assistant, "");
    return out;
}

std::vector<std::string> ChatTemplate::stop_markers() const { return {std::string(kEnd)}; }

}  // namespace parley::model
