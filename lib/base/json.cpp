#include "base/json.hpp"

#include <array>
#include <cassert>
#include <charconv>
#include <cmath>

namespace parley::base {

JsonWriter& JsonWriter::open(char bracket) {
    comma();
    assert(depth_ < 63);
    ++depth_;
    const uint64_t bit = uint64_t{1} << depth_;
    has_items_ &= ~bit;
    is_array_ = bracket == '[' ? is_array_ | bit : is_array_ & ~bit;
    out_ += bracket;
    return *this;
}

JsonWriter& JsonWriter::end() {
    assert(depth_ > 0 && !after_key_);
    out_ += is_array_ >> depth_ & 1 ? ']' : '}';
    --depth_;
    return *this;
}

void JsonWriter::comma() {
    if (after_key_) {
        after_key_ = false;
        return;
    }
    if (depth_ == 0) return;
    const uint64_t bit = uint64_t{1} << depth_;
    if (has_items_ & bit) out_ += ',';
    has_items_ |= bit;
}

JsonWriter& JsonWriter::key(std::string_view name) {
    comma();
    append_json_string(out_, name);
    out_ += ':';
    after_key_ = true;
    return *this;
}

JsonWriter& JsonWriter::string(std::string_view text) {
    comma();
    append_json_string(out_, text);
    return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
    comma();
    out_ += value ? "true" : "false";
    return *this;
}

JsonWriter& JsonWriter::null() {
    comma();
    out_ += "null";
    return *this;
}

JsonWriter& JsonWriter::integer(int64_t value) {
    comma();
    char buffer[24];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    out_.append(buffer, result.ptr);
    return *this;
}

JsonWriter& JsonWriter::natural(uint64_t value) {
    comma();
    char buffer[24];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    out_.append(buffer, result.ptr);
    return *this;
}

JsonWriter& JsonWriter::number(double value) {
    if (!std::isfinite(value)) return null();
    comma();
    char buffer[40];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    out_.append(buffer, result.ptr);
    return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
    comma();
    out_ += json;
    return *this;
}

namespace {
// Bytes that are not simply copied, or may not be (0xE2 begins the line separators).
constexpr std::array<bool, 256> kLook = [] {
    std::array<bool, 256> look{};
    for (size_t c = 0; c < 0x20; ++c) look[c] = true;
    for (const unsigned char c : {'"', '\\', '<', '\x7f'}) look[c] = true;
    look[0xE2] = true;
    return look;
}();
}  // namespace

void append_json_string(std::string& out, std::string_view text) {
    static constexpr char kDigits[] = "0123456789abcdef";
    out += '"';
    size_t start = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto c = static_cast<uint8_t>(text[i]);
        if (!kLook[c]) continue;
        const bool separator = c == 0xE2 && i + 2 < text.size() &&
                               static_cast<uint8_t>(text[i + 1]) == 0x80 &&
                               (static_cast<uint8_t>(text[i + 2]) & 0xFE) == 0xA8;
        if (c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != 0x7f && !separator) continue;
        out.append(text, start, i - start);
        switch (c) {
            case '"':
                out += "\\\"";
                break;
            case '\\':
                out += "\\\\";
                break;
            case '\n':
                out += "\\n";
                break;
            case '\r':
                out += "\\r";
                break;
            case '\t':
                out += "\\t";
                break;
            case 0xE2:
                out += static_cast<uint8_t>(text[i + 2]) == 0xA8 ? "\\u2028" : "\\u2029";
                i += 2;
                break;
            default:
                out += "\\u00";
                out += kDigits[c >> 4];
                out += kDigits[c & 15];
        }
        start = i + 1;
    }
    out.append(text, start, text.size() - start);
    out += '"';
}

std::string json_string(std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
}

}  // namespace parley::base
