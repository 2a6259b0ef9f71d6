#include "json_in.hpp"

#include <fmt/format.h>

#include "base/text.hpp"

namespace parley::chatd {

using messages::ApiError;

JsonIn::JsonIn(std::string_view json) {
    if (json.empty()) return;
    simdjson::dom::element root;
    if (const auto failed = parser_.allocate(json.size(), 128); failed) {
        error_ = ApiError::invalid(
            fmt::format("The request body is not valid JSON: {}", simdjson::error_message(failed)));
        return;
    }
    const auto failed = parser_.parse(json.data(), json.size(), true).get(root);
    if (failed) {
        error_ = ApiError::invalid(
            fmt::format("The request body is not valid JSON: {}", simdjson::error_message(failed)));
        return;
    }
    if (root.get(object_)) {
        error_ = ApiError::invalid("The request body is not valid JSON: it should be an object");
        return;
    }
    there_ = true;
}

void JsonIn::refuse(std::string_view path, std::string_view why) {
    if (!error_) error_ = ApiError::invalid(path, why);
}

std::optional<simdjson::dom::element> JsonIn::member(std::string_view name) {
    if (!there_) return std::nullopt;
    simdjson::dom::element element;
    if (object_.at_key(name).get(element)) return std::nullopt;
    return element;
}

bool JsonIn::has(std::string_view name) { return member(name).has_value(); }

bool JsonIn::is_null(std::string_view name) {
    const auto element = member(name);
    return element && element->is_null();
}

std::optional<std::string> JsonIn::text(std::string_view name, size_t bytes_max) {
    const auto element = member(name);
    if (!element || element->is_null()) return std::nullopt;
    std::string_view text;
    if (element->get(text)) {
        refuse(name, "Input should be a valid string");
        return std::nullopt;
    }
    if (text.size() > bytes_max) {
        refuse(name, fmt::format("at most {} bytes are possible", bytes_max));
        return std::nullopt;
    }
    return std::string(text);
}

std::optional<bool> JsonIn::flag(std::string_view name) {
    const auto element = member(name);
    if (!element || element->is_null()) return std::nullopt;
    bool value = false;
    if (element->get(value)) {
        refuse(name, "Input should be a valid boolean");
        return std::nullopt;
    }
    return value;
}

std::optional<std::string> JsonIn::raw(std::string_view name) {
    const auto element = member(name);
    if (!element || element->is_null()) return std::nullopt;
    return simdjson::minify(*element);
}

std::optional<std::string> JsonIn::object(std::string_view name, size_t bytes_max) {
    const auto element = member(name);
    if (!element || element->is_null()) return std::nullopt;
    if (!element->is_object()) {
        refuse(name, "Input should be a valid dictionary");
        return std::nullopt;
    }
    std::string json = simdjson::minify(*element);
    if (json.size() > bytes_max) {
        refuse(name, fmt::format("at most {} bytes are possible", bytes_max));
        return std::nullopt;
    }
    return json;
}

std::string member_json(std::string_view json, std::string_view name) {
    simdjson::dom::parser parser;
    simdjson::dom::element root, element;
    if (parser.parse(json.data(), json.size(), true).get(root)) return {};
    if (root.at_key(name).get(element)) return {};
    return simdjson::minify(element);
}

}  // namespace parley::chatd
