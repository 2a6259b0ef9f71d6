// Real sockets: what can go wrong between two processes, tried in one.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>
#include <zmq.hpp>

#include "pipe/answerer.hpp"
#include "pipe/asker.hpp"
#include "pipe/loop.hpp"

using namespace parley::pipe;
using parley::base::Errc;

namespace {

std::string scratch_endpoint() {
    char folder[] = "/tmp/parley-pipe-XXXXXX";
    return std::string("ipc://") + ::mkdtemp(folder) + "/s.sock";
}

struct Log final : AskerHandler {
    std::map<std::string, std::vector<std::string>> events;
    std::map<std::string, std::vector<EndMeta>> ends;
    int ups = 0, downs = 0;
    std::string why;
    std::vector<StatusMeta> statuses;
    void on_event(const std::string& id, const EventMeta&, std::string body) override {
        events[id].push_back(std::move(body));
    }
    void on_end(const std::string& id, const EndMeta& meta) override { ends[id].push_back(meta); }
    void on_peer_up(Peer, const HelloMeta&) override { ++ups; }
    void on_peer_down(Peer, const std::string& reason) override {
        ++downs;
        why = reason;
    }
    void on_peer_status(Peer, const StatusMeta& meta) override { statuses.push_back(meta); }
};

struct Echo final : AnswererHandler {
    Answerer* answerer = nullptr;
    std::vector<Ask> asks;
    std::vector<std::pair<std::string, Cancel>> cancels;
    int downs = 0;
    void on_ask(Ask ask) override { asks.push_back(std::move(ask)); }
    void on_cancel(const std::string& id, uint32_t, Cancel why) override {
        cancels.emplace_back(id, why);
    }
    void on_peer_down(Peer, const std::string&) override { ++downs; }
};

// An asker and an answerer over one real socket, on one loop.
struct Pair {
    Context context;
    std::string endpoint = scratch_endpoint();
    Log log;
    Echo echo;
    std::unique_ptr<Answerer> answerer;
    std::unique_ptr<Asker> asker;

