#include "messages/events.hpp"

#include <catch2/catch.hpp>

using namespace parley::messages;

namespace {

Event read(const std::string& json) {
    auto event = parse_event(json);
    INFO(json << (event ? "" : "\n" + event.error().what));
    REQUIRE(event);
    return *event;
}
Usage some_usage() {
    Usage usage;
    usage.input_tokens = 5;
    usage.cache_creation_input_tokens = 4;
    usage.cache_creation_1h_input_tokens = 1;
    usage.cache_read_input_tokens = 3;
    usage.output_tokens = 2;
    return usage;
}

}  // namespace

TEST_CASE("events are written as the contract shows them", "[events]") {
    CHECK(
        EventWriter::message_start("msg_01", "local-chat", some_usage()) ==
        R"({"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"local-chat","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":4,"cache_read_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":1},"output_tokens":2,"service_tier":"standard"}}})");
    CHECK(EventWriter::text_block_start(0) ==
          R"({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}})");
    CHECK(
        EventWriter::text_delta(1, "Hel\n\"") ==
        R"({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hel\n\""}})");
    CHECK(
        EventWriter::text_delta(0, "x", 12) ==
        R"({"type":"content_block_delta","index":0,"offset":12,"delta":{"type":"text_delta","text":"x"}})");
    CHECK(EventWriter::block_stop(3) == R"({"type":"content_block_stop","index":3})");
    CHECK(EventWriter::message_stop() == R"({"type":"message_stop"})");
    CHECK(EventWriter::ping() == R"({"type":"ping"})");
    CHECK(
        EventWriter::error(ApiError::overloaded(1), "req_1") ==
        R"({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"})");
}

TEST_CASE("what is written is read back", "[events]") {
    const Event start = read(EventWriter::message_start("msg_1", "m", some_usage()));
    CHECK(start.type == EventType::message_start);
    CHECK(start.message_id == "msg_1");
    CHECK(start.model == "m");
    CHECK(start.usage == some_usage());

    const Event delta = read(EventWriter::text_delta(2, "h\xc3\xa9 \u2028 <b>", 7));
    CHECK(delta.type == EventType::content_block_delta);
    CHECK(delta.index == 2);
    CHECK(delta.text == "h\xc3\xa9 \u2028 <b>");
    CHECK(delta.offset == 7u);
    CHECK(delta.block == BlockType::text);

    for (const auto reason :
         {StopReason::end_turn, StopReason::max_tokens, StopReason::stop_sequence,
          StopReason::tool_use, StopReason::model_context_window_exceeded, StopReason::refusal}) {
        const Event end =
            read(EventWriter::message_delta({reason, std::nullopt, ""}, some_usage()));
        REQUIRE(end.stop);
        CHECK(end.stop->reason == reason);
        CHECK_FALSE(end.stop->sequence);
        CHECK(end.usage == some_usage());
    }
    const Event end = read(EventWriter::message_delta(
        {StopReason::max_tokens, "END", std::string(kServerTimeoutDetails)}, some_usage()));
    CHECK(end.stop->sequence == "END");
    CHECK(end.stop->details_json == kServerTimeoutDetails);

    const Event error =
        read(EventWriter::error(ApiError::of(ErrorType::timeout_error, "too \"late\""), "req_1"));
    CHECK(error.type == EventType::error);
    CHECK(error.error.type == ErrorType::timeout_error);
    CHECK(error.error.status == 504);
    CHECK(error.error.message == "too \"late\"");
    CHECK(read(EventWriter::ping()).type == EventType::ping);
    CHECK(
        read(
            R"({"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}})")
            .block == BlockType::tool_use);
}

