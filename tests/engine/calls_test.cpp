// Calls of tools in a service's answers: what a scripted model says, as events.
#include <catch2/catch.hpp>
#include <map>

#include "../model/small_vocabulary.hpp"
#include "engine/service.hpp"
#include "fake_forward.hpp"
#include "messages/request.hpp"

using namespace parley;
using engine::OutEvent;
using messages::EventType;
using messages::StopReason;

namespace {

struct Heard final : engine::Outlet {
    messages::EventOrder order;
    std::vector<messages::Event> events;
    std::vector<OutEvent> raw;
    messages::Folder folder;  // of an answer heard from its start
    bool folds = true;
    std::optional<pipe::EndMeta> ended;

    bool event(const std::string&, uint32_t, const OutEvent& event) override {
        REQUIRE_FALSE(ended);
        const auto read = messages::parse_event(event.body);
        REQUIRE(read);
        REQUIRE(order.next(*read));
        if (folds) REQUIRE(folder.add(*read));
        events.push_back(*read);
        raw.push_back(event);
        return true;
    }
    void end(const std::string&, pipe::EndMeta meta) override { ended = std::move(meta); }
    std::string what() const { return folder.content_json(); }
    StopReason reason() const { return folder.stop()->reason; }
};

const std::string kTools =
    R"("tools":[{"name":"f","input_schema":{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}},)"
    R"({"name":"g","input_schema":{"type":"object","additionalProperties":false,"properties":{"t":{"type":"string"}},"required":["t"]}}])";

// A model that says `says` and then ends its turn, if nothing else ends it.
struct Scene {
    test::FakeForward forward;
    base::ManualClock clock;
    Heard heard;
    std::unique_ptr<model::Artifact> artifact;
    std::unique_ptr<engine::Service> service;

    std::string tools = kTools + ",";

    void run(const std::string& says, const std::string& members, pipe::Envelope envelope = {}) {
        auto file = model::Gguf::parse(test::small_vocabulary().build());
        REQUIRE(file);
        auto made = model::Artifact::from_gguf(*file, 0, "");
        REQUIRE(made);
        artifact = std::make_unique<model::Artifact>(std::move(*made));
        forward.vocab = artifact->tokenizer().vocab_size();
        forward.context = 4096;
        forward.blocks = 512;
        forward.clock = &clock;
        const std::string body =
            R"({"model":"m","temperature":0,"messages":[{"role":"user","content":"q"}],)" + tools +
            members + "}";
        if (const auto request = messages::parse_request(body))
            forward.script_from =
                artifact->chat_template()
                    .render(artifact->tokenizer(), messages::turns_as<model::Turn>(*request))
                    .size();
        for (const char c : says) {
            const auto token = artifact->tokenizer().encode(std::string(1, c));
            REQUIRE(token.size() == 1);
            forward.script.push_back(token[0]);
        }
        forward.script.push_back(*artifact->tokenizer().eos());
        service = std::make_unique<engine::Service>(forward, *artifact, engine::ServiceOptions{},
                                                    heard, clock);
        envelope.seed = 7;
        envelope.credit = 1'000'000;
        service->ask("req_1", envelope, body);
        while (!heard.ended) service->step();
        CHECK(service->empty());
        CHECK(service->engine().stats().kv_blocks_free == forward.blocks);
    }
};

std::string text(const std::string& t) { return R"({"type":"text","text":")" + t + "\"}"; }
std::string call(uint32_t block, const std::string& name, const std::string& input) {
    return R"({"type":"tool_use","id":")" + messages::tool_use_id(7, "msg_1", block) +
           R"(","name":")" + name + R"(","input":)" + input + "}";
}
const std::string kF = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
const std::string kG = "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"t\": \"}\"}}\n</tool_call>";

}  // namespace

