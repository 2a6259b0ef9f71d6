#include "search/words.hpp"

#include <simdjson.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utf8.h>

namespace parley::search {
namespace {

enum class Kind { gap, letter, alone };

Kind kind_of(UChar32 c) {
    if (c < 0) return Kind::gap;
    if (c < 0x80) {
        const bool letter =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        return letter ? Kind::letter : Kind::gap;
    }
    const uint32_t mask = U_GET_GC_MASK(c);
    if (!(mask & (U_GC_L_MASK | U_GC_N_MASK | U_GC_M_MASK))) return Kind::gap;
    if (c >= 0x0e00) {
        UErrorCode error = U_ZERO_ERROR;
        switch (uscript_getScript(c, &error)) {
            case USCRIPT_HAN:
            case USCRIPT_HIRAGANA:
            case USCRIPT_KATAKANA:
            case USCRIPT_THAI:
            case USCRIPT_LAO:
            case USCRIPT_KHMER:
            case USCRIPT_MYANMAR:
                return Kind::alone;
            default:
                break;
        }
    }
    return Kind::letter;
}

std::string fold(std::string_view word) {
    std::string out;
    bool ascii = true;
    for (const char c : word) {
        ascii &= static_cast<unsigned char>(c) < 0x80;
        out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    if (!ascii) {
        UErrorCode error = U_ZERO_ERROR;
        const icu::Normalizer2* folder = icu::Normalizer2::getNFKCCasefoldInstance(error);
        if (U_SUCCESS(error)) {
            std::string folded;
            folder
                ->normalize(
                    icu::UnicodeString::fromUTF8({word.data(), static_cast<int32_t>(word.size())}),
                    error)
                .toUTF8String(folded);
            if (U_SUCCESS(error)) out = std::move(folded);
        }
    }
    if (out.size() > kWordBytesMax) {
        size_t cut = kWordBytesMax;
        while (cut > 0 && (static_cast<unsigned char>(out[cut]) & 0xc0) == 0x80) --cut;
        out.resize(cut);
    }
    return out;
}

}  // namespace

std::vector<Word> words_of(std::string_view text, size_t bytes_max) {
    text = text.substr(0, bytes_max);
    std::vector<Word> words;
    uint32_t position = 0;
    const auto add = [&](size_t begin, size_t end) {
        std::string folded = fold(text.substr(begin, end - begin));
        if (!folded.empty()) words.push_back({std::move(folded), ++position, begin, end});
    };
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    const auto size = static_cast<int32_t>(text.size());
    size_t begin = 0;
    bool inside = false;
    for (int32_t at = 0; at < size;) {
        const auto here = static_cast<size_t>(at);
        UChar32 c;
        U8_NEXT(bytes, at, size, c);
        const Kind kind = kind_of(c);
        if (inside && kind != Kind::letter) {
            add(begin, here);
            inside = false;
        }
        if (kind == Kind::alone) add(here, static_cast<size_t>(at));
        if (kind == Kind::letter && !inside) {
            begin = here;
            inside = true;
        }
    }
    if (inside) add(begin, text.size());
    return words;
}

std::string text_of_content(std::string_view content_json) {
    thread_local simdjson::dom::parser parser;
    simdjson::dom::array blocks;
    std::string out;
    if (parser.parse(content_json.data(), content_json.size()).get(blocks)) return out;
    for (const auto block : blocks) {
        std::string_view type, text;
        if (block["type"].get(type) || type != "text" || block["text"].get(text)) continue;
        if (!out.empty()) out += "\n\n";
        out += text;
    }
    return out;
}

}  // namespace parley::search
