#include "model/chat_template.hpp"

#include <fmt/format.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cassert>
#include <optional>

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr std::string_view kGemmaStart = "<start_of_turn>";
constexpr std::string_view kGemmaEnd = "<end_of_turn>";
constexpr std::string_view kHeaderStart = "<|start_header_id|>";
constexpr std::string_view kHeaderEnd = "<|end_header_id|>";
constexpr std::string_view kTurnEnd = "<|eot_id|>";

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

// Zephyr's relatives (Tulu) have its markers too, but no EOS after a user's text.
bool ends_user_turn(std::string_view jinja) {
    const size_t user = jinja.find("<|user|>");
    if (user == std::string_view::npos || !has(jinja, "<|assistant|>")) return false;
    const std::string_view rest = jinja.substr(user);
    return has(rest.substr(0, rest.find("}}")), "eos_token");
}

// The family that a template's text shows; "phi3" and "phi4" are known well enough to be named. Markers
// of others before ChatML's: some of those texts speak of ChatML's too.
std::string_view family_of(std::string_view jinja) {
    if (has(jinja, "<start_of_turn>") && has(jinja, "<end_of_turn>")) return "gemma";
    if (has(jinja, "<|start_header_id|>") && has(jinja, "<|end_header_id|>") &&
        has(jinja, "<|eot_id|>"))
        return "llama3";
    if (has(jinja, "<|im_sep|>")) return "phi4";
    if (has(jinja, "<|user|>") && has(jinja, "<|end|>")) return "phi3";
    if (ends_user_turn(jinja)) return "zephyr";
    if (has(jinja, kStart) && has(jinja, kEnd)) return "chatml";
    return "";
}

bool is_offered(std::string_view family) {
    return family == "chatml" || family == "gemma" || family == "llama3" || family == "zephyr";
}

// The whole string literal that begins with `head`; "" if there is none.
std::string literal_with(std::string_view jinja, std::string_view head) {
    for (size_t at = jinja.find(head); at != std::string_view::npos;
         at = jinja.find(head, at + 1)) {
        if (at > 0 && (jinja[at - 1] == '\'' || jinja[at - 1] == '"'))
            return literal(jinja, at, jinja[at - 1]);
    }
    return {};
}

// What a template of Llama 3.1 or later writes at the head of the system turn; "" if it does not.
std::optional<std::string> llama3_preamble(std::string_view jinja) {
    constexpr std::string_view kKnowledge = "Cutting Knowledge Date: ";
    constexpr std::string_view kToday = "Today Date: ";
    if (!has(jinja, kKnowledge) && !has(jinja, kToday)) return "";
    const std::string knowledge = literal_with(jinja, kKnowledge);
    const std::string today = literal_with(jinja, kToday);
    if (!knowledge.ends_with('\n')) return std::nullopt;
    if (today.ends_with("\n\n")) return knowledge + today;  // a date that does not change
    std::string date;
    constexpr std::string_view kSet = "date_string = ";
    for (size_t at = jinja.find(kSet); at != std::string_view::npos && date.empty();
         at = jinja.find(kSet, at + 1)) {
        const size_t quote = at + kSet.size();
        if (quote < jinja.size() && (jinja[quote] == '"' || jinja[quote] == '\''))
            date = literal(jinja, quote + 1, jinja[quote]);
    }
    if (date.empty() || today != kToday) return std::nullopt;
    return fmt::format("{}{}{}\n\n", knowledge, today, date);
}

// What Python's str.strip() takes off.
bool is_python_space(UChar32 point) {
    return (point >= 0x09 && point <= 0x0d) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
           point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
           point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f ||
           point == 0x3000;
}

std::string_view trim_front(std::string_view text) {
    while (!text.empty()) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
        const auto length = static_cast<int32_t>(std::min<size_t>(text.size(), 4));
        int32_t size = 0;
        UChar32 point = 0;
        U8_NEXT(bytes, size, length, point);
        if (point < 0 || !is_python_space(point)) break;
        text.remove_prefix(static_cast<size_t>(size));
    }
    return text;
}

std::string_view trim(std::string_view text) {
    text = trim_front(text);
    while (!text.empty()) {
        const std::string_view tail = text.substr(text.size() - std::min<size_t>(text.size(), 4));
        const auto* bytes = reinterpret_cast<const uint8_t*>(tail.data());
        auto at = static_cast<int32_t>(tail.size());
        UChar32 point = 0;
        U8_PREV(bytes, 0, at, point);
        if (point < 0 || !is_python_space(point)) break;
        text.remove_suffix(tail.size() - static_cast<size_t>(at));
    }
    return text;
}

}  // namespace

