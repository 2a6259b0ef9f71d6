#include "chat/body.hpp"

#include <charconv>

#include "base/json.hpp"

namespace parley::chat {

namespace {

bool space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The index just past the string that begins at `at`.
size_t string_end(std::string_view json, size_t at) {
    for (size_t i = at + 1; i < json.size(); ++i) {
        if (json[i] == '\\')
            ++i;
        else if (json[i] == '"')
            return i + 1;
    }
    return json.size();
}

}  // namespace

std::string with_model(std::string_view json, std::string_view model) {
    int depth = 0;
    for (size_t i = 0; i < json.size();) {
        const char c = json[i];
        if (c != '"') {
            if (c == '{' || c == '[') ++depth;
            if (c == '}' || c == ']') --depth;
            ++i;
            continue;
        }
        const size_t end = string_end(json, i);
        const std::string_view text = json.substr(i, end - i);
        size_t next = end;
        while (next < json.size() && space(json[next])) ++next;
        i = end;
        if (depth != 1 || text != "\"model\"" || next >= json.size() || json[next] != ':') continue;
        ++next;
        while (next < json.size() && space(json[next])) ++next;
        if (next >= json.size() || json[next] != '"') break;
        std::string out(json.substr(0, next));
        base::append_json_string(out, model);
        out += json.substr(string_end(json, next));
        return out;
    }
    return std::string(json);  // spelled with escapes: left as it is, the router then says 404
}

std::optional<std::pair<uint32_t, uint64_t>> parse_position(std::string_view text) {
    const size_t dash = text.find('-');
    if (dash == std::string_view::npos) return std::nullopt;
    uint32_t epoch = 0;
    uint64_t seq = 0;
    const auto whole = [](std::string_view part, auto& value) {
        const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
        return error == std::errc() && end == part.data() + part.size() && !part.empty();
    };
    if (!whole(text.substr(0, dash), epoch) || !whole(text.substr(dash + 1), seq))
        return std::nullopt;
    return std::make_pair(epoch, seq);
}

}  // namespace parley::chat
