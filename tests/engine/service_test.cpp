#include "engine/service.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <thread>

#include "fake_forward.hpp"
#include "messages/events.hpp"
#include "model/gguf.hpp"
#include "model/small_vocabulary.hpp"

using namespace parley;
using engine::OutEvent;
using engine::Service;

namespace {

// Checks the promises while it records: events in grammar, credit kept, one END, nothing after it.
class Desk final : public engine::Outlet {
  public:
    struct Case {
        messages::EventOrder order;
        std::vector<messages::Event> events;
        std::vector<OutEvent> raw;
        std::string text;
        std::vector<model::Token> ids;
        std::optional<pipe::EndMeta> end;
        int64_t credit = 1'000'000;
    };
    std::map<std::string, Case> cases;

    bool event(const std::string& id, uint32_t, const OutEvent& event) override {
        Case& c = cases[id];
        REQUIRE_FALSE(c.end);
        if (c.credit == 0) return false;
        --c.credit;
        const auto read = messages::parse_event(event.body);
        REQUIRE(read);
        const auto fits = c.order.next(*read);
        if (!fits) FAIL(fits.error().what);
        if (read->type == messages::EventType::content_block_delta) c.text += read->text;
        c.ids.insert(c.ids.end(), event.ids.begin(), event.ids.end());
        c.events.push_back(*read);
        c.raw.push_back(event);
        return true;
    }
    void end(const std::string& id, pipe::EndMeta meta) override {
        REQUIRE_FALSE(cases[id].end);
        cases[id].end = std::move(meta);
    }
};

struct Bench {
    test::FakeForward forward;
    base::ManualClock clock;
    Desk desk;
    std::unique_ptr<model::Artifact> artifact;
    engine::ServiceOptions options;
    std::unique_ptr<Service> service;

    void open() {
        auto file = model::Gguf::parse(test::small_vocabulary().build());
        REQUIRE(file);
        auto made = model::Artifact::from_gguf(*file, 0, "");
        REQUIRE(made);
        artifact = std::make_unique<model::Artifact>(std::move(*made));
        forward.vocab = artifact->tokenizer().vocab_size();
        forward.context = 256;
        forward.clock = &clock;
        service = std::make_unique<Service>(forward, *artifact, options, desk, clock);
    }
    void run() {
        while (service->step()) {
        }
    }
    Desk::Case& ask(const std::string& id, const std::string& members = "",
                    pipe::Envelope envelope = {}) {
        if (!envelope.seed) envelope.seed = 7;
        if (envelope.credit != 64)
            desk.cases[id].credit = envelope.credit;
        else
            envelope.credit = 1'000'000;
        service->ask(id, envelope, body(members));
        return desk.cases[id];
    }
    static std::string body(const std::string& members) {
        return R"({"model":"any","messages":[{"role":"user","content":"hello"}])" +
               (members.empty() ? std::string(R"(,"max_tokens":12)") : "," + members) + "}";
    }
};

}  // namespace

TEST_CASE("an answer comes as events in order, with usage, then one END", "[service]") {
    Bench b;
    b.open();
    auto& c = b.ask("req_1");
    b.run();
    REQUIRE(c.end);
    CHECK(c.end->status == "ok");
    CHECK(c.order.finished());
    CHECK(c.events.front().type == messages::EventType::message_start);
    CHECK(c.events.front().message_id == "msg_1");
    CHECK(c.events.front().model == "any");
    const auto& last = c.events[c.events.size() - 2];
    REQUIRE(last.usage);
    CHECK(last.usage->output_tokens == 12);
    CHECK(last.usage->input_tokens == c.events.front().usage->input_tokens);
    CHECK(last.stop->reason == messages::StopReason::max_tokens);
    REQUIRE(c.end->usage);
    CHECK(c.end->usage->output_tokens == 12);
    CHECK(c.end->cost_s > 0);
    CHECK(c.end->model == b.artifact->hash());
    CHECK(b.service->empty());
    CHECK(c.text.size() > 0);
}

TEST_CASE("message_start goes out before the prompt is computed", "[service]") {
    Bench b;
    b.options.engine.alone_target_ms = 1;  // 16 rows an iteration
    b.open();
    auto& c = b.ask("req_1", R"("max_tokens":2,"system":")" + std::string(100, 'x') + "\"");
    b.service->step();
    REQUIRE(c.events.size() == 1);
    CHECK(c.events[0].type == messages::EventType::message_start);
    CHECK(b.service->engine().stats().decode_rows == 0);
    b.run();
    CHECK(c.end->ok());
}

