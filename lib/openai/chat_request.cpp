#include "openai/chat_request.hpp"

#include "base/json.hpp"
#include "messages/json_read.hpp"
#include "openai/chat_reader.hpp"

namespace parley::openai {

using messages::ApiError;
namespace json = messages::json;
using namespace std::string_view_literals;

namespace {

constexpr size_t kUserIdCharsMax = 512;

// Of 0 and of false, absence is meant too.
bool asks(json::dom::element value) {
    bool flag = false;
    return value.get(flag) || flag;
}

}  // namespace

bool ChatReader::fail(std::string_view path, std::string_view why) {
    error_ = ApiError::invalid(path, why);
    return false;
}
void ChatReader::later(std::string_view path, std::string_view why) {
    if (!out_.semantic) out_.semantic = ApiError::invalid(path, why);
}

bool ChatReader::text(Object holder, std::string_view key, const std::string& path,
                      std::string_view& out) {
    Element value;
    if (holder.at_key(key).get(value)) return fail(path, kRequired);
    if (value.get(out)) return fail(path, kString);
    return true;
}

bool ChatReader::read(Object body) {
    w_.object();
    if (!read_model(body) || !read_messages(body) || !read_max_tokens(body) || !read_stream(body) ||
        !read_sampling(body) || !read_stops(body) || !read_tools(body) || !read_tool_choice(body) ||
        !read_format(body) || !read_user(body))
        return false;
    read_unsupported(body);
    w_.end();
    return true;
}

bool ChatReader::read_model(Object body) {
    std::string_view model;
    if (!text(body, "model", "model", model)) return false;
    w_.field("model", model);
    return true;
}

bool ChatReader::read_max_tokens(Object body) {
    uint64_t most = kNoLimit;
    for (const auto key : {"max_completion_tokens"sv, "max_tokens"sv}) {
        const auto value = json::member(body, key);
        if (!value) continue;
        int64_t below = 0;
        if (value->get(most)) {
            if (value->get(below)) return fail(key, "Input should be a valid integer");
            most = 0;
        }
        if (most == 0) return fail(key, "Input should be greater than or equal to 1");
        break;
    }
    w_.field("max_tokens", most);
    return true;
}

bool ChatReader::read_stream(Object body) {
    bool stream = false;
    if (const auto value = json::member(body, "stream"))
        if (value->get(stream)) return fail("stream", kBoolean);
    if (stream) w_.field("stream", true);
    const auto value = json::member(body, "stream_options");
    if (!value) return true;
    Object options;
    if (value->get(options)) return fail("stream_options", kObject);
    if (const auto usage = json::member(options, "include_usage"))
        if (usage->get(out_.include_usage)) return fail("stream_options.include_usage", kBoolean);
    if (!stream) later("stream_options", "only allowed when `stream` is true");
    return true;
}

bool ChatReader::read_sampling(Object body) {
    const auto real = [&](std::string_view key, double low, double high, std::string_view range,
                          auto& out) {
        const auto value = json::member(body, key);
        if (!value) return true;
        double number = 0;
        if (!value->is_number() || value->get(number))
            return fail(key, "Input should be a valid number");
        if (!(number >= low && number <= high)) return fail(key, range);
        out = number;
        return true;
    };
    std::optional<double> top_p;
    if (!real("temperature", 0, 2, "range: 0..2", out_.temperature) ||
        !real("top_p", 0, 1, "range: 0..1", top_p) ||
        !real("presence_penalty", -2, 2, "range: -2..2", out_.presence_penalty) ||
        !real("frequency_penalty", -2, 2, "range: -2..2", out_.frequency_penalty))
        return false;
    if (top_p) w_.field("top_p", *top_p);
    if (const auto value = json::member(body, "seed")) {
        int64_t number = 0;
        uint64_t natural = 0;
        if (!value->get(number))
            out_.seed = static_cast<uint64_t>(number);
        else if (!value->get(natural))
            out_.seed = natural;
        else
            return fail("seed", "Input should be a valid integer");
    }
    return true;
}

bool ChatReader::read_stops(Object body) {
    const auto value = json::member(body, "stop");
    if (!value) return true;
    std::vector<std::string_view> stops;
    Array items;
    if (const auto one = json::text(*value)) {
        stops.push_back(*one);
    } else if (value->get(items)) {
        return fail("stop", "Input should be a valid string or list");
    } else {
        for (const Element item : items) {
            std::string_view stop;
            if (item.get(stop)) return fail("stop." + std::to_string(stops.size()), kString);
            if (stops.size() == kStopsMax)
                return fail("stop",
                            "List should have at most " + std::to_string(kStopsMax) + " items");
            stops.push_back(stop);
        }
    }
    w_.key("stop_sequences").array();
    for (const std::string_view stop : stops) {
        if (stop.size() > kStopBytesMax)
            return fail("stop",
                        "String should have at most " + std::to_string(kStopBytesMax) + " bytes");
        if (stop.empty())
            later("stop", "each stop string must be non-empty");
        else if (messages::blank(stop))
            out_.blank_stops.emplace_back(stop);
        else
            w_.string(stop);
    }
    w_.end();
    return true;
}

bool ChatReader::read_tools(Object body) {
    const auto value = json::member(body, "tools");
    if (!value) return true;
    Array tools;
    if (value->get(tools)) return fail("tools", kList);
    w_.key("tools").array();
    size_t index = 0;
    for (const Element item : tools) {
        const std::string path = "tools." + std::to_string(index++);
        Object tool;
        if (item.get(tool)) return fail(path, kObject);
        std::string_view type;
        if (!text(tool, "type", path + ".type", type)) return false;
        if (type != "function") {
            later(path, "tool type '" + json::shown(type) + "' is not supported by this server");
            continue;
        }
        Element inner;
        Object function;
        if (tool.at_key("function").get(inner)) return fail(path + ".function", kRequired);
        if (inner.get(function)) return fail(path + ".function", kObject);
        std::string_view name;
        if (!text(function, "name", path + ".function.name", name)) return false;
        w_.object().field("name", name);
        if (const auto given = json::member(function, "description")) {
            std::string_view description;
            if (given->get(description)) return fail(path + ".function.description", kString);
            w_.field("description", description);
        }
        w_.key("input_schema");
        if (!write_parameters(function, path + ".function.parameters")) return false;
        w_.end();
        has_tools_ = true;
    }
    w_.end();
    return true;
}

// Absent means a function without arguments; a schema that does not say so is an object's.
bool ChatReader::write_parameters(Object function, const std::string& path) {
    const auto value = json::member(function, "parameters");
    if (!value) {
        w_.raw(R"({"type":"object","properties":{}})");
        return true;
    }
    Object schema;
    if (value->get(schema)) return fail(path, kObject);
    if (json::member(schema, "type")) {
        w_.raw(simdjson::minify(*value));
        return true;
    }
    w_.object().field("type", "object");
    for (const auto field : schema)
        if (field.key != "type") w_.key(field.key).raw(simdjson::minify(field.value));
    w_.end();
    return true;
}

bool ChatReader::read_tool_choice(Object body) {
    bool parallel = true;
    if (const auto value = json::member(body, "parallel_tool_calls"))
        if (value->get(parallel)) return fail("parallel_tool_calls", kBoolean);
    std::string_view type = "auto";
    std::string_view name;
    const auto value = json::member(body, "tool_choice");
    if (value) {
        Object choice, function;
        Element inner;
        if (const auto word = json::text(*value)) {
            if (*word != "none" && *word != "auto" && *word != "required")
                return fail("tool_choice", "Input should be 'none', 'auto' or 'required'");
            type = *word == "required" ? "any"sv : *word;
        } else if (value->get(choice)) {
            return fail("tool_choice", "Input should be a valid string or object");
        } else {
            std::string_view kind;
            if (!text(choice, "type", "tool_choice.type", kind)) return false;
            if (kind != "function") {
                later("tool_choice.type",
                      "'" + json::shown(kind) + "' is not supported by this server");
                return true;
            }
            if (choice.at_key("function").get(inner))
                return fail("tool_choice.function", kRequired);
            if (inner.get(function)) return fail("tool_choice.function", kObject);
            if (!text(function, "name", "tool_choice.function.name", name)) return false;
            type = "tool";
        }
    }
    if (!has_tools_) {
        // Front ends send both with an empty list.
        if (type == "any" || type == "tool")
            later("tool_choice", "only allowed when `tools` are specified");
        return true;
    }
    if (!value && parallel) return true;
    w_.key("tool_choice").object().field("type", type);
    if (type == "tool") w_.field("name", name);
    if (!parallel && type != "none") w_.field("disable_parallel_tool_use", true);
    w_.end();
    return true;
}

bool ChatReader::read_format(Object body) {
    const auto value = json::member(body, "response_format");
    if (!value) return true;
    Object format;
    if (value->get(format)) return fail("response_format", kObject);
    std::string_view type;
    if (!text(format, "type", "response_format.type", type)) return false;
    if (type == "text") return true;
    std::string schema = R"({"type":"object"})";
    if (type == "json_schema") {
        Element inner, given;
        Object named;
        if (format.at_key("json_schema").get(inner))
            return fail("response_format.json_schema", kRequired);
        if (inner.get(named)) return fail("response_format.json_schema", kObject);
        if (named.at_key("schema").get(given) || given.is_null())
            return fail("response_format.json_schema.schema", kRequired);
        if (!given.is_object()) return fail("response_format.json_schema.schema", kObject);
        schema = simdjson::minify(given);
    } else if (type != "json_object") {
        return fail("response_format.type",
                    "Input should be 'text', 'json_object' or 'json_schema'");
    }
    if (!out_.blank_stops.empty()) later("stop", "not supported with response_format");
    w_.key("output_config").object().key("format").object();
    w_.field("type", "json_schema").key("schema").raw(schema).end().end();
    return true;
}

bool ChatReader::read_user(Object body) {
    const auto value = json::member(body, "user");
    if (!value) return true;
    const auto user = json::text(*value);
    if (!user) return fail("user", kString);
    if (user->size() <= kUserIdCharsMax) w_.key("metadata").object().field("user_id", *user).end();
    return true;
}

void ChatReader::read_unsupported(Object body) {
    if (const auto n = json::member(body, "n")) {
        uint64_t count = 0;
        if (n->get(count) || count != 1) later("n", "Input should be 1: one choice is made");
    }
    for (const auto key :
         {"logprobs"sv, "audio"sv, "functions"sv, "function_call"sv, "web_search_options"sv})
        if (const auto value = json::member(body, key))
            if (asks(*value)) later(key, "not supported by this server");
    if (const auto top = json::member(body, "top_logprobs")) {
        uint64_t count = 1;
        if (top->get(count) || count != 0) later("top_logprobs", "not supported by this server");
    }
    Array modalities;
    if (const auto value = json::member(body, "modalities"); value && !value->get(modalities))
        for (const Element item : modalities)
            if (json::text(item) != "text")
                later("modalities", "only 'text' is supported by this server");
}

tl::expected<ChatRequest, ApiError> read_chat(std::string_view text) {
    simdjson::dom::parser parser;
    const auto body = json::read_body(text, kDepthMax, parser);
    if (!body) return tl::unexpected(body.error());
    ChatRequest out;
    out.body.reserve(text.size() + text.size() / 4 + 512);
    ChatReader reader(out);
    if (!reader.read(*body)) return tl::unexpected<ApiError>(reader.error());
    return out;
}

}  // namespace parley::openai
