#include "grammar/schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <set>

#include "grammar/expression.hpp"
#include "grammar/json_parts.hpp"
#include "grammar/schema_reader.hpp"

namespace parley::grammar {
namespace {

using base::Errc;
using base::Result;
using Words = std::map<std::string_view, Element>;
using simdjson::SUCCESS;
using State = Builder::State;

const std::set<std::string_view> kAnnotations = {
    "$schema", "$id",         "$comment", "$defs",      "definitions", "$anchor",  "title",
    "default", "description", "examples", "deprecated", "readOnly",    "writeOnly"};
const std::set<std::string_view> kKnown = {"type",
                                           "enum",
                                           "const",
                                           "properties",
                                           "required",
                                           "additionalProperties",
                                           "items",
                                           "minItems",
                                           "maxItems",
                                           "minLength",
                                           "maxLength",
                                           "pattern",
                                           "format",
                                           "minimum",
                                           "maximum",
                                           "anyOf",
                                           "oneOf",
                                           "allOf",
                                           "exclusiveMinimum",
                                           "exclusiveMaximum",
                                           "$ref"};

constexpr std::string_view kDate =
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-"
    "9]|1[0-9]|2[0-8]))";
constexpr std::string_view kTime =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";

std::optional<std::string> format_pattern(std::string_view format) {
    if (format == "date") return fmt::format("^{}$", kDate);
    if (format == "time") return fmt::format("^{}$", kTime);
    if (format == "date-time") return fmt::format("^{}T{}$", kDate, kTime);
    if (format == "uuid") return "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
    if (format == "ipv4") {
        constexpr std::string_view kByte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
        return fmt::format("^{0}(\\.{0}){{3}}$", kByte);
    }
    return std::nullopt;
}

struct ObjectSpec {
    struct Property {
        std::string name;
        Located schema;
    };
    std::vector<Property> properties;
    std::set<std::string> required;
    std::optional<Located> additional;  // absent: not said
};

class Compiler {
  public:
    Compiler(Builder& builder, JsonParts& parts, Element root)
        : b_(builder), parts_(parts), reader_(root, builder.limits().nesting_max), root_(root) {}

    Result<Builder::Rule> run() {
        const auto root = rule_for({"#", root_});
        while (!pending_.empty()) {
            const auto [rule, at] = std::move(pending_.front());
            pending_.pop_front();
            const State start = b_.state(), end = b_.state();
            if (auto ok = schema(at, start, end); !ok) return base::fail(ok.error());
            b_.define(rule, start, end);
            if (auto ok = b_.check(); !ok) return base::fail(at.path, ok.error());
        }
        return root;
    }

  private:
    // One rule for one place of the document, made when its turn comes: recursion ends there.
    Builder::Rule rule_for(const Located& at) {
        const auto [it, fresh] = rules_.emplace(at.path, 0);
        if (fresh) {
            it->second = b_.rule(at.path);
            pending_.emplace_back(it->second, at);
        }
        return it->second;
    }

    // Keywords that would have to hold at the same time as `word`.
    Result<void> alone(const Located& at, const Words& words, std::string_view word,
                       std::initializer_list<std::string_view> fine = {}) const {
        for (const auto& [other, value] : words)
            if (other != word && kAnnotations.count(other) == 0 &&
                std::find(fine.begin(), fine.end(), other) == fine.end())
                return refuse(Errc::unsupported, at.path, other,
                              fmt::format("is not supported beside '{}'", word));
        return {};
    }

