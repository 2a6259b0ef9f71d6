// The messages of a chat completions body.
#include "openai/chat_reader.hpp"

namespace parley::openai {

namespace json = messages::json;

bool ChatReader::read_messages(Object body) {
    Element value;
    Array items;
    if (body.at_key("messages").get(value)) return fail("messages", kRequired);
    if (value.get(items)) return fail("messages", kList);
    w_.key("messages").array();
    size_t count = 0;
    for (const Element item : items) {
        const std::string path = "messages." + std::to_string(count);
        if (++count > kMessagesMax)
            return fail("messages",
                        "List should have at most " + std::to_string(kMessagesMax) + " items");
        Object message;
        if (item.get(message)) return fail(path, kObject);
        if (!read_message(message, path)) return false;
    }
    if (count == 0) later("messages", "at least one message is required");
    if (answer_last_) write_nothing("user");
    w_.end();
    return true;
}

// A message whose blocks render as nothing: what a server's tool left, a change of the tools.
void ChatReader::write_nothing(std::string_view role) {
    w_.object().field("role", role).key("content").array().object();
    w_.field("type", role == "system" ? "tool_addition" : "fallback").end().end().end();
}

bool ChatReader::read_message(Object message, const std::string& path) {
    std::string_view role;
    if (!text(message, "role", path + ".role", role)) return false;
    if (role == "developer") role = "system";
    const bool assistant = role == "assistant", tool = role == "tool";
    if (role == "function") {
        later(path + ".role", "'function' is not supported by this server: use 'tool'");
        return true;
    }
    if (!assistant && !tool && role != "system" && role != "user")
        return fail(path + ".role",
                    "Input should be 'system', 'developer', 'user', 'assistant' or 'tool'");
    answer_last_ = assistant;

    std::string content;
    const auto given = json::member(message, "content");
    if (given) {
        if (!read_content(*given, path + ".content", assistant, content)) return false;
    } else if (const auto refusal = json::text_member(message, "refusal"); assistant && refusal) {
        content = *refusal;
    } else if (!assistant) {
        return fail(path + ".content", message.at_key("content").error() ? kRequired : kString);
    }
    if (tool) {
        std::string_view id;
        if (!text(message, "tool_call_id", path + ".tool_call_id", id)) return false;
        w_.object().field("role", "user").key("content").array().object();
        w_.field("type", "tool_result").field("tool_use_id", id).field("content", content);
        w_.end().end().end();
        return true;
    }
    Array calls;
    bool has_calls = false;
    if (const auto value = json::member(message, "tool_calls"); assistant && value) {
        if (value->get(calls)) return fail(path + ".tool_calls", kList);
        has_calls = calls.begin() != calls.end();
    }
    if (assistant && json::member(message, "function_call"))
        later(path + ".function_call", "not supported by this server: use tool_calls");
    const bool blank = messages::blank(content);
    if (blank && !has_calls) {
        write_nothing(role);
        return true;
    }
    w_.object().field("role", role).key("content");
    if (!has_calls) {
        w_.string(content).end();
        return true;
    }
    w_.array();
    if (!blank) w_.object().field("type", "text").field("text", content).end();
    if (!write_calls(calls, path + ".tool_calls")) return false;
    w_.end().end();
    return true;
}

bool ChatReader::read_content(Element content, const std::string& path, bool assistant,
                              std::string& out) {
    if (const auto whole = json::text(content)) {
        out = *whole;
        return true;
    }
    Array parts;
    if (content.get(parts)) return fail(path, "Input should be a valid string or list");
    size_t index = 0;
    for (const Element item : parts) {
        const std::string here = path + "." + std::to_string(index++);
        Object part;
        if (item.get(part)) return fail(here, kObject);
        std::string_view type, text;
        if (!this->text(part, "type", here + ".type", type)) return false;
        if (type == "text" || (type == "refusal" && assistant)) {
            if (!this->text(part, type, here + "." + std::string(type), text)) return false;
            out += text;
        } else if (type == "image_url" || type == "input_audio" || type == "file" ||
                   type == "refusal") {
            later(here, "'" + std::string(type) + "' is not supported by this server");
        } else {
            return fail(here + ".type", "Input should be 'text'");
        }
    }
    return true;
}

bool ChatReader::write_calls(Array calls, const std::string& path) {
    size_t index = 0;
    for (const Element item : calls) {
        const std::string here = path + "." + std::to_string(index++);
        Object call, function;
        Element inner;
        std::string_view type, id, name, arguments;
        if (item.get(call)) return fail(here, kObject);
        if (!text(call, "id", here + ".id", id)) return false;
        if (call.at_key("function").get(inner)) {
            if (!text(call, "type", here + ".type", type)) return false;
            if (type != "function") {
                later(here,
                      "tool type '" + json::shown(type) + "' is not supported by this server");
                continue;
            }
            return fail(here + ".function", kRequired);
        }
        if (inner.get(function)) return fail(here + ".function", kObject);
        if (!text(function, "name", here + ".function.name", name)) return false;
        const std::string at = here + ".function.arguments";
        if (!text(function, "arguments", at, arguments)) return false;
        std::string input = "{}";
        if (!messages::blank(arguments)) {
            Element parsed;
            if (arguments_.allocate(arguments.size() + simdjson::SIMDJSON_PADDING,
                                    kArgumentsDepthMax) ||
                arguments_.parse(simdjson::padded_string(arguments)).get(parsed) ||
                !parsed.is_object() || json::duplicate_key(parsed))
                return fail(at, "Input should be a JSON object, as a string");
            input = simdjson::minify(parsed);
        }
        w_.object().field("type", "tool_use").field("id", id).field("name", name);
        w_.key("input").raw(input).end();
    }
    return true;
}

}  // namespace parley::openai
