#include "engine/text_stage.hpp"

#include <catch2/catch.hpp>

#include "base/text.hpp"
#include "engine/random.hpp"

using namespace parley;
using engine::Piece;
using engine::StopMatcher;
using engine::TextStage;

namespace {

struct Out {
    std::string text;
    std::vector<std::string> pieces;
    std::vector<std::vector<model::Token>> ids;
    bool stopped = false;
};

// Feeds token i with words[i]; takes after each.
Out feed(TextStage& stage, const std::vector<std::string>& words, model::Token first = 0) {
    Out out;
    Piece piece;
    const auto take = [&] {
        if (!stage.take(piece)) return;
        out.text += piece.text;
        out.pieces.push_back(piece.text);
        out.ids.push_back(piece.ids);
    };
    for (size_t i = 0; i < words.size() && !out.stopped; ++i) {
        out.stopped = stage.feed(first + static_cast<model::Token>(i), words[i]);
        take();
    }
    if (!out.stopped) stage.finish();
    take();
    return out;
}

}  // namespace

TEST_CASE("the pattern that ends first is found, the longest of those that end together",
          "[stop]") {
    const std::vector<std::string> patterns = {"bc", "abc", "abcd", "x"};
    StopMatcher matcher(patterns);
    CHECK(matcher.feed('a') == StopMatcher::kNone);
    CHECK(matcher.held() == 1);
    CHECK(matcher.feed('b') == StopMatcher::kNone);
    CHECK(matcher.held() == 2);
    CHECK(matcher.feed('c') == 1);
}

TEST_CASE("a pattern that is a suffix of a longer failed one is found", "[stop]") {
    const std::vector<std::string> patterns = {"aab", "aaac"};
    StopMatcher matcher(patterns);
    for (const char c : {'a', 'a', 'a'}) CHECK(matcher.feed(static_cast<uint8_t>(c)) == -1);
    CHECK(matcher.feed('b') == 0);
}

TEST_CASE("without patterns nothing is held", "[stop]") {
    StopMatcher matcher({});
    CHECK(matcher.feed('a') == StopMatcher::kNone);
    CHECK(matcher.held() == 0);
}

TEST_CASE("a stop sequence over token borders never leaks in part", "[stop]") {
    TextStage stage({"<end>"}, 0);
    const Out out = feed(stage, {"hello", " <", "en", "d", "> more"});
    CHECK(out.stopped);
    CHECK(stage.matched() == "<end>");
    CHECK(out.text == "hello ");
    CHECK(out.pieces == std::vector<std::string>{"hello", " "});
}

TEST_CASE("held text comes out when the stop sequence is disproved, or at the end", "[stop]") {
    TextStage stage({"<end>"}, 0);
    const Out out = feed(stage, {"a <e", "n", "x", "<en"});
    CHECK_FALSE(out.stopped);
    CHECK(out.text == "a <enx<en");
    CHECK(out.pieces == std::vector<std::string>{"a ", "<enx", "<en"});
    // Token 0 ends only with the held part, so its id comes with that.
    CHECK(out.ids == std::vector<std::vector<model::Token>>{{}, {0, 1, 2}, {3}});
}

TEST_CASE("a character split over tokens is held until it is whole", "[text]") {
    TextStage stage({}, 0);
    const Out out = feed(stage, {"a\xF0\x9F", "\x98",
                                 "\x80"
                                 "b",
                                 "c"});
    CHECK(out.pieces == std::vector<std::string>{"a", "😀b", "c"});
    CHECK(out.ids == std::vector<std::vector<model::Token>>{{}, {0, 1, 2}, {3}});
}

TEST_CASE("an unfinished character at the end is dropped, not shown broken", "[text]") {
    TextStage stage({}, 0);
    CHECK(feed(stage, {"ok", "\xE2\x82"}).text == "ok");
}

TEST_CASE("bytes that are no UTF-8 become replacement characters", "[text]") {
    TextStage stage({}, 0);
    const Out out = feed(stage, {"\xFF"
                                 "a\xC3",
                                 "(", "\xED\xA0\x80"});
    CHECK(out.text ==
          "\xEF\xBF\xBD"
          "a\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    CHECK(base::utf8_valid(out.text));
}

TEST_CASE("a token without text is reported with the next piece", "[text]") {
    TextStage stage({}, 0);
    const Out out = feed(stage, {"a", "", "b"});
    CHECK(out.ids == std::vector<std::vector<model::Token>>{{0}, {1, 2}});
}

TEST_CASE("a continuation at any point gives the very rest of the text", "[text]") {
    const std::vector<std::string> words = {"a<", "en", "x\xF0\x9F", "\x98\x80", "y",
                                            "<e", "nd", ">",         "zz"};
    TextStage whole({"<end>"}, 0);
    const Out all = feed(whole, words);
    REQUIRE(all.text == "a<enx😀y");
    size_t ids = 0;
    std::string released;
    for (size_t cut = 0; cut <= all.pieces.size(); ++cut) {
        TextStage stage({"<end>"}, released.size());
        bool stopped = false;
        for (size_t i = 0; i < ids; ++i) stopped = stage.replay(words[i]);
        REQUIRE_FALSE(stopped);
        const Out rest = feed(
            stage, std::vector<std::string>(words.begin() + static_cast<long>(ids), words.end()),
            static_cast<model::Token>(ids));
        CHECK(released + rest.text == all.text);
        CHECK(rest.stopped);
        if (cut < all.pieces.size()) {
            released += all.pieces[cut];
            ids += all.ids[cut].size();
        }
    }
}

TEST_CASE("text, pieces and stops do not depend on how the bytes were cut into tokens", "[text]") {
    const std::string source = "x\xC3\xA9STxSTOP\xF0\x9F\x98\x80 \xFF end ENDED tail";
    for (const char* stop : {"STOP", "END", "nowhere", "\xF0\x9F\x98\x80"}) {
        TextStage whole({stop}, 0);
        const Out expected = feed(whole, {source});
        for (uint64_t seed = 0; seed < 50; ++seed) {
            std::vector<std::string> words;
            for (size_t at = 0, n = 0; at < source.size();) {
                const size_t size = 1 + static_cast<size_t>(engine::uniform(seed, n++) * 4);
                words.push_back(source.substr(at, size));
                at += size;
            }
            TextStage stage({stop}, 0);
            const Out out = feed(stage, words);
            INFO("seed " << seed << " stop " << stop);
            CHECK(out.text == expected.text);
            CHECK(out.stopped == expected.stopped);
            for (const std::string& piece : out.pieces) CHECK(base::utf8_valid(piece));
        }
    }
}