    Result<void> schema(const Located& at, State start, State end) {
        if (bool constant = false; at.element.get(constant) == SUCCESS) {
            if (!constant) return base::fail(Errc::invalid, at.path + ": false: nothing is valid");
            b_.call(start, parts_.any(), end);
            return {};
        }
        const auto read = reader_.keywords(at);
        if (!read) return base::fail(read.error());
        const Words& words = *read;
        for (const auto& [word, value] : words)
            if (kAnnotations.count(word) == 0 && kKnown.count(word) == 0)
                return refuse(Errc::unsupported, at.path, word, "is not supported");
        if (const auto ref = words.find("$ref"); ref != words.end()) {
            if (auto ok = alone(at, words, "$ref"); !ok) return ok;
            const auto target = reader_.resolve(at, ref->second);
            if (!target) return base::fail(target.error());
            b_.call(start, rule_for(*target), end);
            return {};
        }
        if (words.count("const") > 0) return literals(at, words, "const", start, end);
        if (words.count("enum") > 0) return literals(at, words, "enum", start, end);
        if (words.count("anyOf") > 0) return branches(at, words, "anyOf", start, end);
        if (words.count("oneOf") > 0) return branches(at, words, "oneOf", start, end);
        if (words.count("allOf") > 0) return all_of(at, words, start, end);
        const auto kinds = reader_.kinds(at, words);
        if (!kinds) return base::fail(kinds.error());
        if (*kinds == kAll && words.count("type") == 0) {
            b_.call(start, parts_.any(), end);
            return {};
        }
        if (*kinds & kNull) b_.skip(b_.text(start, "null"), end);
        if (*kinds & kBoolean)
            for (const char* word : {"true", "false"}) b_.skip(b_.text(start, word), end);
        Result<void> ok;
        if (*kinds & kString) ok = string(at, words, start, end);
        if (ok && *kinds & (kNumber | kInteger)) ok = number(at, words, *kinds, start, end);
        if (ok && *kinds & kArray) ok = array(at, words, start, end);
        if (ok && *kinds & kObject) {
            ObjectSpec spec;
            ok = object_spec(at, words, spec, 0);
            if (ok) ok = object(at, spec, start, end);
        }
        return ok;
    }

    Result<void> literals(const Located& at, const Words& words, std::string_view word, State start,
                          State end) {
        if (auto ok = alone(at, words, word, {"type"}); !ok) return ok;
        const Element value = words.at(word);
        std::vector<Element> values;
        if (word == "const") {
            values.push_back(value);
        } else {
            simdjson::dom::array list;
            if (value.get(list) != SUCCESS)
                return refuse(Errc::invalid, at.path, word, "is not a list");
            for (const Element e : list) values.push_back(e);
        }
        const auto kinds = reader_.kinds(at, words);
        if (!kinds) return base::fail(kinds.error());
        std::vector<std::string> texts;
        for (const Element e : values) {
            if (words.count("type") > 0 && (kind_of(e) & *kinds) == 0) continue;
            auto text = reader_.compact(at, e);
            if (!text) return base::fail(text.error());
            texts.push_back(std::move(*text));
        }
        if (texts.empty())
            return refuse(Errc::invalid, at.path, word, "has no value of the right type");
        for (const std::string& text : texts) b_.skip(b_.text(start, text), end);
        return {};
    }

    Result<std::vector<Located>> members(const Located& at, const Words& words,
                                         std::string_view word) const {
        simdjson::dom::array list;
        if (words.at(word).get(list) != SUCCESS || list.size() == 0)
            return refuse(Errc::invalid, at.path, word, "is not a list of schemas");
        std::vector<Located> out;
        for (const Element e : list)
            out.push_back({child(child(at.path, word), std::to_string(out.size())), e});
        return out;
    }

    Result<void> branches(const Located& at, const Words& words, std::string_view word, State start,
                          State end) {
        if (auto ok = alone(at, words, word); !ok) return ok;
        const auto list = members(at, words, word);
        if (!list) return base::fail(list.error());
        if (word == "oneOf") {
            if (list->size() > 256)
                return refuse(Errc::too_large, at.path, word, "has over 256 branches");
            for (size_t i = 0; i < list->size(); ++i)
                for (size_t j = i + 1; j < list->size(); ++j)
                    if (!reader_.exclude((*list)[i], (*list)[j]))
                        return refuse(
                            Errc::unsupported, at.path, word,
                            fmt::format("needs branches that exclude one another, by type or by a "
                                        "required const; {} and {} are not seen to: use anyOf",
                                        i, j));
        }
        for (const Located& branch : *list) b_.call(start, rule_for(branch), end);
        return {};
    }

