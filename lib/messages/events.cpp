#include "messages/events.hpp"

#include <array>
#include <cassert>

#include "base/json.hpp"

namespace parley::messages {
namespace {

constexpr std::array<std::string_view, 7> kStopReasons{
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded",
    "refusal",  "pause_turn"};
constexpr std::array<std::string_view, 10> kEventTypes{"message_start",
                                                       "content_block_start",
                                                       "content_block_delta",
                                                       "content_block_stop",
                                                       "message_delta",
                                                       "message_stop",
                                                       "ping",
                                                       "error",
                                                       "message_accepted",
                                                       "snapshot"};

template <class Enum, size_t N>
std::optional<Enum> find(const std::array<std::string_view, N>& names, std::string_view name) {
    for (size_t i = 0; i < N; ++i)
        if (names[i] == name) return static_cast<Enum>(i);
    return std::nullopt;
}

void write_usage(base::JsonWriter& w, const Usage& usage) {
    w.object().field("input_tokens", usage.input_tokens);
    w.field("cache_creation_input_tokens", usage.cache_creation_input_tokens);
    w.field("cache_read_input_tokens", usage.cache_read_input_tokens);
    const uint64_t hour = usage.cache_creation_1h_input_tokens;
    assert(hour <= usage.cache_creation_input_tokens);
    w.key("cache_creation").object();
    w.field("ephemeral_5m_input_tokens", usage.cache_creation_input_tokens - hour);
    w.field("ephemeral_1h_input_tokens", hour).end();
    w.field("output_tokens", usage.output_tokens);
    w.field("service_tier", usage.service_tier).end();
}

}  // namespace

void write_stop(base::JsonWriter& w, const Stop& stop) {
    w.field("stop_reason", name(stop.reason)).key("stop_sequence");
    if (stop.sequence)
        w.string(*stop.sequence);
    else
        w.null();
}

std::string_view name(StopReason reason) { return kStopReasons[static_cast<size_t>(reason)]; }
std::optional<StopReason> stop_reason(std::string_view name) {
    return find<StopReason>(kStopReasons, name);
}
std::string_view name(EventType type) { return kEventTypes[static_cast<size_t>(type)]; }
std::optional<EventType> event_type(std::string_view name) {
    return find<EventType>(kEventTypes, name);
}

std::string usage_json(const Usage& usage) {
    std::string out;
    base::JsonWriter w(out);
    write_usage(w, usage);
    return out;
}

std::string EventWriter::message_start(std::string_view message_id, std::string_view model,
                                       const Usage& usage) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "message_start").key("message").object();
    w.field("id", message_id).field("type", "message").field("role", "assistant");
    w.field("model", model).key("content").array().end();
    w.key("stop_reason").null().key("stop_sequence").null().key("usage");
    write_usage(w, usage);
    w.end().end();
    return out;
}

std::string EventWriter::text_block_start(uint32_t index) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "content_block_start").field("index", index);
    w.key("content_block").object().field("type", "text").field("text", "").end().end();
    return out;
}

std::string EventWriter::text_delta(uint32_t index, std::string_view text,
                                    std::optional<uint64_t> offset) {
    std::string out;
    out.reserve(96 + text.size() + text.size() / 8);
    base::JsonWriter w(out);
    w.object().field("type", "content_block_delta").field("index", index);
    if (offset) w.field("offset", *offset);
    w.key("delta").object().field("type", "text_delta").field("text", text).end().end();
    return out;
}

std::string EventWriter::tool_block_start(uint32_t index, std::string_view id,
                                          std::string_view name) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "content_block_start").field("index", index);
    w.key("content_block").object().field("type", "tool_use").field("id", id).field("name", name);
    w.key("input").object().end().end().end();
    return out;
}

std::string EventWriter::input_delta(uint32_t index, std::string_view partial_json,
                                     std::optional<uint64_t> offset) {
    std::string out;
    out.reserve(104 + partial_json.size() + partial_json.size() / 4);
    base::JsonWriter w(out);
    w.object().field("type", "content_block_delta").field("index", index);
    if (offset) w.field("offset", *offset);
    w.key("delta").object().field("type", "input_json_delta");
    w.field("partial_json", partial_json).end().end();
    return out;
}

