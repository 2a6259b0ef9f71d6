#include "safety/confusable.hpp"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uspoof.h>

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace parley::safety {
namespace {

struct Extra {
    char32_t from;
    char to;
};
// Not in Unicode's table of confusables, and used as if they were.
constexpr std::array<Extra, 38> kExtra = {{
    {0x432, 'b'}, {0x43A, 'k'}, {0x43C, 'm'}, {0x43D, 'h'}, {0x442, 't'}, {0x433, 'r'},
    {0x438, 'u'}, {0x43F, 'n'}, {0x448, 'w'}, {0x449, 'w'}, {0x44F, 'r'}, {0x437, '3'},
    {0x447, '4'}, {0x44C, 'b'}, {0x42C, 'b'}, {0x3B1, 'a'}, {0x3B2, 'b'}, {0x3B5, 'e'},
    {0x3B7, 'n'}, {0x3B9, 'i'}, {0x3BA, 'k'}, {0x3BC, 'u'}, {0x3BD, 'v'}, {0x3BF, 'o'},
    {0x3C1, 'p'}, {0x3C2, 's'}, {0x3C3, 'o'}, {0x3C4, 't'}, {0x3C5, 'u'}, {0x3C7, 'x'},
    {0x3C9, 'w'}, {0x3B3, 'y'}, {0xDF, 'b'},  {0xF8, 'o'},  {0xD8, 'o'},  {0x142, 'l'},
    {0x111, 'd'}, {0x131, 'i'},
}};

// Ranges that hold letters which look like Latin ones; mathematical and full-width letters are
// brought home by NFKC before.
constexpr std::array<std::pair<char32_t, char32_t>, 12> kRanges = {{{0xC0, 0x24F},
                                                                    {0x250, 0x2AF},
                                                                    {0x370, 0x52F},
                                                                    {0x531, 0x587},
                                                                    {0x13A0, 0x13FF},
                                                                    {0x1D00, 0x1DBF},
                                                                    {0x1E00, 0x1FFF},
                                                                    {0x2C60, 0x2C7F},
                                                                    {0x2C80, 0x2CFF},
                                                                    {0xA640, 0xA69F},
                                                                    {0xA720, 0xA7FF},
                                                                    {0xAB30, 0xABBF}}};

constexpr char32_t kTableEnd = 0xAC00;

using Table = std::vector<char>;

Table make_table() {
    Table table(kTableEnd, 0);
    UErrorCode status = U_ZERO_ERROR;
    std::unique_ptr<USpoofChecker, decltype(&uspoof_close)> checker(uspoof_open(&status),
                                                                    uspoof_close);
    auto skeleton = [&](char32_t c) -> std::u16string {
        UChar in[2];
        int32_t size = 0;
        UBool bad = false;
        U16_APPEND(in, size, 2, static_cast<UChar32>(c), bad);
        if (bad) return {};
        UChar out[32];
        UErrorCode failed = U_ZERO_ERROR;
        const int32_t n = uspoof_getSkeleton(checker.get(), 0, in, size, out, 32, &failed);
        if (U_FAILURE(failed) || n <= 0 || n > 32) return {};
        return std::u16string(reinterpret_cast<const char16_t*>(out), static_cast<size_t>(n));
    };
    if (U_SUCCESS(status) && checker) {
        std::unordered_map<std::u16string, char> latin;
        for (char c = 'a'; c <= 'z'; ++c) latin.emplace(skeleton(static_cast<char32_t>(c)), c);
        for (char c = 'A'; c <= 'Z'; ++c)
            latin.emplace(skeleton(static_cast<char32_t>(c)), static_cast<char>(c | 32));
        for (const auto& [first, last] : kRanges)
            for (char32_t c = first; c <= last; ++c) {
                if (!u_isalpha(static_cast<UChar32>(c))) continue;
                const auto found = latin.find(skeleton(c));
                if (found != latin.end()) table[c] = found->second;
            }
    }
    for (const Extra& extra : kExtra)
        if (table[extra.from] == 0) table[extra.from] = extra.to;
    return table;
}

const Table& table() {
    static const Table made = make_table();
    return made;
}

}  // namespace

void warm_up_confusables() { (void)table(); }

char look_alike(char32_t c) {
    if (c < 0x80 || c >= kTableEnd) return 0;
    if (const char direct = table()[c]) return direct;
    return 0;
}

bool invisible(char32_t c) {
    if (c < 0x80) return false;
    return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_DEFAULT_IGNORABLE_CODE_POINT) ||
           (c >= 0xFFF9 && c <= 0xFFFB) || c == 0x2800;
}

bool combining(char32_t c) {
    if (c < 0x300) return false;
    const auto type = u_charType(static_cast<UChar32>(c));
    return type == U_NON_SPACING_MARK || type == U_ENCLOSING_MARK;
}

}  // namespace parley::safety
