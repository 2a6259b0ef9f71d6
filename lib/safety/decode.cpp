#include "safety/decode.hpp"

#include <array>

#include "base/text.hpp"
#include "safety/language.hpp"

namespace parley::safety {
namespace {

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    return -1;
}

struct Named {
    std::string_view name;
    char32_t code_point;
};
constexpr std::array<Named, 16> kNamed = {{{"amp;", '&'},
                                           {"lt;", '<'},
                                           {"gt;", '>'},
                                           {"quot;", '"'},
                                           {"apos;", '\''},
                                           {"nbsp;", ' '},
                                           {"Tab;", ' '},
                                           {"NewLine;", '\n'},
                                           {"period;", '.'},
                                           {"comma;", ','},
                                           {"colon;", ':'},
                                           {"excl;", '!'},
                                           {"quest;", '?'},
                                           {"shy;", 0xAD},
                                           {"zwnj;", 0x200C},
                                           {"zwj;", 0x200D}}};

bool scalar(char32_t c) { return c > 0 && c < 0x110000 && (c < 0xD800 || c > 0xDFFF); }

// "&#104;", "&#x68;", "&amp;" at `at`; returns bytes taken, 0 if none.
size_t entity(std::string_view text, char32_t& out) {
    if (text.size() < 4 || text[0] != '&') return 0;
    if (text[1] != '#') {
        for (const Named& named : kNamed)
            if (text.substr(1, named.name.size()) == named.name) {
                out = named.code_point;
                return 1 + named.name.size();
            }
        return 0;
    }
    const bool hex = (text[2] | 32) == 'x';
    size_t at = hex ? 3 : 2;
    const size_t first = at;
    char32_t value = 0;
    while (at < text.size() && at - first < 8) {
        const int digit = hex_value(text[at]);
        if (digit < 0 || (!hex && digit > 9)) break;
        value = value * (hex ? 16 : 10) + static_cast<char32_t>(digit);
        ++at;
    }
    if (at == first || !scalar(value)) return 0;
    if (at < text.size() && text[at] == ';') ++at;
    out = value;
    return at;
}

// "\u0068", "\U00000068" and "\x68" under 128; surrogate pairs as JSON has them.
size_t backslash(std::string_view text, char32_t& out) {
    if (text.size() < 4 || text[0] != '\\') return 0;
    const size_t digits = text[1] == 'u' ? 4 : text[1] == 'U' ? 8 : text[1] == 'x' ? 2 : 0;
    if (digits == 0 || text.size() < 2 + digits) return 0;
    auto read = [&](size_t at, size_t count, char32_t& value) {
        value = 0;
        for (size_t i = 0; i < count; ++i) {
            const int digit = hex_value(text[at + i]);
            if (digit < 0) return false;
            value = value << 4 | static_cast<char32_t>(digit);
        }
        return true;
    };
    if (!read(2, digits, out)) return 0;
    size_t taken = 2 + digits;
    char32_t low = 0;
    if (digits == 4 && out >= 0xD800 && out < 0xDC00 && text.size() >= 12 && text[6] == '\\' &&
        text[7] == 'u' && read(8, 4, low) && low >= 0xDC00 && low < 0xE000) {
        out = 0x10000 + ((out - 0xD800) << 10) + (low - 0xDC00);
        taken = 12;
    }
    if (!scalar(out) || (digits == 2 && out > 127)) return 0;
    return taken;
}

// A stretch of %XX: all of it or nothing, by whether its bytes are UTF-8.
size_t percent(std::string_view text, std::string& out) {
    std::string bytes;
    size_t at = 0;
    while (at + 2 < text.size() && text[at] == '%') {
        const int high = hex_value(text[at + 1]), low = hex_value(text[at + 2]);
        if (high < 0 || low < 0) break;
        bytes += static_cast<char>(high << 4 | low);
        at += 3;
    }
    if (bytes.empty() || bytes.find('\0') != std::string::npos || !base::utf8_valid(bytes))
        return 0;
    out += bytes;
    return at;
}

bool printable(std::string_view bytes) {
    if (!base::utf8_valid(bytes)) return false;
    for (unsigned char c : bytes)
        if ((c < 32 && c != '\n' && c != '\r' && c != '\t') || c == 127) return false;
    return true;
}

// Keeps the longest printable stretch (a bad byte in front must not hide the rest) and says whether it
// is worth a look.
bool worth(std::string& decoded) {
    if (!printable(decoded)) {
        size_t best_at = 0, best_size = 0;
        for (size_t at = 0; at < decoded.size();) {
            size_t end = at;
            auto plain = [&](size_t i) {
                const auto c = static_cast<unsigned char>(decoded[i]);
                return (c >= 32 && c < 127) || c == '\n' || c == '\r' || c == '\t';
            };
            while (end < decoded.size() && plain(end)) ++end;
            if (end - at > best_size) best_at = at, best_size = end - at;
            at = end + 1;
        }
        decoded = decoded.substr(best_at, best_size);
    }
    if (decoded.size() >= 16) return true;  // 16 random bytes are all printable once in a million
    return decoded.size() >= 6 && looks_like_language(decoded);
}

// The longest run of base64 from `at`; line breaks inside are passed over.
size_t base64_run(std::string_view text, size_t at, std::string& decoded, size_t bytes_max) {
    uint32_t bits = 0;
    int have = 0;
    size_t end = at, digits = 0;
    decoded.clear();
    while (end < text.size()) {
        const int value = base64_value(text[end]);
        if (value < 0) {
            const bool line_break = (text[end] == '\n' || text[end] == '\r') && digits >= 32 &&
                                    end + 1 < text.size() && base64_value(text[end + 1]) >= 0;
            if (!line_break) break;
            ++end;
            continue;
        }
        if (decoded.size() >= bytes_max) break;
        ++digits;
        ++end;
        bits = bits << 6 | static_cast<uint32_t>(value);
        have += 6;
        if (have >= 8) {
            have -= 8;
            decoded += static_cast<char>(bits >> have & 0xff);
        }
    }
    while (end < text.size() && text[end] == '=') ++end;
    if (digits < 12) decoded.clear();
    return end - at;
}

// "68656c6c6f", "68 65 6c", "68:65", "0x68 0x65", "\x68\x65" from `at`.
size_t hex_run(std::string_view text, size_t at, std::string& decoded, size_t bytes_max) {
    size_t end = at;
    decoded.clear();
    char separator = 0;
    while (end < text.size() && decoded.size() < bytes_max) {
        size_t from = end;
        if (!decoded.empty()) {
            const char c = text[from];
            if (c == ' ' || c == ':' || c == '-' || c == ',' || c == '\n') {
                if (separator == 0 && decoded.size() == 1) separator = c;
                if (c != separator && c != '\n') break;
                ++from;
                if (separator == ',' && from < text.size() && text[from] == ' ') ++from;
            }
        }
        if (from + 1 < text.size() && (text[from] == '0' || text[from] == '\\') &&
            (text[from + 1] | 32) == 'x')
            from += 2;
        if (from + 1 >= text.size()) break;
        const int high = hex_value(text[from]), low = hex_value(text[from + 1]);
        if (high < 0 || low < 0) break;
        decoded += static_cast<char>(high << 4 | low);
        end = from + 2;
    }
    if (decoded.size() < 8) decoded.clear();
    return end - at;
}

bool word_byte(char c) { return base64_value(c) >= 0; }

}  // namespace

