#include "filter/json_words.hpp"

#include <catch2/catch.hpp>

#include "base/text.hpp"

using parley::filter::JsonWords;

namespace {

std::string words(const std::string& json) {
    const std::string whole = JsonWords().feed(json);
    for (const size_t piece : {1u, 2u, 5u}) {
        JsonWords each;
        std::string out;
        for (size_t at = 0; at < json.size(); at += piece) out += each.feed(json.substr(at, piece));
        CHECK(out == whole);
    }
    CHECK(parley::base::utf8_valid(whole));
    return whole;
}

}  // namespace

TEST_CASE("a word spelled by escapes is the word", "[json_words]") {
    CHECK(words(R"({"a":"\u007aorb\u006Cax"})") == R"({"a":"zorblax"})");
    CHECK(words(R"({"a":"z\/o\\r\"b\n"})") == "{\"a\":\"z/o\\r\"b\n\"}");
    CHECK(words(R"("\ud83d\ude00\u00e9")") == "\"\xF0\x9F\x98\x80\xC3\xA9\"");
}

TEST_CASE("what is no escape, or half a character, spoils nothing after it", "[json_words]") {
    CHECK(words(R"("\ud83d and \ude00 x")") == "\"\xEF\xBF\xBD and \xEF\xBF\xBD x\"");
    CHECK(words(R"("\ud83d\u0041")") == "\"\xEF\xBF\xBD" "A\"");
    CHECK(words(R"("\ud83d\n")") == "\"\xEF\xBF\xBD\n\"");
    CHECK(words(R"(\q \u12g4 z)") == R"(\q \u12g4 z)");
    CHECK(words("plain \xC3\xA9") == "plain \xC3\xA9");
}