TEST_CASE("max_tokens 0 runs the prompt and has no block", "[service]") {
    Bench b;
    b.open();
    auto& c = b.ask("req_1", R"("max_tokens":0)");
    b.run();
    REQUIRE(c.end);
    CHECK(c.events.size() == 3);
    CHECK(c.end->usage->output_tokens == 0);
    CHECK(c.end->cost_s > 0);
}

TEST_CASE("a body that is wrong ends with its error and no event", "[service]") {
    Bench b;
    b.open();
    auto& bad = b.ask("req_1", R"("max_tokens":"5")");
    b.run();
    REQUIRE(bad.end);
    CHECK(bad.end->status == "invalid_request_error");
    CHECK(bad.end->message == "max_tokens: Input should be a valid integer");
    CHECK(bad.events.empty());
    b.service->ask("req_2", {}, "{nonsense");
    b.run();
    CHECK(b.desk.cases["req_2"].end->status == "invalid_request_error");
    pipe::Envelope other;
    other.version = std::string(64, '0');
    auto& version = b.ask("req_3", "", other);
    b.run();
    CHECK(version.end->status == "not_found_error");
    CHECK(version.end->retryable);
    CHECK(b.service->empty());
}

TEST_CASE("a prompt that fills the window is refused in the exact words", "[service]") {
    Bench b;
    b.open();
    auto& c = b.ask("req_1", R"("max_tokens":2,"system":")" + std::string(400, 'x') + "\"");
    b.run();
    REQUIRE(c.end);
    CHECK(c.end->status == "invalid_request_error");
    CHECK_FALSE(c.end->retryable);
    unsigned tokens = 0, most = 0;
    REQUIRE(std::sscanf(c.end->message.c_str(), "prompt is too long: %u tokens > %u maximum",
                        &tokens, &most) == 2);
    CHECK(tokens > 400);
    CHECK(most == 255);
}

TEST_CASE("a queue that is full answers overloaded, to be retried", "[service]") {
    Bench b;
    b.options.engine.slots_max = 1;
    b.options.engine.queue_max = 1;
    b.open();
    b.ask("req_1");
    b.service->step();
    b.ask("req_2");
    auto& c = b.ask("req_3");
    b.service->step();
    REQUIRE(c.end);
    CHECK(c.end->status == "overloaded_error");
    CHECK(c.end->reason == "queue_full");
    CHECK(c.end->retryable);
    CHECK(c.end->retry_after_s > 0);
    b.run();
    CHECK(b.desk.cases["req_1"].end->ok());
    CHECK(b.desk.cases["req_2"].end->ok());
}

TEST_CASE("events never exceed the credit, END needs none, and the text is the same", "[service]") {
    Bench free;
    free.open();
    const std::string text = free.ask("req_1").text;
    free.run();
    const auto& expected = free.desk.cases["req_1"];
    for (const uint32_t first : {0u, 1u, 2u, 3u}) {
        Bench b;
        b.open();
        pipe::Envelope envelope;
        envelope.credit = first;
        auto& c = b.ask("req_1", "", envelope);
        auto& other = b.ask("req_2");
        int grants = 0;
        while (!c.end && ++grants < 1000) {
            b.run();
            if (c.end) break;
            REQUIRE(c.credit >= 0);
            c.credit += 1;
            b.service->credit("req_1", static_cast<uint32_t>(c.credit));
        }
        REQUIRE(c.end);
        CHECK(c.text == expected.text);
        CHECK(c.ids == expected.ids);
        CHECK(c.end->ok());
        CHECK(other.end->ok());
        CHECK(b.service->empty());
    }
}

TEST_CASE("cancel ends with its usage, and nothing follows", "[service]") {
    Bench b;
    b.open();
    auto& c = b.ask("req_1", R"("max_tokens":100)");
    for (int i = 0; i < 5; ++i) b.service->step();
    b.service->cancel("req_1", "asked");
    REQUIRE(c.end);
    CHECK(c.end->status == "cancelled");
    CHECK(c.end->usage->output_tokens > 0);
    CHECK(b.service->engine().stats().kv_blocks_free == b.forward.blocks);
    b.service->cancel("req_1", "asked");
    b.run();
    CHECK(b.service->empty());
}

