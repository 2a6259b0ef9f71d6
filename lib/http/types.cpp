#include "http/types.hpp"

namespace parley::http {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i)
        if (lower(a[i]) != lower(b[i])) return false;
    return true;
}

void Headers::add(std::string_view name, std::string_view value) {
    Field& field = fields_.emplace_back();
    field.name.reserve(name.size());
    for (const char c : name) field.name += lower(c);
    field.value = value;
}

const std::string* Headers::find(std::string_view name) const {
    for (const Field& field : fields_)
        if (equal_ignoring_case(field.name, name)) return &field.value;
    return nullptr;
}

std::string_view Headers::get(std::string_view name, std::string_view fallback) const {
    const std::string* value = find(name);
    return value ? std::string_view(*value) : fallback;
}

size_t Headers::count(std::string_view name) const {
    size_t count = 0;
    for (const Field& field : fields_) count += equal_ignoring_case(field.name, name);
    return count;
}

std::string Headers::joined(std::string_view name) const {
    std::string out;
    for (const Field& field : fields_) {
        if (!equal_ignoring_case(field.name, name)) continue;
        if (!out.empty()) out += ", ";
        out += field.value;
    }
    return out;
}

std::optional<std::string_view> Request::query_value(std::string_view name) const {
    for (const auto& [key, value] : query)
        if (key == name) return value;
    return std::nullopt;
}

}  // namespace parley::http
