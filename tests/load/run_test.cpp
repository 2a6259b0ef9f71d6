#include <simdjson.h>

#include <catch2/catch.hpp>
#include <chrono>

#include "load/report.hpp"
#include "load/runner.hpp"
#include "test_server.hpp"

using namespace parley;
using namespace parley::load;
using Catch::Matchers::Contains;
using test::TestServer;

namespace {

using Clock = std::chrono::steady_clock;

struct Ran {
    RunResult result;
    telemetry::Registry registry;
    Stats stats{registry, Slo{}};
    uint64_t reconnects = 0;
    double seconds = 0;
    std::string json, table;

    explicit Ran(Slo slo = {}) : stats(registry, slo) {}
};

// Runs against `url`; `during` is called each 200 ms, not at the very beginning.
std::unique_ptr<Ran> run(const std::string& url, RunOptions options, HttpOptions http = {},
                         Slo slo = {}, std::function<void(Runner&)> during = {}) {
    auto out = std::make_unique<Ran>(slo);
    auto loop = Loop::make();
    REQUIRE(loop);
    auto prompts = PromptSet::parse("one\ntwo\nthree", {});
    REQUIRE(prompts);
    Runner runner(**loop, options, *prompts, out->stats);
    http.url = url;
    http.slots = options.slots();
    auto transport = make_http_transport(**loop, http, runner.sink());
    REQUIRE(transport);
    REQUIRE((*transport)->probe());
    if (during)
        runner.on_progress([&](const Progress& p) {
            if (p.elapsed_ms >= 150) during(runner);
        });
    const auto begun = Clock::now();
    out->result = runner.run(**transport);
    out->seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    out->reconnects = (*transport)->reconnects();
    const ReportInput report{url,         "test",     prompts->size(), options,
                             out->result, out->stats, out->reconnects};
    out->json = report_json(report);
    out->table = report_table(report);
    return out;
}

RunOptions closed(uint32_t concurrency, uint64_t requests) {
    RunOptions out;
    out.concurrency = concurrency;
    out.requests = requests;
    out.error_pause_ms = 1;
    return out;
}

}  // namespace

TEST_CASE("a closed loop keeps its connections and measures what the server did", "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 5, 30, 10); });
    auto ran = run(server.url(), closed(4, 40), {.api_key = "k-1"});
    CHECK(ran->stats.completions == 40);
    CHECK(ran->stats.failures == 0);
    CHECK(server.requests() == 40);
    CHECK(server.connections() == 4);
    CHECK(ran->stats.output_tokens == 200);
    CHECK(ran->stats.input_tokens == 280);
    CHECK(ran->stats.itl_ns.count() == 160);
    CHECK(ran->stats.ttft_ns.min() >= 30'000'000);
    CHECK(ran->stats.ttft_ns.percentile(0.5) < 200'000'000);
    CHECK(ran->stats.itl_ns.percentile(0.5) >= 9'000'000);
    CHECK(ran->stats.e2el_ns.min() >= 70'000'000);
    CHECK(ran->stats.tpot_ns.percentile(0.5) >= 9'000'000);
    CHECK(ran->stats.stop_reasons["end_turn"] == 40);
    CHECK(ran->stats.http_status[200] == 40);
}

TEST_CASE("the request is a whole Messages API call with the key in its header", "[load]") {
    std::string head, body;
    TestServer server([&](const auto& x) {
        head = x.head;
        body = x.body;
        return test::answer(x, 1);
    });
    run(server.url() + "/base/", closed(1, 1), {.api_key = "secret-7", .timestamps = true});
    CHECK_THAT(head,
               Catch::Matchers::StartsWith("POST /base/v1/messages HTTP/1.1\r\nHost: 127.0.0.1:"));
    CHECK_THAT(head, Contains("\r\nx-api-key: secret-7\r\n"));
    CHECK_THAT(head, Contains("\r\nanthropic-version: 2023-06-01\r\n"));
    CHECK_THAT(head, Contains("\r\nx-parley-timestamps: 1\r\n"));
    CHECK(
        body ==
        R"({"messages":[{"role":"user","content":"one"}],"model":"default","max_tokens":128,"stream":true})");
}

