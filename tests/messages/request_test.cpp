#include "messages/request.hpp"

#include <catch2/catch.hpp>

#include "base/text.hpp"

using namespace parley::messages;

namespace {

Request good(const std::string& json, const ParseOptions& options = {}) {
    auto request = parse_request(json, options);
    INFO(json << "\n" << (request ? "" : request.error().message));
    REQUIRE(request);
    return *request;
}
std::string bad(const std::string& json, const ParseOptions& options = {}) {
    const auto request = parse_request(json, options);
    INFO(json);
    REQUIRE_FALSE(request);
    CHECK(request.error().status == 400);
    CHECK(request.error().type == ErrorType::invalid_request_error);
    CHECK(parley::base::utf8_valid(request.error().message));
    return request.error().message;
}
// A body with these members in place of, or beside, the usual ones.
std::string body(const std::string& messages, const std::string& more = "") {
    return R"({"model":"m","max_tokens":10,"messages":)" + messages + more + "}";
}
const std::string kHi = R"([{"role":"user","content":"hi"}])";
std::string with(const std::string& more) { return body(kHi, "," + more); }
std::string user(const std::string& content) {
    return body(R"([{"role":"user","content":)" + content + "}]");
}
std::string show(const Request& request) {
    std::string out;
    for (const Turn& turn : request.turns) {
        if (!out.empty()) out += " | ";
        out += "SUA"[static_cast<int>(turn.role)];
        out += ":" + turn.text;
    }
    return out;
}
std::string judged(const Request& request) {
    std::string out;
    for (const JudgedText& piece : request.judged)
        out += "[" + std::string(name(piece.origin)) + ":" + std::string(request.text(piece)) + "]";
    return out;
}

}  // namespace

TEST_CASE("a plain request is read whole", "[request]") {
    const Request r = good(
        R"({"model":"local-chat","max_tokens":100,"messages":[{"role":"user","content":"Hello"}],)"
        R"("system":"Be brief.","stream":true,"stop_sequences":["END","\n\nHuman:"],)"
        R"("temperature":0.5,"top_p":1,"top_k":40,"metadata":{"user_id":"u1"}})");
    CHECK(r.model == "local-chat");
    CHECK(r.max_tokens == 100);
    CHECK(r.stream);
    CHECK(r.stop_sequences == std::vector<std::string>{"END", "\n\nHuman:"});
    CHECK(r.temperature == 0.5);
    CHECK(r.top_p == 1.0);
    CHECK(r.top_k == 40u);
    CHECK(r.user_id == "u1");
    CHECK(show(r) == "S:Be brief. | U:Hello");
    CHECK_FALSE(r.prefill);
    CHECK(judged(r) == "[system:Be brief.][user:Hello]");
}

TEST_CASE("null means absent for every optional field", "[request]") {
    const Request r = good(with(
        R"("system":null,"stream":null,"stop_sequences":null,"temperature":null,"top_p":null,)"
        R"("top_k":null,"tools":null,"tool_choice":null,"metadata":null,"thinking":null,)"
        R"("output_config":null,"output_format":null,"cache_control":null,"service_tier":null,)"
        R"("container":null,"mcp_servers":null,"compaction":null,"context_management":null)"));
    CHECK_FALSE(r.stream);
    CHECK_FALSE(r.temperature);
    CHECK(r.stop_sequences.empty());
    CHECK(r.cache_marks.empty());
}

