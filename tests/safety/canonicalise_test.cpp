#include "safety/canonicalise.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "base/clock.hpp"
#include "base/text.hpp"
#include "safety/decode.hpp"
#include "safety/spelling.hpp"

using namespace parley;
using namespace parley::safety;

namespace {

const std::string kPlain = "please tell me how to make the dragon sleep before the morning comes";

std::string base64(std::string_view text) {
    static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    size_t i = 0;
    for (; i + 2 < text.size(); i += 3) {
        const uint32_t v = uint32_t(uint8_t(text[i])) << 16 | uint32_t(uint8_t(text[i + 1])) << 8 |
                           uint8_t(text[i + 2]);
        for (int s = 18; s >= 0; s -= 6) out += digits[v >> s & 63];
    }
    if (i + 1 == text.size()) {
        const uint32_t v = uint32_t(uint8_t(text[i])) << 16;
        out += digits[v >> 18 & 63];
        out += digits[v >> 12 & 63];
        out += "==";
    } else if (i + 2 == text.size()) {
        const uint32_t v = uint32_t(uint8_t(text[i])) << 16 | uint32_t(uint8_t(text[i + 1])) << 8;
        out += digits[v >> 18 & 63];
        out += digits[v >> 12 & 63];
        out += digits[v >> 6 & 63];
        out += "=";
    }
    return out;
}

std::string joined_with(std::string_view text, std::string_view between) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (i > 0) out += between;
        out += text[i];
    }
    return out;
}

std::string mapped(std::string_view text, std::initializer_list<std::pair<char, const char*>> map) {
    std::string out;
    for (char c : text) {
        const char* to = nullptr;
        for (const auto& [from, into] : map)
            if (from == c) to = into;
        if (to)
            out += to;
        else
            out += c;
    }
    return out;
}

std::string without_spaces(std::string text) {
    text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
    return text;
}

std::string percent(std::string_view text) {
    std::string out;
    for (unsigned char c : text) out += "%" + base::hex(std::string(1, char(c)));
    return out;
}

std::string full_width(std::string_view text) {
    std::string out;
    for (unsigned char c : text) append_utf8(out, c == ' ' ? 0x3000 : 0xFF00 + c - 0x20);
    return out;
}

std::string tags(std::string_view text) {
    std::string out;
    for (unsigned char c : text) append_utf8(out, 0xE0000 + c);
    return out;
}

bool some_view_is(const std::string& text, const std::string& wanted) {
    auto views = canonicalise(text);
    REQUIRE(views);
    for (const View& view : *views)
        if (view.text == wanted) return true;
    return false;
}

}  // namespace

TEST_CASE("every disguise of the table has a view that reads as the plain text", "[canonicalise]") {
    struct Disguise {
        const char* name;
        std::string text;
    };
    std::string upper = kPlain;
    for (char& c : upper)
        if (c >= 'a' && c <= 'z') c = char(c - 32);
    const Disguise table[] = {
        {"upper case", upper},
        {"zero width", joined_with(kPlain, "\u200b")},
        {"word joiner and soft hyphen", joined_with(kPlain, "\u2060\u00ad")},
        {"bidi controls", "\u202e" + joined_with(kPlain, "\u202c")},
        {"variation selectors", joined_with(kPlain, "\ufe0f")},
        {"combining marks", joined_with(kPlain, "\u0336")},
        {"tag characters", tags(kPlain)},
        {"full width", full_width(kPlain)},
        {"cyrillic", mapped(kPlain, {{'a', "\u0430"},
                                     {'e', "\u0435"},
                                     {'o', "\u043e"},
                                     {'p', "\u0440"},
                                     {'c', "\u0441"}})},
        {"greek",
         mapped(kPlain, {{'a', "\u03b1"}, {'o', "\u03bf"}, {'p', "\u03c1"}, {'t', "\u03c4"}})},
        {"accents",
         mapped(kPlain, {{'a', "\u00e1"}, {'e', "\u00ea"}, {'o', "\u00f6"}, {'n', "\u00f1"}})},
        {"spaced", joined_with(kPlain, " ")},
        {"dotted", joined_with(kPlain, ".")},
        {"dashed", joined_with(kPlain, "-")},
        {"leetspeak", mapped(kPlain, {{'a', "4"}, {'e', "3"}, {'o', "0"}, {'t', "7"}, {'s', "5"}})},
        {"repeated", mapped(kPlain, {{'h', "hhhhh"}, {'a', "aaaa"}})},
        {"base64", base64(kPlain)},
        {"base64 twice", base64(base64(kPlain))},
        {"hex", base::hex(kPlain)},
        {"hex inside base64", base64(base::hex(kPlain))},
        {"percent", percent(kPlain)},
        {"html", mapped(kPlain, {{'a', "&#97;"}, {'e', "&#x65;"}, {'o', "&#111"}})},
        {"backslash", mapped(kPlain, {{'a', "\\u0061"}, {'e', "\\x65"}})},
        {"rot13", rot13(kPlain)},
        {"reversed", reversed(kPlain)},
        {"words reversed", words_reversed(kPlain)},
        {"rot13 under zero width", joined_with(rot13(kPlain), "\u200b")},
        {"base64 of rot13", base64(rot13(kPlain))},
    };
    for (const Disguise& disguise : table) {
        INFO(disguise.name);
        if (std::string(disguise.name) == "base64 of rot13") {
            // Two layers of different kinds: the inner one is left as it stands in its own view.
            CHECK(some_view_is(disguise.text, rot13(kPlain)));
            continue;
        }
        CHECK(some_view_is(disguise.text, kPlain));
    }
}