    Pair(uint32_t requests_max = 100, std::function<void(LinkOptions&)> tune = {}) {
        listen(requests_max, tune);
        dial(tune);
        REQUIRE(until([&] { return log.ups == 1; }));
    }
    void listen(uint32_t requests_max = 100, std::function<void(LinkOptions&)> tune = {}) {
        AnswererOptions options;
        options.link.endpoint = endpoint;
        options.link.bind = true;
        options.link.hello.name = "answerer";
        options.requests_max = requests_max;
        if (tune) tune(options.link);
        auto opened = Answerer::open(context, options, echo);
        REQUIRE(opened.has_value());
        answerer = std::move(*opened);
        echo.answerer = answerer.get();
    }
    void dial(std::function<void(LinkOptions&)> tune = {}) {
        AskerOptions options;
        options.link.endpoint = endpoint;
        options.link.hello.name = "asker";
        if (tune) tune(options.link);
        auto opened = Asker::open(context, options, log);
        REQUIRE(opened.has_value());
        asker = std::move(*opened);
    }
    template <class Done>
    bool until(Done done, int64_t limit_ms = 3000) {
        const int64_t start = parley::base::system_clock().mono_ms();
        while (parley::base::system_clock().mono_ms() - start < limit_ms) {
            bool more = false;
            if (answerer) more |= answerer->link().step();
            if (asker) {
                more |= asker->link().step();
                asker->tick();
            }
            if (done()) return true;
            if (!more) ::usleep(500);
        }
        return done();
    }
    void ask(const std::string& id, uint32_t attempt = 1, uint32_t credit = 64) {
        Envelope envelope;
        envelope.attempt = attempt;
        envelope.credit = credit;
        REQUIRE(asker->ask(id, envelope, "{}").has_value());
    }
    void end_ok(const std::string& id) { answerer->end(id, EndMeta{}); }
};

// A peer that speaks frames by hand.
struct Raw {
    zmq::context_t context;
    zmq::socket_t socket{context, zmq::socket_type::dealer};
    explicit Raw(const std::string& endpoint, const std::string& routing = "raw") {
        socket.set(zmq::sockopt::linger, 0);
        socket.set(zmq::sockopt::routing_id, routing);
        socket.connect(endpoint);
    }
    void say(const std::vector<std::string>& frames) {
        for (size_t i = 0; i < frames.size(); ++i)
            socket.send(zmq::buffer(frames[i]),
                        i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
    void hello() {
        say({"parley/1", "HELLO", "", R"({"role":"asker","name":"raw","boot":"B1"})", ""});
    }
    // The next message that is not STATUS.
    std::vector<std::string> hear(Pair& pair, int64_t limit_ms = 2000) {
        std::vector<std::string> frames;
        pair.until(
            [&] {
                while (true) {
                    frames.clear();
                    zmq::message_t frame;
                    if (!socket.recv(frame, zmq::recv_flags::dontwait)) return false;
                    frames.push_back(frame.to_string());
                    while (frame.more()) {
                        (void)socket.recv(frame);
                        frames.push_back(frame.to_string());
                    }
                    if (frames.size() > 1 && frames[1] == "STATUS") continue;
                    return true;
                }
            },
            limit_ms);
        return frames;
    }
};

}  // namespace

TEST_CASE("events arrive numbered and in order, then exactly one END", "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    for (int i = 0; i < 10; ++i)
        REQUIRE(*pair.answerer->event("a", {}, std::to_string(i)) == static_cast<uint64_t>(i));
    pair.end_ok("a");
    pair.end_ok("a");  // a second one goes nowhere
    REQUIRE(pair.until([&] { return !pair.log.ends["a"].empty(); }));
    REQUIRE(pair.log.events["a"].size() == 10);
    REQUIRE(pair.log.ends["a"][0].seq == 10);
    pair.until([] { return false; }, 100);
    REQUIRE(pair.log.ends["a"].size() == 1);
    REQUIRE(pair.answerer->event("a", {}, "x").error().code == Errc::not_found);
}

TEST_CASE("without credit nothing is sent and no other stream is held", "[pipe]") {
    Pair pair;
    pair.ask("slow", 1, 2);
    pair.ask("fast", 1, 64);
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 2; }));
    REQUIRE(pair.answerer->event("slow", {}, "1").has_value());
    REQUIRE(pair.answerer->event("slow", {}, "2").has_value());
    REQUIRE(pair.answerer->event("slow", {}, "3").error().code == Errc::again);
    for (int i = 0; i < 50; ++i) REQUIRE(pair.answerer->event("fast", {}, "x").has_value());
    pair.asker->grant("slow", 3);
    REQUIRE(pair.until([&] { return pair.answerer->credit("slow") == 3; }));
    REQUIRE(*pair.answerer->event("slow", {}, "3") == 2);
    REQUIRE(pair.until([&] {
        return pair.log.events["slow"].size() == 3 && pair.log.events["fast"].size() == 50;
    }));
}

TEST_CASE("a dead answerer ends every request once, retryable, within a second or so", "[pipe]") {
    Pair pair;
    pair.ask("a");
    pair.ask("b");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 2; }));
    REQUIRE(pair.answerer->event("a", {}, "x").has_value());
    REQUIRE(pair.until([&] { return pair.log.events["a"].size() == 1; }));
    pair.answerer.reset();
    const int64_t start = parley::base::system_clock().mono_ms();
    REQUIRE(pair.until([&] { return pair.log.ends.size() == 2; }));
    REQUIRE(parley::base::system_clock().mono_ms() - start < 1500);
    for (const char* id : {"a", "b"}) {
        REQUIRE(pair.log.ends[id].size() == 1);
        REQUIRE(pair.log.ends[id][0].status == "api_error");
        REQUIRE(pair.log.ends[id][0].retryable);
        REQUIRE(pair.log.ends[id][0].reason == "peer_gone");
    }
    REQUIRE(pair.asker->ask("c", {}, "{}").error().code == Errc::unavailable);
    SECTION("and a new one at the same place is found again") {
        pair.listen();
        REQUIRE(pair.until([&] { return pair.log.ups == 2; }));
        pair.ask("a", 2);
        REQUIRE(pair.until([&] { return pair.echo.asks.size() == 3; }));
        pair.end_ok("a");
        REQUIRE(pair.until([&] { return pair.log.ends["a"].size() == 2; }));
    }
}