TEST_CASE("wrong types and values name the path and the reason", "[request]") {
    const std::pair<std::string, std::string> cases[] = {
        {"{}", "model: Field required"},
        {R"({"model":"m"})", "max_tokens: Field required"},
        {R"({"model":"m","max_tokens":1})", "messages: Field required"},
        {R"({"model":5,"max_tokens":1,"messages":[]})", "model: Input should be a valid string"},
        {R"({"model":null,"max_tokens":1,"messages":[]})", "model: Input should be a valid string"},
        {R"({"model":"","max_tokens":1,"messages":[]})",
         "model: String should have at least 1 character"},
        {R"({"model":"m","max_tokens":"5","messages":[]})",
         "max_tokens: Input should be a valid integer"},
        {R"({"model":"m","max_tokens":5.5,"messages":[]})",
         "max_tokens: Input should be a valid integer"},
        {R"({"model":"m","max_tokens":true,"messages":[]})",
         "max_tokens: Input should be a valid integer"},
        {R"({"model":"m","max_tokens":-1,"messages":[]})",
         "max_tokens: Input should be greater than or equal to 0"},
        {body("{}"), "messages: Input should be a valid list"},
        {body("[]"), "messages: at least one message is required"},
        {body("[5]"), "messages.0: Input should be an object"},
        {body(R"([{"content":"x"}])"), "messages.0.role: Field required"},
        {body(R"([{"role":"user","content":"x"},{"role":"tool","content":"x"}])"),
         "messages.1.role: Input should be 'user', 'assistant' or 'system'"},
        {body(R"([{"role":"user"}])"), "messages.0.content: Field required"},
        {user("5"), "messages.0.content: Input should be a valid string or a list of blocks"},
        {user("[5]"), "messages.0.content.0: Input should be an object"},
        {user(R"([{"text":"x"}])"), "messages.0.content.0.type: Field required"},
        {user(R"([{"type":"text"}])"), "messages.0.content.0.text: Field required"},
        {user(R"([{"type":"text","text":"a"},{"type":"text","text":7}])"),
         "messages.0.content.1.text: Input should be a valid string"},
        {user(R"([{"type":"text","text":""}])"), "messages: text content blocks must be non-empty"},
        {user(R"([{"type":"text","text":" \n\u3000\u00a0"}])"),
         "messages: text content blocks must contain non-whitespace text"},
        {user(R"(" \t ")"), "messages: text content blocks must contain non-whitespace text"},
        {user(R"("")"),
         "messages.0: all messages must have non-empty content except for the optional final "
         "assistant message"},
        {user("[]"),
         "messages.0: all messages must have non-empty content except for the optional final "
         "assistant message"},
        {body(R"([{"role":"assistant","content":""},{"role":"user","content":"x"}])"),
         "messages.0: all messages must have non-empty content except for the optional final "
         "assistant message"},
        {body(R"([{"role":"user","content":"x"},{"role":"assistant","content":"A: "}])"),
         "messages: final assistant content cannot end with trailing whitespace"},
        {body(R"([{"role":"user","content":"x"},{"role":"assistant","content":"A\u00a0"}])"),
         "messages: final assistant content cannot end with trailing whitespace"},
        {with(R"("system":5)"), "system: Input should be a valid string or a list of blocks"},
        {with(R"("system":[{"type":"image"}])"), "system.0.type: Input should be 'text'"},
        {with(R"("system":[{"type":"text","text":""}])"),
         "system: text content blocks must be non-empty"},
        {with(R"("stream":"true")"), "stream: Input should be a valid boolean"},
        {with(R"("stop_sequences":"x")"), "stop_sequences: Input should be a valid list"},
        {with(R"("stop_sequences":["a",1])"), "stop_sequences.1: Input should be a valid string"},
        {with(R"("stop_sequences":["a",""])"),
         "stop_sequences: each stop sequence must be non-empty"},
        {with(R"("stop_sequences":[" "])"),
         "stop_sequences: each stop sequence must contain non-whitespace"},
        {with(R"("temperature":"1")"), "temperature: Input should be a valid number"},
        {with(R"("temperature":1.01)"), "temperature: range: 0..1"},
        {with(R"("temperature":-0.1)"), "temperature: range: 0..1"},
        {with(R"("top_p":2)"), "top_p: range: 0..1"},
        {with(R"("top_k":1.5)"), "top_k: Input should be a valid integer"},
        {with(R"("top_k":-1)"), "top_k: Input should be greater than or equal to 0"},
        {with(R"("metadata":"x")"), "metadata: Input should be an object"},
        {with(R"("metadata":{"user_id":5})"), "metadata.user_id: Input should be a valid string"},
        {with(R"("metadata":{"user_id":")" + std::string(513, 'x') + "\"}"),
         "metadata.user_id: String should have at most 512 characters"},
        {with(R"("service_tier":"fast")"),
         "service_tier: Input should be 'auto' or 'standard_only'"},
        {with(R"("thinking":{"type":"maybe"})"),
         "thinking.type: Input should be 'enabled', 'disabled', 'adaptive' or 'between_tools'"},
        {with(R"("thinking":{"type":"enabled"})"), "thinking.budget_tokens: Field required"},
        {with(R"("thinking":{"type":"enabled","budget_tokens":1023})"),
         "thinking.budget_tokens: Input should be greater than or equal to 1024"},
        {with(R"("thinking":{"type":"enabled","budget_tokens":1024})"),
         "max_tokens: must be greater than `thinking.budget_tokens`"},
        {with(R"("output_config":{"effort":"extreme"})"),
         "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"},
        {with(R"("output_config":{"format":{"type":"json_object"}})"),
         "output_config.format.type: Input should be 'json_schema'"},
        {with(R"("output_config":{"format":{"schema":{}}})"),
         "output_config.format.type: Field required"},
        {with(R"("output_config":{"format":[]})"),
         "output_config.format: Input should be an object"},
        {with(R"("output_config":{"format":{"type":"json_schema","schema":"x"}})"),
         "output_config.format.schema: Input should be an object"},
        {with(R"("output_format":{"type":"json_schema"})"), "output_format.schema: Field required"},
        {with(
             R"("output_format":{"type":"json_schema","schema":{}},"output_config":{"format":{"type":"json_schema","schema":{}}})"),
         "output_format: not beside `output_config.format`"},
        {with(
             R"("stop_sequences":["x"],"output_config":{"format":{"type":"json_schema","schema":{}}})"),
         "stop_sequences: not supported with output_config.format.schema, which they would cut"},
        {with(R"("tool_choice":{"type":"auto"})"),
         "tool_choice: may only be specified while providing tools"},
        {with(R"("tools":[],"tool_choice":{"type":"any"})"),
         "tool_choice: may only be specified while providing tools"},
        {with(R"("compaction":{})"), "compaction: not supported by this server"},
        {with(R"("container":"c")"), "container: not supported by this server"},
        {with(R"("mcp_servers":[{}])"), "mcp_servers: not supported by this server"},
        {with(R"("cache_control":{"type":"forever"})"),
         "cache_control.type: Input should be 'ephemeral'"},
        {user(R"([{"type":"text","text":"x","cache_control":{"type":"ephemeral","ttl":"2h"}}])"),
         "messages.0.content.0.cache_control.ttl: Input should be '5m' or '1h'"},
        {user(R"([{"type":"image","source":{"type":"base64"}}])"),
         "messages.0.content.0: image input is not supported by this model"},
        {user(
             R"([{"type":"text","text":"x"},{"type":"document","source":{"type":"url","url":"u"}}])"),
         "messages.0.content.1: image input is not supported by this model (document source "
         "'url')"},
        {user(R"([{"type":"document"}])"), "messages.0.content.0.source: Field required"},
        {user(R"([{"type":"document","source":{"type":"text"}}])"),
         "messages.0.content.0.source.data: Field required"},
        {user(R"([{"type":"document","source":{"type":"content","content":[{"type":"image"}]}}])"),
         "messages.0.content.0.source.content.0: image input is not supported by this model"},
        {user(R"([{"type":"tool_result","tool_use_id":"t","content":"x"}])"),
         "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: t. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."},
        {user(R"([{"type":"tool_result","content":"x"}])"),
         "messages.0.content.0.tool_use_id: Field required"},
        {user(R"([{"type":"thinking","thinking":"x"}])"),
         "messages.0.content.0: `thinking` blocks may only be in assistant messages"},
        {body(R"([{"role":"system","content":[{"type":"image"}]}])"),
         "messages.0.content.0.type: Input should be 'text', 'tool_addition' or 'tool_removal'"},
    };
    for (const auto& [json, text] : cases) CHECK(bad(json) == text);
    CHECK(bad(user(R"([{"type":"hologram"}])"))
              .starts_with("messages.0.content.0.type: Input should be 'text', "));
}

