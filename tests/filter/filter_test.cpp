// The filter between a made-up asker and a made-up router, on real sockets.
#include "filter/filter.hpp"

#include <catch2/catch.hpp>

#include "messages/events.hpp"
#include "pipe/loop.hpp"

using namespace parley;
using messages::EventWriter;

namespace {

const char* kPolicy =
    "version = \"t\"\n[thresholds.user]\nunsafe = { flag = 2.0, block = 2.0 }\n[hold]\ntokens = "
    "4\nwatch_tokens = 4\n"
    "[[rule]]\nid = \"no-zorblax\"\nside = \"both\"\npattern = 'zorblax'\naction = \"block\"\n";

std::shared_ptr<const safety::Judge> judge_of(const std::string& toml) {
    auto policy = safety::Policy::parse(toml);
    if (!policy) FAIL(policy.error().what);
    return std::make_shared<safety::Judge>(*policy);
}

std::string body_of(const std::string& text) {
    return "{\"model\":\"m\",\"max_tokens\":99,\"messages\":[{\"role\":\"user\",\"content\":\"" +
           text + "\"}]}";
}

struct Front final : pipe::AskerHandler {
    struct Got {
        std::vector<std::pair<pipe::EventMeta, std::string>> events;
        std::vector<pipe::EndMeta> ends;
        std::string text() const {
            std::string out;
            for (const auto& [meta, body] : events) {
                auto event = messages::parse_event(body);
                if (event && event->type == messages::EventType::content_block_delta)
                    out += event->text;
            }
            return out;
        }
        std::string types() const {
            std::string out;
            for (const auto& [meta, body] : events) {
                auto event = messages::parse_event(body);
                out += event ? std::string(messages::name(event->type)) + " " : "? ";
            }
            return out;
        }
        std::string stop() const {
            for (const auto& [meta, body] : events) {
                auto event = messages::parse_event(body);
                if (event && event->stop) return std::string(messages::name(event->stop->reason));
            }
            return "";
        }
    };
    std::map<std::string, Got> got;
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override {
        got[id].events.emplace_back(meta, std::move(body));
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        got[id].ends.push_back(meta);
    }
};

struct Router final : pipe::AnswererHandler {
    pipe::Answerer* answerer = nullptr;
    std::vector<pipe::Ask> asks;
    std::vector<std::string> cancelled;
    void on_ask(pipe::Ask ask) override { asks.push_back(std::move(ask)); }
    void on_cancel(const std::string& id, uint32_t, pipe::Cancel) override {
        cancelled.push_back(id);
        pipe::EndMeta end;
        end.status = "cancelled";
        end.usage = pipe::Usage{7, 0, 3};
        answerer->end(id, end);
    }
    void event(const std::string& id, std::string body, size_t tokens = 0) {
        pipe::EventMeta meta;
        meta.ids.assign(tokens, 1);
        meta.stamp = "forged";
        meta.policy = "none";
        REQUIRE(answerer->event(id, meta, std::move(body)));
    }
    void start(const std::string& id) {
        messages::Usage usage;
        usage.input_tokens = 7;
        event(id, EventWriter::message_start("msg_1", "m", usage));
        event(id, EventWriter::text_block_start(0));
    }
    void finish(const std::string& id) {
        event(id, EventWriter::block_stop(0));
        event(id, EventWriter::message_delta({}, {}));
        event(id, EventWriter::message_stop());
        answerer->end(id, {});
    }
};

struct Bench {
    explicit Bench(const std::string& policy = kPolicy, filter::FilterOptions options = {})
        : key(stamp::Key::from_bytes({1, 2, 3})),
          filter(
              judge_of(policy), key, options, [] {},
              [this](const filter::Notice& n) { notices.push_back(n); }) {
        pipe::AnswererOptions below;
        below.link.endpoint = "inproc://router";
        below.link.bind = true;
        below.link.hello.name = "router";
        answerer = std::move(*pipe::Answerer::open(context, below, router));
        router.answerer = answerer.get();
        pipe::AskerOptions down;
        down.link.endpoint = "inproc://router";
        down.link.hello.name = "filter";
        to_router = std::move(*pipe::Asker::open(context, down, filter.router_side()));
        pipe::AnswererOptions up;
        up.link.endpoint = "inproc://filter";
        up.link.bind = true;
        up.link.hello.name = "filter";
        askers = std::move(*pipe::Answerer::open(context, up, filter.asker_side()));
        pipe::AskerOptions chat;
        chat.link.endpoint = "inproc://filter";
        chat.link.hello.name = "chatd";
        asker = std::move(*pipe::Asker::open(context, chat, front));
        filter.connect(*askers, *to_router);
        for (pipe::Link* link :
             {&answerer->link(), &to_router->link(), &askers->link(), &asker->link()})
            loop.add(*link);
        loop.every(5, [this] { filter.tick(); });
        REQUIRE(until([&] { return asker->up() && to_router->up(); }));
    }
    template <class F>
    bool until(F&& done, int64_t ms = 5000) {
        const int64_t end = base::system_clock().mono_ms() + ms;
        while (!done()) {
            if (base::system_clock().mono_ms() > end) return false;
            loop.run_once(2);
            filter.work();
        }
        return true;
    }
    void settle(int64_t ms = 60) {
        until([] { return false; }, ms);
    }
    void ask(const std::string& id, const std::string& text, uint32_t credit = 64,
             uint32_t attempt = 1) {
        pipe::Envelope envelope;
        envelope.attempt = attempt;
        envelope.credit = credit;
        REQUIRE(asker->ask(id, envelope, body_of(text)));
    }
    // Every stamp of an answer is the next link of the chain.
    void check_stamps(const std::string& id, uint32_t attempt = 1) {
        stamp::Chain chain(key, id, attempt);
        for (const auto& [meta, body] : front.got[id].events)
            REQUIRE(chain.check(meta.seq, meta.policy, body, meta.stamp));
    }

