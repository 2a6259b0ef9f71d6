// json_read: what both readers of this library need of simdjson's DOM. Internal to lib/messages and lib/openai.
#pragma once

#include <simdjson.h>

#include <tl/expected.hpp>

#include <optional>
#include <string>
#include <string_view>

#include "messages/error.hpp"

namespace parley::messages::json {

namespace dom = simdjson::dom;

// The first key found twice in one object, anywhere below `element`. Recursion is bounded by the
// parser's depth limit.
std::optional<std::string_view> duplicate_key(dom::element element);

// The body of a request: one JSON object, no deeper than depth_max, no key twice in an object. Else the 400
// that says why. What it gives lives in `parser`, which must outlive it.
tl::expected<dom::object, ApiError> read_body(std::string_view text, size_t depth_max,
                                              dom::parser& parser);

// The member, or nullopt when it is absent or null.
inline std::optional<dom::element> member(dom::object object, std::string_view key) {
    dom::element value;
    if (object.at_key(key).get(value) || value.is_null()) return std::nullopt;
    return value;
}
inline std::optional<std::string_view> text(dom::element element) {
    std::string_view value;
    if (element.get(value)) return std::nullopt;
    return value;
}
inline std::optional<std::string_view> text_member(dom::object object, std::string_view key) {
    const auto value = member(object, key);
    return value ? text(*value) : std::nullopt;
}
inline std::optional<uint64_t> natural_member(dom::object object, std::string_view key) {
    const auto value = member(object, key);
    uint64_t number = 0;
    if (!value || value->get(number)) return std::nullopt;
    return number;
}
inline std::optional<dom::object> object_member(dom::object object, std::string_view key) {
    const auto value = member(object, key);
    dom::object inner;
    if (!value || value->get(inner)) return std::nullopt;
    return inner;
}

// At most 64 bytes of a name that a client chose, cut on a whole character.
std::string shown(std::string_view name);

}  // namespace parley::messages::json