TEST_CASE("an answerer that hangs with its connection open is given up after the timeout",
          "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    const int64_t start = parley::base::system_clock().mono_ms();
    while (pair.log.ends.empty() && parley::base::system_clock().mono_ms() - start < 4000) {
        pair.asker->link().step();  // the answerer's loop stands still
        ::usleep(1000);
    }
    REQUIRE(pair.log.ends["a"].size() == 1);
    REQUIRE(pair.log.why.find("no STATUS") != std::string::npos);
    // It wakes up: its events of the old attempt are dropped, and its requests are cancelled there.
    (void)pair.answerer->event("a", {}, "late");
    REQUIRE(pair.until([&] { return !pair.echo.cancels.empty() && pair.log.ups == 2; }, 5000));
    REQUIRE(pair.echo.cancels[0].second == Cancel::gone);
    REQUIRE(pair.log.events["a"].empty());
    REQUIRE(pair.log.ends["a"].size() == 1);
}

TEST_CASE("an asker whose own loop was late reads before it judges", "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    const int64_t start = parley::base::system_clock().mono_ms();
    while (parley::base::system_clock().mono_ms() - start < 1600) {
        pair.answerer->link().step();  // only the asker sleeps
        ::usleep(1000);
    }
    pair.until([] { return false; }, 300);
    REQUIRE(pair.log.downs == 0);
    REQUIRE(pair.log.ends.empty());
}

TEST_CASE("an asker that is gone cancels its requests at the answerer", "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    pair.asker.reset();
    REQUIRE(pair.until([&] { return !pair.echo.cancels.empty(); }));
    REQUIRE(pair.echo.cancels[0].second == Cancel::gone);
    REQUIRE(pair.answerer->live() == 0);
}

TEST_CASE("CANCEL reaches the answerer; a late or repeated one changes nothing", "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    pair.asker->cancel("a", "client_gone");
    pair.asker->cancel("a", "client_gone");
    REQUIRE(pair.until([&] { return pair.echo.cancels.size() == 1; }));
    EndMeta cancelled;
    cancelled.status = "cancelled";
    pair.answerer->end("a", cancelled);
    REQUIRE(pair.until([&] { return pair.log.ends["a"].size() == 1; }));
    REQUIRE(pair.log.ends["a"][0].status == "cancelled");
    pair.asker->cancel("a", "late");
    pair.until([] { return false; }, 100);
    REQUIRE(pair.echo.cancels.size() == 1);
    REQUIRE(pair.log.ends["a"].size() == 1);
}

TEST_CASE("a cancelled request whose answerer never ends it is ended by the asker", "[pipe]") {
    Pair pair;
    pair.ask("a");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    pair.asker->cancel("a", "x");
    REQUIRE(pair.until([&] { return pair.log.ends["a"].size() == 1; }, 4000));
    REQUIRE(pair.log.ends["a"][0].reason == "cancel_timeout");
}

TEST_CASE("a higher attempt replaces the lower one, and the lower one's events are dropped",
          "[pipe]") {
    Pair pair;
    pair.ask("a", 1);
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    pair.ask("a", 2);
    REQUIRE(pair.log.ends["a"].size() == 1);  // attempt 1, at once
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 2; }));
    REQUIRE(pair.answerer->event("a", {}, "new").has_value());
    pair.end_ok("a");
    REQUIRE(pair.until([&] { return pair.log.ends["a"].size() == 2; }));
    REQUIRE(pair.log.ends["a"][1].attempt == 2);
    REQUIRE(pair.log.events["a"] == std::vector<std::string>{"new"});
    Envelope lower;
    lower.attempt = 2;
    pair.ask("b", 2);
    REQUIRE(pair.asker->ask("b", lower, "{}").error().code == Errc::conflict);
}