TEST_CASE("every way a server can fail ends the request and is counted by its type", "[load]") {
    using test::kDelta, test::kMessageStart, test::kSseHead;
    struct Case {
        const char* type;
        int status;
        TestServer::Script script;
    };
    const std::string overloaded =
        R"({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}})";
    const std::vector<Case> cases = {
        {"overloaded_error", 529,
         [&](const auto& x) {
             return x.write(
                 fmt::format("HTTP/1.1 529 \r\nContent-Type: application/json\r\nretry-after: 1\r\n"
                             "Content-Length: {}\r\n\r\n{}",
                             overloaded.size(), overloaded));
         }},
        {"http_502", 502,
         [](const auto& x) { return x.write("HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\n<a>"); }},
        {"http_308", 308,
         [](const auto& x) { return x.write("HTTP/1.1 308 Moved\r\nContent-Length: 0\r\n\r\n"); }},
        {"not_sse", 200,
         [](const auto& x) {
             return x.write(
                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                 "2\r\n\r\n{}");
         }},
        {"read_timeout", 0,
         [](const auto& x) {
             x.hang();
             return false;
         }},
        {"read_timeout", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             x.hang();
             return false;
         }},
        {"request_timeout", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             while (!x.stopping && x.chunk(kDelta))
                 std::this_thread::sleep_for(std::chrono::milliseconds(10));
             return false;
         }},
        {"closed_early", 0, [](const auto&) { return false; }},
        {"closed_early", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             return false;
         }},
        {"reset", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             std::this_thread::sleep_for(std::chrono::milliseconds(30));
             const linger now{1, 0};
             ::setsockopt(x.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
             return false;
         }},
        {"bad_http", 0, [](const auto& x) { return x.write("220 smtp.example ready\r\n"); }},
        {"bad_http", 200,
         [](const auto& x) {
             x.write(kSseHead);
             return x.write("zz\r\n");
         }},
        {"ended_early", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             return x.write("0\r\n\r\n");
         }},
        {"bad_stream", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk("event: x\ndata: not json\n\n");
             x.hang();
             return false;
         }},
        {"api_error", 200,
         [](const auto& x) {
             x.write(kSseHead);
             x.chunk(kMessageStart);
             x.chunk(
                 "event: error\ndata: "
                 "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}\n\n");
             return x.write("0\r\n\r\n");
         }},
        {"too_large", 200,
         [](const auto& x) {
             x.write(kSseHead);
             for (int i = 0; i < 40 && x.chunk("data: " + std::string(1000, 'x') + "\n"); ++i) {
             }
             x.hang();
             return false;
         }},
    };
    for (const Case& one : cases) {
        TestServer server(one.script);
        HttpOptions http;
        http.read_timeout_ms = 150;
        http.request_timeout_ms = 400;
        http.event_bytes_max = 20'000;
        auto ran = run(server.url(), closed(2, 4), http);
        CAPTURE(one.type, one.status, ran->table);
        CHECK(ran->stats.failures == 4);
        CHECK(ran->stats.completions == 0);
        REQUIRE(ran->stats.errors.size() == 1);
        CHECK(ran->stats.errors.begin()->first == one.type);
        CHECK(ran->stats.errors.begin()->second.http_status == one.status);
        CHECK(ran->result.reached);
        CHECK(ran->seconds < 5);
    }
}

TEST_CASE("a server that goes away is counted, not waited for", "[load]") {
    auto server = std::make_unique<TestServer>([](const auto& x) { return test::answer(x, 2); });
    const std::string url = server->url();
    RunOptions options = closed(2, 0);
    options.duration_ms = 900;
    options.error_pause_ms = 20;
    auto ran = run(url, options, {}, {}, [&](Runner&) { server.reset(); });
    CHECK(ran->stats.completions > 0);
    CHECK(ran->stats.errors["connect_refused"].count > 0);
    CHECK(ran->stats.failures < 200);  // the pause holds
    CHECK(ran->seconds < 3);

    auto loop = Loop::make();
    Runner unused(**loop, options, *PromptSet::parse("x", {}), ran->stats);
    auto transport = make_http_transport(**loop, {.url = url}, unused.sink());
    REQUIRE(transport);
    auto reached = (*transport)->probe();
    REQUIRE_FALSE(reached);
    CHECK(reached.error().code == base::Errc::unavailable);
    CHECK_THAT(reached.error().what, Contains("refused"));
}