TEST_CASE("words are found again where the gaps between them were dropped", "[canonicalise]") {
    const std::string plain =
        "please tell me how to make the house safe before the children come home";
    CHECK(some_view_is(joined_with(without_spaces(plain), " "), plain));
    CHECK(some_view_is(joined_with(without_spaces(plain), "."), plain));
}

TEST_CASE("a run of base64 inside a sentence is read in its place and by itself",
          "[canonicalise]") {
    auto views = canonicalise("Decode this and obey: " + base64(kPlain) + " now.");
    REQUIRE(views);
    REQUIRE(views->size() == 3);
    CHECK((*views)[0].how == "raw");
    CHECK((*views)[1].how == "canonical");
    CHECK((*views)[1].text == "decode this and obey: " + kPlain + " now.");
    CHECK((*views)[2].how == "base64");
    CHECK((*views)[2].text == kPlain);
}

TEST_CASE("ordinary texts have no other readings than themselves", "[canonicalise]") {
    for (const char* text :
         {"What is the capital of France?", "hello", "", "a b c",
          "I am 18 years old, born in 2006.", "The deadbeef cafe is at 12:30.",
          "int main() { return 0; }", "See https://example.com/path/to/page and call 555-0100.",
          "supercalifragilisticexpialidocious", "Good food, good mood!!!"}) {
        INFO(text);
        auto views = canonicalise(text);
        REQUIRE(views);
        std::string lower = text;
        for (char& c : lower)
            if (c >= 'A' && c <= 'Z') c = char(c + 32);
        CHECK(views->size() == (lower == text ? 1 : 2));
        CHECK((*views)[0].text == text);
        CHECK(views->back().text == lower);
    }
}

TEST_CASE("invalid UTF-8 is an error, never a guess", "[canonicalise]") {
    for (const std::string& text :
         {std::string("\xff"), std::string("ab\xc3"), std::string("\xed\xa0\x80"),
          std::string("\xc0\xaf"), std::string("\xf4\x90\x80\x80")}) {
        auto views = canonicalise(text);
        REQUIRE_FALSE(views);
        CHECK(views.error().code == base::Errc::invalid);
    }
}

TEST_CASE("a text over the limit is refused before any work", "[canonicalise]") {
    CanonLimits limits;
    limits.bytes_max = 100;
    CHECK(canonicalise(std::string(100, 'x'), limits));
    auto views = canonicalise(std::string(101, 'x'), limits);
    REQUIRE_FALSE(views);
    CHECK(views.error().code == base::Errc::too_large);
}

TEST_CASE("encodings deeper than the limit are left as they stand", "[canonicalise]") {
    CanonLimits limits;
    limits.depth_max = 1;
    const std::string once = base64(kPlain);
    auto views = canonicalise(base64(once), limits);
    REQUIRE(views);
    for (const View& view : *views) CHECK(view.text != kPlain);
}

TEST_CASE("views stay few and small for any bytes", "[canonicalise]") {
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const std::string alphabet[] = {
        "abcdefghijklmnopqrstuvwxyz     ",
        "0123456789abcdef :x\\",
        "%&#;xu41",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \n",
        "a .-_*|/",
        "h3110 w0r1d!$@|+"};
    for (int round = 0; round < 400; ++round) {
        const std::string& from = alphabet[random() % 6];
        std::string text;
        const size_t size = random() % 600;
        while (text.size() < size) {
            if (random() % 40 == 0)
                append_utf8(text, 0x80 + random() % 0x3000);
            else if (random() % 80 == 0)
                append_utf8(text, 0x10000 + random() % 0x2000);
            else
                text += from[random() % from.size()];
        }
        INFO("round " << round);
        auto views = canonicalise(text);
        REQUIRE(views);
        REQUIRE(views->size() <= CanonLimits{}.views_max + 1);
        CHECK((*views)[0].text == text);
        for (const View& view : *views) {
            CHECK(base::utf8_valid(view.text));
            CHECK(view.text.size() <= text.size() * 4 + (64 << 10));
        }
        Folded folded;
        fold_append(text, 0, folded);
        REQUIRE(folded.text.size() == folded.from.size());
        CHECK(std::is_sorted(folded.from.begin(), folded.from.end()));
    }
}

TEST_CASE("time grows with the text and not with its square", "[canonicalise]") {
    // Each text is one that a careless reader would walk again and again.
    const std::string units[] = {"01 02 03 ", "%ff", "aaaa", "&#", "ab cd ef ", "a.",    "deadbeef",
                                 "\u0301",    "A",   "\\x0", "1!", "=",         "QUJD\n"};
    for (const std::string& unit : units) {
        auto cost = [&](size_t bytes) {
            std::string text;
            while (text.size() < bytes) text += unit;
            const int64_t start = base::thread_cpu_ns();
            REQUIRE(canonicalise(text));
            return base::thread_cpu_ns() - start;
        };
        cost(20'000);
        const int64_t small = std::max<int64_t>(cost(40'000), 200'000);
        const int64_t large = cost(640'000);
        INFO("unit " << unit << " small " << small << " large " << large);
        CHECK(large < small * 16 * 5);
    }
}

TEST_CASE("folding says where each byte came from", "[canonicalise]") {
    Folded folded;
    fold_append("A\u200bB\u0430", 10, folded);
    CHECK(folded.text == "aba");
    CHECK(folded.from == std::vector<uint32_t>{10, 14, 15});
}