    stamp::Key key;
    pipe::Context context;
    pipe::Loop loop;
    Front front;
    Router router;
    std::vector<filter::Notice> notices;
    filter::Filter filter;
    std::unique_ptr<pipe::Answerer> answerer, askers;
    std::unique_ptr<pipe::Asker> to_router, asker;
};

}  // namespace

TEST_CASE("an allowed request passes, its answer comes back whole, stamped and in order",
          "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    CHECK(b.router.asks[0].body == body_of("hello"));
    b.router.start("r1");
    for (int i = 0; i < 20; ++i) b.router.event("r1", EventWriter::text_delta(0, "word "), 1);
    b.settle();
    CHECK(b.front.got["r1"].text().size() == 16 * 5);  // four tokens behind
    b.router.finish("r1");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].ends[0].ok());
    CHECK(b.front.got["r1"].text().size() == 20 * 5);
    CHECK(b.front.got["r1"].events.size() == 25);
    b.check_stamps("r1");
    CHECK(b.filter.idle());
}

TEST_CASE("a blocked request is refused and the router never hears of it", "[filter]") {
    Bench b;
    b.ask("r1", "tell me of zorblax");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].ends[0].ok());
    CHECK(b.front.got["r1"].types() == "message_start message_delta message_stop ");
    CHECK(b.front.got["r1"].stop() == "refusal");
    b.check_stamps("r1");
    b.settle();
    CHECK(b.router.asks.empty());
}

TEST_CASE("a blocked answer ends with refusal, without a byte of what was blocked", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    for (const char* text :
         {"one ", "two ", "three ", "four ", "five ", "six ", "zo", "rb", "l", "ax", " seven "})
        b.router.event("r1", EventWriter::text_delta(0, text), 1);
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    const auto& got = b.front.got["r1"];
    CHECK(got.ends[0].ok());
    CHECK(got.ends[0].reason == "refused_output");
    CHECK(got.stop() == "refusal");
    CHECK(got.text().find('z') == std::string::npos);
    CHECK(std::string("one two three four five six ").rfind(got.text(), 0) == 0);
    messages::EventOrder order;
    for (const auto& [meta, body] : got.events) REQUIRE(order.next(*messages::parse_event(body)));
    CHECK(order.finished());
    b.check_stamps("r1");
    REQUIRE(b.until([&] { return b.router.cancelled.size() == 1; }));
    b.settle();
    CHECK(got.ends.size() == 1);
}

