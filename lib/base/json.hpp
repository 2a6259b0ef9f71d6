// JsonWriter: appends compact, one-line JSON to a string. Reading is simdjson's job.
//
// Owns     nothing: writes into the caller's string.
// Bounds   none of its own; nesting up to 64 levels is asserted.
// Errors   none. Strings must be UTF-8; control characters, '"' and '\\' are escaped, U+2028/2029
//          too, and '<' as \u003c, so that a line of ours is safe inside SSE, a log and a page.
// Threads  one writer, one thread.
//
//   JsonWriter w(out); w.object().key("id").string(id).key("n").number(3).end();
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace parley::base {

class JsonWriter {
  public:
    explicit JsonWriter(std::string& out) : out_(out) {}

    JsonWriter& object() { return open('{'); }
    JsonWriter& array() { return open('['); }
    JsonWriter& end();  // closes the innermost object or array
    JsonWriter& key(std::string_view name);
    JsonWriter& string(std::string_view text);
    JsonWriter& boolean(bool value);
    JsonWriter& null();
    template <class T>
    requires std::is_integral_v<T> JsonWriter& number(T value) {
        if constexpr (std::is_signed_v<T>)
            return integer(static_cast<int64_t>(value));
        else
            return natural(static_cast<uint64_t>(value));
    }
    JsonWriter& number(double value);  // shortest form that reads back the same; NaN/Inf → null
    JsonWriter& raw(std::string_view json);  // already JSON
    // key + value in one call
    JsonWriter& field(std::string_view name, std::string_view text) {
        return key(name).string(text);
    }
    JsonWriter& field(std::string_view name, const char* text) { return key(name).string(text); }
    JsonWriter& field(std::string_view name, const std::string& text) {
        return key(name).string(text);
    }
    template <class T>
    requires std::is_arithmetic_v<T> JsonWriter& field(std::string_view name, T value) {
        key(name);
        if constexpr (std::is_same_v<T, bool>)
            return boolean(value);
        else
            return number(value);
    }

  private:
    JsonWriter& open(char bracket);
    JsonWriter& integer(int64_t value);
    JsonWriter& natural(uint64_t value);
    void comma();

    std::string& out_;
    uint64_t is_array_ = 0;   // bit d: level d is an array
    uint64_t has_items_ = 0;  // bit d: level d already has an item
    int depth_ = 0;
    bool after_key_ = false;
};

// Appends `text` as a JSON string with its quotes.
void append_json_string(std::string& out, std::string_view text);
std::string json_string(std::string_view text);

}  // namespace parley::base