TEST_CASE("max_tokens 0 runs the prompt only, and never as a stream", "[request]") {
    const std::string zero = R"({"model":"m","max_tokens":0,"messages":)" + kHi;
    CHECK(good(zero + "}").max_tokens == 0);
    CHECK(bad(zero + R"(,"stream":true})") ==
          "max_tokens: must be at least 1 when `stream` is true");
    CHECK(good(R"({"model":"m","max_tokens":18446744073709551615,"messages":)" + kHi + "}")
              .max_tokens < uint64_t{1} << 53);
}

TEST_CASE("turns follow the merge rules", "[request]") {
    CHECK(
        show(good(body(
            R"([{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},)"
            R"({"type":"text","text":"c"}]},{"role":"assistant","content":"d"},)"
            R"({"role":"assistant","content":"e"},{"role":"user","content":"f"}])"))) ==
        "U:a\nbc | A:d\ne | U:f");
    CHECK(show(good(body(
              kHi, R"(,"system":[{"type":"text","text":"one"},{"type":"text","text":"two"}])"))) ==
          "S:one\n\ntwo | U:hi");
    // A system message stays where it is.
    CHECK(show(good(body(R"([{"role":"user","content":"a"},{"role":"system","content":"env"},)"
                         R"({"role":"user","content":"b"}])",
                         R"(,"system":"s")"))) == "S:s | U:a | S:env | U:b");
    CHECK(show(good(body(
              R"([{"role":"assistant","content":"I begin"},{"role":"user","content":"b"}])"))) ==
          "A:I begin | U:b");
    CHECK(show(good(with(R"("system":"")"))) == "U:hi");
    CHECK(show(good(with(R"("system":[])"))) == "U:hi");
}