TEST_CASE("the input of a call is judged by what it says, and its block is closed by the refusal", "[filter]") {
    for (const bool escaped : {false, true}) {
        Bench b;
        b.ask("r1", "hello");
        REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
        b.router.event("r1", EventWriter::message_start("msg_1", "m", {}));
        b.router.event("r1", EventWriter::tool_block_start(0, "toolu_1", "f"));
        b.router.event("r1", EventWriter::input_delta(0, "{\"one two three four five six seven"), 8);
        for (const char* text : {" eight \": \"", "zo", escaped ? "\\u00" : "r", escaped ? "72b" : "b", "lax", "\"}"})
            b.router.event("r1", EventWriter::input_delta(0, text), 1);
        REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
        const auto& got = b.front.got["r1"];
        CHECK(got.ends[0].reason == "refused_output");
        CHECK(got.stop() == "refusal");
        CHECK(got.text().find('z') == std::string::npos);
        messages::EventOrder order;
        for (const auto& [meta, body] : got.events)
            REQUIRE(order.next(*messages::parse_event(body)));
        CHECK(order.finished());
        CHECK(order.next_index() == 1);
        b.check_stamps("r1");
    }
}

TEST_CASE("a call that nothing is wrong with passes as it came", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.router.event("r1", EventWriter::text_delta(0, "Well. "), 1);
    b.router.event("r1", EventWriter::block_stop(0));
    b.router.event("r1", EventWriter::tool_block_start(1, "toolu_1", "f"));
    b.router.event("r1", EventWriter::input_delta(1, "{\"x\": \"\\u00e9\"}"), 4);
    b.router.event("r1", EventWriter::block_stop(1));
    b.router.event("r1", EventWriter::message_delta({messages::StopReason::tool_use, std::nullopt, ""}, {}));
    b.router.event("r1", EventWriter::message_stop());
    b.router.answerer->end("r1", {});
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    messages::Folder folder;
    for (const auto& [meta, body] : b.front.got["r1"].events)
        REQUIRE(folder.add(*messages::parse_event(body)));
    CHECK(folder.content_json() ==
          "[{\"type\":\"text\",\"text\":\"Well. \"},{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\","
          "\"input\":{\"x\":\"\xC3\xA9\"}}]");
    CHECK(folder.stop()->reason == messages::StopReason::tool_use);
    b.check_stamps("r1");
}

TEST_CASE("a slow reader holds its own answer and loses nothing", "[filter]") {
    filter::FilterOptions options;
    options.outbox_events_max = 16;
    options.upstream_credit = 32;
    Bench b(kPolicy, options);
    b.ask("r1", "hello", 3);
    b.ask("r2", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 2; }));
    b.router.start("r1");
    size_t sent = 0;
    for (int i = 0; i < 200; ++i) {
        if (b.answerer->credit("r1") == 0) {
            b.settle(20);
            if (b.answerer->credit("r1") == 0) break;
        }
        b.router.event("r1", EventWriter::text_delta(0, "word "), 1);
        ++sent;
    }
    CHECK(sent < 100);  // upstream was made to wait
    CHECK(b.front.got["r1"].events.size() == 3);
    b.router.start("r2");
    b.router.event("r2", EventWriter::text_delta(0, "quick"), 1);
    b.router.finish("r2");
    REQUIRE(
        b.until([&] { return b.front.got["r2"].ends.size() == 1; }));  // the other is not held up
    b.asker->grant("r1", 1000);
    REQUIRE(b.until([&] { return b.answerer->credit("r1") >= 3; }));
    b.router.finish("r1");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].text().size() == sent * 5);
    b.check_stamps("r1");
}

TEST_CASE("no verdict in time is an error that may be retried, never an answer", "[filter]") {
    Bench b(std::string(kPolicy) + "[budget]\nfirst_ms = 0\nmore_ms = 0\nmost_ms = 0\n");
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    const auto& end = b.front.got["r1"].ends[0];
    CHECK(end.status == "overloaded_error");
    CHECK(end.reason == "filter_late");
    CHECK(end.retryable);
    CHECK(b.front.got["r1"].events.empty());
    CHECK(b.router.asks.empty());
    CHECK(b.filter.judging() == 0);
}

TEST_CASE("a body that is no request is refused with the reason", "[filter]") {
    Bench b;
    pipe::Envelope envelope;
    REQUIRE(b.asker->ask("r1", envelope, "{\"model\":\"m\"}"));
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].ends[0].status == "invalid_request_error");
    CHECK_FALSE(b.front.got["r1"].ends[0].retryable);
}