TEST_CASE("the same pair asked twice ends with one error, running or ended", "[pipe]") {
    Pair pair;
    Raw raw(pair.endpoint);
    raw.hello();
    REQUIRE(raw.hear(pair)[1] == "HELLO");
    raw.say({"parley/1", "ASK", "dup", R"({"attempt":1})", "{}"});
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    raw.say({"parley/1", "ASK", "dup", R"({"attempt":1})", "{}"});
    auto end = raw.hear(pair);
    REQUIRE(end.at(1) == "END");
    REQUIRE(parse_end_meta(end.at(3))->status == "invalid_request_error");
    REQUIRE(pair.echo.cancels.size() == 1);
    pair.end_ok("dup");
    REQUIRE(raw.hear(pair, 150).empty());
    raw.say({"parley/1", "ASK", "dup", R"({"attempt":1})", "{}"});
    REQUIRE(parse_end_meta(raw.hear(pair).at(3))->reason == "asked_twice");
    REQUIRE(pair.echo.asks.size() == 1);
}

TEST_CASE("another version, another shape, or no HELLO is told so and ignored", "[pipe]") {
    Pair pair;
    Raw raw(pair.endpoint);
    raw.say({"parley/2", "HELLO", "", "{}", ""});
    auto bye = raw.hear(pair);
    REQUIRE(bye.at(1) == "BYE");
    REQUIRE(parse_bye_meta(bye.at(3))->reason == "version");
    raw.say({"parley/1", "ASK"});
    REQUIRE(parse_bye_meta(raw.hear(pair).at(3))->reason == "malformed");
    raw.say({"parley/1", "ASK", "a", "{}", "{}"});
    REQUIRE(parse_bye_meta(raw.hear(pair).at(3))->reason == "hello");
    raw.say({"parley/1", "HELLO", "", R"({"role":"answerer","boot":"x"})", ""});
    REQUIRE(parse_bye_meta(raw.hear(pair).at(3))->reason == "role");
    REQUIRE(pair.echo.asks.empty());
}

TEST_CASE("a malformed envelope ends the request, not the connection", "[pipe]") {
    Pair pair;
    Raw raw(pair.endpoint);
    raw.hello();
    REQUIRE(raw.hear(pair)[1] == "HELLO");
    raw.say({"parley/1", "ASK", "a", R"({"attempt":"one"})", "{}"});
    const auto end = raw.hear(pair);
    REQUIRE(end.at(1) == "END");
    REQUIRE(parse_end_meta(end.at(3))->message.find("attempt") != std::string::npos);
    raw.say({"parley/1", "ASK", "b", "{}", "{}"});
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
}

TEST_CASE("a frame over the bound costs the sender its connection and nobody else", "[pipe]") {
    Pair pair(100, [](LinkOptions& options) { options.message_bytes_max = 1 << 20; });
    {
        Raw raw(pair.endpoint);
        raw.hello();
        REQUIRE(raw.hear(pair)[1] == "HELLO");
        raw.say({"parley/1", "ASK", "big", "{}", std::string(2 << 20, 'x')});
        REQUIRE(pair.until([&] { return pair.echo.downs == 1; }));
    }
    REQUIRE(pair.echo.asks.empty());
    pair.ask("small");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
}

