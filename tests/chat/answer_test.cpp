#include <catch2/catch.hpp>

#include "script.hpp"

using namespace parley;
using namespace parley::chat;
using namespace parley::chat::test;
using messages::EventWriter;
using Status = Outcome::Status;

namespace {

struct Scene {
    base::ManualClock clock;
    ScriptUpstream upstream;
    Host host;
    std::shared_ptr<Answer> answer;

    explicit Scene(std::function<void(AnswerOptions&)> change = nullptr) {
        AnswerOptions options;
        options.id = "msg_1";
        options.model = "my-model";
        options.body = "{}";
        options.key = test_key();
        if (change) change(options);
        answer = std::make_shared<Answer>(std::move(options), upstream, host, clock);
        answer->start();
    }
    void pass(int64_t ms) {
        for (int64_t at = 0; at < ms; at += 25) {
            clock.advance_ms(25);
            answer->tick();
        }
    }
    std::string text() const { return answer->folder().text(); }
};

const std::vector<std::string> kWhole = {
    "message_start",      "content_block_start", "content_block_delta", "content_block_delta",
    "content_block_stop", "message_delta",       "message_stop"};

}  // namespace

TEST_CASE("a checked answer comes out whole, under our id and the client's model name",
          "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("Hel", {1});
    teller.text("lo", {2});
    teller.stop(2);
    CHECK(scene.host.outcomes.empty());  // the END decides
    teller.end();
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].status == Status::done);
    CHECK(scene.host.outcomes[0].usage.output_tokens == 2);
    CHECK(names(*scene.answer->stream()) == kWhole);
    CHECK(scene.answer->message_json().find(R"("id":"msg_1")") != std::string::npos);
    CHECK(scene.answer->message_json().find(R"("model":"my-model")") != std::string::npos);
    CHECK(scene.text() == "Hello");
}

TEST_CASE("of an attempt with a wrong stamp nothing from there on is delivered", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("good", {1});
    pipe::EventMeta forged;
    forged.seq = 3;
    forged.stamp = std::string(64, '0');
    scene.answer->on_event(forged, EventWriter::text_delta(0, "evil"));
    CHECK(scene.upstream.cancels == std::vector<std::string>{"stamp"});
    teller.text("late", {2});
    CHECK(scene.text() == "good");
    CHECK(scene.host.outcomes.empty());
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    CHECK(scene.upstream.asked[1].envelope.attempt == 2);
}

TEST_CASE("an event without any stamp is refused unless the flag says so", "[answer]") {
    const bool unfiltered = GENERATE(false, true);
    Scene scene([&](AnswerOptions& options) {
        if (unfiltered) options.key.reset();
    });
    CHECK(scene.upstream.asked[0].envelope.unfiltered == unfiltered);
    pipe::EventMeta bare;
    scene.answer->on_event(bare, EventWriter::message_start("x", "y", {}));
    CHECK(scene.answer->begun() == unfiltered);
}

TEST_CASE("a stamp of another attempt or another request does not pass", "[answer]") {
    Scene scene;
    const std::string json = EventWriter::message_start("x", "y", {});
    const uint32_t attempt = GENERATE(2, 3);
    stamp::Chain chain(test_key(), attempt == 2 ? "msg_1" : "msg_2", attempt == 2 ? 2 : 1);
    pipe::EventMeta meta;
    meta.stamp = chain.next(0, "", json);
    scene.answer->on_event(meta, json);
    CHECK_FALSE(scene.answer->begun());
    CHECK(scene.upstream.cancels.size() == 1);
}

TEST_CASE("a retry carries what the client has, and the reader sees one answer", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.offsets = true; });
    {
        Teller teller(*scene.answer, 1);
        teller.start();
        teller.block();
        teller.text("Hel", {11, 12});
        teller.end("api_error", true, "peer_gone");
    }
    CHECK(scene.host.outcomes.empty());
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    const pipe::Envelope& again = scene.upstream.asked[1].envelope;
    CHECK(again.attempt == 2);
    REQUIRE(again.continuation);
    CHECK(again.continuation->produced == std::vector<int32_t>{11, 12});
    CHECK(again.continuation->block == 0);
    CHECK(again.continuation->released == 3);
    CHECK(again.continuation->text == "Hel");
    CHECK(again.stall_ms < 30'000);
    Teller teller(*scene.answer, 2);
    teller.text("lo", {13});
    teller.stop(3);
    teller.end();
    CHECK(names(*scene.answer->stream()) == kWhole);
    CHECK(scene.text() == "Hello");
    CHECK(scene.host.deltas == std::vector<std::pair<uint64_t, uint64_t>>{{3, 0}, {4, 3}});
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].attempts == 2);
}