TEST_CASE("what is no event is refused", "[events]") {
    for (
        const std::string json :
        {"", "{", "[]", "5", "{}", R"({"type":"party"})", R"({"type":5})",
         R"({"type":"content_block_delta","index":0})",
         R"({"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}})",
         R"({"type":"content_block_delta","index":-1,"delta":{"type":"text_delta","text":"x"}})",
         R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}})",
         R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a","text":"b"}})",
         R"({"type":"ping","type":"message_stop"})",
         R"({"type":"content_block_start","index":0,"content_block":{"type":"image"}})",
         R"({"type":"message_delta","delta":{"stop_reason":"bored"}})",
         R"({"type":"message_start"})", "{\"type\":\"ping\",\"x\":\"\xff\"}"}) {
        const auto event = parse_event(json);
        INFO(json);
        REQUIRE_FALSE(event);
        CHECK(event.error().code == parley::base::Errc::invalid);
    }
    CHECK_FALSE(parse_event(std::string(100'000, '[')));
}

TEST_CASE("events of any size are read, small ones after large ones too", "[events]") {
    for (const size_t size : {10ul, 5'000ul, 3'000'000ul, 10ul, 100'000ul}) {
        const std::string text(size, 'x');
        CHECK(read(EventWriter::text_delta(0, text)).text == text);
    }
}

TEST_CASE("the order refuses what the grammar does not have", "[events]") {
    using E = EventType;
    const auto run = [](std::vector<std::pair<E, uint32_t>> events) {
        EventOrder order;
        for (const auto& [type, index] : events)
            if (!order.next(type, index)) return false;
        return true;
    };
    CHECK(run({{E::message_start, 0}, {E::message_delta, 0}, {E::message_stop, 0}}));
    CHECK(run({{E::message_start, 0},
               {E::ping, 0},
               {E::content_block_start, 0},
               {E::ping, 0},
               {E::content_block_delta, 0},
               {E::content_block_stop, 0},
               {E::content_block_start, 1},
               {E::content_block_stop, 1},
               {E::message_delta, 0},
               {E::message_stop, 0}}));
    CHECK(run({{E::message_accepted, 0}, {E::message_start, 0}, {E::error, 0}}));
    CHECK_FALSE(run({{E::ping, 0}}));
    CHECK_FALSE(run({{E::content_block_start, 0}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::message_start, 0}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::content_block_start, 1}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::content_block_delta, 0}}));
    CHECK_FALSE(
        run({{E::message_start, 0}, {E::content_block_start, 0}, {E::content_block_start, 1}}));
    CHECK_FALSE(
        run({{E::message_start, 0}, {E::content_block_start, 0}, {E::content_block_delta, 1}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::content_block_start, 0}, {E::message_delta, 0}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::message_stop, 0}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::message_delta, 0}, {E::content_block_start, 0}}));
    CHECK_FALSE(
        run({{E::message_start, 0}, {E::message_delta, 0}, {E::message_stop, 0}, {E::ping, 0}}));
    CHECK_FALSE(run({{E::error, 0}, {E::message_start, 0}}));
    CHECK_FALSE(run({{E::message_start, 0}, {E::message_accepted, 0}}));
    // A refusal changes nothing.
    EventOrder order;
    REQUIRE(order.next(E::message_start));
    REQUIRE_FALSE(order.next(E::message_stop));
    CHECK(order.next(E::content_block_start, 0));
    // Taken up inside the second block.
    EventOrder later = EventOrder::resumed(2, true);
    CHECK_FALSE(later.next(E::content_block_start, 2));
    CHECK(later.next(E::content_block_delta, 1));
    CHECK(later.next(E::content_block_stop, 1));
    CHECK(later.next(E::content_block_start, 2));
}

TEST_CASE("folding gives the message of a non-streaming answer", "[events]") {
    Folder folder;
    Usage usage = some_usage();
    const auto add = [&](const std::string& json) {
        const auto added = folder.add(read(json));
        INFO((added ? "" : added.error().what));
        REQUIRE(added);
    };
    add(EventWriter::message_start("msg_1", "m", usage));
    add(EventWriter::text_block_start(0));
    add(EventWriter::text_delta(0, "Hello"));
    add(EventWriter::ping());
    add(EventWriter::text_delta(0, " there."));
    add(EventWriter::block_stop(0));
    add(EventWriter::text_block_start(1));
    add(EventWriter::block_stop(1));
    usage.output_tokens = 9;
    CHECK_FALSE(folder.finished());
    add(EventWriter::message_delta({StopReason::stop_sequence, "END", ""}, usage));
    add(EventWriter::message_stop());
    CHECK(folder.finished());
    CHECK(folder.text() == "Hello there.");
    CHECK(folder.text_bytes() == 12);
    CHECK(folder.usage().output_tokens == 9);
    // The second, empty block is left out: a client that sends it back would be refused.
    CHECK(
        folder.message_json() ==
        R"({"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hello there."}],"stop_reason":"stop_sequence","stop_sequence":"END","stop_details":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":4,"cache_read_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":1},"output_tokens":9,"service_tier":"standard"}})");
    CHECK_FALSE(folder.add(read(EventWriter::ping())));
}