void append_utf8(std::string& out, char32_t c) {
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | c >> 6);
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | c >> 12);
        out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else {
        out += static_cast<char>(0xF0 | c >> 18);
        out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
        out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    }
}

char32_t next_utf8(std::string_view text, size_t& at) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char c = byte(at);
    const size_t size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (at + size > text.size()) {  // callers give valid text; a cut tail counts byte by byte
        ++at;
        return 0xFFFD;
    }
    char32_t out = size == 1 ? c : c & (0xFF >> (size + 1));
    for (size_t i = 1; i < size; ++i) out = out << 6 | (byte(at + i) & 0x3F);
    at += size;
    return out;
}

std::string decode_escapes(std::string_view text, bool& changed) {
    changed = false;
    std::string out;
    if (text.find_first_of("&%\\") == std::string_view::npos) return out = std::string(text);
    out.reserve(text.size());
    bool percent_seen = false;
    for (size_t at = 0; at < text.size();) {
        const char c = text[at];
        size_t taken = 0;
        char32_t code_point = 0;
        if (c == '&') {
            taken = entity(text.substr(at, 16), code_point);
        } else if (c == '\\') {
            taken = backslash(text.substr(at, 12), code_point);
        } else if (c == '%') {
            taken = percent(text.substr(at), out);
            percent_seen |= taken != 0;
        }
        if (taken == 0) {
            // A failed stretch of %XX must not be tried again at its second sequence.
            do out += text[at++];
            while (c == '%' && at < text.size() && (text[at] == '%' || hex_value(text[at]) >= 0));
            continue;
        }
        if (code_point != 0) append_utf8(out, code_point);
        at += taken;
        changed = true;
    }
    // A form's encoding writes spaces as '+'.
    if (percent_seen && text.find(' ') == std::string_view::npos)
        for (char& c : out)
            if (c == '+') c = ' ';
    return out;
}

