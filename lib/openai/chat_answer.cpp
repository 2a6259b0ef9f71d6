#include "openai/chat_answer.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <vector>

namespace parley::openai {

using messages::ApiError;
using messages::ErrorType;
using messages::Event;
using messages::EventType;
using messages::StopReason;

namespace {

void write_usage(base::JsonWriter& w, const messages::Usage& usage) {
    w.object().field("prompt_tokens", usage.prompt_tokens());
    w.field("completion_tokens", usage.output_tokens);
    w.field("total_tokens", usage.prompt_tokens() + usage.output_tokens);
    w.key("prompt_tokens_details").object();
    w.field("cached_tokens", usage.cache_read_input_tokens).end().end();
}

// Where the Messages API's name for a field is not the one that was sent.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kNames{{
    {"output_config.format.schema", "response_format.json_schema.schema"},
    {"stop_sequences", "stop"},
    {"metadata.user_id", "user"},
    {".input_schema", ".function.parameters"},
    {"tool_choice.name", "tool_choice.function.name"},
}};

std::string told(const ApiError& error) {
    std::string text = error.message;
    const size_t path_end = std::min(text.find(": "), text.size());
    for (const auto& [from, to] : kNames) {
        const size_t at = text.find(from);
        if (at == std::string::npos || at + from.size() > path_end) continue;
        text.replace(at, from.size(), to);
        break;
    }
    return text;
}

bool too_long(const ApiError& error) { return error.message.starts_with("prompt is too long: "); }

// "path: reason" → path; "" where the text does not begin with one.
std::string_view param_of(const ApiError& error, std::string_view text) {
    if (too_long(error)) return "messages";
    if (error.status != 400 && error.status != 404) return {};
    const size_t colon = text.find(": ");
    if (colon == std::string_view::npos) return {};
    const std::string_view path = text.substr(0, colon);
    const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
    });
    return plain ? path : std::string_view{};
}

std::string_view type_of(const ApiError& error) {
    switch (error.type) {
        case ErrorType::permission_error:
            return "permission_error";
        case ErrorType::rate_limit_error:
            return "rate_limit_error";
        case ErrorType::billing_error:
            return "insufficient_quota";
        case ErrorType::api_error:
        case ErrorType::timeout_error:
        case ErrorType::overloaded_error:
            return "server_error";
        default:
            return "invalid_request_error";
    }
}

std::string_view code_of(const ApiError& error) {
    if (too_long(error)) return "context_length_exceeded";
    if (error.type == ErrorType::authentication_error) return "invalid_api_key";
    if (error.type == ErrorType::rate_limit_error) return "rate_limit_exceeded";
    if (error.type == ErrorType::not_found_error && error.message.starts_with("model: "))
        return "model_not_found";
    return {};
}

// What the Messages API's content says, so that a call that was cut is dropped here as it is there.
void write_content(base::JsonWriter& w, const messages::Folder& answer) {
    simdjson::dom::parser parser;
    simdjson::dom::array blocks;
    std::vector<simdjson::dom::object> calls;
    const std::string json = answer.content_json();
    simdjson::dom::object object;
    if (!parser.parse(json).get(blocks))
        for (const auto block : blocks)
            if (!block.get(object) && object["type"].get_string().value_unsafe() == "tool_use")
                calls.push_back(object);
    const std::string text = answer.text();
    w.key("content");
    if (text.empty() && !calls.empty())
        w.null();
    else
        w.string(text);
    if (calls.empty()) return;
    w.key("tool_calls").array();
    for (const auto& call : calls) {
        w.object().field("id", call_id(call["id"].get_string().value()));
        w.field("type", "function").key("function").object();
        w.field("name", call["name"].get_string().value());
        w.field("arguments", simdjson::minify(call["input"].value())).end().end();
    }
    w.end();
}

void write_or_null(base::JsonWriter& w, std::string_view key, std::string_view text) {
    w.key(key);
    if (text.empty())
        w.null();
    else
        w.string(text);
}

}  // namespace

std::string chat_id(std::string_view message_id) {
    return "chatcmpl-" + std::string(message_id.substr(message_id.find('_') + 1));
}

std::string call_id(std::string_view tool_id) {
    return "call_" + std::string(tool_id.substr(tool_id.find('_') + 1));
}

std::string_view finish_reason(StopReason reason) {
    switch (reason) {
        case StopReason::max_tokens:
        case StopReason::model_context_window_exceeded:
            return "length";
        case StopReason::tool_use:
            return "tool_calls";
        case StopReason::refusal:
            return "content_filter";
        default:
            return "stop";
    }
}

