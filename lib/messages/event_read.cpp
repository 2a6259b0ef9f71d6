// parse_event: one stream event, read.
#include <algorithm>
#include <cstring>
#include <memory>

#include "messages/events.hpp"
#include "messages/json_read.hpp"

namespace parley::messages {
namespace {

using json::dom::element;
using json::dom::object;

// A parser and a padded buffer per thread: events are small, and come by the thousand a second.
// What an unusually large one made them grow to is given back.
struct Reader {
    simdjson::dom::parser parser;
    std::unique_ptr<char[]> buffer;
    size_t capacity = 0;
    static constexpr size_t kKeepBytes = 1 << 20;
    static constexpr size_t kDepthMax = 128;

    simdjson::error_code read(std::string_view json, element& out) {
        if (json.size() + simdjson::SIMDJSON_PADDING > capacity) {
            const size_t bytes = std::max<size_t>(4096, 2 * json.size());
            capacity = bytes + simdjson::SIMDJSON_PADDING;
            buffer = std::make_unique<char[]>(capacity);
            if (const auto error = parser.allocate(bytes, kDepthMax)) return error;
        }
        std::memcpy(buffer.get(), json.data(), json.size());
        return parser.parse(buffer.get(), json.size(), false).get(out);
    }
    void trim() {
        if (capacity <= kKeepBytes) return;
        buffer.reset();
        capacity = 0;
        parser = simdjson::dom::parser();
    }
};

tl::unexpected<base::Error> bad(std::string what) {
    return base::fail(base::Errc::invalid, "event: " + std::move(what));
}

std::optional<BlockType> block_type(std::string_view name) {
    if (name == "text") return BlockType::text;
    if (name == "tool_use") return BlockType::tool_use;
    if (name == "thinking") return BlockType::thinking;
    return std::nullopt;
}

std::optional<Usage> read_usage(object from) {
    const auto usage = json::object_member(from, "usage");
    if (!usage) return std::nullopt;
    Usage out;
    out.input_tokens = json::natural_member(*usage, "input_tokens").value_or(0);
    out.cache_creation_input_tokens =
        json::natural_member(*usage, "cache_creation_input_tokens").value_or(0);
    out.cache_read_input_tokens =
        json::natural_member(*usage, "cache_read_input_tokens").value_or(0);
    out.output_tokens = json::natural_member(*usage, "output_tokens").value_or(0);
    if (const auto split = json::object_member(*usage, "cache_creation"))
        out.cache_creation_1h_input_tokens =
            std::min(json::natural_member(*split, "ephemeral_1h_input_tokens").value_or(0),
                     out.cache_creation_input_tokens);
    if (const auto tier = json::text_member(*usage, "service_tier")) out.service_tier = *tier;
    return out;
}

base::Result<void> read_delta(object top, Event& event) {
    const auto delta = json::object_member(top, "delta");
    if (!delta) return bad("content_block_delta without a delta");
    const std::string_view kind = json::text_member(*delta, "type").value_or("");
    std::optional<std::string_view> text;
    if (kind == "text_delta") {
        text = json::text_member(*delta, "text");
    } else if (kind == "input_json_delta") {
        event.block = BlockType::tool_use;
        text = json::text_member(*delta, "partial_json");
    } else if (kind == "thinking_delta") {
        event.block = BlockType::thinking;
        text = json::text_member(*delta, "thinking");
    } else if (kind == "signature_delta") {
        event.block = BlockType::thinking;
        event.signature = true;
        text = json::text_member(*delta, "signature");
    } else {
        return bad("unknown delta type '" + json::shown(kind) + "'");
    }
    if (!text) return bad(std::string(kind) + " without its text");
    event.text = *text;
    event.offset = json::natural_member(top, "offset");
    return {};
}

base::Result<void> read_message_delta(object top, Event& event) {
    const auto delta = json::object_member(top, "delta");
    if (!delta) return bad("message_delta without a delta");
    event.usage = read_usage(top);
    const auto reason = json::text_member(*delta, "stop_reason");
    if (!reason) return {};
    const auto known = stop_reason(*reason);
    if (!known) return bad("unknown stop_reason '" + json::shown(*reason) + "'");
    Stop& stop = event.stop.emplace();
    stop.reason = *known;
    if (const auto sequence = json::text_member(*delta, "stop_sequence"))
        stop.sequence = std::string(*sequence);
    if (const auto details = json::member(*delta, "stop_details"))
        stop.details_json = simdjson::minify(*details);
    return {};
}

base::Result<void> read_error(object top, Event& event) {
    const auto error = json::object_member(top, "error");
    if (!error) return bad("error without an error object");
    const std::string_view type = json::text_member(*error, "type").value_or("");
    const ErrorType known = error_type(type).value_or(ErrorType::api_error);
    event.error =
        ApiError::of(known, std::string(json::text_member(*error, "message").value_or("")));
    return {};
}

base::Result<void> read_members(object top, Event& event) {
    switch (event.type) {
        case EventType::message_start: {
            const auto message = json::object_member(top, "message");
            if (!message) return bad("message_start without a message");
            event.message_id = json::text_member(*message, "id").value_or("");
            event.model = json::text_member(*message, "model").value_or("");
            event.usage = read_usage(*message);
            return {};
        }
        case EventType::content_block_start: {
            const auto block = json::object_member(top, "content_block");
            if (!block) return bad("content_block_start without a content_block");
            const std::string_view type = json::text_member(*block, "type").value_or("");
            const auto known = block_type(type);
            if (!known) return bad("unknown block type '" + json::shown(type) + "'");
            event.block = *known;
            if (event.block == BlockType::text)
                event.text = json::text_member(*block, "text").value_or("");
            if (event.block != BlockType::tool_use) return {};
            event.tool_id = json::text_member(*block, "id").value_or("");
            event.tool_name = json::text_member(*block, "name").value_or("");
            if (event.tool_id.empty() || event.tool_name.empty())
                return bad("a tool_use block without its id or name");
            return {};
        }
        case EventType::content_block_delta:
            return read_delta(top, event);
        case EventType::message_delta:
            return read_message_delta(top, event);
        case EventType::error:
            return read_error(top, event);
        case EventType::snapshot:
            event.offset = json::natural_member(top, "offset");
            return {};
        default:
            return {};
    }
}

base::Result<Event> read(element root) {
    object top;
    if (root.get(top)) return bad("not a JSON object");
    if (const auto twice = json::duplicate_key(root))
        return bad("duplicate key '" + json::shown(*twice) + "'");
    const auto type = json::text_member(top, "type");
    if (!type) return bad("no type");
    const auto known = event_type(*type);
    if (!known) return bad("unknown type '" + json::shown(*type) + "'");
    Event event;
    event.type = *known;
    if (event.type >= EventType::content_block_start &&
        event.type <= EventType::content_block_stop) {
        const auto index = json::natural_member(top, "index");
        if (!index || *index > 1'000'000)
            return bad(std::string(*type) + " without a usable index");
        event.index = static_cast<uint32_t>(*index);
    }
    if (auto done = read_members(top, event); !done) return base::fail(done.error());
    return event;
}

}  // namespace

base::Result<Event> parse_event(std::string_view json) {
    thread_local Reader reader;
    element root;
    if (const auto error = reader.read(json, root)) {
        reader.trim();
        return bad(std::string("not JSON: ") + simdjson::error_message(error));
    }
    auto event = read(root);
    reader.trim();
    return event;
}

}  // namespace parley::messages