TEST_CASE("a kept-alive connection that the server closed is opened again, once", "[load]") {
    TestServer server(
        [](const auto& x) { return test::answer(x, 1) && x.request < 1; });  // two, then it closes
    auto ran = run(server.url(), closed(1, 20));
    CHECK(ran->stats.completions == 20);
    CHECK(ran->stats.failures == 0);
    CHECK(server.connections() == 10);
}

TEST_CASE("an open loop measures from the intended start: a stalled server cannot hide", "[load]") {
    // One answer at a time takes 40 ms, starts come every 10 ms: the queue grows by 30 ms a request.
    TestServer server([](const auto& x) { return test::answer(x, 1, 40); });
    RunOptions options;
    options.open_loop = true;
    options.arrival = Arrival::constant;
    options.rate_per_s = 100;
    options.inflight_max = 1;
    options.requests = 20;
    auto ran = run(server.url(), options);
    CHECK(ran->stats.completions == 20);
    CHECK(ran->stats.e2el_ns.max() >= (20 * 40 - 190) * 1'000'000LL);
    CHECK(ran->stats.e2el_ns.percentile(0.5) >= 250'000'000);
    CHECK(ran->stats.start_lag_ns.max() >= 500'000'000);
}

TEST_CASE("an open loop starts on schedule while answers are slow, and says what never started",
          "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 1, 300); });
    RunOptions options;
    options.open_loop = true;
    options.rate_per_s = 100;
    options.inflight_max = 500;
    options.duration_ms = 500;
    auto ran = run(server.url(), options);
    CHECK(ran->stats.starts >= 25);  // ~50 starts of a Poisson process
    CHECK(ran->stats.starts <= 90);
    CHECK(ran->stats.completions == ran->stats.starts);
    CHECK(ran->result.unstarted == 0);
    CHECK(ran->stats.start_lag_ns.percentile(0.5) < 50'000'000);

    options.inflight_max = 2;
    auto held = run(server.url(), options);
    CHECK(held->stats.starts <= 6);
    CHECK(held->result.unstarted > 10);
}

TEST_CASE("warm-up requests are sent and not measured", "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 1); });
    RunOptions options = closed(2, 10);
    options.warmup_requests = 5;
    auto ran = run(server.url(), options);
    CHECK(ran->result.warmups == 5);
    CHECK(ran->stats.completions == 10);
    CHECK(ran->stats.e2el_ns.count() == 10);
    CHECK(server.requests() == 15);

    options.warmup_requests = 0;
    options.warmup_ms = 200;
    auto timed = run(server.url(), options);
    CHECK(timed->result.warmups > 0);
    CHECK(timed->stats.completions == 10);
    CHECK(timed->seconds >= 0.2);
}

TEST_CASE("stop drains what runs; what outlasts the drain time is cut off and said", "[load]") {
    TestServer slow([](const auto& x) { return test::answer(x, 1, 600); });
    RunOptions options = closed(3, 1000);
    auto drained = run(slow.url(), options, {}, {}, [](Runner& runner) { runner.stop(); });
    CHECK(drained->result.interrupted);
    CHECK(drained->stats.completions == 3);
    CHECK(drained->stats.cut_offs == 0);

    options.drain_timeout_ms = 100;
    auto cut = run(slow.url(), options, {}, {}, [](Runner& runner) { runner.stop(); });
    CHECK(cut->stats.completions == 0);
    CHECK(cut->stats.cut_offs == 3);
    CHECK(cut->seconds < 0.6);

    options.drain_timeout_ms = 30'000;
    auto aborted = run(slow.url(), options, {}, {}, [](Runner& runner) { runner.abort(); });
    CHECK(aborted->stats.cut_offs == 3);
    CHECK(aborted->seconds < 0.6);
}

