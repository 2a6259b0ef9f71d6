// A validator of its own, written against the texts of JSON Schema and RFC 8259 and sharing nothing with
// lib/grammar but simdjson: does this text parse, and does it satisfy that schema?
#pragma once

#include <simdjson.h>

#include <cmath>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace parley::test {

using simdjson::dom::element;
using simdjson::dom::element_type;

class Validator {
  public:
    explicit Validator(const std::string& schema) { root_ = parser_.parse(schema).value(); }

    // Empty: valid. Else what is wrong.
    std::string check(const std::string& text) {
        element value;
        simdjson::dom::parser parser;
        if (const auto error = parser.parse(text).get(value); error != simdjson::SUCCESS)
            return std::string("no JSON: ") + simdjson::error_message(error);
        return valid(root_, value) ? "" : "does not validate";
    }

  private:
    static std::optional<element> get(element schema, const char* word) {
        element out;
        if (schema[word].get(out) == simdjson::SUCCESS) return out;
        return std::nullopt;
    }
    static bool equal(element a, element b) {
        if (a.is_number() && b.is_number()) return double(a) == double(b);
        return simdjson::minify(a) == simdjson::minify(b);
    }
    static bool is(element v, std::string_view type) {
        if (type == "number") return v.is_number();
        if (type == "integer") return v.is_number() && double(v) == std::floor(double(v));
        if (type == "string") return v.is_string();
        if (type == "boolean") return v.is_bool();
        if (type == "null") return v.is_null();
        if (type == "object") return v.is_object();
        return type == "array" && v.is_array();
    }
    static size_t characters(std::string_view text) {
        size_t n = 0;
        for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
        return n;
    }
    element at(std::string_view ref) {
        element here = root_;
        ref.remove_prefix(1);
        while (!ref.empty()) {
            ref.remove_prefix(1);
            const auto slash = std::min(ref.find('/'), ref.size());
            here = here[ref.substr(0, slash)].value();
            ref.remove_prefix(slash);
        }
        return here;
    }

    bool valid(element schema, element v) {
        if (schema.is_bool()) return bool(schema);
        if (const auto ref = get(schema, "$ref")) return valid(at(std::string_view(*ref)), v);
        if (const auto type = get(schema, "type")) {
            bool some = false;
            if (type->is_array()) {
                for (const element t : simdjson::dom::array(*type))
                    some |= is(v, std::string_view(t));
            } else {
                some = is(v, std::string_view(*type));
            }
            if (!some) return false;
        }
        if (const auto wanted = get(schema, "const"); wanted && !equal(*wanted, v)) return false;
        if (const auto list = get(schema, "enum")) {
            bool some = false;
            for (const element e : simdjson::dom::array(*list)) some |= equal(e, v);
            if (!some) return false;
        }
        if (const auto list = get(schema, "anyOf")) {
            bool some = false;
            for (const element e : simdjson::dom::array(*list)) some |= valid(e, v);
            if (!some) return false;
        }
        if (const auto list = get(schema, "oneOf")) {
            int count = 0;
            for (const element e : simdjson::dom::array(*list)) count += valid(e, v);
            if (count != 1) return false;
        }
        if (const auto list = get(schema, "allOf"))
            for (const element e : simdjson::dom::array(*list))
                if (!valid(e, v)) return false;
        if (v.is_string()) {
            const auto n = static_cast<double>(characters(std::string_view(v)));
            if (const auto b = get(schema, "minLength"); b && n < double(*b)) return false;
            if (const auto b = get(schema, "maxLength"); b && n > double(*b)) return false;
            if (const auto p = get(schema, "pattern")) {
                const std::string text{std::string_view(v)};
                if (!std::regex_search(text, std::regex(std::string(std::string_view(*p)))))
                    return false;
            }
        }
        if (v.is_number()) {
            const double n = v;
            if (const auto b = get(schema, "minimum"); b && n < double(*b)) return false;
            if (const auto b = get(schema, "maximum"); b && n > double(*b)) return false;
            if (const auto b = get(schema, "exclusiveMinimum"); b && n <= double(*b)) return false;
            if (const auto b = get(schema, "exclusiveMaximum"); b && n >= double(*b)) return false;
        }
        if (v.is_array()) {
            const simdjson::dom::array items = v;
            const auto n = static_cast<double>(items.size());
            if (const auto b = get(schema, "minItems"); b && n < double(*b)) return false;
            if (const auto b = get(schema, "maxItems"); b && n > double(*b)) return false;
            if (const auto each = get(schema, "items"))
                for (const element item : items)
                    if (!valid(*each, item)) return false;
        }
        if (v.is_object()) {
            const simdjson::dom::object object = v;
            if (const auto names = get(schema, "required"))
                for (const element name : simdjson::dom::array(*names)) {
                    bool found = false;
                    for (const auto& [key, value] : object) found |= key == std::string_view(name);
                    if (!found) return false;
                }
            std::set<std::string_view> named;
            if (const auto properties = get(schema, "properties"))
                for (const auto& [name, each] : simdjson::dom::object(*properties)) {
                    named.insert(name);
                    for (const auto& [key, value] : object)
                        if (key == name && !valid(each, value)) return false;
                }
            if (const auto more = get(schema, "additionalProperties"))
                for (const auto& [key, value] : object)
                    if (named.count(key) == 0 && !valid(*more, value)) return false;
        }
        return true;
    }

    simdjson::dom::parser parser_;
    element root_;
};

}  // namespace parley::test