    Result<void> all_of(const Located& at, const Words& words, State start, State end) {
        const auto list = members(at, words, "allOf");
        if (!list) return base::fail(list.error());
        if (list->size() == 1 && alone(at, words, "allOf")) {
            b_.call(start, rule_for((*list)[0]), end);
            return {};
        }
        ObjectSpec spec;
        if (auto ok = object_spec(at, words, spec, 0); !ok) return ok;
        return object(at, spec, start, end);
    }

    // Gathers an object's keywords, through allOf and $ref.
    Result<void> object_spec(const Located& at, const Words& words, ObjectSpec& spec,
                             uint32_t depth) {
        const bool merged = depth > 0 || words.count("allOf") > 0;
        if (depth > 16 || spec.properties.size() > b_.limits().rules_max)
            return refuse(Errc::too_large, at.path, "allOf", "nests too deep or is too large");
        for (const auto& [word, value] : words) {
            if (!merged) break;
            static const std::set<std::string_view> kFine = {"type", "properties", "required",
                                                             "allOf", "$ref"};
            if (kAnnotations.count(word) == 0 && kFine.count(word) == 0)
                return refuse(Errc::unsupported, at.path, word, "is not supported with 'allOf'");
        }
        if (merged && words.count("type") > 0) {
            const auto kinds = reader_.kinds(at, words);
            if (!kinds) return base::fail(kinds.error());
            if (*kinds != kObject)
                return refuse(Errc::unsupported, at.path, "type",
                              "is not supported with 'allOf', but for object");
        }
        if (const auto ref = words.find("$ref"); ref != words.end()) {
            const auto target = reader_.resolve(at, ref->second);
            if (!target) return base::fail(target.error());
            if (auto ok = merge(*target, spec, depth); !ok) return ok;
        }
        if (words.count("allOf") > 0) {
            const auto list = members(at, words, "allOf");
            if (!list) return base::fail(list.error());
            for (const Located& member : *list)
                if (auto ok = merge(member, spec, depth); !ok) return ok;
        }
        if (const auto found = words.find("properties"); found != words.end()) {
            simdjson::dom::object object;
            if (found->second.get(object) != SUCCESS)
                return refuse(Errc::invalid, at.path, "properties", "is not an object");
            std::set<std::string_view> seen;
            for (const auto& p : spec.properties) seen.insert(p.name);
            const std::string path = child(at.path, "properties");
            std::vector<ObjectSpec::Property> fresh;
            for (const auto& [name, value] : object) {
                if (!seen.insert(name).second)
                    return refuse(Errc::unsupported, path, name, "stands there twice");
                fresh.push_back({std::string(name), {child(path, name), value}});
            }
            for (auto& p : fresh) spec.properties.push_back(std::move(p));
        }
        if (const auto found = words.find("required"); found != words.end()) {
            simdjson::dom::array list;
            if (found->second.get(list) != SUCCESS)
                return refuse(Errc::invalid, at.path, "required", "is not a list of names");
            for (const Element e : list) {
                std::string_view name;
                if (e.get(name) != SUCCESS)
                    return refuse(Errc::invalid, at.path, "required", "is not a list of names");
                spec.required.insert(std::string(name));
            }
        }
        if (const auto found = words.find("additionalProperties"); found != words.end())
            spec.additional = {child(at.path, "additionalProperties"), found->second};
        return {};
    }

    Result<void> merge(const Located& member, ObjectSpec& spec, uint32_t depth) {
        const auto words = reader_.keywords(member);
        if (!words) return base::fail(words.error());
        for (const auto& [word, value] : *words)
            if (kAnnotations.count(word) == 0 && kKnown.count(word) == 0)
                return refuse(Errc::unsupported, member.path, word, "is not supported");
        return object_spec(member, *words, spec, depth + 1);
    }

    static bool is(Element e, bool value) {
        bool constant = false;
        return e.get(constant) == SUCCESS && constant == value;
    }

