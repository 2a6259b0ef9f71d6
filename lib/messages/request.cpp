#include "messages/request.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "messages/request_reader.hpp"

namespace parley::messages {
namespace {

using namespace std::string_view_literals;

constexpr size_t kModelBytesMax = 256;
constexpr size_t kCacheMarksMax = 4;
constexpr size_t kUnknownFieldsMax = 16;
constexpr uint64_t kThinkingBudgetMin = 1024;
constexpr uint64_t kMaxTokensCap = (uint64_t{1} << 53) - 1;

constexpr std::string_view kRequired = "Field required";
constexpr std::string_view kString = "Input should be a valid string";
constexpr std::string_view kInteger = "Input should be a valid integer";
constexpr std::string_view kNumber = "Input should be a valid number";
constexpr std::string_view kBoolean = "Input should be a valid boolean";
constexpr std::string_view kList = "Input should be a valid list";
constexpr std::string_view kObject = "Input should be an object";
constexpr std::string_view kNatural = "Input should be greater than or equal to 0";

// Every top-level field that has a meaning here or is taken and ignored.
constexpr std::array kKnownFields{"model"sv,
                                  "max_tokens"sv,
                                  "messages"sv,
                                  "system"sv,
                                  "stream"sv,
                                  "stop_sequences"sv,
                                  "temperature"sv,
                                  "top_p"sv,
                                  "top_k"sv,
                                  "tools"sv,
                                  "tool_choice"sv,
                                  "metadata"sv,
                                  "thinking"sv,
                                  "output_config"sv,
                                  "output_format"sv,
                                  "cache_control"sv,
                                  "service_tier"sv,
                                  "speed"sv,
                                  "inference_geo"sv,
                                  "diagnostics"sv,
                                  "user_profile_id"sv,
                                  "workspace_id"sv,
                                  "billing_policy"sv,
                                  "fallbacks"sv,
                                  "fallback_credit_token"sv,
                                  "thread"sv,
                                  "betas"sv,
                                  "anthropic_beta"sv,
                                  "context_management"sv,
                                  "compaction"sv,
                                  "container"sv,
                                  "mcp_servers"sv};

size_t characters(std::string_view text) {
    size_t count = 0;
    for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return count;
}

bool one_of(std::string_view value, std::initializer_list<std::string_view> allowed) {
    for (const std::string_view each : allowed)
        if (each == value) return true;
    return false;
}

// An integer as JSON has it: 5, not 5.0 and not "5".
enum class Natural { ok, wrong_type, negative };
Natural natural(json::dom::element element, uint64_t& out) {
    if (!element.get(out)) return Natural::ok;
    int64_t below = 0;
    return element.get(below) ? Natural::wrong_type : Natural::negative;
}

}  // namespace

std::string_view name(Origin origin) {
    constexpr std::array kNames{"system"sv, "user"sv, "assistant"sv, "document"sv};
    return kNames[static_cast<size_t>(origin)];
}

std::string Where::str(std::string_view leaf) const {
    std::string out(root);
    const auto add = [&](std::string_view part) {
        if (part.empty()) return;
        if (!out.empty()) out += '.';
        out += part;
    };
    if (message >= 0) add(std::to_string(message));
    add(middle);
    if (block >= 0) add(std::to_string(block));
    add(deeper);
    if (inner >= 0) add(std::to_string(inner));
    add(leaf);
    return out;
}

bool RequestReader::fail(std::string_view path, std::string_view why) {
    return fail(ApiError::invalid(path, why));
}
bool RequestReader::fail(ApiError error) {
    error_ = std::move(error);
    return false;
}
void RequestReader::later(std::string_view path, std::string_view why) {
    if (!semantic_) semantic_ = ApiError::invalid(path, why);
}

bool RequestReader::required_text(Object holder, const Where& where, std::string_view key,
                                  std::string_view& out) {
    Element value;
    if (holder.at_key(key).get(value)) return fail(where.str(key), kRequired);
    if (value.get(out)) return fail(where.str(key), kString);
    return true;
}

bool RequestReader::read(Object body) {
    // System before messages: it is the first turn. Marks on tools come before both.
    if (!read_model(body) || !read_max_tokens(body) || !read_tools(body) || !read_system(body) ||
        !read_messages(body) || !read_options(body) || !read_stops(body) || !read_sampling(body) ||
        !read_thinking(body) || !read_output(body) || !read_unsupported(body) ||
        !read_unknown(body))
        return false;
    if (!mark(body, Where{})) return false;
    if (cache_marks_ > kCacheMarksMax && !semantic_)
        semantic_ =
            ApiError::invalid("A maximum of 4 blocks with cache_control may be provided. Found " +
                              std::to_string(cache_marks_) + ".");
    return true;
}

bool RequestReader::read_model(Object body) {
    std::string_view model;
    if (!required_text(body, {}, "model", model)) return false;
    if (model.empty()) return fail("model", "String should have at least 1 character");
    if (model.size() > kModelBytesMax)
        return fail("model", "String should have at most 256 characters");
    out_.model = model;
    return true;
}

bool RequestReader::read_max_tokens(Object body) {
    Element value;
    const bool absent = body.at_key("max_tokens").get(value);
    if (options_.count_tokens) return true;
    if (absent) return fail("max_tokens", kRequired);
    switch (natural(value, out_.max_tokens)) {
        case Natural::wrong_type:
            return fail("max_tokens", kInteger);
        case Natural::negative:
            return fail("max_tokens", kNatural);
        case Natural::ok:
            break;
    }
    out_.max_tokens = std::min(out_.max_tokens, kMaxTokensCap);
    if (const auto stream = json::member(body, "stream")) {
        if (stream->get(out_.stream)) return fail("stream", kBoolean);
    }
    if (out_.max_tokens == 0 && out_.stream)
        later("max_tokens", "must be at least 1 when `stream` is true");
    return true;
}

bool RequestReader::read_sampling(Object body) {
    if (options_.count_tokens) return true;
    if (options_.strict_sampling)
        for (const auto key : {"temperature"sv, "top_p"sv, "top_k"sv})
            if (json::member(body, key)) return fail(key, "Extra inputs are not permitted");
    const auto fraction = [&](std::string_view key, std::optional<double>& out) {
        const auto value = json::member(body, key);
        if (!value) return true;
        double number = 0;
        if (!value->is_number() || value->get(number)) return fail(key, kNumber);
        // Written so that NaN, were it possible, would be refused too.
        if (!(number >= 0 && number <= 1)) return fail(key, "range: 0..1");
        out = number;
        return true;
    };
    if (!fraction("temperature", out_.temperature) || !fraction("top_p", out_.top_p)) return false;
    if (const auto value = json::member(body, "top_k")) {
        uint64_t number = 0;
        switch (natural(*value, number)) {
            case Natural::wrong_type:
                return fail("top_k", kInteger);
            case Natural::negative:
                return fail("top_k", kNatural);
            case Natural::ok:
                out_.top_k = number;
        }
    }
    return true;
}

bool RequestReader::read_stops(Object body) {
    const auto value = json::member(body, "stop_sequences");
    if (!value) return true;
    Array array;
    if (value->get(array)) return fail("stop_sequences", kList);
    size_t index = 0;
    for (const Element item : array) {
        std::string_view text;
        if (item.get(text)) return fail("stop_sequences." + std::to_string(index), kString);
        if (index == options_.stop_sequences_max)
            return fail("stop_sequences", "List should have at most " +
                                              std::to_string(options_.stop_sequences_max) +
                                              " items");
        if (text.size() > options_.stop_sequence_bytes_max)
            return fail("stop_sequences." + std::to_string(index),
                        "String should have at most " +
                            std::to_string(options_.stop_sequence_bytes_max) + " bytes");
        if (text.empty())
            later("stop_sequences", "each stop sequence must be non-empty");
        else if (blank(text))
            later("stop_sequences", "each stop sequence must contain non-whitespace");
        out_.stop_sequences.emplace_back(text);
        ++index;
    }
    return true;
}

bool RequestReader::read_options(Object body) {
    if (const auto value = json::member(body, "metadata")) {
        Object metadata;
        if (value->get(metadata)) return fail("metadata", kObject);
        if (const auto user = json::member(metadata, "user_id")) {
            std::string_view text;
            if (user->get(text)) return fail("metadata.user_id", kString);
            if (characters(text) > options_.user_id_chars_max)
                return fail("metadata.user_id", "String should have at most " +
                                                    std::to_string(options_.user_id_chars_max) +
                                                    " characters");
            out_.user_id = text;
        }
    }
    if (const auto value = json::member(body, "service_tier")) {
        const auto tier = json::text(*value);
        if (!tier || !one_of(*tier, {"auto", "standard_only"}))
            return fail("service_tier", "Input should be 'auto' or 'standard_only'");
    }
    return true;
}

bool RequestReader::read_thinking(Object body) {
    const auto value = json::member(body, "thinking");
    if (!value) return true;
    Object thinking;
    if (value->get(thinking)) return fail("thinking", kObject);
    std::string_view type;
    if (!required_text(thinking, Where{.root = "thinking"}, "type", type)) return false;
    if (!one_of(type, {"enabled", "disabled", "adaptive", "between_tools"}))
        return fail("thinking.type",
                    "Input should be 'enabled', 'disabled', 'adaptive' or 'between_tools'");
    out_.thinking = type != "disabled";
    if (type != "enabled") return true;
    Element budget;
    uint64_t tokens = 0;
    if (thinking.at_key("budget_tokens").get(budget))
        return fail("thinking.budget_tokens", kRequired);
    const Natural read = natural(budget, tokens);
    if (read == Natural::wrong_type) return fail("thinking.budget_tokens", kInteger);
    if (read == Natural::negative || tokens < kThinkingBudgetMin)
        return fail("thinking.budget_tokens", "Input should be greater than or equal to 1024");
    if (!options_.count_tokens && tokens >= out_.max_tokens)
        later("max_tokens", "must be greater than `thinking.budget_tokens`");
    return true;
}

bool RequestReader::read_output(Object body) {
    if (const auto value = json::member(body, "output_config")) {
        Object config;
        if (value->get(config)) return fail("output_config", kObject);
        if (const auto effort = json::member(config, "effort")) {
            const auto word = json::text(*effort);
            if (!word || !one_of(*word, {"low", "medium", "high", "xhigh", "max"}))
                return fail("output_config.effort",
                            "Input should be 'low', 'medium', 'high', 'xhigh' or 'max'");
        }
        if (const auto format = json::member(config, "format"))
            if (!read_format(*format, "output_config.format")) return false;
    }
    if (const auto format = json::member(body, "output_format")) {
        if (out_.schema_json) later("output_format", "not beside `output_config.format`");
        if (!read_format(*format, "output_format")) return false;
    }
    if (out_.tool_choice == ToolChoice::forced) out_.schema_json.reset();
    if (!out_.schema_json) return true;
    if (!out_.stop_sequences.empty())
        later("stop_sequences", "not supported with " + out_.schema_path + ", which they would cut");
    if (out_.prefill)
        later("messages", "a prefilled answer is not supported with " + out_.schema_path);
    return true;
}

bool RequestReader::read_format(Element element, const std::string& path) {
    Object format;
    if (element.get(format)) return fail(path, kObject);
    std::string_view type;
    if (!required_text(format, Where{.root = path}, "type", type)) return false;
    if (type != "json_schema") return fail(path + ".type", "Input should be 'json_schema'");
    Element schema;
    if (format.at_key("schema").get(schema)) return fail(path + ".schema", kRequired);
    if (!schema.is_object()) return fail(path + ".schema", kObject);
    out_.schema_json = simdjson::minify(schema);
    out_.schema_path = path + ".schema";
    return true;
}

bool RequestReader::read_unsupported(Object body) {
    for (const auto key : {"compaction"sv, "container"sv})
        if (json::member(body, key)) later(key, "not supported by this server");
    if (const auto value = json::member(body, "mcp_servers")) {
        Array servers;
        if (value->get(servers)) return fail("mcp_servers", kList);
        if (servers.size() != 0) later("mcp_servers", "not supported by this server");
    }
    return true;
}

bool RequestReader::read_unknown(Object body) {
    for (const auto field : body) {
        bool known = false;
        for (const auto each : kKnownFields) known = known || each == field.key;
        if (known) continue;
        const std::string shown = json::shown(field.key);
        if (options_.strict_fields) return fail(shown, "Extra inputs are not permitted");
        if (out_.unknown_fields.size() < kUnknownFieldsMax) out_.unknown_fields.push_back(shown);
    }
    return true;
}

bool RequestReader::read_cache_control(Object holder, const Where& where, std::optional<Ttl>& ttl) {
    const auto value = json::member(holder, "cache_control");
    if (!value) return true;
    Object control;
    if (value->get(control)) return fail(where.str("cache_control"), kObject);
    std::string_view type;
    if (control.at_key("type").get(type) || type != "ephemeral")
        return fail(where.str("cache_control.type"), "Input should be 'ephemeral'");
    ttl = Ttl::five_minutes;
    const auto given = json::member(control, "ttl");
    if (!given) return true;
    const std::string_view word = json::text(*given).value_or("");
    if (!one_of(word, {"5m", "1h"}))
        return fail(where.str("cache_control.ttl"), "Input should be '5m' or '1h'");
    if (word == "1h") ttl = Ttl::one_hour;
    return true;
}

bool RequestReader::mark(Object holder, const Where& where) {
    std::optional<Ttl> ttl;
    if (!read_cache_control(holder, where, ttl)) return false;
    if (!ttl) return true;
    if (++cache_marks_ <= kCacheMarksMax) turns_.mark(*ttl);
    return true;
}

tl::expected<Request, ApiError> parse_request(std::string_view json, const ParseOptions& options) {
    simdjson::dom::parser parser;
    const auto body = json::read_body(json, options.depth_max, parser);
    if (!body) return tl::unexpected(body.error());

    Request request;
    RequestReader reader(options, request);
    if (!reader.read(*body)) return tl::unexpected<ApiError>(*reader.error());
    if (options.check_model)
        if (auto refused = options.check_model(request.model))
            return tl::unexpected<ApiError>(std::move(*refused));
    if (reader.semantic()) return tl::unexpected<ApiError>(*reader.semantic());
    return request;
}

}  // namespace parley::messages
