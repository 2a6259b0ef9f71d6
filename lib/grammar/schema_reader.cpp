#include "grammar/schema_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "grammar/json_parts.hpp"

namespace parley::grammar {

using base::Errc;
using base::Result;
using simdjson::dom::element_type;

std::string child(const std::string& path, std::string_view name) {
    std::string out = path + '/';
    for (const char c : name) {
        if (c == '~')
            out += "~0";
        else if (c == '/')
            out += "~1";
        else
            out += c;
    }
    return out;
}

tl::unexpected<base::Error> refuse(Errc code, const std::string& path, std::string_view keyword,
                                   std::string_view why) {
    return base::fail(code, fmt::format("{}: '{}' {}", path, keyword, why));
}

uint8_t kind_of(Element value) {
    switch (value.type()) {
        case element_type::STRING:
            return kString;
        case element_type::INT64:
        case element_type::UINT64:
            return kNumber | kInteger;
        case element_type::DOUBLE:
            return kNumber;
        case element_type::BOOL:
            return kBoolean;
        case element_type::NULL_VALUE:
            return kNull;
        case element_type::OBJECT:
            return kObject;
        case element_type::ARRAY:
            return kArray;
    }
    return 0;
}

Result<std::map<std::string_view, Element>> SchemaReader::keywords(const Located& at) const {
    simdjson::dom::object object;
    if (at.element.get(object) != simdjson::SUCCESS)
        return base::fail(Errc::invalid,
                          fmt::format("{}: an object or true was expected", at.path));
    std::map<std::string_view, Element> out;
    for (const auto& [name, value] : object)
        if (!out.emplace(name, value).second)
            return refuse(Errc::invalid, at.path, name, "stands there twice");
    return out;
}

Result<Located> SchemaReader::resolve(const Located& at, Element ref) const {
    std::string_view text;
    if (ref.get(text) != simdjson::SUCCESS)
        return refuse(Errc::invalid, at.path, "$ref", "is not a string");
    if (text != "#" && text.substr(0, 2) != "#/")
        return refuse(Errc::unsupported, at.path, "$ref",
                      "points outside the schema: only '#' and '#/…' are followed");
    Located here{"#", root_};
    text.remove_prefix(std::min<size_t>(2, text.size()));
    while (!text.empty()) {
        const size_t slash = std::min(text.find('/'), text.size());
        std::string name;
        for (size_t i = 0; i < slash; ++i) {
            if (text[i] == '~' && i + 1 < slash) {
                name += text[++i] == '1' ? '/' : '~';
            } else {
                name += text[i];
            }
        }
        text.remove_prefix(std::min(slash + 1, text.size()));
        simdjson::dom::object object;
        simdjson::dom::array array;
        bool found = false;
        if (here.element.get(object) == simdjson::SUCCESS) {
            for (const auto& [key, value] : object)
                if (!found && key == name) {
                    here.element = value;
                    found = true;
                }
        } else if (here.element.get(array) == simdjson::SUCCESS) {
            size_t index = 0;
            for (const Element value : array)
                if (!found && std::to_string(index++) == name) {
                    here.element = value;
                    found = true;
                }
        }
        if (!found)
            return refuse(Errc::invalid, at.path, "$ref",
                          fmt::format("points to nothing: no '{}' in {}", name, here.path));
        here.path = child(here.path, name);
    }
    return here;
}

Result<uint8_t> SchemaReader::kinds(const Located& at,
                                    const std::map<std::string_view, Element>& words) const {
    static const std::map<std::string_view, uint8_t> kNames = {
        {"string", kString}, {"number", kNumber}, {"integer", kInteger}, {"boolean", kBoolean},
        {"null", kNull},     {"object", kObject}, {"array", kArray}};
    const auto type = words.find("type");
    uint8_t out = 0;
    if (type != words.end()) {
        const auto add = [&](Element e) {
            std::string_view name;
            if (e.get(name) != simdjson::SUCCESS) return false;
            const auto known = kNames.find(name);
            if (known == kNames.end()) return false;
            out |= known->second;
            return true;
        };
        simdjson::dom::array list;
        bool good = true;
        if (type->second.get(list) == simdjson::SUCCESS) {
            for (const Element e : list) good = good && add(e);
        } else {
            good = add(type->second);
        }
        if (!good || out == 0)
            return refuse(Errc::invalid, at.path, "type", "names no type of JSON");
        if (out & kNumber) out &= static_cast<uint8_t>(~kInteger);
        return out;
    }
    for (const auto& [word, value] : words) {
        if (word == "properties" || word == "required" || word == "additionalProperties")
            out |= kObject;
        if (word == "items" || word == "minItems" || word == "maxItems") out |= kArray;
        if (word == "minLength" || word == "maxLength" || word == "pattern" || word == "format")
            out |= kString;
        if (word == "minimum" || word == "maximum" || word == "exclusiveMinimum" ||
            word == "exclusiveMaximum")
            out |= kNumber;
    }
    return out == 0 ? uint8_t{kAll} : out;
}

Result<void> SchemaReader::write(const Located& at, Element value, uint32_t depth,
                                 std::string& out) const {
    if (depth == 0) return base::fail(Errc::too_large, fmt::format("{}: nests too deep", at.path));
    switch (value.type()) {
        case element_type::STRING:
            out += json_quoted(std::string_view(value));
            break;
        case element_type::INT64:
            out += fmt::format("{}", int64_t(value));
            break;
        case element_type::UINT64:
            out += fmt::format("{}", uint64_t(value));
            break;
        case element_type::DOUBLE: {
            const double number = value;
            // 1.0 is the integer 1: one spelling for one value.
            out +=
                number == static_cast<double>(static_cast<int64_t>(std::clamp(number, -9e15, 9e15)))
                    ? fmt::format("{}", static_cast<int64_t>(number))
                    : fmt::format("{}", number);
            break;
        }
        case element_type::BOOL:
            out += bool(value) ? "true" : "false";
            break;
        case element_type::NULL_VALUE:
            out += "null";
            break;
        case element_type::ARRAY: {
            out += '[';
            bool first = true;
            for (const Element e : simdjson::dom::array(value)) {
                if (!first) out += ',';
                first = false;
                if (auto ok = write(at, e, depth - 1, out); !ok) return ok;
            }
            out += ']';
            break;
        }
        case element_type::OBJECT: {
            out += '{';
            bool first = true;
            for (const auto& [key, e] : simdjson::dom::object(value)) {
                if (!first) out += ',';
                first = false;
                out += json_quoted(key) + ':';
                if (auto ok = write(at, e, depth - 1, out); !ok) return ok;
            }
            out += '}';
            break;
        }
    }
    return {};
}

Result<std::string> SchemaReader::compact(const Located& at, Element value) const {
    std::string out;
    if (auto ok = write(at, value, nesting_max_, out); !ok) return base::fail(ok.error());
    return out;
}

std::optional<Located> SchemaReader::follow(Located at) const {
    for (uint32_t hops = 0; hops < nesting_max_; ++hops) {
        simdjson::dom::object object;
        if (at.element.get(object) != simdjson::SUCCESS) return at;
        Element ref;
        if (object["$ref"].get(ref) != simdjson::SUCCESS) return at;
        auto next = resolve(at, ref);
        if (!next) return std::nullopt;
        at = std::move(*next);
    }
    return std::nullopt;
}

std::optional<std::vector<std::string>> SchemaReader::values(const Located& at) const {
    const auto to = follow(at);
    simdjson::dom::object object;
    if (!to || to->element.get(object) != simdjson::SUCCESS) return std::nullopt;
    std::vector<std::string> out;
    Element value;
    if (object["const"].get(value) == simdjson::SUCCESS) {
        auto text = compact(*to, value);
        if (!text) return std::nullopt;
        out.push_back(std::move(*text));
        return out;
    }
    simdjson::dom::array list;
    if (object["enum"].get(list) != simdjson::SUCCESS) return std::nullopt;
    for (const Element e : list) {
        auto text = compact(*to, e);
        if (!text) return std::nullopt;
        out.push_back(std::move(*text));
    }
    return out;
}

bool SchemaReader::exclude(const Located& a, const Located& b) const {
    const auto left = follow(a), right = follow(b);
    if (!left || !right) return false;
    const auto apart = [](const std::optional<std::vector<std::string>>& x,
                          const std::optional<std::vector<std::string>>& y) {
        if (!x || !y) return false;
        const std::set<std::string_view> set(x->begin(), x->end());
        return std::none_of(y->begin(), y->end(),
                            [&](const std::string& v) { return set.count(v) > 0; });
    };
    // An object's spelling depends on the order of its keys: only scalars are compared.
    const auto scalars = [&](const Located& at) {
        auto v = values(at);
        if (v && std::any_of(v->begin(), v->end(), [](const std::string& text) {
                return text[0] == '{' || text[0] == '[';
            }))
            v.reset();
        return v;
    };
    const auto x = scalars(*left), y = scalars(*right);
    if (apart(x, y)) return true;
    const auto kinds_of = [&](const Located& at) -> uint8_t {
        simdjson::dom::object object;
        if (at.element.get(object) != simdjson::SUCCESS) return 0xFF;
        if (auto v = values(at)) {
            uint8_t out = 0;
            for (const std::string& text : *v)
                out |= text[0] == '"'                     ? kString
                       : text[0] == '{'                   ? kObject
                       : text[0] == '['                   ? kArray
                       : text[0] == 't' || text[0] == 'f' ? kBoolean
                       : text[0] == 'n'                   ? kNull
                                                          : kNumber;
            return out;
        }
        // Only what "type" says: keywords alone leave the other types valid.
        Element type;
        if (object["type"].get(type) != simdjson::SUCCESS) return 0xFF;
        auto out = kinds(at, {{"type", type}});
        if (!out) return 0xFF;
        return *out & kInteger ? static_cast<uint8_t>(*out | kNumber) : *out;
    };
    const uint8_t kinds_left = kinds_of(*left), kinds_right = kinds_of(*right);
    if ((kinds_left & kinds_right) == 0) return true;
    if ((kinds_left & kinds_right) != kObject) return false;
    // Objects that both require a property whose values differ.
    const auto required = [&](const Located& at) {
        std::set<std::string_view> out;
        simdjson::dom::array list;
        if (at.element["required"].get(list) == simdjson::SUCCESS)
            for (const Element e : list) {
                std::string_view name;
                if (e.get(name) == simdjson::SUCCESS) out.insert(name);
            }
        return out;
    };
    const auto in_left = required(*left), in_right = required(*right);
    for (const std::string_view name : in_left) {
        if (in_right.count(name) == 0) continue;
        Element l, r;
        if (left->element["properties"][name].get(l) == simdjson::SUCCESS &&
            right->element["properties"][name].get(r) == simdjson::SUCCESS &&
            apart(scalars({left->path, l}), scalars({right->path, r})))
            return true;
    }
    return false;
}

}  // namespace parley::grammar
