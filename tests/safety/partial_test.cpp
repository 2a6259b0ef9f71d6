#include "safety/partial.hpp"

#include <re2/re2.h>

#include <catch2/catch.hpp>
#include <random>

using namespace parley;
using namespace parley::safety;

namespace {

RE2::Options quiet() {
    RE2::Options options;
    options.set_log_errors(false);
    return options;
}

}  // namespace

TEST_CASE("every beginning of a match is matched by the pattern of beginnings", "[partial]") {
    struct Case {
        const char* pattern;
        const char* match;
    };
    for (const Case& c :
         {Case{"abc", "abc"}, Case{"a(b|cd)+e", "acdbcde"}, Case{"(?i)Kill\\s+You", "KILL  you"},
          Case{"x{2,4}y?z", "xxxz"}, Case{"\\bfoo\\b.*bar$", "foo and bar"},
          Case{"[a-c]+[^x]{3}\\d", "abcabc---7"},
          Case{"(?:one|two(?:three)?) four", "twothree four"}, Case{"a\\.b\\[c\\]", "a.b[c]"},
          Case{"(?P<n>ab)*c", "ababc"}, Case{"pass(?i)WORD", "password"},
          Case{"\\x{416}\\p{L}é", "Жzé"}, Case{"a{3}b", "aaab"}, Case{"(a?b?){2}c", "abbc"}}) {
        INFO(c.pattern);
        auto partial = partial_pattern(c.pattern);
        REQUIRE(partial);
        const RE2 whole(c.pattern, quiet());
        const RE2 beginnings("(?:" + *partial + ")\\z", quiet());
        REQUIRE(whole.ok());
        REQUIRE(beginnings.ok());
        const std::string match = c.match;
        REQUIRE(RE2::FullMatch(match, whole));
        for (size_t n = 1; n <= match.size(); ++n) {
            if (n < match.size() && (static_cast<unsigned char>(match[n]) & 0xC0) == 0x80) continue;
            INFO("first " << n << " bytes of " << match);
            const std::string text = "?? " + match.substr(0, n);
            re2::StringPiece found;
            REQUIRE(beginnings.Match(text, 0, text.size(), RE2::UNANCHORED, &found, 1));
            CHECK(found.data() - text.data() <= 3);
        }
        CHECK_FALSE(RE2::FullMatch("\x01#\x01", beginnings));
    }
}

TEST_CASE("a text that cannot become a match holds nothing", "[partial]") {
    auto partial = partial_pattern("secret word");
    REQUIRE(partial);
    const RE2 beginnings("(?:" + *partial + ")\\z", quiet());
    for (const char* text : {"secret lives", "words", "secretword", "the end."}) {
        INFO(text);
        re2::StringPiece found;
        const std::string subject = text;
        const bool hit = beginnings.Match(subject, 0, subject.size(), RE2::UNANCHORED, &found, 1);
        // "words" ends in the first letter of the pattern: one byte may be held.
        CHECK((!hit || found.size() <= 1));
    }
}

TEST_CASE("syntax that is not understood is refused", "[partial]") {
    for (const char* pattern : {"\\Qa+b\\E", "a\\C", "(ab", "ab)", "[ab", "*a", "(?<x>a)", "a\\"}) {
        INFO(pattern);
        CHECK_FALSE(partial_pattern(pattern));
    }
}