TEST_CASE("a continuation at any event inside a block sends the very rest and no event twice", "[service]") {
    Bench whole;
    whole.open();
    whole.ask("req_1", R"("max_tokens":20,"temperature":0.9)");
    whole.run();
    const auto& all = whole.desk.cases["req_1"];
    REQUIRE(all.end->ok());
    std::vector<int32_t> produced;
    std::string released;
    messages::EventOrder order;
    for (size_t cut = 0; cut + 2 < all.events.size(); ++cut) {
        // The client has events 0 … cut.
        REQUIRE(order.next(all.events[cut]));
        if (all.events[cut].type == messages::EventType::content_block_delta)
            released += all.events[cut].text;
        produced.insert(produced.end(), all.raw[cut].ids.begin(), all.raw[cut].ids.end());
        // A block is gone on with while it is open: chatd keeps its end until the event after it.
        if (all.events[cut].type == messages::EventType::content_block_stop) continue;
        Bench b;
        b.open();
        pipe::Envelope envelope;
        envelope.attempt = 2;
        envelope.continuation = pipe::Continuation{
            produced, order.block_open() ? static_cast<int32_t>(order.next_index()) - 1 : -1,
            released.size(), released};
        b.desk.cases["req_1"].order = order;
        auto& c = b.ask("req_1", R"("max_tokens":20,"temperature":0.9)", envelope);
        b.run();
        INFO("cut after event " << cut);
        REQUIRE(c.end);
        CHECK(c.end->ok());
        CHECK(released + c.text == all.text);
        CHECK(c.events.size() == all.events.size() - cut - 1);
        CHECK(c.end->usage->output_tokens == all.end->usage->output_tokens);
        CHECK(c.end->usage->input_tokens == all.end->usage->input_tokens);
    }
}

TEST_CASE("a flood of requests is read by and by while those that run go on", "[service]") {
    Bench b;
    b.options.read_budget_ms = 0;  // one body an iteration
    b.options.engine.queue_max = 100;
    b.open();
    auto& first = b.ask("req_first", R"("max_tokens":60)");
    b.service->step();
    for (int i = 0; i < 20; ++i) b.ask("req_" + std::to_string(i));
    b.service->cancel("req_3", "asked");
    CHECK(b.desk.cases["req_3"].end->status == "cancelled");
    CHECK(b.service->status().waiting == 20);
    for (int i = 0; i < 10; ++i) {
        const auto rows = b.service->engine().stats().decode_rows;
        b.service->step();
        CHECK(b.service->engine().stats().decode_rows > rows);
    }
    CHECK(b.desk.cases["req_19"].events.empty());
    b.run();
    for (int i = 0; i < 20; ++i)
        if (i != 3) CHECK(b.desk.cases["req_" + std::to_string(i)].end->ok());
    CHECK(first.end->ok());
    CHECK(b.service->empty());
}