std::string EventWriter::block_stop(uint32_t index) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "content_block_stop").field("index", index).end();
    return out;
}

std::string EventWriter::message_delta(const Stop& stop, const Usage& usage) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "message_delta").key("delta").object();
    write_stop(w, stop);
    if (!stop.details_json.empty()) w.key("stop_details").raw(stop.details_json);
    w.end().key("usage");
    write_usage(w, usage);
    w.end();
    return out;
}

std::string EventWriter::message_stop() { return R"({"type":"message_stop"})"; }
std::string EventWriter::ping() { return R"({"type":"ping"})"; }
std::string EventWriter::error(const ApiError& error, std::string_view request_id) {
    return error_body(error, request_id);
}

std::vector<std::string> refusal_events(std::string_view message_id, std::string_view model,
                                        const Usage& usage, std::string_view details_json) {
    const Stop stop{StopReason::refusal, std::nullopt, std::string(details_json)};
    return {EventWriter::message_start(message_id, model, usage),
            EventWriter::message_delta(stop, usage), EventWriter::message_stop()};
}

EventOrder EventOrder::resumed(uint32_t next_index, bool block_open) {
    assert(!block_open || next_index > 0);
    EventOrder order;
    order.state_ = block_open ? State::in_block : State::between;
    order.next_index_ = next_index;
    return order;
}

base::Result<void> EventOrder::next(const Event& event) {
    const bool delta = event.type == EventType::content_block_delta;
    if (delta && state_ == State::in_block && block_ && *block_ != event.block)
        return base::fail(base::Errc::invalid,
                          "event 'content_block_delta' is not of its block's kind");
    if (auto fits = next(event.type, event.index); !fits) return fits;
    if (delta || event.type == EventType::content_block_start) block_ = event.block;
    return {};
}

base::Result<void> EventOrder::next(EventType type, uint32_t index) {
    static constexpr std::array<std::string_view, 6> kAfter{
        "at the start",        "between blocks",     "inside a block",
        "after message_delta", "after message_stop", "after an error"};
    const auto refuse = [&](std::string_view why = "") {
        return base::fail(base::Errc::invalid,
                          "event '" + std::string(name(type)) + "' may not come " +
                              std::string(kAfter[size_t(state_)]) + std::string(why));
    };
    if (finished()) return refuse();
    switch (type) {
        case EventType::message_start:
            if (state_ != State::fresh) return refuse();
            state_ = State::between;
            return {};
        case EventType::content_block_start:
            if (state_ != State::between) return refuse();
            if (index != next_index_)
                return refuse(" with index " + std::to_string(index) + ", expected " +
                              std::to_string(next_index_));
            ++next_index_;
            block_.reset();
            state_ = State::in_block;
            return {};
        case EventType::content_block_delta:
        case EventType::content_block_stop:
            if (state_ != State::in_block) return refuse();
            if (index + 1 != next_index_)
                return refuse(" with index " + std::to_string(index) + ", expected " +
                              std::to_string(next_index_ - 1));
            if (type == EventType::content_block_stop) state_ = State::between;
            return {};
        case EventType::message_delta:
            if (state_ != State::between) return refuse();
            state_ = State::delta;
            return {};
        case EventType::message_stop:
            if (state_ != State::delta) return refuse();
            state_ = State::stopped;
            return {};
        case EventType::ping:
            if (state_ == State::fresh) return refuse();
            return {};
        case EventType::error:
            state_ = State::failed;
            return {};
        case EventType::message_accepted:
            if (state_ != State::fresh) return refuse();
            return {};
        case EventType::snapshot:
            // What is open after it depends on the message it carries: begin anew with resumed().
            return refuse();
    }
    return refuse();
}

void sse_frame(std::string& out, std::string_view id, std::string_view event_name,
               std::string_view json) {
    assert(json.find('\n') == std::string_view::npos);
    if (!id.empty()) {
        out += "id: ";
        out += id;
        out += '\n';
    }
    out += "event: ";
    out += event_name;
    out += "\ndata: ";
    out += json;
    out += "\n\n";
}

}  // namespace parley::messages