TEST_CASE("events and ends of a lower attempt are dropped", "[answer]") {
    Scene scene;
    Teller first(*scene.answer, 1);
    first.start();
    first.block();
    first.text("a", {1});
    first.end("api_error", true, "peer_gone");
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    first.text("ghost", {9});  // a stopped process woke up
    first.end("ok");
    CHECK(scene.text() == "a");
    CHECK(scene.host.outcomes.empty());
}

TEST_CASE("a second END of the same attempt changes nothing", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.stop(0);  // block_stop without a block: refused
    CHECK(scene.upstream.cancels == std::vector<std::string>{"malformed"});
    scene.pass(100);
    Teller again(*scene.answer, 2);
    again.start();
    messages::Usage usage;
    again.say(
        EventWriter::message_delta({messages::StopReason::end_turn, std::nullopt, ""}, usage));
    again.say(EventWriter::message_stop());
    again.end();
    again.end("api_error", true);
    CHECK(scene.host.outcomes.size() == 1);
}

TEST_CASE("a block that was closed below is still open for a continuation", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    teller.say(EventWriter::block_stop(0));
    teller.end("api_error", true, "peer_gone");
    CHECK(names(*scene.answer->stream()).back() == "content_block_delta");
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    CHECK(scene.upstream.asked[1].envelope.continuation->block == 0);
    Teller again(*scene.answer, 2);
    again.stop(1);
    again.end();
    CHECK(scene.host.outcomes.at(0).status == Status::done);
}

TEST_CASE("an attempt that broke before any block begins anew, its message_start is swallowed",
          "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.end("api_error", true, "peer_gone");
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    CHECK_FALSE(scene.upstream.asked[1].envelope.continuation);
    Teller again(*scene.answer, 2);
    again.start();
    again.block();
    again.text("a", {1});
    again.text("b", {2});
    again.stop(2);
    again.end();
    CHECK(names(*scene.answer->stream()) == kWhole);
}

TEST_CASE("an answer whose stop reason has passed needs no more of the chain", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    teller.text("b", {2});
    teller.stop(2);
    teller.end("api_error", true, "peer_gone");
    CHECK(scene.host.outcomes.at(0).status == Status::done);
    CHECK(names(*scene.answer->stream()) == kWhole);
}

TEST_CASE("an ok without a stop reason is a broken attempt", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    teller.end("ok");
    CHECK(scene.host.outcomes.empty());
    scene.pass(100);
    CHECK(scene.upstream.asked.size() == 2);
}

TEST_CASE("recovery stops after the stall time, with what had passed kept", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.stall_ms = 3000; });
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    scene.upstream.is_up = false;
    teller.end("api_error", true, "peer_gone");
    scene.pass(2900);
    CHECK(scene.host.outcomes.empty());
    scene.pass(200);
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].status == Status::interrupted);
    CHECK(scene.host.outcomes[0].error.status == 529);
    CHECK(scene.answer->stream()->failure());
    CHECK(scene.text() == "a");
}

TEST_CASE("before the first byte recovery is short, and ends in 529", "[answer]") {
    Scene scene;
    scene.upstream.is_up = false;
    Teller(*scene.answer, 1).end("api_error", true, "peer_gone");
    scene.pass(2100);
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].error.status == 529);
    CHECK(scene.host.outcomes[0].error.retry_after_s >= 1);
}

TEST_CASE("a refusal of the chain before the first byte is the answer at once", "[answer]") {
    Scene scene;
    const std::string reason = GENERATE("queue_full", "filter_late", "expired");
    Teller(*scene.answer, 1).end("overloaded_error", true, reason);
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].error.status == 529);
}

TEST_CASE("an error that would come again is not asked again", "[answer]") {
    Scene scene;
    Teller(*scene.answer, 1).end("invalid_request_error", false);
    CHECK(scene.host.outcomes.at(0).status == Status::failed);
    CHECK(scene.host.outcomes.at(0).error.status == 400);
}

TEST_CASE("without a peer no attempt number is used", "[answer]") {
    base::ManualClock clock;
    ScriptUpstream upstream;
    upstream.is_up = false;
    Host host;
    AnswerOptions options;
    options.id = "m";
    options.key = test_key();
    auto answer = std::make_shared<Answer>(options, upstream, host, clock);
    answer->start();
    clock.advance_ms(500);
    answer->tick();
    upstream.is_up = true;
    clock.advance_ms(500);
    answer->tick();
    REQUIRE(upstream.asked.size() == 1);
    CHECK(upstream.asked[0].envelope.attempt == 1);
}

