#include "openai/chat_answer.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using messages::ApiError;
using messages::ErrorType;
using messages::Event;
using messages::EventType;

namespace {

std::vector<Event> answer(messages::StopReason reason = messages::StopReason::end_turn) {
    std::vector<Event> events(6);
    events[0].type = EventType::message_start;
    events[0].message_id = "msg_7";
    events[0].model = "m";
    events[0].usage = messages::Usage{.input_tokens = 5};
    events[1].type = EventType::content_block_start;
    events[2].type = EventType::content_block_delta;
    events[2].text = "Hel\"lo";
    events[3].type = EventType::content_block_stop;
    events[4].type = EventType::message_delta;
    events[4].stop = messages::Stop{reason, std::nullopt, ""};
    events[4].usage = messages::Usage{.input_tokens = 5, .output_tokens = 2};
    events[5].type = EventType::message_stop;
    return events;
}

std::string streamed(bool usage) {
    openai::Chunks chunks(usage, 9);
    std::string out;
    for (const Event& event : answer()) chunks.add(event, out);
    return out;
}

const std::string kHead =
    R"(data: {"id":"chatcmpl-7","object":"chat.completion.chunk","created":9,"model":"m","system_fingerprint":null,)";

}  // namespace

TEST_CASE("a stream is role, text, finish and [DONE], under one id") {
    CHECK(
        streamed(false) ==
        kHead +
            R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})"
            "\n\n" +
            kHead +
            R"("choices":[{"index":0,"delta":{"content":"Hel\"lo"},"logprobs":null,"finish_reason":null}]})"
            "\n\n" +
            kHead +
            R"("choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})"
            "\n\n" +
            "data: [DONE]\n\n");
}

TEST_CASE("include_usage adds one last chunk, and null to every other") {
    const std::string out = streamed(true);
    const std::string last =
        kHead +
        R"("choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0}}})"
        "\n\ndata: [DONE]\n\n";
    REQUIRE(out.size() > last.size());
    CHECK(out.substr(out.size() - last.size()) == last);
    size_t nulls = 0;
    for (size_t at = 0; (at = out.find(R"("usage":null)", at)) != std::string::npos; ++at) ++nulls;
    CHECK(nulls == 3);
}

TEST_CASE("a failure in the stream is its last line, without [DONE]") {
    openai::Chunks chunks(false, 9);
    std::string out;
    chunks.add(answer()[0], out);
    out.clear();
    Event error;
    error.type = EventType::error;
    error.error = ApiError::of(ErrorType::api_error, "gone");
    chunks.add(error, out);
    CHECK(out ==
          R"(data: {"error":{"message":"gone","type":"server_error","param":null,"code":null}})"
          "\n\n");
}

TEST_CASE("the object of an answer counts cached tokens into its prompt") {
    messages::Folder folder;
    for (const Event& event : answer(messages::StopReason::max_tokens)) REQUIRE(folder.add(event));
    const messages::Usage usage{
        .input_tokens = 1, .cache_read_input_tokens = 4, .output_tokens = 2};
    CHECK(
        openai::completion_json(folder, usage, 9) ==
        R"({"id":"chatcmpl-7","object":"chat.completion","created":9,"model":"m","system_fingerprint":null,"choices":[{"index":0,"message":{"role":"assistant","content":"Hel\"lo","refusal":null},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}})");
}

TEST_CASE("every stop reason has its word") {
    using messages::StopReason;
    CHECK(openai::finish_reason(StopReason::end_turn) == "stop");
    CHECK(openai::finish_reason(StopReason::stop_sequence) == "stop");
    CHECK(openai::finish_reason(StopReason::max_tokens) == "length");
    CHECK(openai::finish_reason(StopReason::model_context_window_exceeded) == "length");
    CHECK(openai::finish_reason(StopReason::tool_use) == "tool_calls");
    CHECK(openai::finish_reason(StopReason::refusal) == "content_filter");
}

