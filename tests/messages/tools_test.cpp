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
          std::string(kToolsBefore) +
              R"({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}})"
              "\n" +
              std::string(kToolsAfter) + "\n\nS");
    REQUIRE(r->judged.size() == 5);
    CHECK(r->judged[1].origin == Origin::system);
    CHECK(r->judged[4].origin == Origin::user);
}

TEST_CASE("a mark on a tool reaches to the end of that tool", "[tools]") {
    const auto r = parse_request(tools(
        R"([{"name":"f","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}},)" +
        std::string(R"({"name":"g","input_schema":{"type":"object"}}])")));
    REQUIRE(r);
    REQUIRE(r->cache_marks.size() == 1);
    CHECK(r->turns[0].text.substr(r->cache_marks[0].offset).starts_with(R"({"type": "function", "function": {"name": "g")"));
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
    CHECK(r->turns[1].text ==
          "t\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>"
          "\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>");
    CHECK(r->turns[2].text ==
          "<tool_response>\nB\n</tool_response>\n<tool_response>\nError: A\n</tool_response>\ngo on");
    REQUIRE(r->judged.size() == 7);
    CHECK(r->judged[2].origin == Origin::assistant);
    CHECK(r->judged[4].origin == Origin::document);
    CHECK(r->judged[6].origin == Origin::user);
}

TEST_CASE("the pieces of turns with calls and results leave out no byte but the joining newlines", "[tools]") {
    const auto r = parse_request(asked(
        R"(,{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"A"},)"
        R"({"type":"tool_result","tool_use_id":"b"},{"type":"text","text":"go on"}]},{"role":"user","content":"now"})"));
    REQUIRE(r);
    size_t judged = 0, all = 0;
    for (const auto& piece : r->judged) judged += piece.size;
    for (const auto& turn : r->turns) all += turn.text.size();
    CHECK(judged + 1 == all);  // one message joins another
}

TEST_CASE("the choice says which tools may be called, and keeps their schemas where it forces", "[tools]") {
    const std::string two = "[" + kTool + R"(,{"name":"g","input_schema":{ "type":"object" },"defer_loading":true}])";
    const auto read = [&](const std::string& choice) {
        auto r = parse_request(tools(two, choice.empty() ? "" : R"(,"tool_choice":)" + choice));
        REQUIRE(r);
        return std::move(*r);
    };
    CHECK(read("").tool_choice == ToolChoice::free);
    CHECK(read("").tools.size() == 2);
    CHECK(read("").tools[0].schema_json.empty());
    CHECK(read("").parallel_calls);
    CHECK(read(R"({"type":"none"})").tool_choice == ToolChoice::none);
    const auto strict = parse_request(tools(R"([{"name":"f","strict":true,"input_schema":{ "type":"object"}}])"));
    REQUIRE(strict);
    CHECK(strict->tools[0].schema_json == R"({"type":"object"})");
    CHECK(answer(tools(R"([{"name":"f","strict":"yes","input_schema":{"type":"object"}}])")) ==
          "tools.0.strict: Input should be a valid boolean");
    const Request any = read(R"({"type":"any","disable_parallel_tool_use":true})");
    CHECK(any.tool_choice == ToolChoice::forced);
    CHECK_FALSE(any.parallel_calls);
    REQUIRE(any.tools.size() == 2);
    CHECK(any.tools[1].schema_json == R"({"type":"object"})");
    CHECK(any.tools[1].path == "tools.1.input_schema");
    const Request one = read(R"({"type":"tool","name":"g"})");
    REQUIRE(one.tools.size() == 1);
    CHECK(one.tools[0].name == "g");
    // A forced call is no text: neither a schema nor stop sequences are about it.
    const auto both = parse_request(tools(
        "[" + kTool + "]",
        R"(,"tool_choice":{"type":"any"},"stop_sequences":["x"],"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}})"));
    REQUIRE(both);
    CHECK_FALSE(both->schema_json);
}

TEST_CASE("documents and search results inside a result are its text, pictures are refused by path", "[tools]") {
    const auto with = [](const std::string& block) {
        return request(R"([{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},)"
                       R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[)" +
                       block + "]}]}]");
    };
    const auto r = parse_request(with(
        R"({"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"D"}},)"
        R"({"type":"search_result","title":"S","source":"u","content":[{"type":"text","text":"R"}]},{"type":"tool_reference","tool_name":"f"})"));
    REQUIRE(r);
    CHECK(r->turns.back().text ==
          "<tool_response>\n[Document: T]\nD\n[End of document]\n[Search result: S (u)]\nR\n"
          "[End of search result]\n\n</tool_response>");
    CHECK(answer(with(R"({"type":"image","source":{}})")) ==
          "messages.2.content.0.content.0: image input is not supported by this model");
    CHECK(answer(with(R"({"type":"document","source":{"type":"text"}})")) ==
          "messages.2.content.0.content.0.source.data: Field required");
    CHECK(answer(with(R"({"type":"document","source":{"type":"base64"}})"))
              .starts_with("messages.2.content.0.content.0: image input is not supported"));
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