TEST_CASE("auto: text and calls are blocks in order, and the answer stops for them", "[calls]") {
    Scene s;
    s.run("Well.\n" + kF + "\n" + kG + "\n", R"("max_tokens":500)");
    CHECK(s.heard.ended->ok());
    CHECK(s.heard.what() == "[" + text("Well.") + "," + call(1, "f", R"({"x":1})") + "," +
                                call(2, "g", R"({"t":"}"})") + "]");
    CHECK(s.heard.reason() == StopReason::tool_use);
    CHECK(s.heard.ended->usage->output_tokens == s.forward.script.size());
}

TEST_CASE("auto: an answer without a call, or with a wrong one, is text and ends its turn", "[calls]") {
    for (const std::string& says : {std::string("a < b <tool_"), std::string("<tool_call>\n{\"name\": \"h\"}\n</tool_call>")}) {
        Scene s;
        s.run(says, R"("max_tokens":500)");
        REQUIRE(s.heard.folder.blocks().size() == 1);
        CHECK(s.heard.folder.text() == says);
        CHECK(s.heard.reason() == StopReason::end_turn);
    }
    Scene none;
    none.run(kF, R"("max_tokens":500,"tool_choice":{"type":"none"})");
    CHECK(none.heard.folder.text() == kF);
    CHECK(none.heard.reason() == StopReason::end_turn);
}

TEST_CASE("auto: a second call is neither sent nor computed where one is allowed", "[calls]") {
    Scene s;
    s.run("Well. " + kF + kG,
          R"("max_tokens":500,"tool_choice":{"type":"auto","disable_parallel_tool_use":true})");
    CHECK(s.heard.what() == "[" + text("Well.") + "," + call(1, "f", R"({"x":1})") + "]");
    CHECK(s.heard.reason() == StopReason::tool_use);
    CHECK(s.heard.ended->usage->output_tokens == ("Well. " + kF).find("\n</tool_call>"));
    // A request that is read in the same service afterwards finds it whole.
    CHECK(s.service->counters().finished == 1);
}

TEST_CASE("auto: max_tokens in a call drops it and keeps the text; so does a stop sequence", "[calls]") {
    const std::string says = "Well. " + kF;
    for (size_t most = 12; most < says.find("}}") + 2; ++most) {
        Scene s;
        s.run(says, "\"max_tokens\":" + std::to_string(most));
        INFO(most);
        CHECK(s.heard.what() == "[" + text("Well.") + "]");
        CHECK(s.heard.reason() == StopReason::max_tokens);
    }
    Scene s;
    s.run(says, R"("max_tokens":500,"stop_sequences":["\"x\""])");
    CHECK(s.heard.what() == "[" + text("Well.") + "]");
    CHECK(s.heard.reason() == StopReason::stop_sequence);
}