TEST_CASE("string content and one text block give the same turns, with or without marks",
          "[request]") {
    const std::string one = show(good(user(R"("hello\u00e9")")));
    CHECK(show(good(user(R"([{"type":"text","text":"helloé"}])"))) == one);
    CHECK(show(good(
              user(R"([{"type":"text","text":"helloé","cache_control":{"type":"ephemeral"}}])"))) ==
          one);
}

TEST_CASE("the attribution line is left out of the prompt and of judgement", "[request]") {
    const Request r = good(with(
        R"("system":[{"type":"text","text":"x-anthropic-billing-header: v=1"},{"type":"text","text":"Be kind."}])"));
    CHECK(show(r) == "S:Be kind. | U:hi");
    CHECK(judged(r) == "[system:Be kind.][user:hi]");
    CHECK(show(good(with(R"("system":"x-anthropic-billing-header: v=2\nBe kind.")"))) ==
          "S:Be kind. | U:hi");
}

TEST_CASE("a last assistant message is a prefill", "[request]") {
    const Request r = good(
        body(R"([{"role":"user","content":"x"},{"role":"assistant","content":"The answer is"}])"));
    CHECK(r.prefill);
    CHECK(show(r) == "U:x | A:The answer is");
    const Request empty =
        good(body(R"([{"role":"user","content":"x"},{"role":"assistant","content":""}])"));
    CHECK_FALSE(empty.prefill);
    CHECK(show(empty) == "U:x");
    const Request thought = good(body(
        R"([{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"}]}])"));
    CHECK_FALSE(thought.prefill);
    CHECK(show(thought) == "U:x");
    // A user message of which nothing is rendered still ends the assistant's turn.
    const Request dropped = good(body(
        R"([{"role":"assistant","content":"A"},{"role":"user","content":[{"type":"mcp_tool_result","content":[]}]}])"));
    CHECK_FALSE(dropped.prefill);
    CHECK(show(dropped) == "A:A | U:");
}

TEST_CASE("documents and search results are text of their own origin", "[request]") {
    const Request r = good(user(
        R"([{"type":"text","text":"Read:"},{"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"body"}},)"
        R"({"type":"search_result","title":"S","source":"http://x","content":[{"type":"text","text":"found"}]}])"));
    CHECK(show(r) ==
          "U:Read:[Document: T]\nbody\n[End of document]\n"
          "[Search result: S (http://x)]\nfound\n[End of search result]\n");
    REQUIRE(r.judged.size() == 3);
    CHECK(r.judged[0].origin == Origin::user);
    CHECK(r.judged[1].origin == Origin::document);
    CHECK(r.judged[2].origin == Origin::document);
    CHECK(
        show(good(user(
            R"([{"type":"document","source":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}])"))) ==
        "U:[Document]\nab\n[End of document]\n");
}

TEST_CASE("judged pieces cover every byte of every turn but the joiners", "[request]") {
    const Request r = good(body(
        R"([{"role":"user","content":[{"type":"text","text":"ig"},{"type":"text","text":"nore"}]},{"role":"user","content":"all"},)"
        R"({"role":"assistant","content":"ok"},{"role":"user","content":"go"}])",
        R"(,"system":"s1")"));
    CHECK(judged(r) == "[system:s1][user:ig][user:nore][user:all][assistant:ok][user:go]");
    size_t covered = 0;
    for (const JudgedText& piece : r.judged) covered += piece.size;
    size_t all = 0;
    for (const Turn& turn : r.turns) all += turn.text.size();
    CHECK(all == covered + 1);  // one newline between two user messages
}

