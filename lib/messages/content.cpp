// The walk over `system` and `messages`: content blocks become turns.
#include "messages/request_reader.hpp"

namespace parley::messages {
namespace {

constexpr std::string_view kRequired = "Field required";
constexpr std::string_view kString = "Input should be a valid string";
constexpr std::string_view kList = "Input should be a valid list";
constexpr std::string_view kObject = "Input should be an object";
constexpr std::string_view kStringOrList = "Input should be a valid string or a list of blocks";
constexpr std::string_view kNoImages = "image input is not supported by this model";
constexpr std::string_view kBlockTypes =
    "Input should be 'text', 'tool_use', 'tool_result', 'document', 'search_result', 'thinking' or "
    "'redacted_thinking'";
constexpr std::string_view kAttribution = "x-anthropic-billing-header:";

// Bytes of the white-space character at the start of `text`, 0 if there is none (Unicode
// White_Space).
size_t space_at(std::string_view text) {
    const auto byte = [&](size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
    };
    const unsigned first = byte(0);
    if (first == ' ' || (first >= 9 && first <= 13)) return 1;
    if (first == 0xC2 && (byte(1) == 0x85 || byte(1) == 0xA0)) return 2;
    if (first == 0xE1 && byte(1) == 0x9A && byte(2) == 0x80) return 3;
    if (first == 0xE2 && byte(1) == 0x80 &&
        ((byte(2) >= 0x80 && byte(2) <= 0x8A) || byte(2) == 0xA8 || byte(2) == 0xA9 ||
         byte(2) == 0xAF))
        return 3;
    if (first == 0xE2 && byte(1) == 0x81 && byte(2) == 0x9F) return 3;
    if (first == 0xE3 && byte(1) == 0x80 && byte(2) == 0x80) return 3;
    return 0;
}

Origin origin_of(Role role) {
    switch (role) {
        case Role::system:
            return Origin::system;
        case Role::user:
            return Origin::user;
        case Role::assistant:
            return Origin::assistant;
    }
    return Origin::user;
}

bool ends_with(std::string_view text, std::string_view tail) {
    return text.size() >= tail.size() && text.substr(text.size() - tail.size()) == tail;
}

bool server_block(std::string_view type) {
    return type == "server_tool_use" || type == "mcp_tool_use" || type == "compaction" ||
           type == "fallback" || (type != "tool_result" && ends_with(type, "_tool_result"));
}

}  // namespace

bool blank(std::string_view text) {
    while (!text.empty()) {
        const size_t size = space_at(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

bool ends_with_space(std::string_view text) {
    for (size_t size = 1; size <= 3 && size <= text.size(); ++size)
        if (space_at(text.substr(text.size() - size)) == size) return true;
    return false;
}

void TurnBuilder::begin(Role role, std::string_view joiner) {
    role_ = role;
    joiner_ = joiner;
    begun_ = false;
    line_ended_ = false;
}

Turn& TurnBuilder::turn() {
    auto& turns = request_.turns;
    if (begun_) return turns.back();
    begun_ = true;
    if (turns.empty() || turns.back().role != role_) return turns.emplace_back(Turn{role_, {}});
    if (!turns.back().text.empty()) turns.back().text += joiner_;
    return turns.back();
}

void TurnBuilder::add(Origin origin, std::string_view text) {
    if (text.empty()) return;
    std::string& to = turn().text;
    const bool parted = line_ended_ && text.front() != '\n';
    line_ended_ = false;
    const size_t index = request_.turns.size() - 1;
    request_.judged.push_back({origin, index, to.size(), text.size() + (parted ? 1 : 0)});
    if (parted) to += '\n';
    to += text;
}

void TurnBuilder::add_lines(Origin origin, std::string text) {
    if (begun_ && !line_ended_) {
        const std::string& before = request_.turns.back().text;
        if (!before.empty() && before.back() != '\n') text.insert(0, 1, '\n');
    }
    add(origin, text);
    line_ended_ = true;
}

void TurnBuilder::keep_empty() {
    if (!begun_ && (request_.turns.empty() || request_.turns.back().role != role_)) turn();
}

void TurnBuilder::mark(Ttl ttl) {
    const auto& turns = request_.turns;
    if (turns.empty())
        request_.cache_marks.push_back({0, 0, ttl});
    else
        request_.cache_marks.push_back({turns.size() - 1, turns.back().text.size(), ttl});
}

void RequestReader::check_text(std::string_view text, const Where& where) {
    if (text.empty())
        later(where.root, "text content blocks must be non-empty");
    else if (blank(text))
        later(where.root, "text content blocks must contain non-whitespace text");
}

bool RequestReader::read_system(Object body) {
    const auto value = json::member(body, "system");
    if (!value) return true;
    Where where{.root = "system"};
    const auto add = [&](std::string_view text) {
        check_text(text, where);
        if (text.starts_with(kAttribution)) {
            const size_t line = text.find('\n');
            text = line == std::string_view::npos ? "" : text.substr(line + 1);
        }
        turns_.begin(Role::system, "\n\n");
        turns_.add(Origin::system, text);
    };
    if (const auto text = json::text(*value)) {
        if (!text->empty()) add(*text);
        return true;
    }
    Array blocks;
    if (value->get(blocks)) return fail("system", kStringOrList);
    for (const Element item : blocks) {
        ++where.block;
        Object block;
        if (item.get(block)) return fail(where.str(), kObject);
        std::string_view type;
        if (!required_text(block, where, "type", type)) return false;
        if (type != "text") return fail(where.str("type"), "Input should be 'text'");
        std::string_view text;
        if (!required_text(block, where, "text", text)) return false;
        add(text);
        if (!mark(block, where)) return false;
    }
    return true;
}

bool RequestReader::read_messages(Object body) {
    Element value;
    Array items;
    if (body.at_key("messages").get(value)) return fail("messages", kRequired);
    if (value.get(items)) return fail("messages", kList);
    // array::size() saturates at 2^24 - 1, far above any sensible messages_max: count instead.
    size_t count = 0;
    for ([[maybe_unused]] const Element item : items)
        if (++count > options_.messages_max)
            return fail("messages", "List should have at most " +
                                        std::to_string(options_.messages_max) + " items");
    if (count == 0) later("messages", "at least one message is required");
    Where where{.root = "messages"};
    for (const Element item : items) {
        ++where.message;
        if (!read_message(item, where, static_cast<size_t>(where.message) + 1 == count))
            return false;
    }
    later(pairs_.end());
    if (out_.prefill && ends_with_space(out_.turns.back().text))
        later("messages", "final assistant content cannot end with trailing whitespace");
    return true;
}

bool RequestReader::read_message(Element item, Where where, bool last) {
    Object message;
    if (item.get(message)) return fail(where.str(), kObject);
    Element value;
    if (message.at_key("role").get(value)) return fail(where.str("role"), kRequired);
    const std::string_view word = json::text(value).value_or("");
    Role role = Role::user;
    if (word == "assistant")
        role = Role::assistant;
    else if (word == "system")
        role = Role::system;
    else if (word != "user")
        return fail(where.str("role"), "Input should be 'user', 'assistant' or 'system'");

    later(pairs_.message(role));
    turns_.begin(role, role == Role::system && where.message == 0 ? "\n\n" : "\n");
    const size_t turns_before = out_.turns.size();
    const size_t bytes_before = turns_before == 0 ? 0 : out_.turns.back().text.size();
    if (message.at_key("content").get(value)) return fail(where.str("content"), kRequired);
    bool empty = false;
    if (const auto text = json::text(value)) {
        empty = text->empty();
        if (!empty) check_text(*text, where);
        if (role != Role::system) pairs_.other_block();
        turns_.add(origin_of(role), *text);
    } else {
        Array blocks;
        if (value.get(blocks)) return fail(where.str("content"), kStringOrList);
        empty = true;
        where.middle = "content";
        for (const Element block : blocks) {
            empty = false;
            ++where.block;
            if (!read_block(block, where, role)) return false;
        }
        where.middle = {};
        where.block = -1;
    }
    if (empty && !(last && role == Role::assistant))
        later(where.str(),
              "all messages must have non-empty content except for the optional final assistant "
              "message");
    if (role == Role::user) turns_.keep_empty();
    if (last) {
        const auto& turns = out_.turns;
        const bool grew = turns.size() > turns_before ||
                          (!turns.empty() && turns.back().text.size() > bytes_before);
        // An empty last message goes on with the assistant's words before it, if there are any.
        out_.prefill = role == Role::assistant && !turns.empty() &&
                       turns.back().role == Role::assistant && (grew || empty);
    }
    return true;
}

bool RequestReader::read_block(Element item, Where where, Role role) {
    Object block;
    if (item.get(block)) return fail(where.str(), kObject);
    std::string_view type;
    if (!required_text(block, where, "type", type)) return false;
    if (role != Role::system && type != "tool_result") pairs_.other_block();
    bool ok = true;
    if (type == "text") {
        ok = read_text(block, where, origin_of(role));
    } else if (role == Role::system) {
        if (type != "tool_addition" && type != "tool_removal")
            return fail(where.str("type"),
                        "Input should be 'text', 'tool_addition' or 'tool_removal'");
    } else if (type == "image") {
        later(where.str(), kNoImages);
    } else if (type == "container_upload") {
        later(where.str(), std::string(kNoImages) + " (container_upload)");
    } else if (type == "document") {
        ok = read_document(block, where);
    } else if (type == "search_result") {
        ok = read_search_result(block, where);
    } else if (type == "thinking" || type == "redacted_thinking") {
        if (role != Role::assistant)
            later(where.str(),
                  "`" + std::string(type) + "` blocks may only be in assistant messages");
    } else if (type == "tool_use") {
        ok = read_tool_use(block, where, role);
    } else if (type == "tool_result") {
        ok = read_tool_result(block, where, role);
    } else if (server_block(type)) {
        read_server_block(block);
    } else {
        return fail(where.str("type"), kBlockTypes);
    }
    return ok && mark(block, where);
}

bool RequestReader::read_text(Object block, const Where& where, Origin origin) {
    std::string_view text;
    if (!required_text(block, where, "text", text)) return false;
    check_text(text, where);
    turns_.add(origin, text);
    return true;
}

bool RequestReader::read_text_blocks(Array blocks, Where where, std::string& out) {
    for (const Element item : blocks) {
        ++where.inner;
        Object block;
        if (item.get(block)) return fail(where.str(), kObject);
        std::string_view type;
        if (!required_text(block, where, "type", type)) return false;
        if (type == "text") {
            std::string_view text;
            if (!required_text(block, where, "text", text)) return false;
            out += text;
        } else if (type == "image" || type == "document") {
            later(where.str(), kNoImages);
        } else {
            return fail(where.str("type"), "Input should be 'text'");
        }
    }
    return true;
}

bool RequestReader::read_document(Object block, const Where& where) {
    std::string text;
    if (!document_text(block, where, text)) return false;
    turns_.add(Origin::document, text);
    return true;
}

bool RequestReader::document_text(Object block, Where where, std::string& rendered) {
    Element value;
    Object source;
    if (block.at_key("source").get(value)) return fail(where.str("source"), kRequired);
    if (value.get(source)) return fail(where.str("source"), kObject);
    where.deeper = "source";
    std::string_view type;
    if (!required_text(source, where, "type", type)) return false;
    std::string text;
    if (type == "text") {
        std::string_view data;
        if (!required_text(source, where, "data", data)) return false;
        text = data;
    } else if (type == "content") {
        if (source.at_key("content").get(value)) return fail(where.str("content"), kRequired);
        Array blocks;
        if (const auto whole = json::text(value)) {
            text = *whole;
        } else if (value.get(blocks)) {
            return fail(where.str("content"), kStringOrList);
        } else {
            Where inside = where;
            inside.deeper = "source.content";
            if (!read_text_blocks(blocks, inside, text)) return false;
        }
    } else if (type == "base64" || type == "url" || type == "file") {
        where.deeper = {};
        later(where.str(),
              std::string(kNoImages) + " (document source '" + std::string(type) + "')");
        return true;
    } else {
        return fail(where.str("type"),
                    "Input should be 'text', 'content', 'base64', 'url' or 'file'");
    }
    where.deeper = {};
    std::string_view title;
    if (const auto given = json::member(block, "title"))
        if (given->get(title)) return fail(where.str("title"), kString);
    rendered += "[Document";
    if (!title.empty()) rendered.append(": ").append(title);
    rendered.append("]\n").append(text).append("\n[End of document]\n");
    return true;
}

bool RequestReader::read_search_result(Object block, const Where& where) {
    std::string text;
    if (!search_result_text(block, where, text)) return false;
    turns_.add(Origin::document, text);
    return true;
}

bool RequestReader::search_result_text(Object block, Where where, std::string& rendered) {
    std::string_view title;
    std::string_view source;
    if (!required_text(block, where, "title", title)) return false;
    if (!required_text(block, where, "source", source)) return false;
    Element value;
    Array blocks;
    if (block.at_key("content").get(value)) return fail(where.str("content"), kRequired);
    if (value.get(blocks)) return fail(where.str("content"), kList);
    where.deeper = "content";
    std::string text;
    if (!read_text_blocks(blocks, where, text)) return false;
    rendered.append("[Search result: ").append(title).append(" (").append(source).append(")]\n");
    rendered.append(text).append("\n[End of search result]\n");
    return true;
}

// What a server's own tools left in the history: only plain text of it is kept.
void RequestReader::read_server_block(Object block) {
    const auto content = json::member(block, "content");
    if (!content) return;
    std::string out;
    const auto append = [&](std::string_view text) {
        if (!blank(text)) out.append(text).append("\n");
    };
    Array items;
    if (const auto text = json::text(*content)) {
        append(*text);
    } else if (!content->get(items)) {
        for (const Element item : items) {
            Object inner;
            if (item.get(inner) || json::text_member(inner, "type") != "text") continue;
            if (const auto text = json::text_member(inner, "text")) append(*text);
        }
    }
    turns_.add(Origin::document, out);
}

}  // namespace parley::messages
