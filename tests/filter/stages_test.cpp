#include "filter/stages.hpp"

#include <catch2/catch.hpp>

#include "messages/events.hpp"

using namespace parley;
using messages::EventWriter;

namespace {

std::shared_ptr<const safety::Policy> policy() {
    auto made = safety::Policy::parse(
        "version = \"t\"\n[thresholds.user]\nunsafe = { flag = 2.0, block = 2.0 }\n"
        "[[rule]]\nid = \"no-zorblax\"\nside = \"both\"\npattern = 'zorblax'\naction = "
        "\"block\"\n");
    if (!made) FAIL(made.error().what);
    return *made;
}

const std::string kBody =
    R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hello"}]})";
const std::string kBad =
    R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"zorblax"}]})";

std::string line(pipe::Verb verb, const std::string& body, uint64_t seq = 0, int tokens = 0) {
    pipe::EventMeta meta;
    meta.seq = seq;
    meta.ids.assign(static_cast<size_t>(tokens), 1);
    return pipe::to_line(
        {verb, "r1", verb == pipe::Verb::event ? pipe::to_meta(meta) : "{}", body});
}

}  // namespace

TEST_CASE("an allowed line passes as the very bytes it was", "[stages]") {
    std::vector<std::string> out;
    filter::InputStage stage(policy(), [&](const std::string& text) { out.push_back(text); });
    const std::vector<std::string> lines = {kBody, "  " + kBody + " ", line(pipe::Verb::ask, kBody),
                                            line(pipe::Verb::event, EventWriter::ping())};
    for (size_t i = 0; i < lines.size(); ++i) stage.line(lines[i], i + 1);
    CHECK(out == lines);
    CHECK_FALSE(stage.blocked());
    CHECK_FALSE(stage.bad());
}

TEST_CASE("a blocked line becomes its refusal answer", "[stages]") {
    std::vector<std::string> out;
    filter::InputStage stage(policy(), [&](const std::string& text) { out.push_back(text); });
    stage.line(kBad, 3);
    REQUIRE(out.size() == 4);
    messages::Folder folder;
    for (int i = 0; i < 3; ++i) {
        auto message = pipe::from_line(out[static_cast<size_t>(i)], "");
        REQUIRE(message);
        CHECK(message->id == "line-3");
        CHECK(pipe::parse_event_meta(message->meta)->seq == static_cast<uint64_t>(i));
        REQUIRE(folder.add(*messages::parse_event(message->body)));
    }
    CHECK(folder.finished());
    CHECK(folder.stop()->reason == messages::StopReason::refusal);
    auto end = pipe::from_line(out[3], "");
    REQUIRE(end);
    CHECK(end->verb == pipe::Verb::end);
    CHECK(stage.blocked());
}

TEST_CASE("a line that is no request ends with an error of its own", "[stages]") {
    std::vector<std::string> out;
    filter::InputStage stage(policy(), [&](const std::string& text) { out.push_back(text); });
    for (const char* bad : {"nonsense", "{\"model\":\"m\"}", "[1]", "{\"parley\":2}"})
        stage.line(bad, 1);
    REQUIRE(out.size() == 4);
    for (const std::string& text : out) {
        auto end = pipe::from_line(text, "");
        REQUIRE(end);
        CHECK(end->verb == pipe::Verb::end);
        CHECK(pipe::parse_end_meta(end->meta)->status == "invalid_request_error");
    }
    CHECK(stage.bad());
}

TEST_CASE("the output stage swallows the ASK, keeps the answer, and stops a blocked one",
          "[stages]") {
    for (bool blocked : {false, true}) {
        std::vector<std::string> out;
        filter::OutputStage stage(policy(), [&](const std::string& text) { out.push_back(text); });
        const std::vector<std::string> lines = {
            line(pipe::Verb::ask, kBody),
            line(pipe::Verb::event, EventWriter::message_start("m1", "m", {}), 0),
            line(pipe::Verb::event, EventWriter::text_block_start(0), 1),
            line(pipe::Verb::event, EventWriter::text_delta(0, "a zorb"), 2, 1),
            line(pipe::Verb::event, EventWriter::text_delta(0, blocked ? "lax b" : "it b"), 3, 1),
            line(pipe::Verb::event, EventWriter::block_stop(0), 4),
            line(pipe::Verb::event, EventWriter::message_delta({}, {}), 5),
            line(pipe::Verb::event, EventWriter::message_stop(), 6),
            line(pipe::Verb::end, "")};
        for (size_t i = 0; i < lines.size(); ++i) stage.line(lines[i], i + 1);
        stage.finish();
        messages::Folder folder;
        uint64_t seq = 0;
        size_t ends = 0;
        for (const std::string& text : out) {
            auto message = pipe::from_line(text, "");
            REQUIRE(message);
            if (message->verb == pipe::Verb::end) {
                ++ends;
                CHECK(pipe::parse_end_meta(message->meta)->ok());
                continue;
            }
            CHECK(pipe::parse_event_meta(message->meta)->seq == seq++);
            REQUIRE(folder.add(*messages::parse_event(message->body)));
        }
        CHECK(ends == 1);
        CHECK(folder.finished());
        CHECK(stage.blocked() == blocked);
        CHECK(folder.text() == (blocked ? "" : "a zorbit b"));
        CHECK((folder.stop()->reason == messages::StopReason::refusal) == blocked);
    }
}

TEST_CASE("what the end of the input cuts short is not let out", "[stages]") {
    std::vector<std::string> out;
    filter::OutputStage stage(policy(), [&](const std::string& text) { out.push_back(text); });
    stage.line(line(pipe::Verb::ask, kBody), 1);
    stage.line(line(pipe::Verb::event, EventWriter::message_start("m1", "m", {}), 0), 2);
    stage.line(line(pipe::Verb::event, EventWriter::text_block_start(0), 1), 3);
    stage.line(line(pipe::Verb::event, EventWriter::text_delta(0, "half "), 2, 1), 4);
    stage.finish();
    REQUIRE(out.size() == 3);
    auto end = pipe::from_line(out.back(), "");
    CHECK(pipe::parse_end_meta(end->meta)->status == "api_error");
    CHECK(stage.bad());
    for (const std::string& text : out) CHECK(text.find("half") == std::string::npos);
}