// Gathers a prompt: the text between two control tokens is encoded as one, as it would be if the
// whole were read back from its spelling. A content that begins with a line break merges with its
// role's.
class ChatTemplate::Writer {
  public:
    explicit Writer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void text(std::string_view text) { text_ += text; }
    void control(std::optional<Token> token) {
        assert(token);  // fits() was asked at load
        flush();
        ids_.push_back(token.value_or(0));
    }
    void control(std::string_view spelling) { control(tokenizer_.special(spelling)); }
    // A control token where the vocabulary has one, else plain text.
    void marker(std::string_view spelling) {
        if (const auto token = tokenizer_.special(spelling))
            control(token);
        else
            text(spelling);
    }
    const Tokenizer& tokenizer() const { return tokenizer_; }
    std::vector<Token> finish() {
        flush();
        return std::move(ids_);
    }

  private:
    void flush() {
        tokenizer_.encode(text_, ids_);
        text_.clear();
    }

    const Tokenizer& tokenizer_;
    std::string text_;
    std::vector<Token> ids_;
};

Result<ChatTemplate> ChatTemplate::recognise(std::string_view jinja, std::string_view family) {
    constexpr std::string_view kHint =
        "--chat-template chatml, gemma, llama3 or zephyr sets the family by hand, raw takes the bare text";
    const std::string_view seen = family_of(jinja);
    if (family.empty()) {
        if (jinja.empty())
            return fail(Errc::unsupported,
                        fmt::format("the model file has no chat template: {}", kHint));
        if (seen.empty())
            return fail(Errc::unsupported,
                        fmt::format("the model's chat template is of no known family: {}", kHint));
        if (!is_offered(seen))
            return fail(
                Errc::unsupported,
                fmt::format("the model's chat template looks like '{}', which is not offered: {}",
                            seen, kHint));
    } else if (family != "raw" && !is_offered(family)) {
        return fail(Errc::unsupported, fmt::format("the chat template family '{}' is not offered "
                                                   "(chatml, gemma, llama3, zephyr and raw are)",
                                                   family.substr(0, 64)));
    }
    ChatTemplate out;
    out.family_ = family.empty() ? seen : family;
    out.jinja_ = jinja;
    const auto unknown_condition = [&] {
        return fail(
            Errc::unsupported,
            fmt::format(
                "the model's chat template adds a system turn under a condition that is not "
                "known: {}",
                kHint));
    };
    if (out.family_ == "raw") return out;
    if (out.family_ == "chatml") {
        out.default_system_ = default_system(jinja);
        // The only condition we render. One that asks for something else would be followed wrongly.
        if (family.empty() && !out.default_system_.empty() && !has(jinja, "messages[0]"))
            return unknown_condition();
        return out;
    }
    // A text of another family says nothing of the one that was set by hand.
    const bool own = seen == out.family_;
    out.writes_bos_ = own && has(jinja, "bos_token");
    if (out.family_ == "zephyr") return out;
    out.trims_ = !own || has(jinja, "trim");
    if (out.family_ == "llama3" && own) {
        auto preamble = llama3_preamble(jinja);
        if (!preamble && family.empty()) return unknown_condition();
        out.preamble_ = preamble.value_or("");
    }
    return out;
}

Result<void> ChatTemplate::fits(const Tokenizer& tokenizer) const {
    const auto lacks = [&](std::string_view marker) {
        return fail(Errc::unsupported, fmt::format("the chat template '{}' needs the control "
                                                   "token '{}', which the vocabulary lacks",
                                                   family_, marker));
    };
    std::vector<std::string_view> needed;
    if (family_ == "chatml") needed = {kStart, kEnd};
    if (family_ == "gemma") needed = {kGemmaStart, kGemmaEnd};
    if (family_ == "llama3") needed = {kHeaderStart, kHeaderEnd, kTurnEnd};
    for (const std::string_view marker : needed)
        if (!tokenizer.special(marker)) return lacks(marker);
    if (family_ == "zephyr" && !(tokenizer.eos() && tokenizer.is_control(*tokenizer.eos())))
        return lacks("EOS");
    return {};
}

