#include "load/sse.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace parley;
using load::SseParser;

namespace {

struct Collector : load::SseHandler {
    std::vector<std::string> seen;
    size_t stop_after = SIZE_MAX;
    bool on_event(std::string_view name, std::string_view data) override {
        seen.push_back(std::string(name) + "|" + std::string(data));
        return seen.size() < stop_after;
    }
    void on_comment(std::string_view text) override { seen.push_back("#" + std::string(text)); }
};

const std::string kStream =
    "\xef\xbb\xbf"
    "id: 1-0\nevent: message_start\ndata: {\"a\":1}\n\n"
    ": t=12345\r\nevent: x\r\ndata: two\r\ndata:lines\r\n\r\n"
    "event: dropped\n\n"
    "data\r\r"
    "retry: 5\nunknown: y\ndata:  keeps one blank\n\n"
    ": ping\n\n"
    "event: last\ndata: caf\xc3\xa9\n\n";
const std::vector<std::string> kSeen = {
    "message_start|{\"a\":1}", "# t=12345", "x|two\nlines",    "|",
    "| keeps one blank",       "# ping",    "last|caf\xc3\xa9"};

}  // namespace

TEST_CASE("the same events come out wherever the bytes are cut", "[load]") {
    Collector whole;
    SseParser parser;
    REQUIRE(parser.feed(kStream, whole));
    REQUIRE(whole.seen == kSeen);
    for (size_t cut = 0; cut <= kStream.size(); ++cut) {
        Collector two;
        SseParser cut_parser;
        REQUIRE(cut_parser.feed(std::string_view(kStream).substr(0, cut), two));
        REQUIRE(cut_parser.feed(std::string_view(kStream).substr(cut), two));
        CAPTURE(cut);
        REQUIRE(two.seen == kSeen);
    }
    Collector bytes;
    SseParser slow;
    for (const char& c : kStream) REQUIRE(slow.feed(std::string_view(&c, 1), bytes));
    CHECK(bytes.seen == kSeen);
}

TEST_CASE("an event that is not ended by a blank line is not dispatched", "[load]") {
    Collector seen;
    SseParser parser;
    REQUIRE(parser.feed("data: a\n", seen));
    CHECK(seen.seen.empty());
    REQUIRE(parser.feed("\n", seen));
    CHECK(seen.seen == std::vector<std::string>{"|a"});
}

TEST_CASE("an event over the bound is an error, in one piece or in many, and stays one", "[load]") {
    Collector seen;
    SseParser one(64);
    CHECK_FALSE(one.feed("data: " + std::string(100, 'x') + "\n\n", seen));
    SseParser many(64);
    bool failed = false;
    for (int i = 0; i < 40 && !failed; ++i) failed = !many.feed("data: xx\n", seen);
    CHECK(failed);
    CHECK_FALSE(many.feed("\n", seen));
    CHECK(seen.seen.empty());
    many.reset();
    CHECK(many.feed("data: fine\n\n", seen));
    CHECK(seen.seen == std::vector<std::string>{"|fine"});
}

TEST_CASE("after the handler said stop nothing more is looked at", "[load]") {
    Collector seen;
    seen.stop_after = 1;
    SseParser parser;
    REQUIRE(parser.feed("data: 1\n\ndata: 2\n\n", seen));
    REQUIRE(parser.feed("data: 3\n\n", seen));
    CHECK(seen.seen.size() == 1);
}

TEST_CASE("only a comment of the form t=NUMBER is a time stamp", "[load]") {
    CHECK(load::stamp_of_comment(" t=98765432109") == 98765432109);
    for (const char* bad :
         {"", " ping", "t=5", " t=", " t=5 ", " t=-5", " t=5x", " t=99999999999999999999"})
        CHECK(load::stamp_of_comment(bad) == -1);
}