TEST_CASE("a reader that does not read stops the credit, and reading gives it back", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.credit = 16; });
    auto reader = scene.answer->stream()->read(std::nullopt, nullptr);
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    for (int i = 0; i < 14; ++i) teller.text("x", {i});
    CHECK(scene.upstream.granted == 16);
    while (reader->peek()) reader->pop();
    CHECK(scene.upstream.granted >= 28);  // in quarters of the window
    reader.reset();
    for (int i = 0; i < 40; ++i) teller.text("x", {i});
    CHECK(scene.upstream.granted > 56);  // nobody is waited for
}

TEST_CASE("a journal that is behind stops the credit as well", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.credit = 8; });
    scene.host.behind = 8;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    for (int i = 0; i < 6; ++i) teller.text("x", {i});
    CHECK(scene.upstream.granted == 8);
    scene.host.behind = 0;
    scene.answer->grant();
    CHECK(scene.upstream.granted == 16);
}

TEST_CASE("a cancelled answer waits for its END, keeps its text and says so", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    scene.answer->cancel("asked");
    scene.answer->cancel("asked");
    CHECK(scene.upstream.cancels == std::vector<std::string>{"asked"});
    CHECK(scene.host.outcomes.empty());
    teller.text("b", {2});
    teller.end("cancelled");
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].status == Status::cancelled);
    CHECK(scene.text() == "a");
    CHECK(names(*scene.answer->stream()).back() == "message_stop");
}

TEST_CASE("the total time ends an answer with max_tokens, and one without output with 504",
          "[answer]") {
    Scene scene([](AnswerOptions& options) { options.total_ms = 1000; });
    Teller teller(*scene.answer, 1);
    const bool output = GENERATE(false, true);
    if (output) {
        teller.start();
        teller.block();
        teller.text("a", {1});
    }
    teller.end("timeout_error", false, "deadline");
    REQUIRE(scene.host.outcomes.size() == 1);
    if (output) {
        CHECK(scene.host.outcomes[0].status == Status::done);
        CHECK(scene.host.outcomes[0].stop->reason == messages::StopReason::max_tokens);
        CHECK(names(*scene.answer->stream()).back() == "message_stop");
    } else {
        CHECK(scene.host.outcomes[0].error.status == 504);
    }
}

TEST_CASE("a chain that lets the total pass is cancelled", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.total_ms = 1000; });
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    scene.pass(3200);
    CHECK(scene.upstream.cancels == std::vector<std::string>{"deadline"});
    scene.pass(3000);
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].stop->reason == messages::StopReason::max_tokens);
}

TEST_CASE("a pause does not count toward the total", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.total_ms = 5000; });
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("a", {1});
    scene.upstream.is_up = false;
    teller.end("api_error", true, "peer_gone");
    scene.pass(20'000);
    scene.upstream.is_up = true;
    scene.pass(50);
    REQUIRE(scene.upstream.asked.size() == 2);
    CHECK(scene.upstream.asked[1].envelope.total_ms > 4900);
}

TEST_CASE("a question refused on input is blocked, an answer stopped on output is not",
          "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    const bool output = GENERATE(false, true);
    messages::Usage usage;
    usage.input_tokens = 5;
    if (output) {
        teller.start();
        teller.block();
        teller.text("so far", {1});
        teller.stop(1, messages::StopReason::refusal);
    } else {
        for (const std::string& event : messages::refusal_events("x", "y", usage))
            teller.say(event);
    }
    teller.end();
    CHECK(scene.host.outcomes.at(0).status == (output ? Status::done : Status::blocked));
}

TEST_CASE("events of kinds that no stage may send break the attempt", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.say(EventWriter::error(messages::ApiError::overloaded(1), "r"));
    CHECK(scene.upstream.cancels == std::vector<std::string>{"malformed"});
    CHECK(names(*scene.answer->stream()) == std::vector<std::string>{"message_start"});
}

TEST_CASE("an answer taken up in a new epoch goes on behind the text it has", "[answer]") {
    Scene scene([](AnswerOptions& options) {
        options.first_attempt = 1001;
        options.stream.epoch = 2;
        options.resumed = Resumed{"Hel", {11, 12}, {}};
        options.offsets = true;
    });
    REQUIRE(scene.upstream.asked.size() == 1);
    const pipe::Envelope& envelope = scene.upstream.asked[0].envelope;
    CHECK(envelope.attempt == 1001);
    REQUIRE(envelope.continuation);
    CHECK(envelope.continuation->text == "Hel");
    CHECK(envelope.continuation->produced == std::vector<int32_t>{11, 12});
    CHECK(scene.host.deltas.empty());
    Teller teller(*scene.answer, 1001);
    teller.text("lo", {13});
    teller.stop(3);
    teller.end();
    CHECK(names(*scene.answer->stream()) == kWhole);
    CHECK(scene.text() == "Hello");
    CHECK(scene.host.deltas == std::vector<std::pair<uint64_t, uint64_t>>{{4, 3}});
}