TEST_CASE("errors carry the type, code and field that this route's clients look for") {
    const auto body = [](const ApiError& error) { return openai::error_body(error); };
    CHECK(
        body(ApiError::invalid("messages", "at least one message is required")) ==
        R"({"error":{"message":"messages: at least one message is required","type":"invalid_request_error","param":"messages","code":null}})");
    CHECK(
        body(ApiError::unknown_model("nobody")) ==
        R"({"error":{"message":"model: nobody","type":"invalid_request_error","param":"model","code":"model_not_found"}})");
    CHECK(
        body(ApiError::of(ErrorType::authentication_error, "invalid x-api-key")) ==
        R"({"error":{"message":"invalid x-api-key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}})");
    CHECK(
        body(ApiError::prompt_too_long(9, 8)) ==
        R"({"error":{"message":"prompt is too long: 9 tokens > 8 maximum","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}})");
    CHECK(
        body(ApiError::of(ErrorType::rate_limit_error, "slow down")) ==
        R"({"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}})");
    CHECK(openai::http_status(ApiError::overloaded(1)) == 503);
    CHECK(openai::http_status(ApiError::invalid("x")) == 400);
}

TEST_CASE("an error names the field that was sent, not what it became") {
    CHECK(
        openai::error_body(ApiError::invalid("output_config.format.schema", "no")) ==
        R"({"error":{"message":"response_format.json_schema.schema: no","type":"invalid_request_error","param":"response_format.json_schema.schema","code":null}})");
    CHECK(
        openai::error_body(ApiError::invalid("tools.0.input_schema", "see stop_sequences: x")) ==
        R"({"error":{"message":"tools.0.function.parameters: see stop_sequences: x","type":"invalid_request_error","param":"tools.0.function.parameters","code":null}})");
}

TEST_CASE("one body of an error is read by both SDKs") {
    CHECK(
        openai::error_body_for_both(ApiError::unknown_model("x"), "req_1") ==
        R"({"type":"error","error":{"type":"not_found_error","message":"model: x","param":"model","code":"model_not_found"},"request_id":"req_1"})");
}

TEST_CASE("a call is its name first, then pieces of its arguments; without any they are {}") {
    openai::Chunks chunks(false, 9);
    std::string out;
    auto events = answer(messages::StopReason::tool_use);
    chunks.add(events[0], out);
    out.clear();
    Event start;
    start.type = EventType::content_block_start;
    start.block = messages::BlockType::tool_use;
    start.tool_id = "toolu_1";
    start.tool_name = "f";
    Event piece = events[2];
    piece.block = messages::BlockType::tool_use;
    piece.text = "{\"x\":";
    chunks.add(start, out);
    chunks.add(piece, out);
    chunks.add(events[3], out);
    start.tool_id = "toolu_2";
    chunks.add(start, out);
    chunks.add(events[3], out);
    chunks.add(events[4], out);
    const auto line = [](const std::string& delta) {
        return kHead + R"("choices":[{"index":0,"delta":)" + delta +
               R"(,"logprobs":null,"finish_reason":null}]})"
               "\n\n";
    };
    CHECK(
        out ==
        line(
            R"({"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]})") +
            line(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}}]})") +
            line(
                R"({"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"f","arguments":""}}]})") +
            line(R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})") + kHead +
            R"("choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]})"
            "\n\n");
}

TEST_CASE(
    "the object of an answer has whole calls, their arguments as text, and null for no content") {
    auto events = answer(messages::StopReason::tool_use);
    events[1].block = events[2].block = messages::BlockType::tool_use;
    events[1].tool_id = "toolu_1";
    events[1].tool_name = "f";
    events[2].text = "{\"x\": 1}";
    messages::Folder folder;
    for (const Event& event : events) REQUIRE(folder.add(event));
    const std::string json = openai::completion_json(folder, {}, 9);
    INFO(json);
    CHECK(
        json.find(
            R"("content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}],"refusal":null)") !=
        std::string::npos);
    CHECK(json.find(R"("finish_reason":"tool_calls")") != std::string::npos);
}