void Chunks::open(std::string& out, base::JsonWriter& w) const {
    out += "data: ";
    w.object().field("id", id_).field("object", "chat.completion.chunk");
    w.field("created", created_s_).field("model", model_).key("system_fingerprint").null();
}

void Chunks::chunk(std::string& out, std::string_view delta_json, std::string_view finish) const {
    base::JsonWriter w(out);
    open(out, w);
    w.key("choices").array().object().field("index", 0).key("delta").raw(delta_json);
    w.key("logprobs").null();
    write_or_null(w, "finish_reason", finish);
    w.end().end();
    if (include_usage_) w.key("usage").null();
    w.end();
    out += "\n\n";
}

void Chunks::arguments(std::string& out, std::string_view piece) {
    call_empty_ = false;
    std::string delta;
    base::JsonWriter w(delta);
    w.object().key("tool_calls").array().object().field("index", calls_ - 1);
    w.key("function").object().field("arguments", piece).end().end().end().end();
    chunk(out, delta, {});
}

void Chunks::add(const Event& event, std::string& out) {
    switch (event.type) {
        case EventType::message_start:
            id_ = chat_id(event.message_id);
            model_ = event.model;
            if (event.usage) usage_ = *event.usage;
            return chunk(out, R"({"role":"assistant","content":""})", {});
        case EventType::content_block_start: {
            if (event.block != messages::BlockType::tool_use) return;
            std::string delta;
            base::JsonWriter w(delta);
            w.object().key("tool_calls").array().object().field("index", calls_++);
            w.field("id", call_id(event.tool_id)).field("type", "function");
            w.key("function").object().field("name", event.tool_name).field("arguments", "");
            w.end().end().end().end();
            call_empty_ = true;
            return chunk(out, delta, {});
        }
        case EventType::content_block_delta: {
            if (event.text.empty()) return;
            if (event.block == messages::BlockType::tool_use) return arguments(out, event.text);
            if (event.block != messages::BlockType::text) return;
            std::string delta;
            base::JsonWriter(delta).object().field("content", event.text).end();
            return chunk(out, delta, {});
        }
        case EventType::content_block_stop:
            // Without arguments is the empty object: a client parses the text.
            if (call_empty_) arguments(out, "{}");
            return;
        case EventType::message_delta:
            if (event.usage) usage_ = *event.usage;
            return chunk(out, "{}", event.stop ? finish_reason(event.stop->reason) : "stop");
        case EventType::message_stop: {
            if (include_usage_) {
                base::JsonWriter w(out);
                open(out, w);
                w.key("choices").array().end().key("usage");
                write_usage(w, usage_);
                w.end();
                out += "\n\n";
            }
            out += "data: [DONE]\n\n";
            return;
        }
        case EventType::error:
            out += "data: ";
            out += error_body(event.error);
            out += "\n\n";
            return;
        default:
            return;
    }
}

std::string completion_json(const messages::Folder& answer, const messages::Usage& usage,
                            int64_t created_s) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("id", chat_id(answer.message_id())).field("object", "chat.completion");
    w.field("created", created_s).field("model", answer.model()).key("system_fingerprint").null();
    w.key("choices").array().object().field("index", 0);
    w.key("message").object().field("role", "assistant");
    write_content(w, answer);
    w.key("refusal").null().end().key("logprobs").null();
    w.field("finish_reason", answer.stop() ? finish_reason(answer.stop()->reason) : "stop");
    w.end().end().key("usage");
    write_usage(w, usage);
    w.end();
    return out;
}

std::string error_body(const ApiError& error) {
    const std::string text = told(error);
    std::string out;
    base::JsonWriter w(out);
    w.object().key("error").object().field("message", text).field("type", type_of(error));
    write_or_null(w, "param", param_of(error, text));
    write_or_null(w, "code", code_of(error));
    w.end().end();
    return out;
}

std::string error_body_for_both(const ApiError& error, std::string_view request_id) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "error").key("error").object();
    w.field("type", name(error.type)).field("message", error.message);
    write_or_null(w, "param", param_of(error, error.message));
    write_or_null(w, "code", code_of(error));
    w.end().field("request_id", request_id).end();
    return out;
}

int http_status(const ApiError& error) { return error.status == 529 ? 503 : error.status; }

}  // namespace parley::openai