TEST_CASE(
    "a body that is large is read aside while others go on, and cancelled or replaced is no more",
    "[service]") {
    Bench b;
    b.options.read_aside_bytes = 100'000;
    b.open();
    const std::string large = R"("max_tokens":5,"system":")" + std::string(2 << 20, 'x') + "\"";
    auto& small = b.ask("req_small", R"("max_tokens":40)");
    auto& big = b.ask("req_big", large);
    b.ask("req_cancelled", large);
    auto& replaced = b.ask("req_replaced", large);
    b.service->step();
    CHECK_FALSE(big.end);  // 2 MiB are not tokenised within the iteration
    CHECK(small.events.size() > 0);
    CHECK(b.service->status().waiting == 3);
    b.service->cancel("req_cancelled", "asked");
    while (!big.end) {
        b.service->step();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(big.end->status == "invalid_request_error");
    CHECK(big.end->message.find("prompt is too long") == 0);
    b.service->step();  // the thread has the first attempt by now
    b.service->cancel("req_replaced", "peer_gone");
    CHECK(replaced.end->status == "cancelled");
    replaced = {};
    b.ask("req_replaced", R"("max_tokens":3)");
    for (int i = 0; i < 5000 && !b.service->empty(); ++i) {
        b.service->step();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(b.service->empty());
    CHECK(b.desk.cases["req_cancelled"].end->status == "cancelled");
    CHECK(b.desk.cases["req_cancelled"].events.empty());
    CHECK(small.end->ok());
}

TEST_CASE("a request that was replaced before it was read is answered once, by the last",
          "[service]") {
    Bench b;
    b.open();
    b.ask("req_1");
    pipe::Envelope second;
    second.attempt = 2;
    b.service->cancel("req_1", "replaced");
    b.desk.cases["req_1"] = {};
    auto& c = b.ask("req_1", R"("max_tokens":3)", second);
    b.run();
    REQUIRE(c.end);
    CHECK(c.end->attempt == 2);
    CHECK(c.end->usage->output_tokens == 3);
}

TEST_CASE("what is left when the worker stops ends retryable", "[service]") {
    Bench b;
    b.open();
    auto& c = b.ask("req_1", R"("max_tokens":100)");
    for (int i = 0; i < 5; ++i) b.service->step();
    b.service->abandon("draining");
    REQUIRE(c.end);
    CHECK(c.end->status == "api_error");
    CHECK(c.end->reason == "draining");
    CHECK(c.end->retryable);
    CHECK(b.service->empty());
}

TEST_CASE("status tells load, blocks and what each flow's live requests cost", "[service]") {
    Bench b;
    b.open();
    pipe::Envelope envelope;
    envelope.flow = "org-a";
    b.ask("req_1", R"("max_tokens":100)", envelope);
    for (int i = 0; i < 5; ++i) b.service->step();
    const auto status = b.service->status();
    CHECK(status.running == 1);
    CHECK(status.waiting == 0);
    CHECK(status.kv_total == 64);
    CHECK(status.kv_free < 64);
    CHECK(status.longest_ms > 0);
    REQUIRE(status.charges.size() == 1);
    CHECK(status.charges[0].flow == "org-a");
    CHECK(status.charges[0].cost_s == Approx(b.service->engine().stats().busy_s));
}

namespace {

// A user's text of one letter, and one after it, with marks where `mark` says.
std::string marked(const std::string& first_mark, const std::string& second_mark,
                   const std::string& tail = "y") {
    const auto text = [](const std::string& letters, const std::string& mark) {
        return R"({"type":"text","text":")" + letters + "\"" +
               (mark.empty() ? "" : R"(,"cache_control":{"type":"ephemeral")" + mark + "}") + "}";
    };
    return R"({"model":"any","max_tokens":4,"messages":[{"role":"user","content":[)" +
           text(std::string(70, 'x'), first_mark) + "," + text(std::string(20, 'z'), second_mark) +
           "," + text(tail, "") + "]}]}";
}

}  // namespace

TEST_CASE("reuse is in END always, and in the events only up to a mark", "[service]") {
    Bench b;
    b.open();
    const auto ask = [&](const std::string& id, std::string body, const std::string& org) {
        pipe::Envelope envelope;
        envelope.seed = 7;
        envelope.credit = 1'000'000;
        envelope.org = org;
        b.service->ask(id, envelope, std::move(body));
        b.run();
        REQUIRE(b.desk.cases[id].end);
        REQUIRE(b.desk.cases[id].end->ok());
        const auto& events = b.desk.cases[id].events;
        const messages::Usage start = *events.front().usage;
        const messages::Usage last = *events[events.size() - 2].usage;
        CHECK(start.cache_read_input_tokens == last.cache_read_input_tokens);
        CHECK(start.cache_creation_input_tokens == last.cache_creation_input_tokens);
        CHECK(start.input_tokens == last.input_tokens);
        CHECK(last.prompt_tokens() == b.desk.cases[id].end->usage->input_tokens);
        return last;
    };
    const auto reused = [&](const std::string& id) {
        return b.desk.cases[id].end->usage->cache_read_input_tokens;
    };
    const std::string five = " ", hour = R"(,"ttl":"1h")";

    auto usage = ask("req_1", marked("", ""), "acme");
    const uint64_t prompt = usage.input_tokens;
    CHECK(prompt > 91);
    CHECK(usage.prompt_tokens() == prompt);
    CHECK(reused("req_1") == 0);
    usage = ask("req_2", marked("", "", "w"), "acme");  // reused, but not asked about
    CHECK(usage.cache_read_input_tokens == 0);
    CHECK(usage.cache_creation_input_tokens == 0);
    const uint64_t shared = reused("req_2");
    CHECK(shared >= 80);
    CHECK(shared < prompt);  // within a block too, up to where they differ

    usage = ask("req_3", marked(five, ""), "acme");
    CHECK(usage.cache_read_input_tokens >= 70);  // up to the mark, though more was reused
    CHECK(usage.cache_read_input_tokens < shared);
    CHECK(usage.cache_creation_input_tokens == 0);

    usage = ask("req_4", marked(five, hour), "other");  // nothing there yet: all is kept newly
    CHECK(reused("req_4") == 0);
    CHECK(usage.cache_read_input_tokens == 0);
    CHECK(usage.cache_creation_input_tokens >= 80);
    CHECK(usage.cache_creation_1h_input_tokens == usage.cache_creation_input_tokens);
    usage = ask("req_5", marked(hour, five), "third");
    CHECK(usage.cache_creation_1h_input_tokens >= 70);
    CHECK(usage.cache_creation_1h_input_tokens < usage.cache_creation_input_tokens);

    usage = ask("req_6", marked(five, five), "");  // no org: kept for nobody
    CHECK(usage.input_tokens == prompt);
    CHECK(reused("req_6") == 0);
    CHECK(b.service->status().kv_free == b.forward.blocks);
}