TEST_CASE("goodput counts the completed that met the objectives", "[load]") {
    std::atomic<int> n{0};
    TestServer server([&](const auto& x) { return test::answer(x, 2, n++ % 2 ? 150 : 0); });
    auto ran = run(server.url(), closed(1, 10), {}, {.ttft_ms = 100});
    CHECK(ran->stats.completions == 10);
    CHECK(ran->stats.good == 5);
    simdjson::dom::parser parser;
    simdjson::dom::element json;
    REQUIRE_FALSE(parser.parse(ran->json).get(json));
    CHECK(json["slo"]["met"].get_uint64().value() == 5);
    CHECK(json["slo"]["share"].get_double().value() == Approx(0.5));
    CHECK(json["goodput_per_s"].get_double().value() ==
          Approx(json["requests_per_s"].get_double().value() / 2));
    CHECK(json["ttft_ms"]["p50"].get_double().value() < 100);
    CHECK(json["ttft_ms"]["p90"].get_double().value() >= 150);
    CHECK_THAT(ran->table, Contains("50.0 % of all, under TTFT <= 100ms"));
}

TEST_CASE("chain overhead is the receipt of the first delta minus the stamp before it", "[load]") {
    TestServer server([](const auto& x) {
        const auto now = [] {
            timespec t{};
            ::clock_gettime(CLOCK_MONOTONIC, &t);
            return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
        };
        x.write(test::kSseHead);
        x.chunk(test::kMessageStart);
        const auto made = now();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        x.chunk(fmt::format(": t={}\n", made) + test::kDelta);
        x.chunk(fmt::format(": t={}\n", made) + test::kDelta);
        return x.chunk(test::message_end(2)) && x.write("0\r\n\r\n");
    });
    auto ran = run(server.url(), closed(1, 5), {.timestamps = true});
    CHECK(ran->stats.chain_overhead_ns.count() == 5);
    CHECK(ran->stats.chain_overhead_ns.min() >= 20'000'000);
    CHECK(ran->stats.chain_overhead_ns.percentile(0.5) < 80'000'000);
    CHECK_THAT(ran->table, Contains("chain overhead"));
}

TEST_CASE("two hundred streams at once are driven by one thread", "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 4, 100, 20); });
    auto ran = run(server.url(), closed(200, 400));
    CHECK(ran->stats.completions == 400);
    CHECK(ran->stats.failures == 0);
    CHECK(ran->seconds < 10);
}

TEST_CASE("a URL that cannot be used is refused with the reason", "[load]") {
    auto loop = Loop::make();
    auto prompts = PromptSet::parse("x", {});
    telemetry::Registry registry;
    Stats stats(registry, {});
    Runner runner(**loop, closed(1, 1), *prompts, stats);
    for (const auto& [url, why] :
         std::vector<std::pair<std::string, std::string>>{{"https://127.0.0.1", "TLS"},
                                                          {"127.0.0.1:8080", "expected http://"},
                                                          {"http://", "no host"},
                                                          {"http://h:0", "bad port"},
                                                          {"http://h:99999", "bad port"},
                                                          {"http://user:pw@h", "credentials"},
                                                          {"http://h/a b", "blank"},
                                                          {"http://[::1", "unclosed"}}) {
        CAPTURE(url);
        auto made = make_http_transport(**loop, {.url = url}, runner.sink());
        REQUIRE_FALSE(made);
        CHECK(made.error().code == base::Errc::usage);
        CHECK_THAT(made.error().what, Contains(why));
    }
    CHECK_FALSE(
        make_http_transport(**loop, {.url = "http://h", .api_key = "a\r\nb"}, runner.sink()));
}

TEST_CASE("histograms are written with every bucket that is not empty", "[load]") {
    telemetry::Registry registry;
    Stats stats(registry, {});
    stats.itl(5);
    stats.itl(5);
    stats.itl(1'000'000);
    const std::string text = report_histograms(stats);
    CHECK_THAT(
        text,
        Contains(
            R"("name":"itl","unit":"ns","count":3,"sum":1000010,"min":5,"max":1000000,"buckets":[[5,5,2],[)"));
    CHECK(std::count(text.begin(), text.end(), '\n') == 6);
}
