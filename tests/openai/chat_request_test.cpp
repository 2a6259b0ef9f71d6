#include "openai/chat_request.hpp"

#include <catch2/catch.hpp>

#include "messages/request.hpp"

using namespace parley;
using openai::read_chat;

namespace {

std::string with(const std::string& members,
                 const std::string& messages = R"([{"role":"user","content":"Hi"}])") {
    return R"({"model":"m","messages":)" + messages + (members.empty() ? "" : "," + members) + "}";
}

// What the stages below read of it.
messages::Request below(const std::string& json) {
    const auto chat = read_chat(json);
    REQUIRE(chat);
    CHECK_FALSE(chat->semantic);
    INFO(chat->body);
    auto request = messages::parse_request(chat->body);
    if (!request) FAIL(request.error().message);
    return *request;
}

std::string type_error(const std::string& json) {
    const auto chat = read_chat(json);
    return chat ? "" : chat.error().message;
}

std::string semantic(const std::string& json) {
    const auto chat = read_chat(json);
    REQUIRE(chat);
    return chat->semantic ? chat->semantic->message : "";
}

}  // namespace

TEST_CASE("a body without a bound on the answer asks for more than any context") {
    const auto request = below(with(""));
    CHECK(request.max_tokens == openai::kNoLimit);
    CHECK(request.model == "m");
    CHECK_FALSE(request.stream);
}

TEST_CASE("max_completion_tokens goes before max_tokens, and neither may be zero") {
    CHECK(below(with(R"("max_completion_tokens":7,"max_tokens":9)")).max_tokens == 7);
    CHECK(below(with(R"("max_tokens":9)")).max_tokens == 9);
    CHECK(below(with(R"("max_completion_tokens":null,"max_tokens":9)")).max_tokens == 9);
    CHECK(type_error(with(R"("max_tokens":0)")) ==
          "max_tokens: Input should be greater than or equal to 1");
    CHECK(type_error(with(R"("max_tokens":"9")")) == "max_tokens: Input should be a valid integer");
}

TEST_CASE("system and developer stay where they stand, and parts are joined") {
    const auto request = below(with("", R"([{"role":"developer","content":"Be short."},
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"system","content":"Be kind."},{"role":"user","content":"c"}])"));
    REQUIRE(request.turns.size() == 4);
    CHECK(request.turns[0].role == messages::Role::system);
    CHECK(request.turns[0].text == "Be short.");
    CHECK(request.turns[1].text == "ab");
    CHECK(request.turns[2].role == messages::Role::system);
    CHECK(request.turns[3].text == "c");
}

TEST_CASE("blank content is legal in every role, and the user's turn exists") {
    for (const std::string blank : {R"("")", R"("  \n")", "[]"}) {
        const auto request = below(with("", R"([{"role":"system","content":)" + blank +
                                                R"(},{"role":"user","content":)" + blank + "}]"));
        REQUIRE(request.turns.size() == 1);
        CHECK(request.turns[0].role == messages::Role::user);
        CHECK(request.turns[0].text.empty());
    }
    CHECK(below(with("", R"([{"role":"user","content":"a"},{"role":"assistant","content":null},
        {"role":"user","content":"b"}])"))
              .turns.size() == 1);
}

TEST_CASE("a trailing assistant message is history and not continued") {
    const auto request =
        below(with("", R"([{"role":"user","content":"a"},{"role":"assistant","content":"b "}])"));
    CHECK_FALSE(request.prefill);
    REQUIRE(request.turns.size() == 3);
    CHECK(request.turns[2].role == messages::Role::user);
    CHECK(request.turns[2].text.empty());
}

TEST_CASE("stop strings of white space stand beside the body, the others in it") {
    const auto chat = read_chat(with(R"("stop":["\n","END"])"));
    REQUIRE(chat);
    CHECK(chat->blank_stops == std::vector<std::string>{"\n"});
    CHECK(messages::parse_request(chat->body)->stop_sequences == std::vector<std::string>{"END"});
    CHECK(below(with(R"("stop":"X")")).stop_sequences == std::vector<std::string>{"X"});
    CHECK(below(with(R"("stop":null)")).stop_sequences.empty());
    CHECK(semantic(with(R"("stop":[""])")) == "stop: each stop string must be non-empty");
    CHECK(type_error(with(R"("stop":[1])")) == "stop.0: Input should be a valid string");
}