TEST_CASE("calls are delivered as they came, and an answer is taken up again inside one", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.block();
    teller.text("ab", {1});
    teller.say(EventWriter::block_stop(0));
    teller.say(EventWriter::tool_block_start(1, "toolu_1", "f"));
    teller.say(EventWriter::input_delta(1, "{\"x\":"), {2, 3});
    teller.end("api_error", true, "peer_gone");
    scene.pass(100);
    REQUIRE(scene.upstream.asked.size() == 2);
    const auto& from = *scene.upstream.asked[1].envelope.continuation;
    CHECK(from.block == 1);
    CHECK(from.released == 5);
    CHECK(from.text == "ab{\"x\":");
    CHECK(from.produced == std::vector<int32_t>{1, 2, 3});
    Teller again(*scene.answer, 2);
    again.say(EventWriter::input_delta(1, "1}"), {4});
    again.say(EventWriter::block_stop(1));
    messages::Usage usage;
    usage.input_tokens = 5;
    usage.output_tokens = 4;
    again.say(EventWriter::message_delta({messages::StopReason::tool_use, std::nullopt, ""}, usage));
    again.say(EventWriter::message_stop());
    again.end();
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].status == Status::done);
    CHECK(scene.answer->message_json().find(
              R"("content":[{"type":"text","text":"ab"},{"type":"tool_use","id":"toolu_1","name":"f","input":{"x":1}}],"stop_reason":"tool_use")") !=
          std::string::npos);
}

TEST_CASE("text inside a call's block breaks the attempt", "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    teller.start();
    teller.say(EventWriter::tool_block_start(0, "toolu_1", "f"));
    teller.text("no", {1});
    CHECK(scene.upstream.cancels == std::vector<std::string>{"malformed"});
}

TEST_CASE("a refusal on input is told with the true number of prompt tokens", "[answer]") {
    Scene scene([](AnswerOptions& options) { options.count_prompt = [] { return uint64_t{17}; }; });
    Teller teller(*scene.answer, 1);
    for (const std::string& event : messages::refusal_events("x", "y", {})) teller.say(event);
    teller.end();
    REQUIRE(scene.host.outcomes.size() == 1);
    CHECK(scene.host.outcomes[0].status == Status::blocked);
    CHECK(scene.host.outcomes[0].usage.input_tokens == 17);
    CHECK(scene.answer->message_json().find(R"("input_tokens":17)") != std::string::npos);
}

TEST_CASE("the client is told of the prompt what message_start said, the accounts what END says",
          "[answer]") {
    Scene scene;
    Teller teller(*scene.answer, 1);
    messages::Usage usage;
    usage.input_tokens = 20;
    usage.cache_creation_input_tokens = 80;
    teller.say(EventWriter::message_start("below", "below", usage));
    teller.block();
    teller.text("Hel", {1});
    teller.end("api_error", true, "gone");
    scene.pass(5000);
    REQUIRE(scene.upstream.asked.size() == 2);
    Teller again(*scene.answer, 2);
    again.text("lo", {2});
    again.say(EventWriter::block_stop(0));
    usage.cache_creation_input_tokens = 0;  // it found what the first attempt had kept
    usage.cache_read_input_tokens = 80;
    usage.output_tokens = 2;
    again.say(
        EventWriter::message_delta({messages::StopReason::end_turn, std::nullopt, ""}, usage));
    again.say(EventWriter::message_stop());
    pipe::EndMeta end;
    end.attempt = 2;
    end.usage = pipe::Usage{100, 96, 2};
    scene.answer->on_end(end);
    REQUIRE(scene.host.outcomes.size() == 1);
    const Outcome& outcome = scene.host.outcomes[0];
    CHECK(outcome.status == Status::done);
    CHECK(scene.answer->folder().usage().cache_read_input_tokens == 0);
    CHECK(scene.answer->folder().usage().cache_creation_input_tokens == 80);
    CHECK(scene.answer->folder().usage().input_tokens == 20);
    CHECK(scene.answer->folder().usage().output_tokens == 2);
    CHECK(outcome.usage.cache_read_input_tokens == 96);
    CHECK(outcome.usage.prompt_tokens() == 100);
    CHECK(outcome.told.cache_read_input_tokens == 0);
    CHECK(outcome.told.cache_creation_input_tokens == 80);
    CHECK(outcome.told.prompt_tokens() == 100);
}