TEST_CASE("a flood of requests is refused beyond the bound, each with its END", "[pipe]") {
    Pair pair(10);
    for (int i = 0; i < 2000; ++i) pair.ask("r" + std::to_string(i));
    REQUIRE(pair.until([&] { return pair.log.ends.size() == 1990; }, 10'000));
    REQUIRE(pair.echo.asks.size() == 10);
    for (const auto& [id, ends] : pair.log.ends) {
        REQUIRE(ends.size() == 1);
        REQUIRE(ends[0].status == "overloaded_error");
        REQUIRE(ends[0].reason == "queue_full");
    }
}

TEST_CASE("20,000 events to a reader that sleeps are all there when it wakes", "[pipe]") {
    // Without ROUTER_MANDATORY and an outbox, all beyond the high-water mark would be dropped in
    // silence.
    Pair pair(100, [](LinkOptions& options) {
        options.hwm = 50;
        options.peer_timeout_ms = 20'000;
    });
    pair.ask("a", 1, 50'000);
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    for (int i = 0; i < 20'000; ++i)
        REQUIRE(pair.answerer->event("a", {}, std::to_string(i)).has_value());
    pair.end_ok("a");
    REQUIRE(pair.until([&] { return !pair.log.ends["a"].empty(); }, 20'000));
    REQUIRE(pair.log.events["a"].size() == 20'000);
    REQUIRE(pair.log.events["a"].back() == "19999");
    REQUIRE(pair.log.ends["a"][0].ok());
}

TEST_CASE("a reader that never reads is given up when its queue is full, others go on", "[pipe]") {
    Pair pair(100, [](LinkOptions& options) {
        options.hwm = 10;
        options.outbox_messages_max = 1000;
    });
    Raw raw(pair.endpoint);
    raw.socket.set(zmq::sockopt::rcvhwm, 10);
    raw.hello();
    REQUIRE(raw.hear(pair)[1] == "HELLO");
    raw.say({"parley/1", "ASK", "stuck", R"({"credit":1000000})", "{}"});
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    const std::string big(4096, 'x');
    bool refused = false;
    for (int i = 0; i < 50'000 && !refused; ++i)
        refused = !pair.answerer->event("stuck", {}, big).has_value();
    REQUIRE(refused);
    REQUIRE(pair.until([&] { return pair.echo.downs == 1; }));
    pair.ask("other");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 2; }));
    REQUIRE(pair.answerer->event("other", {}, "fine").has_value());
    REQUIRE(pair.until([&] { return pair.log.events["other"].size() == 1; }));
}

// With ZMQ_IMMEDIATE libzmq takes the pipe away in the midst of a message when the connection breaks
// while a backlog is being read, and then aborts (fq.cpp: !_more).
TEST_CASE("a connection that breaks under a backlog costs the peer, never the process", "[pipe]") {
    const std::string status = R"({"running":0,"longest_ms":1})";
    for (int round = 0; round < 30; ++round) {
        Pair pair(100, [](LinkOptions& o) { o.peer_timeout_ms = 20'000; });
        pair.asker.reset();
        pair.answerer.reset();
        pair.log = {};
        zmq::context_t context;
        auto server = std::make_unique<zmq::socket_t>(context, zmq::socket_type::router);
        server->set(zmq::sockopt::linger, 0);
        server->set(zmq::sockopt::sndhwm, 0);
        server->bind(pair.endpoint);
        pair.dial([](LinkOptions& o) { o.peer_timeout_ms = 20'000; });
        std::string routing;
        const auto say = [&](const char* verb, const std::string& meta) {
            for (const std::string& frame :
                 {routing, std::string("parley/1"), std::string(verb), std::string(), meta})
                server->send(zmq::buffer(frame), zmq::send_flags::sndmore);
            server->send(zmq::buffer(std::string()), zmq::send_flags::none);
        };
        REQUIRE(pair.until([&] {
            zmq::message_t frame;
            if (!server->recv(frame, zmq::recv_flags::dontwait)) return false;
            routing = frame.to_string();
            while (frame.more()) (void)server->recv(frame);
            return true;
        }));
        say("HELLO", R"({"role":"answerer","name":"s","boot":"B1"})");
        REQUIRE(pair.until([&] { return pair.log.ups == 1; }));
        for (int i = 0; i < 7000; ++i) say("STATUS", status);  // fewer than the bound of the queue
        ::usleep(60'000);                                      // so that all of it arrives
        // Takes notice of it, so that libzmq's hundredth recv falls into the midst of a message.
        REQUIRE(pair.asker->link().readable());
        std::thread closing([&server, round] {
            ::usleep(200 * static_cast<useconds_t>(round));  // while the other side reads
            server.reset();
        });
        const bool down = pair.until([&] { return pair.log.downs == 1; });
        closing.join();
        REQUIRE(down);
    }
}

TEST_CASE("a gap in the numbers breaks the attempt off, retryable", "[pipe]") {
    // The answering side by hand: a ROUTER that skips a number.
    Context context;
    zmq::context_t zmq;
    zmq::socket_t router(zmq, zmq::socket_type::router);
    const std::string endpoint = scratch_endpoint();
    router.set(zmq::sockopt::linger, 0);
    router.bind(endpoint);
    Log log;
    AskerOptions options;
    options.link.endpoint = endpoint;
    options.link.hello.name = "asker";
    auto asker = std::move(*Asker::open(context, options, log));
    std::string routing;
    bool asked = false;
    const auto say = [&](std::vector<std::string> frames) {
        frames.insert(frames.begin(), {routing, "parley/1"});
        for (size_t i = 0; i < frames.size(); ++i)
            router.send(zmq::buffer(frames[i]),
                        i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    };
    for (int i = 0; i < 3000 && log.ends.empty(); ++i) {
        asker->link().step();
        zmq::message_t frame;
        std::vector<std::string> frames;
        while (router.recv(frame, zmq::recv_flags::dontwait)) {
            frames.push_back(frame.to_string());
            while (frame.more()) {
                (void)router.recv(frame);
                frames.push_back(frame.to_string());
            }
            routing = frames[0];
            if (frames[2] == "HELLO")
                say({"HELLO", "", R"({"role":"answerer","name":"x","boot":"B"})", ""});
            if (frames[2] == "ASK") {
                say({"EVENT", "a", R"({"attempt":1,"seq":0})", "{}"});
                say({"EVENT", "a", R"({"attempt":1,"seq":2})", "{}"});
                say({"END", "a", R"({"attempt":1,"seq":3})", ""});
            }
            frames.clear();
        }
        if (log.ups == 1 && !asked) {
            asked = true;
            REQUIRE(asker->ask("a", {}, "{}").has_value());
        }
        ::usleep(1000);
    }
    REQUIRE(log.events["a"].size() == 1);
    REQUIRE(log.ends["a"].size() == 1);
    REQUIRE(log.ends["a"][0].reason == "gap");
    REQUIRE(log.ends["a"][0].retryable);
}

TEST_CASE("draining says BYE, refuses what is new and finishes what runs", "[pipe]") {
    Pair pair;
    pair.ask("old");
    REQUIRE(pair.until([&] { return pair.echo.asks.size() == 1; }));
    pair.answerer->drain();
    pair.ask("new");
    REQUIRE(pair.until([&] { return pair.log.ends.count("new") == 1; }));
    REQUIRE(pair.log.ends["new"][0].reason == "draining");
    REQUIRE(pair.log.ends["new"][0].retryable);
    REQUIRE(pair.answerer->event("old", {}, "still here").has_value());
    pair.end_ok("old");
    REQUIRE(pair.until([&] { return pair.log.ends.count("old") == 1; }));
    REQUIRE(pair.log.ends["old"][0].ok());
}

TEST_CASE("STATUS comes from the working loop several times a second, with its numbers", "[pipe]") {
    Pair pair;
    pair.answerer->set_status([] {
        StatusMeta meta;
        meta.running = 3;
        meta.charges = {{"org", 0.25}};
        return meta;
    });
    pair.until([] { return false; }, 1000);
    REQUIRE(pair.log.statuses.size() >= 5);
    REQUIRE(pair.log.statuses.back().running == 3);
    REQUIRE(pair.log.statuses.back().charges[0].cost_s == 0.25);
}

TEST_CASE("a live endpoint cannot be stolen, a dead one can be taken over", "[pipe]") {
    Pair pair;
    Echo other;
    AnswererOptions options;
    options.link.endpoint = pair.endpoint;
    options.link.bind = true;
    options.link.hello.name = "thief";
    const auto second = Answerer::open(pair.context, options, other);
    REQUIRE_FALSE(second.has_value());
    REQUIRE(second.error().code == Errc::conflict);
    pair.answerer.reset();
    REQUIRE(Answerer::open(pair.context, options, other).has_value());
}

TEST_CASE("an endpoint that is unsafe or impossible is refused before anything is bound",
          "[pipe]") {
    Context context;
    Echo echo;
    const auto attempt = [&](const std::string& endpoint) {
        AnswererOptions options;
        options.link.endpoint = endpoint;
        options.link.bind = true;
        options.link.hello.name = "x";
        auto opened = Answerer::open(context, options, echo);
        return opened ? Errc::internal : opened.error().code;
    };
    REQUIRE(attempt("tcp://0.0.0.0:5555") == Errc::config);
    REQUIRE(attempt("tcp://*:5555") == Errc::config);
    REQUIRE(attempt("tcp://192.0.2.1:5555") == Errc::config);
    REQUIRE(attempt("ipc:///tmp/" + std::string(120, 'x')) == Errc::config);
    REQUIRE(attempt("carrier-pigeon://coop") == Errc::config);
    char folder[] = "/tmp/parley-pipe-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    ::chmod(folder, 0755);
    REQUIRE(attempt(std::string("ipc://") + folder + "/s.sock") == Errc::config);
}

TEST_CASE("CURVE lets listed keys in and nobody else", "[pipe]") {
    const auto server = make_curve_pair();
    const auto friendly = make_curve_pair();
    const auto stranger = make_curve_pair();
    for (const auto& client : {friendly, stranger}) {
        Context context;
        Echo echo;
        AnswererOptions listen;
        listen.link.endpoint = "tcp://127.0.0.1:*";
        listen.link.bind = true;
        listen.link.hello.name = "server";
        listen.link.curve = {server.secret_key, server.public_key, {}, {friendly.public_key}};
        auto answerer = std::move(*Answerer::open(context, listen, echo));
        Log log;
        AskerOptions dial;
        dial.link.endpoint = answerer->link().endpoint();
        dial.link.hello.name = "client";
        dial.link.curve = {client.secret_key, client.public_key, server.public_key, {}};
        auto asker = std::move(*Asker::open(context, dial, log));
        for (int i = 0; i < 700 && log.ups == 0; ++i) {
            answerer->link().step();
            asker->link().step();
            ::usleep(1000);
        }
        REQUIRE(log.ups == (client.public_key == friendly.public_key ? 1 : 0));
    }
}

TEST_CASE("a loop that waits on the descriptor hangs on no edge", "[pipe]") {
    // Two links on one pipe::Loop, each message answered from inside the handler: every send
    // consumes an edge. 2,000 round trips in a second or so, or one of the 25 ms ticks was needed
    // for each.
    Context context;
    const std::string endpoint = scratch_endpoint();
    struct Server final : AnswererHandler {
        Answerer* answerer = nullptr;
        void on_ask(Ask ask) override { answerer->end(ask.id, EndMeta{}); }
        void on_cancel(const std::string&, uint32_t, Cancel) override {}
    } server;
    AnswererOptions listen;
    listen.link.endpoint = endpoint;
    listen.link.bind = true;
    listen.link.hello.name = "server";
    auto answerer = std::move(*Answerer::open(context, listen, server));
    server.answerer = answerer.get();
    struct Client final : AskerHandler {
        Asker* asker = nullptr;
        Loop* loop = nullptr;
        int count = 0;
        void next() { REQUIRE(asker->ask("r" + std::to_string(count), {}, "{}").has_value()); }
        void on_event(const std::string&, const EventMeta&, std::string) override {}
        void on_end(const std::string&, const EndMeta&) override {
            if (++count == 2000) return loop->stop();
            next();
        }
        void on_peer_up(Peer, const HelloMeta&) override { next(); }
    } client;
    AskerOptions dial;
    dial.link.endpoint = endpoint;
    dial.link.hello.name = "client";
    auto asker = std::move(*Asker::open(context, dial, client));
    Loop loop;
    client.asker = asker.get();
    client.loop = &loop;
    loop.add(answerer->link());
    loop.add(asker->link());
    const int64_t start = parley::base::system_clock().mono_ms();
    while (!loop.stopped() && parley::base::system_clock().mono_ms() - start < 20'000)
        loop.run_once(kTickMs);
    REQUIRE(client.count == 2000);
    REQUIRE(parley::base::system_clock().mono_ms() - start < 10'000);  // by ticks it would be 50 s
}