TEST_CASE("without a prefix cache marks change nothing and both numbers are 0", "[service]") {
    Bench b;
    b.options.engine.prefix_blocks = 0;
    b.open();
    for (const char* id : {"req_1", "req_2"}) {
        pipe::Envelope envelope;
        envelope.org = "acme";
        envelope.credit = 1'000'000;
        b.service->ask(id, envelope, marked(" ", " "));
        b.run();
        const auto& c = b.desk.cases[id];
        REQUIRE(c.end);
        CHECK(c.end->usage->cache_read_input_tokens == 0);
        CHECK(c.events.front().usage->cache_read_input_tokens == 0);
        CHECK(c.events.front().usage->cache_creation_input_tokens == 0);
        CHECK(c.events.front().usage->input_tokens == c.end->usage->input_tokens);
    }
}

TEST_CASE("a schema is compiled aside, holds the answer, and is kept for the next", "[service]") {
    Bench b;
    b.options.grammars_kept = 2;
    b.open();
    const auto settle = [&] {
        while (!b.service->empty())
            if (!b.service->step()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    const auto held = [](const std::string& schema, int tokens = 9) {
        return R"("max_tokens":)" + std::to_string(tokens) +
               R"(,"output_config":{"format":{"type":"json_schema","schema":)" + schema + "}}";
    };
    auto& first = b.ask("req_1", held(R"({"enum":["hello"]})", 40));
    b.run();
    settle();
    REQUIRE(first.end);
    CHECK(first.end->message == "");
    CHECK(first.text == "\"hello\"");
    auto& again = b.ask("req_2", held(R"({"enum":["hello"]})", 40));
    b.service->step();  // read at once: nothing is left to compile
    CHECK_FALSE(again.events.empty());
    auto& keyword = b.ask("req_3", held(R"({"not":{}})"));
    auto& tight = b.ask("req_4", held(R"({"enum":["hello"]})", 1));
    settle();
    CHECK(again.text == first.text);
    REQUIRE(keyword.end);
    CHECK(keyword.end->status == "invalid_request_error");
    CHECK(keyword.end->message ==
          "output_config.format.schema: #: 'not' is not supported");
    REQUIRE(tight.end);
    CHECK(tight.end->status == "invalid_request_error");
    CHECK(tight.end->message.rfind("max_tokens: 1 are left", 0) == 0);
}

TEST_CASE("END tells what was guessed for its request, and status what was for all", "[service]") {
    for (const uint32_t speculate : {0u, 4u}) {
        CAPTURE(speculate);
        Bench b;
        b.options.engine.speculate_max = speculate;
        for (model::Token token = 0; token < 240; ++token) b.forward.script.push_back(10 + token % 3);
        b.forward.run_ms = 50;  // so that a row more is cheap
        b.open();
        uint64_t drafted = 0, accepted = 0;
        for (const char* id : {"req_1", "req_2"}) {
            b.ask(id, R"("max_tokens":100)");
            b.run();
            const auto& end = *b.desk.cases[id].end;
            CHECK((end.drafted_tokens > 0) == (speculate > 0));
            CHECK((end.accepted_tokens > 0) == (speculate > 0));
            CHECK(end.accepted_tokens <= end.drafted_tokens);
            drafted += end.drafted_tokens;
            accepted += end.accepted_tokens;
        }
        const auto status = b.service->status();
        CHECK(status.drafted_tokens == drafted);
        CHECK(status.accepted_tokens == accepted);
    }
}
