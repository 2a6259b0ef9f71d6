#include "store/fields.hpp"

namespace parley::store {

using simdjson::dom::element;

Fields& Fields::fault(std::string_view name, std::string_view want) {
    if (error_.empty()) error_ = "member '" + std::string(name) + "' " + std::string(want);
    return *this;
}

bool Fields::find(std::string_view name, element& out) {
    return object_.at_key(name).get(out) == simdjson::SUCCESS && !out.is_null();
}

Fields& Fields::text(std::string_view name, std::string& out, bool need) {
    element value;
    if (!find(name, value)) return need ? fault(name, "is missing") : *this;
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return fault(name, "should be a string");
    out = text;
    return *this;
}

Fields& Fields::text(std::string_view name, std::optional<std::string>& out) {
    element value;
    if (!find(name, value)) return *this;
    return text(name, out.emplace());
}

Fields& Fields::flag(std::string_view name, bool& out) {
    element value;
    if (find(name, value) && value.get(out) != simdjson::SUCCESS)
        fault(name, "should be true or false");
    return *this;
}

Fields& Fields::flag(std::string_view name, std::optional<bool>& out) {
    element value;
    if (!find(name, value)) return *this;
    return flag(name, out.emplace(false));
}

Fields& Fields::real(std::string_view name, double& out) {
    element value;
    if (find(name, value) && value.get(out) != simdjson::SUCCESS) fault(name, "should be a number");
    return *this;
}

Fields& Fields::raw(std::string_view name, std::string& out, RawKind kind) {
    element value;
    if (!find(name, value)) return *this;
    const bool fits = kind == RawKind::any || (kind == RawKind::object && value.is_object()) ||
                      (kind == RawKind::array && value.is_array()) ||
                      (kind == RawKind::system && (value.is_string() || value.is_array()));
    if (!fits)
        return fault(name, kind == RawKind::object  ? "should be an object"
                           : kind == RawKind::array ? "should be an array"
                                                    : "should be a string or an array");
    out = simdjson::minify(value);
    return *this;
}

Fields& Fields::raw(std::string_view name, std::optional<std::string>& out, RawKind kind) {
    element value;
    if (!find(name, value)) return *this;
    return raw(name, out.emplace(), kind);
}

Fields& Fields::id(std::string_view name, std::string_view prefix, Ulid& out) {
    std::optional<Ulid> value;
    id(name, prefix, value);
    if (value) {
        out = *value;
    } else if (error_.empty()) {
        fault(name, "is missing");
    }
    return *this;
}

Fields& Fields::id(std::string_view name, std::string_view prefix, std::optional<Ulid>& out) {
    element value;
    if (!find(name, value)) return *this;
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return fault(name, "should be a string");
    out = parse_id(prefix, text);
    return out ? *this : fault(name, "should be '" + std::string(prefix) + "' and 26 characters");
}

Fields& Fields::list(std::string_view name, std::optional<std::vector<std::string>>& out) {
    simdjson::dom::element there;
    if (!find(name, there)) return *this;
    return list(name, out.emplace());
}
Fields& Fields::list(std::string_view name, std::vector<std::string>& out) {
    element value;
    if (!find(name, value)) return *this;
    simdjson::dom::array array;
    if (value.get(array) != simdjson::SUCCESS) return fault(name, "should be an array");
    for (element item : array) {
        std::string_view text;
        if (item.get(text) != simdjson::SUCCESS) return fault(name, "should hold strings");
        out.emplace_back(text);
    }
    return *this;
}

Fields& Fields::list(std::string_view name, std::vector<int32_t>& out) {
    element value;
    if (!find(name, value)) return *this;
    simdjson::dom::array array;
    if (value.get(array) != simdjson::SUCCESS) return fault(name, "should be an array");
    for (element item : array) {
        int64_t number = 0;
        if (item.get(number) != simdjson::SUCCESS || number < INT32_MIN || number > INT32_MAX)
            return fault(name, "should hold 32-bit integers");
        out.push_back(static_cast<int32_t>(number));
    }
    return *this;
}

Fields& Fields::number(std::string_view name, std::optional<uint64_t>& out) {
    element value;
    if (!find(name, value)) return *this;
    return number(name, out.emplace(0));
}

bool Fields::integer(std::string_view name, int64_t low, uint64_t high, int64_t& out) {
    element value;
    if (!find(name, value)) return false;
    if (value.get(out) == simdjson::SUCCESS) {
        if (out >= low && (out < 0 || static_cast<uint64_t>(out) <= high)) return true;
    } else if (uint64_t big = 0; value.get(big) == simdjson::SUCCESS && big <= high) {
        out = static_cast<int64_t>(big);
        return true;
    }
    fault(name, "should be an integer in range");
    return false;
}

}  // namespace parley::store