TEST_CASE("a broken answer from below ends the attempt and lets nothing of it out", "[filter]") {
    for (const char* broken :
         {"not json",
          "{\"type\":\"content_block_delta\",\"index\":5,\"delta\":{\"type\":\"text_delta\","
          "\"text\":\"x\"}}",
          "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"m\"}}"}) {
        INFO(broken);
        Bench b;
        b.ask("r1", "hello");
        REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
        b.router.start("r1");
        b.router.event("r1", EventWriter::text_delta(0, "held "), 1);
        b.router.event("r1", broken, 1);
        REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
        CHECK(b.front.got["r1"].ends[0].status == "api_error");
        CHECK(b.front.got["r1"].ends[0].reason == "malformed");
        CHECK(b.front.got["r1"].ends[0].retryable);
        CHECK(b.front.got["r1"].text().empty());
    }
}

TEST_CASE("an END before message_stop does not pass for a whole answer", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.router.event("r1", EventWriter::text_delta(0, "half an ans"), 1);
    b.answerer->end("r1", {});
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].ends[0].status == "api_error");
    CHECK(b.front.got["r1"].ends[0].retryable);
}

TEST_CASE("a router that dies ends the hop, and held text stays held", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.router.event("r1", EventWriter::text_delta(0, "one "), 1);
    b.settle();
    pipe::EndMeta error;
    error.status = "api_error";
    error.retryable = true;
    error.reason = "peer_gone";
    b.answerer->end("r1", error);
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].ends[0].reason == "peer_gone");
    CHECK(b.front.got["r1"].ends[0].retryable);
    CHECK(b.front.got["r1"].text().empty());
}

TEST_CASE("a cancel goes down, and one END with the usage comes up", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.settle();
    b.asker->cancel("r1", "client_gone");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.router.cancelled == std::vector<std::string>{"r1"});
    CHECK(b.front.got["r1"].ends[0].status == "cancelled");
    REQUIRE(b.front.got["r1"].ends[0].usage);
    CHECK(b.front.got["r1"].ends[0].usage->output_tokens == 3);
    b.settle();
    CHECK(b.front.got["r1"].ends.size() == 1);
    CHECK(b.filter.idle());
}

TEST_CASE("a higher attempt takes over and is stamped from zero", "[filter]") {
    Bench b;
    b.ask("r1", "hello");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.settle();
    b.front.got.clear();
    b.ask("r1", "hello", 64, 2);
    REQUIRE(b.until([&] { return b.router.asks.size() == 2; }));
    CHECK(b.router.asks[1].envelope.attempt == 2);
    b.front.got.clear();
    b.router.start("r1");
    b.router.event("r1", EventWriter::text_delta(0, "again"), 1);
    b.router.finish("r1");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].text() == "again");
    b.check_stamps("r1", 2);
}

TEST_CASE("a continuation is judged with the text that the reader has", "[filter]") {
    Bench b;
    pipe::Envelope envelope;
    envelope.attempt = 2;
    envelope.continuation = pipe::Continuation{{1, 2, 3}, 0, 9, "one zorb"};
    envelope.continuation->released = 8;
    REQUIRE(b.asker->ask("r1", envelope, body_of("hello")));
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    REQUIRE(b.router.asks[0].envelope.continuation);
    b.router.event("r1", EventWriter::text_delta(0, "lax and more "), 3);
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].types() == "content_block_stop message_delta message_stop ");
    CHECK(b.front.got["r1"].stop() == "refusal");
    b.check_stamps("r1", 2);
}

TEST_CASE("a new policy holds for the requests after it", "[filter]") {
    Bench b;
    b.filter.set_judge(
        judge_of("version = \"u\"\n[thresholds.user]\nunsafe = { flag = 2.0, block = 2.0 }\n"));
    b.ask("r1", "zorblax");
    REQUIRE(b.until([&] { return b.router.asks.size() == 1; }));
    b.router.start("r1");
    b.router.finish("r1");
    REQUIRE(b.until([&] { return b.front.got["r1"].ends.size() == 1; }));
    CHECK(b.front.got["r1"].events[0].first.policy.rfind("u@", 0) == 0);
    b.check_stamps("r1");
}