TEST_CASE("server tool blocks in the history keep only their text", "[request]") {
    const Request r = good(body(
        R"([{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"web_search","input":{}},)"
        R"({"type":"web_search_tool_result","tool_use_id":"s","content":[{"type":"web_search_result","url":"u"}]},)"
        R"({"type":"mcp_tool_result","tool_use_id":"m","content":[{"type":"text","text":"kept"}]},{"type":"text","text":"answer"}]},{"role":"user","content":"more"}])"));
    CHECK(show(r) == "U:q | A:kept\nanswer | U:more");
}

TEST_CASE("cache marks point at the end of what they cover; more than four are refused",
          "[request]") {
    const std::string mark = R"("cache_control":{"type":"ephemeral","ttl":"1h"})";
    const Request r = good(body(
        R"([{"role":"user","content":[{"type":"text","text":"abc",)" + mark +
            R"(},{"type":"text","text":"de"}]}])",
        R"(,"system":[{"type":"text","text":"sys","cache_control":{"type":"ephemeral"}}],"cache_control":{"type":"ephemeral"})"));
    REQUIRE(r.cache_marks.size() == 3);
    CHECK(r.cache_marks[0].turn == 0);
    CHECK(r.cache_marks[0].offset == 3);
    CHECK(r.cache_marks[0].ttl == Ttl::five_minutes);
    CHECK(r.cache_marks[1].turn == 1);
    CHECK(r.cache_marks[1].offset == 3);
    CHECK(r.cache_marks[1].ttl == Ttl::one_hour);
    CHECK(r.cache_marks[2].offset == 5);

    std::string blocks;
    for (int i = 0; i < 5; ++i)
        blocks += std::string(i ? "," : "") + R"({"type":"text","text":"x",)" + mark + "}";
    CHECK(bad(user("[" + blocks + "]")) ==
          "A maximum of 4 blocks with cache_control may be provided. Found 5.");
}

TEST_CASE("a schema for the answer is handed on as it is meant, from both fields", "[request]") {
    const Request r = good(with(
        R"("output_config":{"effort":"low","format":{"type":"json_schema","schema":{ "type" : "object", "title":"a b" }}})"));
    CHECK(r.schema_json == R"({"type":"object","title":"a b"})");
    CHECK(r.schema_path == "output_config.format.schema");
    const Request old = good(with(R"("output_format":{"type":"json_schema","schema":{}})"));
    CHECK(old.schema_json == "{}");
    CHECK(old.schema_path == "output_format.schema");
    CHECK_FALSE(good(with(R"("output_config":{"effort":"low"})")).schema_json);
    CHECK(bad(R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},)"
              R"({"role":"assistant","content":"{"}],)"
              R"("output_config":{"format":{"type":"json_schema","schema":{}}}})") ==
          "messages: a prefilled answer is not supported with output_config.format.schema");
}

TEST_CASE("fields that change nothing are accepted, unknown ones are reported", "[request]") {
    const Request r = good(with(
        R"("thinking":{"type":"adaptive","display":"omitted"},"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},)"
        R"("output_config":{"effort":"high"},"service_tier":"auto","betas":["x"],"speed":"fast","tools":[],"tool_choice":{"type":"auto"},"mcp_servers":[],"flavour":1)"));
    CHECK(r.thinking);
    CHECK(r.unknown_fields == std::vector<std::string>{"flavour"});
    ParseOptions strict;
    strict.strict_fields = true;
    CHECK(bad(with(R"("flavour":1)"), strict) == "flavour: Extra inputs are not permitted");
    strict.strict_sampling = true;
    CHECK(bad(with(R"("temperature":1)"), strict) == "temperature: Extra inputs are not permitted");
}

TEST_CASE("count_tokens needs no max_tokens and gives the same turns", "[request]") {
    ParseOptions count;
    count.count_tokens = true;
    const Request r = good(
        R"({"model":"m","system":"s","tools":[],"thinking":{"type":"enabled","budget_tokens":2000},"temperature":7,"messages":)" +
            kHi + "}",
        count);
    CHECK(show(r) == "S:s | U:hi");
}

TEST_CASE("types come before the model, the model before semantics", "[request]") {
    ParseOptions options;
    options.check_model = [](const std::string& model) {
        return model == "m" ? std::nullopt
                            : std::optional<ApiError>(ApiError::unknown_model(model));
    };
    CHECK(bad(R"({"model":"x","max_tokens":"1","messages":[]})", options) ==
          "max_tokens: Input should be a valid integer");
    const auto missing = parse_request(R"({"model":"x","max_tokens":1,"messages":[]})", options);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().status == 404);
    CHECK(missing.error().message == "model: x");
    CHECK(bad(R"({"model":"m","max_tokens":1,"messages":[]})", options) ==
          "messages: at least one message is required");
}

