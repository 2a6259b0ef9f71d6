#include "messages/calls.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace parley::messages;
using Mode = CallReader::Mode;

namespace {

// Parts as one line: text as it is, [name input].
struct Told {
    std::string all;
    bool held = false, complete = false;
};
Told tell(CallReader reader, const std::string& text, size_t piece, bool cut = false) {
    std::vector<AnswerPart> parts;
    for (size_t at = 0; at < text.size(); at += piece) reader.feed(text.substr(at, piece), parts);
    Told told;
    told.held = reader.holding();
    reader.finish(cut, parts);
    told.complete = reader.complete();
    bool open = false;
    for (const AnswerPart& part : parts) {
        REQUIRE_FALSE(part.text.empty());
        if (open && part.kind != AnswerPart::Kind::input) told.all += "]";
        open = part.kind != AnswerPart::Kind::text;
        if (part.kind == AnswerPart::Kind::call) told.all += "[" + part.text + " ";
        if (part.kind != AnswerPart::Kind::call) told.all += part.text;
    }
    return {told.all + (open ? "]" : ""), told.held, told.complete};
}
std::string free_text(const std::string& text, bool cut = false, bool parallel = true) {
    const CallReader reader(Mode::free, {"f", "get"}, parallel);
    const std::string whole = tell(reader, text, text.size() + 1, cut).all;
    for (const size_t piece : {1u, 2u, 3u, 7u}) {
        INFO(piece << ": " << text);
        CHECK(tell(reader, text, piece, cut).all == whole);
    }
    return whole;
}
const std::string kF = R"({"name": "f", "arguments": {"a": [1, "}</tool_call>\""]}})";
std::string marked(const std::string& json) { return "<tool_call>\n" + json + "\n</tool_call>"; }

}  // namespace

TEST_CASE("a call is found in the text around it, however it is cut", "[calls]") {
    const std::string input = R"({"a": [1, "}</tool_call>\""]})";
    CHECK(free_text(marked(kF)) == "[f " + input + "]");
    CHECK(free_text("\n\n" + marked(kF) + "\n") == "[f " + input + "]");
    CHECK(free_text("Well.\n" + marked(kF) + "\n Then.") == "Well.[f " + input + "]Then.");
    CHECK(free_text(marked(kF) + "\n" + marked(R"({"name":"get"})")) == "[f " + input + "][get {}]");
    // A model that forgets the end has said all there is to a call.
    CHECK(free_text("<tool_call>" + kF) == "[f " + input + "]");
    CHECK(free_text("<tool_call>" + kF + "<tool_call>" + kF) == "[f " + input + "][f " + input + "]");
    CHECK(free_text(marked(R"({"arguments":{"n":12345678901234567,"x":1.10},"name":"f"})")) ==
          R"([f {"n":12345678901234567,"x":1.10}])");
}

TEST_CASE("what is not a call stays text, markup and all", "[calls]") {
    for (const std::string json :
         {R"({"name": "unknown", "arguments": {}})", R"({"name": "f", "arguments": []})",
          R"({"name": "f", "arguments": "{}"})", R"({"name": 5, "arguments": {}})", "[]", "f(1)", "",
          R"({"arguments": {}})", R"({"name": "f", "arguments": {"a": 1, "a": 2}})",
          R"({"name": "f" "arguments": {}})", R"({"name": "f", "arguments": {"a": tru}})",
          R"({"name": "f", "arguments": {"a": "b)", R"({"name": "f", "arguments": {)"}) {
        INFO(json);
        CHECK(free_text(marked(json)) == marked(json));
        CHECK(free_text("a " + marked(json) + " b") == "a " + marked(json) + " b");
        // And hides no call behind it.
        if (json.find("{\"a\": \"b") == std::string::npos)
            CHECK(free_text(marked(json) + marked(R"({"name":"f"})")).ends_with("[f {}]"));
    }
    CHECK(free_text("a < b, <tool>, <tool_cal") == "a < b, <tool>, <tool_cal");
    CHECK(free_text(" \n") == "");
    CHECK(tell(CallReader(Mode::none, {"f"}, true), marked(kF), 3).all == marked(kF));
}

TEST_CASE("a call that the end of the room cuts is dropped, the text before it kept", "[calls]") {
    const std::string whole = "Well. " + marked(kF);
    for (size_t n = 12; n < whole.find("}}") + 1; ++n) {
        INFO(n);
        CHECK(free_text(whole.substr(0, n), true) == "Well.");
    }
    CHECK(free_text(whole, true).starts_with("Well.[f"));
    CHECK(free_text("1 <t", true) == "1 <t");
}

TEST_CASE("where one call may be, nothing after it is looked at", "[calls]") {
    CHECK(free_text(marked(R"({"name":"f"})") + marked(kF) + "more", false, false) == "[f {}]");
    CHECK(tell(CallReader(Mode::free, {"f"}, false), marked(kF), 1).complete);
    CHECK_FALSE(tell(CallReader(Mode::free, {"f"}, true), marked(kF), 1).complete);
}

TEST_CASE("text is let go as soon as it can be no marker", "[calls]") {
    CallReader reader(Mode::free, {"f"}, true);
    std::vector<AnswerPart> parts;
    reader.feed("One <tool_", parts);
    REQUIRE(parts.size() == 1);
    CHECK(parts[0].text == "One");
    CHECK(reader.holding());
    reader.feed("box>", parts);
    REQUIRE(parts.size() == 2);
    CHECK(parts[1].text == " <tool_box>");
    CHECK_FALSE(reader.holding());
}

TEST_CASE("a forced call gives out its input as it comes", "[calls]") {
    const std::string input = R"({"a": "}{", "b": [1, {}]})";
    const std::string text = forced_call_open("get") + input + std::string(kForcedCallClose);
    for (const size_t piece : {1ul, 3ul, text.size()}) {
        const Told told = tell(CallReader(Mode::forced, {"f", "get"}, true), text, piece);
        CHECK(told.all == "[get " + input + "]");
        CHECK(told.complete);
    }
    CallReader reader(Mode::forced, {"get"}, true);
    std::vector<AnswerPart> parts;
    reader.feed(forced_call_open("get") + "{\"a\"", parts);
    REQUIRE(parts.size() == 2);
    CHECK(parts[1].text == "{\"a\"");
}

TEST_CASE("ids of calls are the same for the same answer and differ by block, request and key", "[calls]") {
    const std::string id = tool_use_id(7, "msg_1", 2);
    CHECK(id.starts_with("toolu_"));
    CHECK(id.size() == 30);
    CHECK(tool_use_id(7, "msg_1", 2) == id);
    CHECK(tool_use_id(7, "msg_1", 3) != id);
    CHECK(tool_use_id(7, "msg_2", 2) != id);
    CHECK(tool_use_id(8, "msg_1", 2) != id);
}

TEST_CASE("no text at all makes the reader lose or invent a word", "[calls]") {
    std::mt19937 random(7);
    const std::vector<std::string> bits{"<tool_call>", "</tool_call>", kF, "{", "}", "\"", "\\", " ", "\n",
                                        "word", "<", "<tool", "[", R"({"name":"get"})"};
    for (int i = 0; i < 2000; ++i) {
        std::string text;
        for (size_t n = random() % 9; n > 0; --n) text += bits[random() % bits.size()];
        INFO(text);
        free_text(text);
        free_text(text, true);
        free_text(text, false, false);
    }
}
