#include "filter/json_words.hpp"

#include <charconv>
#include <utility>

#include "safety/decode.hpp"

namespace parley::filter {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

std::string JsonWords::feed(std::string_view piece) {
    std::string out;
    for (const char c : piece) {
        if (escape_.empty() && c != '\\') {
            if (std::exchange(high_, 0) != 0) out += kReplacement;
            out += c;
            continue;
        }
        escape_ += c;
        if (escape_.size() >= 2 && (escape_[1] != 'u' || escape_.size() == 6)) escape(out);
    }
    return out;
}

void JsonWords::escape(std::string& out) {
    const std::string escape = std::exchange(escape_, {});
    uint32_t code = 0;
    if (escape[1] == 'u') {
        const char* end = escape.data() + escape.size();
        if (std::from_chars(escape.data() + 2, end, code, 16).ptr != end) {
            out += escape;
            return;
        }
        const bool low = code >= 0xDC00 && code <= 0xDFFF;
        if (const uint32_t high = std::exchange(high_, 0); high != 0) {
            if (low)
                code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00);
            else
                out += kReplacement;
        }
        if (code >= 0xD800 && code <= 0xDBFF) {
            high_ = code;
            return;
        }
        if (code >= 0xDC00 && code <= 0xDFFF) code = 0xFFFD;
        safety::append_utf8(out, code);
        return;
    }
    if (std::exchange(high_, 0) != 0) out += kReplacement;
    constexpr std::string_view kFrom = "nrtbf\"\\/", kTo = "\n\r\t\b\f\"\\/";
    const size_t at = kFrom.find(escape[1]);
    if (at == std::string_view::npos)
        out += escape;
    else
        out += kTo[at];
}

}  // namespace parley::filter