std::vector<Token> ChatTemplate::render(const Tokenizer& tokenizer,
                                        std::span<const Turn> turns) const {
    Writer writer(tokenizer);
    if ((tokenizer.add_bos() || writes_bos_) && tokenizer.bos()) writer.control(tokenizer.bos());
    if (family_ == "gemma")
        render_gemma(writer, turns);
    else if (family_ == "llama3")
        render_llama3(writer, turns);
    else if (family_ == "zephyr")
        render_zephyr(writer, turns);
    else if (family_ == "raw")
        render_raw(writer, turns);
    else
        render_chatml(writer, turns);
    return writer.finish();
}

void ChatTemplate::render_chatml(Writer& writer, std::span<const Turn> turns) const {
    const auto open = [&](Role role, std::string_view content) {
        writer.control(kStart);
        writer.text(role_name(role));
        writer.text("\n");
        writer.text(content);
    };
    const auto close = [&] {
        writer.control(kEnd);
        writer.text("\n");
    };
    if (!default_system_.empty() && !turns.empty() && turns[0].role != Role::system) {
        open(Role::system, default_system_);
        close();
    }
    for (size_t i = 0; i < turns.size(); ++i) {
        open(turns[i].role, turns[i].text);
        if (i + 1 == turns.size() && turns[i].role == Role::assistant) return;
        close();
    }
    open(Role::assistant, "");
}

void ChatTemplate::render_gemma(Writer& writer, std::span<const Turn> turns) const {
    const auto content = [&](std::string_view text) { return trims_ ? trim(text) : text; };
    const auto open = [&](std::string_view role) {
        writer.control(kGemmaStart);
        writer.text(role);
        writer.text("\n");
    };
    const auto close = [&] {
        writer.control(kGemmaEnd);
        writer.text("\n");
    };
    std::string pending;  // system texts that wait for a user turn, each with its empty line
    const auto close_pending = [&] {
        if (pending.empty()) return;
        open("user");
        writer.text(content(pending));
        close();
        pending.clear();
    };
    for (size_t i = 0; i < turns.size(); ++i) {
        const Turn& turn = turns[i];
        if (turn.role == Role::system) {
            pending += turn.text;
            pending += "\n\n";
            continue;
        }
        if (turn.role == Role::assistant) {
            close_pending();
            open("model");
            if (i + 1 == turns.size())
                return writer.text(trims_ ? trim_front(turn.text) : std::string_view(turn.text));
        } else {
            open("user");
            writer.text(pending);
            pending.clear();
        }
        writer.text(content(turn.text));
        close();
    }
    close_pending();
    open("model");
}

void ChatTemplate::render_llama3(Writer& writer, std::span<const Turn> turns) const {
    const auto content = [&](std::string_view text) { return trims_ ? trim(text) : text; };
    const auto open = [&](Role role) {
        writer.control(kHeaderStart);
        writer.text(role_name(role));
        writer.control(kHeaderEnd);
        writer.text("\n\n");
    };
    if (!preamble_.empty()) {
        open(Role::system);
        writer.text(preamble_);
        if (!turns.empty() && turns[0].role == Role::system) {
            writer.text(content(turns[0].text));
            turns = turns.subspan(1);
        }
        writer.control(kTurnEnd);
    }
    for (size_t i = 0; i < turns.size(); ++i) {
        open(turns[i].role);
        if (i + 1 == turns.size() && turns[i].role == Role::assistant)
            return writer.text(trims_ ? trim_front(turns[i].text)
                                      : std::string_view(turns[i].text));
        writer.text(content(turns[i].text));
        writer.control(kTurnEnd);
    }
    open(Role::assistant);
}

void ChatTemplate::render_zephyr(Writer& writer, std::span<const Turn> turns) const {
    const auto open = [&](Role role, std::string_view content) {
        writer.marker(fmt::format("<|{}|>", role_name(role)));
        writer.text("\n");
        writer.text(content);
    };
    for (size_t i = 0; i < turns.size(); ++i) {
        open(turns[i].role, turns[i].text);
        if (i + 1 == turns.size() && turns[i].role == Role::assistant) return;
        writer.control(writer.tokenizer().eos());
        writer.text("\n");
    }
    open(Role::assistant, "");
}

void ChatTemplate::render_raw(Writer& writer, std::span<const Turn> turns) const {
    for (size_t i = 0; i < turns.size(); ++i) {
        if (i > 0) writer.text("\n\n");
        writer.text(turns[i].text);
    }
}

std::vector<std::string> ChatTemplate::stop_markers() const {
    if (family_ == "gemma") return {std::string(kGemmaEnd)};
    if (family_ == "llama3") return {std::string(kTurnEnd)};
    if (family_ == "zephyr" || family_ == "raw") return {};
    return {std::string(kEnd)};
}

}  // namespace parley::model
