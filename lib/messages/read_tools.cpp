// The tools of a request, and the calls and results in its history.
#include "messages/request_reader.hpp"

namespace parley::messages {
namespace {

constexpr std::string_view kString = "Input should be a valid string";
constexpr std::string_view kBoolean = "Input should be a valid boolean";
constexpr std::string_view kObject = "Input should be an object";
constexpr std::string_view kStringOrList = "Input should be a valid string or list";

}  // namespace

bool RequestReader::read_tools(Object body) {
    bool given = false;
    std::unordered_set<std::string_view> names;
    if (const auto value = json::member(body, "tools")) {
        Array tools;
        if (value->get(tools)) return fail("tools", "Input should be a valid list");
        given = true;
        turns_.begin(Role::system, "\n\n");
        Where where{.root = "tools"};
        for (const Element item : tools) {
            ++where.block;
            Object tool;
            if (item.get(tool)) return fail(where.str(), kObject);
            if (!read_tool(tool, where, names) || !mark(tool, where)) return false;
        }
        if (!out_.turns.empty()) turns_.add(Origin::system, kToolsAfter);
    }
    return read_tool_choice(body, given);
}

bool RequestReader::read_tool(Object tool, const Where& where,
                              std::unordered_set<std::string_view>& names) {
    if (const auto type = json::member(tool, "type")) {
        const auto word = json::text(*type);
        if (!word) return fail(where.str("type"), kString);
        if (*word != "custom") {
            later(where.str(),
                  "tool type '" + json::shown(*word) + "' is not supported by this server");
            return true;
        }
    }
    std::string_view name;
    if (!required_text(tool, where, "name", name)) return false;
    std::string_view description;
    if (const auto value = json::member(tool, "description"))
        if (value->get(description)) return fail(where.str("description"), kString);
    Element schema;
    Object members;
    if (tool.at_key("input_schema").get(schema))
        return fail(where.str("input_schema"), "Field required");
    if (schema.get(members)) return fail(where.str("input_schema"), kObject);
    std::string_view kind;
    if (members.at_key("type").get(kind))
        return fail(where.str("input_schema.type"), "Field required");
    if (kind != "object") return fail(where.str("input_schema.type"), "Input should be 'object'");
    bool deferred = false;
    if (const auto value = json::member(tool, "defer_loading"))
        if (value->get(deferred)) return fail(where.str("defer_loading"), kBoolean);
    if (!tool_name(name))
        later(where.str("name"), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'");
    if (!names.insert(name).second) later("tools", "Tool names must be unique.");
    bool strict = false;
    if (const auto value = json::member(tool, "strict"))
        if (value->get(strict)) return fail(where.str("strict"), kBoolean);
    out_.tools.push_back(
        {std::string(name), simdjson::minify(schema), where.str("input_schema"), strict});
    if (deferred) return true;
    if (out_.turns.empty()) turns_.add(Origin::system, kToolsBefore);
    turns_.add(Origin::system, tool_line(name, description, schema));
    return true;
}

bool RequestReader::read_tool_choice(Object body, bool given) {
    std::vector<Tool>& tools = out_.tools;
    if (!tools.empty()) out_.tool_choice = ToolChoice::free;
    if (const auto value = json::member(body, "tool_choice")) {
        Object choice;
        if (value->get(choice)) return fail("tool_choice", kObject);
        const Where where{.root = "tool_choice"};
        std::string_view type;
        if (!required_text(choice, where, "type", type)) return false;
        if (type != "auto" && type != "any" && type != "tool" && type != "none")
            return fail("tool_choice.type", "Input should be 'auto', 'any', 'tool' or 'none'");
        std::string_view name;
        if (type == "tool" && !required_text(choice, where, "name", name)) return false;
        if (const auto single = json::member(choice, "disable_parallel_tool_use")) {
            bool disabled = false;
            if (single->get(disabled)) return fail(where.str("disable_parallel_tool_use"), kBoolean);
            out_.parallel_calls = !disabled;
        }
        const bool forced = type == "any" || type == "tool";
        if (tools.empty() && !(given && !forced))
            later("tool_choice", "may only be specified while providing tools");
        if (type == "tool") {
            std::erase_if(tools, [&](const Tool& tool) { return tool.name != name; });
            if (tools.empty())
                later("tool_choice.name",
                      "Tool '" + json::shown(name) + "' not found in provided tools");
        }
        if (forced) out_.tool_choice = ToolChoice::forced;
        if (type == "none") out_.tool_choice = ToolChoice::none;
    }
    for (Tool& tool : tools)
        if (out_.tool_choice == ToolChoice::none ||
            (out_.tool_choice == ToolChoice::free && !tool.strict))
            tool.schema_json.clear();
    return true;
}

bool RequestReader::read_tool_use(Object block, const Where& where, Role role) {
    std::string_view id;
    std::string_view name;
    if (!required_text(block, where, "id", id) || !required_text(block, where, "name", name))
        return false;
    Element input;
    if (block.at_key("input").get(input)) return fail(where.str("input"), "Field required");
    if (!input.is_object()) return fail(where.str("input"), kObject);
    if (role != Role::assistant) {
        later(where.str(), "`tool_use` blocks may only be in assistant messages");
        return true;
    }
    later(pairs_.call(id, where.str()));
    turns_.add_lines(Origin::assistant, call_text(name, input));
    return true;
}

bool RequestReader::read_tool_result(Object block, const Where& where, Role role) {
    std::string_view id;
    if (!required_text(block, where, "tool_use_id", id)) return false;
    std::string text;
    if (const auto content = json::member(block, "content")) {
        Array items;
        if (const auto whole = json::text(*content)) {
            text = *whole;
        } else if (content->get(items)) {
            return fail(where.str("content"), kStringOrList);
        } else {
            Where inside = where;
            inside.deeper = "content";
            for (const Element item : items) {
                ++inside.inner;
                Object inner;
                if (item.get(inner)) return fail(inside.str(), kObject);
                std::string_view type;
                if (!required_text(inner, inside, "type", type)) return false;
                if (!read_result_block(inner, inside, type, text)) return false;
            }
        }
    }
    bool is_error = false;
    if (const auto value = json::member(block, "is_error"))
        if (value->get(is_error)) return fail(where.str("is_error"), kBoolean);
    if (role != Role::user) {
        later(where.str(), "`tool_result` blocks may only be in user messages");
        return true;
    }
    later(pairs_.result(id, where.str()));
    turns_.add_lines(Origin::document, result_text(text, is_error));
    return true;
}

bool RequestReader::read_result_block(Object block, const Where& where, std::string_view type,
                                      std::string& out) {
    std::string_view text;
    if (type == "text") {
        if (!required_text(block, where, "text", text)) return false;
        out += text;
    } else if (type == "image") {
        later(where.str(), "image input is not supported by this model");
    } else if (type == "document") {
        const std::string path = where.str();
        return document_text(block, Where{.root = path}, out);
    } else if (type == "search_result") {
        const std::string path = where.str();
        return search_result_text(block, Where{.root = path}, out);
    } else if (type != "tool_reference") {
        return fail(where.str("type"),
                    "Input should be 'text', 'image', 'document', 'search_result' or "
                    "'tool_reference'");
    }
    return true;
}

}  // namespace parley::messages
