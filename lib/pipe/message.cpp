#include "pipe/message.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <array>

#include "base/json.hpp"

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::JsonWriter;
using base::Result;

namespace {

constexpr std::array<std::string_view, 9> kVerbs{"HELLO",  "BYE",    "ASK",    "EVENT", "END",
                                                 "CANCEL", "CREDIT", "STATUS", "FOLLOW"};

// Walks the members of the outermost object of `json`, which the caller has validated, and hands
// each raw value out: bodies must keep their bytes, which a parse and re-write would not.
template <class Member>
void each_member(std::string_view json, Member member) {
    const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    const auto skip_string = [&](size_t at) {  // `at` is at the opening quote
        for (++at; json[at] != '"'; ++at) {
            if (json[at] == '\\') ++at;
        }
        return at + 1;
    };
    size_t at = json.find('{') + 1;
    while (true) {
        while (is_space(json[at]) || json[at] == ',') ++at;
        if (json[at] == '}') return;
        const size_t key_end = skip_string(at);
        const std::string_view key = json.substr(at + 1, key_end - at - 2);
        at = key_end;
        while (is_space(json[at]) || json[at] == ':') ++at;
        const size_t start = at;
        for (int depth = 0;;) {
            const char c = json[at];
            if (c == '"') {
                at = skip_string(at);
                if (depth == 0) break;
                continue;
            }
            if (c == '{' || c == '[') ++depth;
            if (c == '}' || c == ']') {
                if (depth == 0) break;
                if (--depth == 0) {
                    ++at;
                    break;
                }
            }
            if (depth == 0 && (c == ',' || is_space(c))) break;
            ++at;
        }
        member(key, json.substr(start, at - start));
    }
}

}  // namespace

std::string_view name(Verb verb) { return kVerbs[static_cast<size_t>(verb)]; }

std::optional<Verb> parse_verb(std::string_view text) {
    for (size_t i = 0; i < kVerbs.size(); ++i) {
        if (kVerbs[i] == text) return static_cast<Verb>(i);
    }
    return std::nullopt;
}

std::string to_line(const Message& message) {
    std::string out = "{\"parley\":1,\"verb\":\"";
    out += name(message.verb);
    out += "\",\"id\":";
    base::append_json_string(out, message.id);
    out += ",\"meta\":";
    out += message.meta;
    out += ",\"body\":";
    out += message.body.empty() ? "null" : message.body;
    out += '}';
    return out;
}

Result<Message> from_line(std::string_view line, std::string_view bare_id) {
    thread_local simdjson::dom::parser parser(128u << 20);
    simdjson::dom::element document;
    const simdjson::padded_string padded(line);
    if (const auto error = parser.parse(padded).get(document); error)
        return fail(Errc::invalid,
                    fmt::format("not one JSON document: {}", simdjson::error_message(error)));
    if (!document.is_object()) return fail(Errc::invalid, "a line must be a JSON object");
    simdjson::dom::element version;
    if (document["parley"].get(version) != simdjson::SUCCESS)
        return Message{Verb::ask, std::string(bare_id), "{}", std::string(line)};
    int64_t number = 0;
    if (version.get(number) != simdjson::SUCCESS || number != 1)
        return fail(Errc::invalid, "unknown protocol version: this side speaks parley/1");
    std::string_view verb_text;
    std::string_view id;
    if (document["verb"].get(verb_text) != simdjson::SUCCESS)
        return fail(Errc::invalid, "verb: Field required");
    if (document["id"].get(id) != simdjson::SUCCESS)
        return fail(Errc::invalid, "id: Field required");
    const auto verb = parse_verb(verb_text);
    if (!verb) return fail(Errc::invalid, fmt::format("verb: unknown verb '{}'", verb_text));
    Message message{*verb, std::string(id), "{}", {}};
    int metas = 0;
    int bodies = 0;
    each_member(line, [&](std::string_view key, std::string_view value) {
        if (key == "meta" && ++metas == 1) message.meta = std::string(value);
        if (key == "body" && ++bodies == 1 && value != "null") message.body = std::string(value);
    });
    if (metas > 1 || bodies > 1) return fail(Errc::invalid, "meta or body stands twice");
    if (message.meta.empty() || message.meta[0] != '{')
        return fail(Errc::invalid, "meta: Input should be an object");
    return message;
}

std::string_view name(Class value) {
    switch (value) {
        case Class::interactive:
            return "interactive";
        case Class::streaming:
            return "streaming";
        case Class::batch:
            return "batch";
    }
    return "streaming";
}

}  // namespace parley::pipe