TEST_CASE("forced: whatever the model would say, the answer is one call that fits", "[calls]") {
    for (const std::string choice : {R"({"type":"any"})", R"({"type":"tool","name":"g"})"}) {
        Scene s;
        s.run("Hello, there is no call here at all.",
              R"("max_tokens":200,"stop_sequences":["{"],"tool_choice":)" + choice);
        CHECK(s.heard.ended->ok());
        REQUIRE(s.heard.folder.blocks().size() == 1);
        CHECK(s.heard.folder.blocks()[0].type == messages::BlockType::tool_use);
        if (choice.find("\"g\"") != std::string::npos) CHECK(s.heard.folder.blocks()[0].name == "g");
        CHECK(s.heard.what().find("\"input\":{\"") != std::string::npos);
        CHECK(s.heard.reason() == StopReason::tool_use);
    }
}

TEST_CASE("forced: what cannot be kept is refused before a token, by path", "[calls]") {
    Scene small;
    small.run("", R"("max_tokens":20,"tool_choice":{"type":"any"})");
    CHECK(small.heard.ended->status == "invalid_request_error");
    CHECK(small.heard.ended->message.starts_with("max_tokens: 20 are left"));
    CHECK(small.heard.events.empty());
    Scene odd;
    odd.run("", R"("max_tokens":200,"tool_choice":{"type":"any"},"tools":null)");  // twice a key: not JSON for us
    CHECK(odd.heard.ended->status == "invalid_request_error");
}

TEST_CASE("strict: what the model begins as a call becomes one that fits, and fits in the room", "[calls]") {
    const std::string strict =
        R"("tools":[{"name":"f","strict":true,"input_schema":{"type":"object","properties":{"x":{"type":"integer","maximum":99,"minimum":0}},"required":["x"],"additionalProperties":false}},{"name":"g","input_schema":{"type":"object"}}],)";
    const std::string begun = "Well. <tool_call>not a call at all, and on it goes";
    for (const uint32_t most : {40u, 75u, 76u, 90u, 400u}) {
        Scene s;
        s.tools = strict;
        s.run(begun, "\"max_tokens\":" + std::to_string(most));
        INFO(most);
        REQUIRE(s.heard.ended->ok());
        if (most != 40) CHECK(s.heard.what().find("not a call") == std::string::npos);
        bool called = false;
        for (const auto& block : s.heard.folder.blocks()) called = called || !block.name.empty();
        if (most >= 90) CHECK(called);
        // Too little room: the marker itself could not be written.
        if (most == 40) CHECK_FALSE(called);
        CHECK(s.heard.folder.text().find("<tool_call>") == std::string::npos);
    }
    // Text is the model's own.
    Scene text;
    text.tools = strict;
    text.run("Just <tool_words> \xC3\xA9.", R"("max_tokens":400,"stop_sequences":["zz"])");
    CHECK(text.heard.folder.text() == "Just <tool_words> \xC3\xA9.");
    CHECK(text.heard.reason() == StopReason::end_turn);
    Scene both;
    both.tools = strict;
    both.run("One. " + kF + "\nTwo.", R"("max_tokens":400)");
    CHECK(both.heard.what() == "[" + ::text("One.") + "," + call(1, "f", R"({"x":1})") + "," + ::text("Two.") + "]");
    Scene stopped;
    stopped.tools = strict;
    stopped.run("One. " + kF, R"("max_tokens":400,"stop_sequences":["\"x\""])");
    CHECK(stopped.heard.what() == "[" + ::text("One.") + "]");
    CHECK(stopped.heard.reason() == StopReason::stop_sequence);
    Scene odd;
    odd.tools = R"("tools":[{"name":"g","input_schema":{"type":"object"}},{"name":"f","strict":true,"input_schema":{"type":"object","minProperties":1}}],)";
    odd.run("x", R"("max_tokens":400)");
    CHECK(odd.heard.ended->status == "invalid_request_error");
    CHECK(odd.heard.ended->message.starts_with("tools.1.input_schema: #: 'minProperties'"));
}

TEST_CASE("an answer with calls goes on behind any event as if nothing had happened", "[calls]") {
    const std::string says = "Well, <tool> \xC3\xA9:\n" + kF + kG + "\nAnd then.";
    for (const std::string members :
         {R"("max_tokens":500)", R"("max_tokens":120,"tool_choice":{"type":"tool","name":"g"})"}) {
        Scene whole;
        whole.run(says, members);
        const auto& all = whole.heard.events;
        REQUIRE(whole.heard.folder.finished());
        messages::Folder had;
        std::vector<int32_t> produced;
        for (size_t cut = 0; cut + 2 < all.size(); ++cut) {
            REQUIRE(had.add(all[cut]));
            const auto& ids = whole.heard.raw[cut].ids;
            produced.insert(produced.end(), ids.begin(), ids.end());
            if (!had.order().block_open()) continue;
            INFO(members << " cut after event " << cut);
            Scene s;
            s.heard.order = had.order();
            s.heard.folds = false;
            pipe::Envelope envelope;
            envelope.attempt = 2;
            envelope.continuation = pipe::Continuation{
                produced, static_cast<int32_t>(had.order().next_index()) - 1,
                had.blocks().back().text.size(), had.words()};
            s.run(says, members, envelope);
            CHECK(s.heard.ended->ok());
            messages::Folder both = had;
            for (const auto& event : s.heard.events) REQUIRE(both.add(event));
            CHECK(both.message_json() == whole.heard.folder.message_json());
        }
    }
}
