#include "messages/tools.hpp"

#include <catch2/catch.hpp>

#include "messages/request.hpp"

using namespace parley::messages;

namespace {

std::string request(const std::string& messages, const std::string& more = "") {
    return R"({"model":"m","max_tokens":10,"messages":)" + messages + more + "}";
}
const std::string kHi = R"([{"role":"user","content":"hi"}])";
std::string tools(const std::string& list, const std::string& more = "") {
    return request(kHi, R"(,"tools":)" + list + more);
}
std::string answer(const std::string& json) {
    const auto read = parse_request(json);
    INFO(json);
    if (!read) CHECK(read.error().status == 400);
    return read ? "" : read.error().message;
}
const std::string kTool =
    R"({"name":"f","description":"d","input_schema":{ "type": "object", "properties": {} }})";
const std::string kAsked =
    R"([{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"text","text":"t"},)"
    R"({"type":"tool_use","id":"a","name":"f","input":{ "x" : 1 }},{"type":"tool_use","id":"b","name":"g","input":{}}]})";
std::string asked(const std::string& next) { return request(kAsked + next + "]"); }
const std::string kLacks =
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: ";
const std::string kNeeds =
    ". Each `tool_use` block must have a corresponding `tool_result` block in the next message.";

}  // namespace

TEST_CASE("tools stand before the system text and are judged as the operator's", "[tools]") {
    const auto r = parse_request(
        tools("[" + kTool + R"(,{"name":"late","input_schema":{"type":"object"},"defer_loading":true}])",
              R"(,"system":"S","tool_choice":{"type":"auto","disable_parallel_tool_use":true})"));
    REQUIRE(r);
    REQUIRE(r->turns.size() == 2);
    CHECK(r->turns[0].text ==
          "# Tools\n"
          R"({"name":"f","description":"d","parameters":{"type":"object","properties":{}}})"
          "\n\n\nS");
    REQUIRE(r->judged.size() == 4);
    CHECK(r->judged[1].origin == Origin::system);
    CHECK(r->judged[3].origin == Origin::user);
}

TEST_CASE("a mark on a tool reaches to the end of that tool", "[tools]") {
    const auto r = parse_request(tools(
        R"([{"name":"f","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}},)" +
        std::string(R"({"name":"g","input_schema":{"type":"object"}}])")));
    REQUIRE(r);
    REQUIRE(r->cache_marks.size() == 1);
    CHECK(r->turns[0].text.substr(r->cache_marks[0].offset).starts_with(R"({"name":"g")"));
}

TEST_CASE("what a tool or a choice may not be is refused by path and reason", "[tools]") {
    const std::string schema = R"("input_schema":{"type":"object"})";
    const std::vector<std::pair<std::string, std::string>> cases{
        {tools(R"([{"name":"f"}])"), "tools.0.input_schema: Field required"},
        {tools(R"([{"name":"f","input_schema":{}}])"), "tools.0.input_schema.type: Field required"},
        {tools(R"([{"name":"f","input_schema":{"type":"array"}}])"),
         "tools.0.input_schema.type: Input should be 'object'"},
        {tools(R"([{"name":"f g",)" + schema + "}]"),
         "tools.0.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"},
        {tools("[" + kTool + "," + kTool + "]"), "tools: Tool names must be unique."},
        {tools(R"([{"type":"web_search_20250305","name":"web_search"}])"),
         "tools.0: tool type 'web_search_20250305' is not supported by this server"},
        {tools("[" + kTool + "]", R"(,"tool_choice":{"type":"tool","name":"h"})"),
         "tool_choice.name: Tool 'h' not found in provided tools"},
        {tools("[" + kTool + "]", R"(,"tool_choice":{"type":"any"})"),
         "tool_choice.type: 'any' is not supported by this server yet"},
        {tools("[]", R"(,"tool_choice":{"type":"any"})"),
         "tool_choice: may only be specified while providing tools"},
    };
    for (const auto& [json, message] : cases) CHECK(answer(json) == message);
    CHECK(tool_name(std::string(128, 'x')));
    CHECK_FALSE(tool_name(std::string(129, 'x')));
    CHECK(answer(tools("[" + kTool + "]", R"(,"tool_choice":{"type":"none"})")).empty());
}

TEST_CASE("calls are the assistant's words and results are documents", "[tools]") {
    const auto r = parse_request(asked(
        R"(,{"role":"user","content":[{"type":"tool_result","tool_use_id":"b","content":"B"},)"
        R"({"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"A"}]},{"type":"text","text":"go on"}]})"));
    REQUIRE(r);
    REQUIRE(r->turns.size() == 3);
    CHECK(r->turns[1].text == "t[Call f: {\"x\":1}]\n[Call g: {}]\n");
    CHECK(r->turns[2].text ==
          "[Result]\nB\n[End of result]\n[Error]\nA\n[End of error]\ngo on");
    REQUIRE(r->judged.size() == 7);
    CHECK(r->judged[2].origin == Origin::assistant);
    CHECK(r->judged[4].origin == Origin::document);
    CHECK(r->judged[6].origin == Origin::user);
}

TEST_CASE("each call needs its result next and first, each result its call", "[tools]") {
    const std::string a = R"({"type":"tool_result","tool_use_id":"a"})";
    const std::string b = R"({"type":"tool_result","tool_use_id":"b"})";
    const auto next = [](const std::string& blocks) {
        return asked(R"(,{"role":"user","content":[)" + blocks + "]}");
    };
    CHECK(answer(asked("")) == kLacks + "a, b" + kNeeds);
    CHECK(answer(asked(R"(,{"role":"user","content":"x"})")) == kLacks + "a, b" + kNeeds);
    CHECK(answer(next(b)) == kLacks + "a" + kNeeds);
    CHECK(answer(next(R"({"type":"text","text":"first"},)" + a + "," + b)) ==
          kLacks + "a, b" + kNeeds);
    CHECK(answer(next(a + "," + b)).empty());
    // Two messages of one role are one.
    CHECK(answer(asked(R"(,{"role":"user","content":[)" + a +
                       R"(]},{"role":"user","content":[)" + b + "]}"))
              .empty());
    const std::string unexpected =
        ": unexpected `tool_use_id` found in `tool_result` blocks: a. Each `tool_result` block "
        "must have a corresponding `tool_use` block in the previous message.";
    CHECK(answer(next(a + "," + b + "," + a)) == "messages.2.content.2" + unexpected);
    CHECK(answer(request(R"([{"role":"user","content":[)" + a + "]}]")) ==
          "messages.0.content.0" + unexpected);
}