TEST_CASE("sampling beyond the Messages API stands beside the body") {
    const auto chat = read_chat(with(
        R"("temperature":1.7,"top_p":0.5,"seed":-1,"presence_penalty":-2,"frequency_penalty":2)"));
    REQUIRE(chat);
    CHECK(chat->temperature == 1.7);
    CHECK(chat->seed == UINT64_MAX);
    CHECK(chat->presence_penalty == -2);
    CHECK(chat->frequency_penalty == 2);
    CHECK(messages::parse_request(chat->body)->top_p == 0.5);
    CHECK(type_error(with(R"("temperature":2.1)")) == "temperature: range: 0..2");
    CHECK(type_error(with(R"("presence_penalty":-2.1)")) == "presence_penalty: range: -2..2");
    CHECK(type_error(with(R"("top_p":"1")")) == "top_p: Input should be a valid number");
}

TEST_CASE("a schema of the answer arrives as the Messages API's; json_object is any object") {
    const auto schema = R"({"type":"object","properties":{"a":{"type":"integer"}}})";
    CHECK(
        below(
            with(
                R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":)" +
                std::string(schema) + "}}"))
            .schema_json == schema);
    CHECK(below(with(R"("response_format":{"type":"json_object"})")).schema_json ==
          R"({"type":"object"})");
    CHECK_FALSE(below(with(R"("response_format":{"type":"text"})")).schema_json);
    CHECK(type_error(
              with(R"("response_format":{"type":"json_schema","json_schema":{"name":"x"}})")) ==
          "response_format.json_schema.schema: Field required");
    CHECK(type_error(with(R"("response_format":{"type":"xml"})")) ==
          "response_format.type: Input should be 'text', 'json_object' or 'json_schema'");
}

TEST_CASE("calls and their results in the history become blocks") {
    const auto request = below(with("", R"([{"role":"user","content":"a"},
        {"role":"assistant","content":null,"tool_calls":[
          {"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}},
          {"id":"call_2","type":"function","function":{"name":"g","arguments":""}}]},
        {"role":"tool","tool_call_id":"call_2","content":""},
        {"role":"tool","tool_call_id":"call_1","content":[{"type":"text","text":"sunny"}]}])"));
    REQUIRE(request.turns.size() == 3);
    CHECK(request.turns[1].text.find("\"x\"") != std::string::npos);
    CHECK(request.turns[2].text.find("sunny") != std::string::npos);
    CHECK(type_error(with("", R"([{"role":"assistant","tool_calls":[
          {"id":"c","type":"function","function":{"name":"f","arguments":"[1]"}}]}])")) ==
          "messages.0.tool_calls.0.function.arguments: Input should be a JSON object, as a string");
    CHECK(type_error(with("", R"([{"role":"tool","content":"x"}])")) ==
          "messages.0.tool_call_id: Field required");
}

TEST_CASE("tools and the choice among them are told in the Messages API's words") {
    const std::string tools =
        R"("tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"properties":{}}}},
                    {"type":"function","function":{"name":"g"}}])";
    const auto body = [&](const std::string& more) {
        const auto chat = read_chat(with(tools + more));
        REQUIRE(chat);
        CHECK_FALSE(chat->semantic);
        return chat->body;
    };
    const auto has = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    CHECK(
        has(body(""),
            R"({"name":"f","description":"d","input_schema":{"type":"object","properties":{}}})"));
    CHECK(has(body(""), R"({"name":"g","input_schema":{"type":"object","properties":{}}})"));
    CHECK_FALSE(has(body(""), "tool_choice"));
    CHECK(has(body(R"(,"tool_choice":"required")"), R"("tool_choice":{"type":"any"})"));
    CHECK(has(body(R"(,"tool_choice":"none","parallel_tool_calls":false)"),
              R"("tool_choice":{"type":"none"})"));
    CHECK(has(
        body(
            R"(,"tool_choice":{"type":"function","function":{"name":"g"}},"parallel_tool_calls":false)"),
        R"("tool_choice":{"type":"tool","name":"g","disable_parallel_tool_use":true})"));
    CHECK(has(body(R"(,"parallel_tool_calls":false)"),
              R"({"type":"auto","disable_parallel_tool_use":true})"));
    CHECK(semantic(with(R"("tool_choice":"required")")) ==
          "tool_choice: only allowed when `tools` are specified");
    CHECK(semantic(with(R"("tools":[],"tool_choice":"auto")")).empty());
    CHECK(semantic(with(R"("tools":[{"type":"custom","custom":{"name":"x"}}])")) ==
          "tools.0: tool type 'custom' is not supported by this server");
}

