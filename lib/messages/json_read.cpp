#include "messages/json_read.hpp"

#include <algorithm>
#include <vector>

#include "base/text.hpp"

namespace parley::messages::json {
namespace {

// Above this many members, sorting beats comparing each with each.
constexpr size_t kPairwiseMax = 24;

std::optional<std::string_view> duplicate_in(dom::object object) {
    std::string_view seen[kPairwiseMax];
    size_t count = 0;
    for (const auto field : object) {
        if (count == kPairwiseMax) break;
        for (size_t i = 0; i < count; ++i)
            if (seen[i] == field.key) return field.key;
        seen[count++] = field.key;
    }
    if (count < kPairwiseMax) return std::nullopt;
    std::vector<std::string_view> keys;
    for (const auto field : object) keys.push_back(field.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return std::nullopt;
    return *twice;
}

}  // namespace

std::optional<std::string_view> duplicate_key(dom::element element) {
    if (dom::object object; !element.get(object)) {
        if (auto twice = duplicate_in(object)) return twice;
        for (const auto field : object)
            if (field.value.is_object() || field.value.is_array())
                if (auto twice = duplicate_key(field.value)) return twice;
    } else if (dom::array array; !element.get(array)) {
        for (const dom::element item : array)
            if (item.is_object() || item.is_array())
                if (auto twice = duplicate_key(item)) return twice;
    }
    return std::nullopt;
}

std::string shown(std::string_view name) {
    constexpr size_t kBytesMax = 64;
    if (name.size() <= kBytesMax) return std::string(name);
    name = name.substr(0, kBytesMax);
    return std::string(name.substr(0, base::utf8_complete_prefix(name))) + "…";
}

tl::expected<dom::object, ApiError> read_body(std::string_view text, size_t depth_max,
                                              dom::parser& parser) {
    const auto not_json = [](std::string_view why) {
        return tl::unexpected<ApiError>(
            ApiError::invalid("The request body is not valid JSON: " + std::string(why)));
    };
    const simdjson::padded_string padded(text);
    if (parser.allocate(text.size() + simdjson::SIMDJSON_PADDING, depth_max))
        return not_json("too large");
    dom::element root;
    if (const auto error = parser.parse(padded).get(root))
        return not_json(simdjson::error_message(error));
    dom::object body;
    if (root.get(body))
        return tl::unexpected<ApiError>(
            ApiError::invalid("The request body should be a JSON object"));
    if (const auto twice = duplicate_key(root))
        return not_json("duplicate key '" + shown(*twice) + "'");
    return body;
}

}  // namespace parley::messages::json