std::vector<Run> find_encoded(std::string_view text, size_t bytes_max) {
    std::vector<Run> out;
    std::string decoded;
    size_t left = bytes_max;
    // Where a reader failed it is not tried again before the place it got to: linear time.
    size_t hex_failed = 0, base64_failed = 0;
    for (size_t at = 0; at < text.size() && left > 0;) {
        const bool starts = at == 0 || !word_byte(text[at - 1]);
        const bool escaped_hex =
            text[at] == '\\' && at + 1 < text.size() && (text[at + 1] | 32) == 'x';
        if (!starts || (!word_byte(text[at]) && !escaped_hex)) {
            ++at;
            continue;
        }
        decoded.clear();
        size_t taken = 0;
        const char* how = "hex";
        if (at >= hex_failed) {
            taken = hex_run(text, at, decoded, left);
            if (decoded.empty() || !worth(decoded)) {
                hex_failed = at + taken;
                decoded.clear();
            }
        }
        if (decoded.empty() && !escaped_hex && at >= base64_failed) {
            how = "base64";
            taken = base64_run(text, at, decoded, left);
            if (decoded.empty() || !worth(decoded)) {
                base64_failed = at + taken;
                decoded.clear();
            }
        }
        if (decoded.empty()) {
            do ++at;
            while (at < text.size() && word_byte(text[at]));
            continue;
        }
        left -= std::min(left, decoded.size());
        out.push_back(Run{at, taken, decoded, how});
        at += taken;
    }
    return out;
}

std::string rot13(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
        const char lower = static_cast<char>(c | 32);
        if (lower >= 'a' && lower <= 'z')
            c = static_cast<char>((c & ~31) | ((lower - 'a' + 13) % 26 + 1));
    }
    return out;
}

std::string reversed(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t end = text.size(); end > 0;) {
        size_t start = end - 1;
        while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
        out.append(text.substr(start, end - start));
        end = start;
    }
    return out;
}

std::string words_reversed(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        size_t end = at;
        auto letter = [&](size_t i) {
            const auto c = static_cast<unsigned char>(text[i]);
            return c >= 128 || ((c | 32) >= 'a' && (c | 32) <= 'z');
        };
        while (end < text.size() && letter(end)) ++end;
        if (end == at) {
            out += text[at++];
            continue;
        }
        out += reversed(text.substr(at, end - at));
        at = end;
    }
    return out;
}

}  // namespace parley::safety