    Result<void> object(const Located& at, ObjectSpec& spec, State start, State end) {
        for (const std::string& name : spec.required)
            if (std::none_of(spec.properties.begin(), spec.properties.end(),
                             [&](const auto& p) { return p.name == name; }))
                return refuse(Errc::unsupported, at.path, "required",
                              fmt::format("names '{}', which 'properties' does not", name));
        std::vector<std::string> names;
        for (const auto& p : spec.properties) names.push_back(p.name);
        // A property that nothing satisfies is never written.
        for (const auto& p : spec.properties)
            if (is(p.schema.element, false) && spec.required.count(p.name) > 0)
                return base::fail(Errc::invalid, p.schema.path + ": required, and never valid");
        std::erase_if(spec.properties, [](const auto& p) { return is(p.schema.element, false); });
        const bool open = spec.additional ? !is(spec.additional->element, false) : names.empty();

        // first: nothing was written yet; after: a comma must come before the next; chosen: the comma
        // was written, so that one must follow.
        State first = b_.text(start, "{"), after = b_.state(), chosen = b_.state();
        bool some = false;
        for (const auto& p : spec.properties) {
            if (b_.full()) return b_.check();
            const bool optional = spec.required.count(p.name) == 0;
            const State key = b_.state(), next_first = b_.state(), next_after = b_.state(),
                        next_chosen = b_.state();
            b_.skip(first, key);
            b_.skip(chosen, key);
            if (some) b_.skip(parts_.separator(after, ','), key);
            const State value = parts_.separator(b_.text(key, json_quoted(p.name)), ':');
            b_.call(value, rule_for(p.schema), next_after);
            if (optional) {
                b_.skip(first, next_first);
                b_.skip(chosen, next_chosen);
                if (some) {
                    b_.skip(parts_.separator(after, ','), next_chosen);
                    b_.skip(after, next_after);
                }
            }
            some = true;
            first = next_first;
            after = next_after;
            chosen = next_chosen;
        }
        const State close = b_.state();
        b_.bytes(close, '}', '}', end);
        b_.skip(first, close);
        b_.skip(after, close);
        if (!open) return {};
        const State key = b_.state(), colon = b_.state();
        const auto value = spec.additional && !is(spec.additional->element, true)
                               ? rule_for(*spec.additional)
                               : parts_.any();
        b_.skip(first, key);
        b_.skip(chosen, key);
        b_.skip(parts_.separator(after, ','), key);
        b_.call(key, parts_.other_key(names), colon);
        b_.call(parts_.separator(colon, ':'), value, after);
        return {};
    }

    // A count ≥ 0, or `otherwise` where the keyword is not there.
    Result<uint32_t> count(const Located& at, const Words& words, std::string_view word,
                           uint32_t otherwise) const {
        const auto found = words.find(word);
        if (found == words.end()) return otherwise;
        double value = 0;
        if (found->second.get(value) != SUCCESS || value < 0 || value != std::floor(value))
            return refuse(Errc::invalid, at.path, word, "is not a whole number of at least 0");
        return value > 1e9 ? kNever : static_cast<uint32_t>(value);
    }

    Result<std::pair<uint32_t, uint32_t>> counts(const Located& at, const Words& words,
                                                 std::string_view least,
                                                 std::string_view most) const {
        const auto low = count(at, words, least, 0), high = count(at, words, most, kNever);
        if (!low) return base::fail(low.error());
        if (!high) return base::fail(high.error());
        if (*low > *high)
            return refuse(Errc::invalid, at.path, least, fmt::format("is above '{}'", most));
        if (*low > b_.limits().states_max || (*high != kNever && *high > b_.limits().states_max))
            return refuse(Errc::too_large, at.path, *low > b_.limits().states_max ? least : most,
                          fmt::format("is above {}", b_.limits().states_max));
        return std::pair{*low, *high};
    }