TEST_CASE("calls are written as the contract has them, and read back", "[events]") {
    CHECK(EventWriter::tool_block_start(1, "toolu_1", "f") ==
          R"({"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}})");
    CHECK(EventWriter::input_delta(1, "{\"a\"") ==
          R"({"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}})");
    const Event start = read(EventWriter::tool_block_start(1, "toolu_1", "f"));
    CHECK(start.block == BlockType::tool_use);
    CHECK(start.tool_id == "toolu_1");
    CHECK(start.tool_name == "f");
    const Event delta = read(EventWriter::input_delta(1, "{\"a\"", 3));
    CHECK(delta.block == BlockType::tool_use);
    CHECK(delta.text == "{\"a\"");
    CHECK(delta.offset == 3);
    CHECK_FALSE(parse_event(
        R"({"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{}}})"));
}

TEST_CASE("a delta of another kind than its block is refused", "[events]") {
    EventOrder order;
    REQUIRE(order.next(read(EventWriter::message_start("m", "m", {}))));
    REQUIRE(order.next(read(EventWriter::tool_block_start(0, "t", "f"))));
    CHECK_FALSE(order.next(read(EventWriter::text_delta(0, "x"))));
    CHECK(order.next(read(EventWriter::input_delta(0, "{"))));
    EventOrder later = EventOrder::resumed(1, true);
    REQUIRE(later.next(read(EventWriter::input_delta(0, "{"))));
    CHECK_FALSE(later.next(read(EventWriter::text_delta(0, "x"))));
}

TEST_CASE("folded calls have their input as JSON, and one that was cut is left out", "[events]") {
    const auto fold = [](const std::vector<std::string>& input, StopReason reason) {
        Folder folder;
        AnswerWriter::Out out;
        AnswerWriter writer;
        writer.start("msg_1", "m", {}, out);
        writer.text("Well.", out);
        writer.call("toolu_1", "f", out);
        for (const std::string& piece : input) writer.input(piece, out);
        writer.stop({reason, std::nullopt, ""}, {}, out);
        for (const std::string& json : out) REQUIRE(folder.add(read(json)));
        REQUIRE(folder.finished());
        CHECK(folder.text() == "Well.");
        return folder.content_json();
    };
    const std::string text = R"([{"type":"text","text":"Well."})";
    const std::string call = R"(,{"type":"tool_use","id":"toolu_1","name":"f","input":)";
    CHECK(fold({"{\"a\":", " [1, 2]}"}, StopReason::tool_use) == text + call + R"({"a":[1,2]}}])");
    CHECK(fold({}, StopReason::tool_use) == text + call + "{}}]");
    CHECK(fold({}, StopReason::max_tokens) == text + "]");
    CHECK(fold({"{\"a\":"}, StopReason::max_tokens) == text + "]");
    CHECK(fold({"[]"}, StopReason::tool_use) == text + "]");
}

TEST_CASE("a continued answer has exactly the events that the reader lacks, wherever it stood", "[events]") {
    // One answer, said in pieces of one character; a reader that has the first n events.
    const auto say = [](AnswerWriter writer) {
        AnswerWriter::Out out;
        writer.start("msg_1", "m", {}, out);
        for (const char* c : {"W", "\u00e9", "l"}) writer.text(c, out);
        for (const char* name : {"f", "g"}) {
            const std::string id = "toolu_" + std::to_string(writer.call_index());
            writer.call(id, name, out);
            for (const char* c : {"{", "}"}) writer.input(c, out);
        }
        writer.text("end", out);
        writer.stop({StopReason::tool_use, std::nullopt, ""}, {}, out);
        return out;
    };
    const auto whole = say({});
    EventOrder check;
    for (const std::string& json : whole) REQUIRE(check.next(read(json)));
    CHECK(check.finished());
    for (size_t had = 1; had < whole.size() - 2; ++had) {
        int32_t block = -1;
        uint64_t released = 0;
        for (size_t i = 0; i < had; ++i) {
            const Event event = read(whole[i]);
            if (event.type == EventType::content_block_start) {
                block = static_cast<int32_t>(event.index);
                released = 0;
            }
            released += event.text.size();
        }
        // A closed block is not gone on with: whoever has its end waits for the next start (chatd does).
        if (read(whole[had - 1]).type == EventType::content_block_stop) continue;
        INFO(had);
        const auto rest = say(AnswerWriter::resumed(block, released));
        CHECK(rest == AnswerWriter::Out(whole.begin() + static_cast<ptrdiff_t>(had), whole.end()));
    }
    // One that comes to less than the reader has is closed all the same.
    AnswerWriter::Out out;
    AnswerWriter less = AnswerWriter::resumed(3, 10);
    less.start("msg_1", "m", {}, out);
    less.text("x", out);
    less.stop({}, {}, out);
    REQUIRE(out.size() == 3);
    CHECK(read(out[0]).type == EventType::content_block_stop);
    CHECK(read(out[0]).index == 3);
}