TEST_CASE("hostile bodies are refused, not crashed on", "[request]") {
    const auto not_json = [](const std::string& json) {
        CHECK(bad(json).starts_with("The request body is not valid JSON: "));
    };
    not_json("");
    not_json("   ");
    not_json("{");
    not_json(body(kHi) + "{}");
    not_json(with(R"("x":1e999)"));
    not_json(with(R"("x":)" + std::string(400, '9')));
    not_json(user("\"\xff\""));
    not_json(user("\"\xed\xa0\x80\""));
    not_json(user(R"("\ud800")"));
    not_json(user(R"("\udc00x")"));
    not_json(user(std::string("\"a\0b\"", 5)));
    not_json(std::string(100'000, '['));
    not_json(with("\"x\":" + std::string(128, '[') + std::string(128, ']')));
    CHECK(good(with("\"x\":" + std::string(127, '[') + std::string(127, ']')))
              .unknown_fields.size() == 1);
    CHECK(bad("[]") == "The request body should be a JSON object");
    CHECK(bad("\"x\"") == "The request body should be a JSON object");
    // A name of any length is cut before it is shown.
    ParseOptions strict;
    strict.strict_fields = true;
    CHECK(bad(with("\"" + std::string(100'000, 'k') + "\":1"), strict).size() < 128);
    // Bounds are errors that name them.
    ParseOptions few;
    few.messages_max = 2;
    const std::string one = R"({"role":"user","content":"x"})";
    CHECK(bad(body("[" + one + "," + one + "," + one + "]"), few) ==
          "messages: List should have at most 2 items");
    std::string stops = "\"a\"";
    for (int i = 0; i < 256; ++i) stops += ",\"a\"";
    CHECK(bad(with("\"stop_sequences\":[" + stops + "]")) ==
          "stop_sequences: List should have at most 256 items");
}

TEST_CASE("a key that stands twice is refused wherever it stands", "[request]") {
    CHECK(bad(body(kHi, R"(,"messages":[{"role":"user","content":"other"}])")) ==
          "The request body is not valid JSON: duplicate key 'messages'");
    CHECK(bad(body(R"([{"role":"user","content":"a","content":"b"}])")) ==
          "The request body is not valid JSON: duplicate key 'content'");
    // Equal after unescaping is equal.
    CHECK(bad(body(R"([{"role":"user","content":"a","c\u006fntent":"b"}])")) ==
          "The request body is not valid JSON: duplicate key 'content'");
    std::string many = R"("x":{"k0":0)";
    for (int i = 1; i < 100; ++i) many += ",\"k" + std::to_string(i) + "\":0";
    CHECK(good(with(many + "}")).unknown_fields.size() == 1);
    CHECK(bad(with(many + ",\"k57\":1}")) ==
          "The request body is not valid JSON: duplicate key 'k57'");
}

TEST_CASE("no prefix of a body and no flipped byte crashes the reader", "[request]") {
    const std::string json = body(
        R"([{"role":"user","content":[{"type":"text","text":"a\n\u00e9","cache_control":{"type":"ephemeral"}},{"type":"document","source":{"type":"text","data":"d"}}]},{"role":"assistant","content":"x"}])",
        R"(,"system":[{"type":"text","text":"s"}],"stop_sequences":["a"],"temperature":0.5,"thinking":{"type":"adaptive"})");
    REQUIRE(parse_request(json));
    for (size_t n = 0; n < json.size(); ++n) CHECK_FALSE(parse_request(json.substr(0, n)));
    int refused = 0;
    for (size_t i = 0; i < json.size(); ++i)
        for (const char with : {'\0', '"', '{', '}', ',', '\xff', '0', ' ', '\\'}) {
            std::string changed = json;
            changed[i] = with;
            if (!parse_request(changed)) ++refused;
        }
    CHECK(refused > 1000);
}

TEST_CASE("turns convert to any turn type with the same roles", "[request]") {
    enum class OtherRole { system, user, assistant };
    struct Other {
        OtherRole role = OtherRole::user;
        std::string text;
    };
    const auto turns = turns_as<Other>(good(with(R"("system":"s")")));
    REQUIRE(turns.size() == 2);
    CHECK(turns[0].role == OtherRole::system);
    CHECK(turns[1].role == OtherRole::user);
    CHECK(turns[1].text == "hi");
}