    Result<void> array(const Located& at, const Words& words, State start, State end) {
        const auto bounds = counts(at, words, "minItems", "maxItems");
        if (!bounds) return base::fail(bounds.error());
        const auto [least, most] = *bounds;
        Builder::Rule item = 0;
        bool none = false;
        if (const auto found = words.find("items"); found != words.end()) {
            none = is(found->second, false);
            if (none && least > 0)
                return refuse(Errc::invalid, at.path, "items", "is false, and items are required");
            if (!none) item = rule_for({child(at.path, "items"), found->second});
        } else {
            item = parts_.any();
        }
        const State open = b_.text(start, "[");
        if (least == 0) b_.bytes(open, ']', ']', end);
        if (none || most == 0) return {};
        State from = open;
        for (uint32_t k = 1; !b_.full(); ++k) {
            const State after = b_.state();
            b_.call(from, item, after);
            if (k >= least) b_.bytes(after, ']', ']', end);
            if (k == most) break;
            const State next = parts_.separator(after, ',');
            if (k >= least && most == kNever) {
                b_.call(next, item, after);
                break;
            }
            from = next;
        }
        return {};
    }

    Result<void> string(const Located& at, const Words& words, State start, State end) {
        const auto bounds = counts(at, words, "minLength", "maxLength");
        if (!bounds) return base::fail(bounds.error());
        std::string pattern;
        std::string_view word;
        for (const std::string_view w : {"pattern", "format"}) {
            const auto found = words.find(w);
            if (found == words.end()) continue;
            if (!word.empty())
                return refuse(Errc::unsupported, at.path, w, "is not supported beside 'pattern'");
            word = w;
            std::string_view text;
            if (found->second.get(text) != SUCCESS)
                return refuse(Errc::invalid, at.path, w, "is not a string");
            pattern = text;
            if (w == "format") {
                auto known = format_pattern(text);
                if (!known)
                    return refuse(Errc::unsupported, at.path, w,
                                  fmt::format("'{}' is not supported", text));
                pattern = std::move(*known);
            }
        }
        if (word.empty()) {
            b_.call(start, parts_.string(bounds->first, bounds->second), end);
            return {};
        }
        if (words.count("minLength") + words.count("maxLength") > 0)
            return refuse(Errc::unsupported, at.path, word,
                          "is not supported beside 'minLength' and 'maxLength'");
        const auto expression = parse_pattern(pattern, b_.limits().nesting_max);
        if (!expression)
            return refuse(expression.error().code, at.path, word,
                          "is not understood: " + expression.error().what);
        const State body = emit(b_, b_.text(start, "\""), *expression, Writing::json_string);
        b_.bytes(body, '"', '"', end);
        return {};
    }

    // The tighter of a bound and its exclusive sister, rounded inward for `sign` (+1: a lower bound).
    Result<std::optional<Bound>> bound(const Located& at, const Words& words,
                                       std::string_view inclusive, std::string_view exclusive,
                                       int sign) const {
        std::optional<Bound> out;
        for (const std::string_view word : {inclusive, exclusive}) {
            const auto found = words.find(word);
            if (found == words.end()) continue;
            double value = 0;
            if (found->second.get(value) != SUCCESS)
                return refuse(Errc::invalid, at.path, word, "is not a number");
            if (std::abs(value) > 9e15) {
                if ((value < 0) == (sign > 0)) continue;  // no bound for what we write
                return refuse(Errc::unsupported, at.path, word, "leaves numbers of over 15 digits");
            }
            const double whole = sign > 0 ? std::ceil(value) : std::floor(value);
            const Bound b{static_cast<int64_t>(whole), word == exclusive && whole == value};
            const bool tighter = !out || (sign > 0 ? b.value > out->value : b.value < out->value) ||
                                 (b.value == out->value && b.exclusive);
            if (tighter) out = b;
        }
        return out;
    }

    Result<void> number(const Located& at, const Words& words, uint8_t kinds, State start,
                        State end) {
        const auto low = bound(at, words, "minimum", "exclusiveMinimum", 1);
        if (!low) return base::fail(low.error());
        const auto high = bound(at, words, "maximum", "exclusiveMaximum", -1);
        if (!high) return base::fail(high.error());
        std::optional<Builder::Rule> rule;
        if (kinds & kNumber) {
            rule = parts_.number(*low, *high);
        } else {
            std::optional<int64_t> l, h;
            if (*low) l = (*low)->value + (*low)->exclusive;
            if (*high) h = (*high)->value - (*high)->exclusive;
            rule = parts_.integer(l, h);
        }
        if (!rule)
            return refuse(Errc::unsupported, at.path, *low ? "minimum" : "maximum",
                          "and its opposite leave no number: fractional bounds are rounded inward");
        b_.call(start, *rule, end);
        return {};
    }