TEST_CASE("a delta that tells of output alone keeps the prompt's numbers", "[events]") {
    Folder folder;
    REQUIRE(folder.add(read(EventWriter::message_start("msg_1", "m", some_usage()))));
    REQUIRE(folder.add(read(
        R"({"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":8}})")));
    CHECK(folder.usage().prompt_tokens() == 12);
    CHECK(folder.usage().output_tokens == 8);
}

TEST_CASE("an error event ends the fold and is kept", "[events]") {
    Folder folder;
    REQUIRE(folder.add(read(EventWriter::message_start("msg_1", "m", {}))));
    REQUIRE(folder.add(read(EventWriter::error(ApiError::overloaded(1), "r"))));
    CHECK(folder.finished());
    REQUIRE(folder.error());
    CHECK(folder.error()->status == 529);
    CHECK(folder.message_json().find(R"("content":[],"stop_reason":null)") != std::string::npos);
}

TEST_CASE("a refused input is answered by three events and an empty message", "[events]") {
    Usage usage;
    usage.input_tokens = 14;
    Folder folder;
    const auto events = refusal_events("msg_1", "m", usage, R"({"type":"refusal"})");
    REQUIRE(events.size() == 3);
    for (const std::string& json : events) REQUIRE(folder.add(read(json)));
    CHECK(folder.finished());
    CHECK(folder.stop()->reason == StopReason::refusal);
    CHECK(folder.content_json() == "[]");
    CHECK(folder.usage().input_tokens == 14);
    CHECK(folder.message_json().find(R"("stop_details":{"type":"refusal"})") != std::string::npos);
}

TEST_CASE("an SSE frame names its event and holds one line of data", "[events]") {
    std::string out;
    sse_frame(out, "1-7", "ping", EventWriter::ping());
    CHECK(out == "id: 1-7\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
    out.clear();
    // Whatever a model says stays inside its frame.
    sse_frame(out, "", "content_block_delta", EventWriter::text_delta(0, "a\n\ndata: x\r\n"));
    CHECK(out.find("\n\n") == out.size() - 2);
    CHECK(out.find("id:") == std::string::npos);
    CHECK(out.find('\r') == std::string::npos);
}

TEST_CASE("error types agree with their statuses", "[error]") {
    const std::pair<const char*, int> statuses[] = {
        {"invalid_request_error", 400}, {"authentication_error", 401}, {"billing_error", 402},
        {"permission_error", 403},      {"not_found_error", 404},      {"conflict_error", 409},
        {"request_too_large", 413},     {"rate_limit_error", 429},     {"api_error", 500},
        {"timeout_error", 504},         {"overloaded_error", 529}};
    for (const auto& [text, status] : statuses) {
        const auto type = error_type(text);
        REQUIRE(type);
        CHECK(name(*type) == text);
        CHECK(http_status(*type) == status);
        CHECK(ApiError::of(*type, "x").status == status);
        CHECK(retryable(*type) == (status == 429 || status >= 500));
    }
    CHECK_FALSE(error_type("ok"));
    CHECK(ApiError::from_end("nonsense", "x", true).type == ErrorType::api_error);
    CHECK(ApiError::of(ErrorType::conflict_error, "x").wants_should_retry_false());
    CHECK_FALSE(ApiError::overloaded(1).wants_should_retry_false());
    CHECK_FALSE(ApiError::invalid("x").wants_should_retry_false());
    CHECK(ApiError::unavailable("loading", 5).status == 503);
    CHECK(ApiError::prompt_too_long(300, 200).message ==
          "prompt is too long: 300 tokens > 200 maximum");
}