TEST_CASE("what would change the answer and is not built is refused, after the types") {
    for (const auto& [members, path] : std::initializer_list<std::pair<std::string, std::string>>{
             {R"("n":2)", "n: "},
             {R"("logprobs":true)", "logprobs: "},
             {R"("top_logprobs":3)", "top_logprobs: "},
             {R"("audio":{"voice":"x"})", "audio: "},
             {R"("modalities":["text","audio"])", "modalities: "},
             {R"("functions":[])", "functions: "},
             {R"("web_search_options":{})", "web_search_options: "},
             {R"("stream_options":{"include_usage":true})", "stream_options: "}}) {
        INFO(members);
        CHECK(semantic(with(members)).substr(0, path.size()) == path);
        CHECK(type_error(with(members + R"(,"temperature":"hot")")) ==
              "temperature: Input should be a valid number");
    }
    for (const std::string part :
         {R"({"type":"image_url","image_url":{"url":"x"}})",
          R"({"type":"input_audio","input_audio":{}})", R"({"type":"file","file":{}})"})
        CHECK(semantic(with("", R"([{"role":"user","content":[)" + part + "]}]")).substr(0, 21) ==
              "messages.0.content.0:");
    CHECK(semantic(with("", "[]")) == "messages: at least one message is required");
}

TEST_CASE("what front ends add is taken and ignored") {
    CHECK(
        below(
            with(
                R"("n":1,"logprobs":false,"top_logprobs":0,"user":"u","store":true,"metadata":{"a":"b"},
        "service_tier":"auto","reasoning_effort":"high","verbosity":"low","logit_bias":{"1":2},"prediction":null,
        "chat_id":"x","keep_alive":1,"modalities":["text"])"))
            .user_id == "u");
    CHECK(below(with("\"user\":\"" + std::string(600, 'u') + "\"")).user_id.empty());
}

TEST_CASE("a wrong type is named by its path, in the order model, messages, the rest") {
    CHECK(type_error("{").substr(0, 35) == "The request body is not valid JSON:");
    CHECK(type_error("[]") == "The request body should be a JSON object");
    CHECK(type_error("{}") == "model: Field required");
    CHECK(type_error(R"({"model":"m","stream":1})") == "messages: Field required");
    CHECK(type_error(with(R"("stream":1)")) == "stream: Input should be a valid boolean");
    CHECK(type_error(with("", R"([{"role":"robot","content":""}])")) ==
          "messages.0.role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'");
    CHECK(type_error(with("", R"([{"role":"user"}])")) == "messages.0.content: Field required");
    CHECK(type_error(with("", R"([{"role":"user","content":null}])")) ==
          "messages.0.content: Input should be a valid string");
    CHECK(type_error(with("", R"([{"role":"user","content":[{"type":"text"}]}])")) ==
          "messages.0.content.0.text: Field required");
    CHECK(type_error(R"({"model":"m","model":"n","messages":[]})") ==
          "The request body is not valid JSON: duplicate key 'model'");
    CHECK(
        type_error(with("\"x\":" + std::string(200, '[') + std::string(200, ']'))).substr(0, 35) ==
        "The request body is not valid JSON:");
}