    Builder& b_;
    JsonParts& parts_;  // shared by all that is built there
    SchemaReader reader_;
    Element root_;
    std::map<std::string, Builder::Rule> rules_;
    std::deque<std::pair<Builder::Rule, Located>> pending_;
};

// Adds a schema's rules to the builder; the rule of the whole.
Result<Builder::Rule> add_schema(Builder& builder, JsonParts& parts, std::string_view schema) {
    if (schema.size() > builder.limits().source_bytes_max)
        return base::fail(Errc::too_large,
                          fmt::format("a schema of {} bytes; at most {} are read", schema.size(),
                                      builder.limits().source_bytes_max));
    simdjson::dom::parser parser;
    const simdjson::padded_string padded(schema);
    Element root;
    if (const auto error = parser.parse(padded).get(root); error != SUCCESS)
        return base::fail(Errc::invalid, fmt::format("the schema is not JSON: {}",
                                                     simdjson::error_message(error)));
    return Compiler(builder, parts, root).run();
}

}  // namespace

Result<Automaton> compile_schema(std::string_view schema, const SchemaOptions& options) {
    Builder builder(options.limits);
    JsonParts parts(builder, options.spaces);
    const auto root = add_schema(builder, parts, schema);
    if (!root) return base::fail(root.error());
    return builder.build(*root);
}

namespace {

Result<Builder::Rule> one_of(Builder& builder, std::span<const Framed> texts,
                             const SchemaOptions& options) {
    JsonParts parts(builder, options.spaces);
    const Builder::Rule whole = builder.rule("one of the texts");
    const State start = builder.state(), end = builder.state();
    size_t bytes = 0;
    for (const Framed& text : texts) {
        bytes += text.schema.size();
        if (bytes > options.limits.source_bytes_max)
            return base::fail(text.path, base::Error{Errc::too_large,
                                                     fmt::format("with those before it over {} bytes",
                                                                 options.limits.source_bytes_max)});
        const auto rule = add_schema(builder, parts, text.schema);
        if (!rule) return base::fail(text.path, rule.error());
        const State inside = builder.state();
        builder.call(builder.text(start, text.before), *rule, inside);
        builder.skip(builder.text(inside, text.after), end);
    }
    builder.define(whole, start, end);
    return whole;
}

}  // namespace

Result<Automaton> compile_framed(std::span<const Framed> texts, const SchemaOptions& options) {
    Builder builder(options.limits);
    const auto rule = one_of(builder, texts, options);
    if (!rule) return base::fail(rule.error());
    return builder.build(*rule);
}

// The automaton of Knuth, Morris and Pratt for the marker: a state for each part of it that was just read.
Result<Automaton> compile_marked(std::string_view marker, std::span<const Framed> texts,
                                 const SchemaOptions& options) {
    Builder builder(options.limits);
    const auto rule = one_of(builder, texts, options);
    if (!rule) return base::fail(rule.error());
    const Builder::Rule whole = builder.rule("text with marked texts");
    std::vector<State> read;
    for (size_t k = 0; k <= marker.size(); ++k) read.push_back(builder.state());
    const State end = builder.state();
    for (size_t k = 0; k < marker.size(); ++k) {
        builder.skip(read[k], end);
        for (int byte = 0; byte < 256; ++byte) {
            const std::string now = std::string(marker.substr(0, k)) + static_cast<char>(byte);
            size_t next = now.size();
            while (now.substr(now.size() - next) != marker.substr(0, next)) --next;
            const auto b = static_cast<uint8_t>(byte);
            builder.bytes(read[k], b, b, read[next]);
        }
    }
    builder.call(read.back(), *rule, read.front());
    builder.define(whole, read.front(), end);
    return builder.build(whole);
}

}  // namespace parley::grammar
