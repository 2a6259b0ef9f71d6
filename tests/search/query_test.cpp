#include <catch2/catch.hpp>

#include "search/query.hpp"
#include "search/words.hpp"

namespace parley::search {
namespace {

std::string words(std::string_view text) {
    std::string out;
    for (const Word& word : words_of(text, 1u << 20)) out += word.text + "|";
    return out;
}

Query parsed(std::string_view text) {
    auto query = Query::parse(text);
    REQUIRE(query);
    return *query;
}

std::string shown(std::string_view text, std::string_view query, size_t bytes = 60) {
    return snippet(text, parsed(query), bytes, kWordBytesMax * 1024);
}

}  // namespace

TEST_CASE("Words are folded the same however they were typed") {
    CHECK(words("Hello, World-2!") == "hello|world|2|");
    CHECK(words("É e\u0301 STRASSE straße") == "é|é|strasse|strasse|");
    CHECK(words("ﬁne ＡＢＣ") == "fine|abc|");
    CHECK(words("日本語 ok") == "日|本|語|ok|");
    CHECK(words("snake_case don't") == "snake|case|don|t|");
    CHECK(words("\xff\xfe broken \xe3\x81") == "broken|");
    CHECK(words("") == "");
    const std::string longest(1000, 'x');
    CHECK(words(longest) == std::string(kWordBytesMax, 'x') + "|");
    std::string wide;
    for (int i = 0; i < 100; ++i) wide += "é";
    CHECK(words(wide).size() == kWordBytesMax + 1);
}

TEST_CASE("A text is read up to its bound and no further") {
    CHECK(words_of("one two three", 7).size() == 2);
}

TEST_CASE("Only text blocks are found") {
    CHECK(text_of_content(R"([{"type":"text","text":"a"},{"type":"tool_use","name":"x"},)"
                          R"({"type":"text","text":"b"}])") == "a\n\nb");
    CHECK(text_of_content("[]").empty());
    CHECK(text_of_content("{broken").empty());
}

TEST_CASE("A query has words, phrases and prefixes") {
    CHECK(parsed("  Red apple ").text() == "red apple");
    CHECK(parsed(R"("red apple" pie)").text() == R"("red apple" pie)");
    CHECK(parsed("app* app").text() == "app* app");
    CHECK(parsed("red red").text() == "red");
    CHECK(parsed("snake_case").text() == R"("snake case")");
    CHECK(parsed("日本").text() == R"("日 本")");
    CHECK(parsed(R"("open quote)").text() == R"("open quote")");
    CHECK(parsed("a:b*").text() == R"("a b")");
}

TEST_CASE("What cannot be searched for is refused") {
    for (const char* text : {"", "   ", "\"\"", "*", "?!", "\" \""}) {
        auto query = Query::parse(text);
        REQUIRE_FALSE(query);
        CHECK(query.error().code == base::Errc::invalid);
    }
    CHECK(Query::parse(std::string(kQueryBytesMax + 1, 'x')).error().code == base::Errc::too_large);
    std::string many;
    for (size_t i = 0; i <= kQueryWordsMax; ++i) many += "w" + std::to_string(i) + " ";
    CHECK(Query::parse(many).error().code == base::Errc::too_large);
}

TEST_CASE("A snippet marks what was found, as it was written") {
    CHECK(shown("The Red Apple fell.", "apple") == "The Red <mark>Apple</mark> fell.");
    CHECK(shown("The Red Apple fell.", "\"red apple\"") == "The <mark>Red Apple</mark> fell.");
    CHECK(shown("applesauce, apple", "appl*") ==
          "<mark>applesauce</mark>, <mark>apple</mark>");
    // A word of a phrase that stands alone is no match.
    CHECK(shown("apple, then a red apple", "\"red apple\"") ==
          "apple, then a <mark>red apple</mark>");
}

TEST_CASE("Nothing in a snippet but its own marks is markup") {
    const std::string out = shown("<mark>x</mark> <script>alert('a\"b')</script> & apple", "script");
    CHECK(out ==
          "&lt;mark&gt;x&lt;/mark&gt; &lt;<mark>script</mark>&gt;alert(&#39;a&quot;b&#39;)"
          "&lt;/<mark>script</mark>&gt; &amp; apple");
}

TEST_CASE("A snippet of a long text shows the part where most is found") {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "padding apple ";
    text += "here the apple and the pear meet ";
    for (int i = 0; i < 200; ++i) text += "padding ";
    const std::string out = shown(text, "apple pear", 80);
    CHECK(out.find("<mark>pear</mark>") != std::string::npos);
    CHECK(out.find("<mark>apple</mark>") != std::string::npos);
    CHECK(out.starts_with("…"));
    CHECK(out.ends_with("…"));
    CHECK(out.size() < 200);
}

TEST_CASE("A snippet of a text that does not match any more is its beginning") {
    CHECK(shown("nothing of it here", "apple") == "nothing of it here");
    CHECK(shown("", "apple").empty());
}

}  // namespace parley::search
