// The router between a real asker and real workers, all on sockets in one process.
#include "dispatch/router.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <map>

using namespace parley;
using namespace parley::dispatch;

namespace {

struct NoModels final : ModelSink {
    std::vector<std::string> joined;
    void on_models(pipe::Peer, const pipe::HelloMeta&) override {}
    void on_tokenizer(pipe::Peer, const std::string&, std::string) override {}
    void on_worker(const std::string& name, bool in, const std::string&) override {
        if (in) joined.push_back(name);
    }
};

struct Client final : pipe::AskerHandler {
    std::map<std::string, std::vector<std::string>> events;
    std::map<std::string, std::vector<pipe::EndMeta>> ends;
    void on_event(const std::string& id, const pipe::EventMeta&, std::string body) override {
        events[id].push_back(std::move(body));
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        ends[id].push_back(meta);
    }
};

struct TestWorker final : pipe::AnswererHandler {
    std::unique_ptr<pipe::Answerer> answerer;
    std::vector<pipe::Ask> asks;
    std::vector<std::string> cancels;
    void on_ask(pipe::Ask ask) override { asks.push_back(std::move(ask)); }
    void on_cancel(const std::string& id, uint32_t, pipe::Cancel) override {
        cancels.push_back(id);
    }
};

struct Fixture {
    pipe::Context context;
    std::string folder;
    NoModels models;
    std::unique_ptr<Router> router;
    std::unique_ptr<pipe::Answerer> asker_side;
    std::unique_ptr<pipe::Asker> worker_side;
    Client client;
    std::unique_ptr<pipe::Asker> asker;
    std::vector<std::unique_ptr<TestWorker>> workers;

    explicit Fixture(RouterOptions options = {}) {
        char name[] = "/tmp/parley-router-XXXXXX";
        folder = ::mkdtemp(name);
        router = std::make_unique<Router>(options, models);
        pipe::AnswererOptions up;
        up.link.endpoint = "ipc://" + folder + "/router.sock";
        up.link.bind = true;
        up.link.hello.name = "router";
        asker_side = std::move(*pipe::Answerer::open(context, up, router->asker_side()));
        pipe::AskerOptions down;
        down.link.endpoint = "ipc://" + folder + "/workers.sock";
        down.link.bind = true;
        down.link.hello.name = "router";
        worker_side = std::move(*pipe::Asker::open(context, down, router->worker_side()));
        router->connect(*asker_side, *worker_side);
        pipe::AskerOptions dial;
        dial.link.endpoint = up.link.endpoint;
        dial.link.hello.name = "filter";
        asker = std::move(*pipe::Asker::open(context, dial, client));
        REQUIRE(until([&] { return asker->up(); }));
    }
    TestWorker& join(const std::string& name, uint32_t slots = 4, const std::string& model = "smol",
                     const std::string& zone = {}) {
        auto worker = std::make_unique<TestWorker>();
        pipe::AnswererOptions options;
        options.link.endpoint = "ipc://" + folder + "/workers.sock";
        options.link.hello.name = name;
        options.link.hello.slots = slots;
        options.link.hello.zone = zone;
        options.link.hello.models = {{"hash-" + model, model, "llama", 100, 100}};
        worker->answerer = std::move(*pipe::Answerer::open(context, options, *worker));
        workers.push_back(std::move(worker));
        const size_t before = models.joined.size();
        REQUIRE(until([&] { return models.joined.size() > before; }));
        return *workers.back();
    }
    template <class Done>
    bool until(Done done, int64_t limit_ms = 4000) {
        const int64_t start = base::system_clock().mono_ms();
        while (base::system_clock().mono_ms() - start < limit_ms) {
            asker_side->link().step();
            worker_side->link().step();
            worker_side->tick();
            router->tick();
            if (asker) asker->link().step();
            for (auto& worker : workers) {
                if (worker->answerer) worker->answerer->link().step();
            }
            if (done()) return true;
            ::usleep(300);
        }
        return done();
    }
    void ask(const std::string& id, const std::string& model = "smol",
             pipe::Envelope envelope = {}) {
        REQUIRE(asker->ask(id, envelope, "{\"model\":\"" + model + "\"}").has_value());
    }
    bool ended(const std::string& id) {
        return until([&] { return client.ends.count(id) != 0; });
    }
};

}  // namespace

TEST_CASE("a request reaches a worker with its version, and its events come back as they are",
          "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0");
    pipe::Envelope envelope;
    envelope.org = "acme";
    envelope.seed = 7;
    f.ask("r", "smol", envelope);
    REQUIRE(f.until([&] { return worker.asks.size() == 1; }));
    REQUIRE(worker.asks[0].envelope.version == "hash-smol");
    REQUIRE(worker.asks[0].envelope.org == "acme");
    REQUIRE(worker.asks[0].envelope.seed == 7u);
    REQUIRE(worker.answerer->event("r", {}, R"({"type":"ping"})").has_value());
    worker.answerer->end("r", {});
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.events["r"] == std::vector<std::string>{R"({"type":"ping"})"});
    REQUIRE(f.client.ends["r"].size() == 1);
    REQUIRE(f.client.ends["r"][0].model == "hash-smol");
}

TEST_CASE("status shows what each worker guessed and what came true", "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0");
    worker.answerer->set_status([] {
        pipe::StatusMeta status;
        status.drafted_tokens = 9001;
        status.accepted_tokens = 4242;
        return status;
    });
    const auto shows = [&](const char* what) {
        return f.router->status_json().find(what) != std::string::npos;
    };
    REQUIRE(f.until([&] { return shows("\"drafted_tokens\":9001"); }));
    REQUIRE(shows("\"accepted_tokens\":4242"));
}

TEST_CASE("requests wait while every slot is taken, and start as one is freed", "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0", 2);
    for (const char* id : {"a", "b", "c"}) f.ask(id);
    REQUIRE(f.until([&] { return worker.asks.size() == 2; }));
    f.until([] { return false; }, 100);
    REQUIRE(worker.asks.size() == 2);
    REQUIRE(f.router->waiting() == 1);
    worker.answerer->end("a", {});
    REQUIRE(f.until([&] { return worker.asks.size() == 3; }));
}

TEST_CASE("an unknown model is 404, a body without one 400, and before any worker it is overload",
          "[router]") {
    Fixture f;
    f.ask("early");
    REQUIRE(f.ended("early"));
    REQUIRE(f.client.ends["early"][0].status == "overloaded_error");
    f.join("w0");
    f.ask("unknown", "claude");
    REQUIRE(f.ended("unknown"));
    REQUIRE(f.client.ends["unknown"][0].status == "not_found_error");
    REQUIRE(f.client.ends["unknown"][0].message == "model: claude");
    REQUIRE(f.asker->ask("none", {}, "{}").has_value());
    REQUIRE(f.ended("none"));
    REQUIRE(f.client.ends["none"][0].status == "invalid_request_error");
}

TEST_CASE("a full queue refuses with a reason and a time to come back", "[router]") {
    RouterOptions options;
    options.scheduler.waiting_max = 1;
    Fixture f(options);
    f.join("w0", 1);
    for (const char* id : {"runs", "waits", "refused"}) f.ask(id);
    REQUIRE(f.ended("refused"));
    const auto& end = f.client.ends["refused"][0];
    REQUIRE(end.status == "overloaded_error");
    REQUIRE(end.message == "Overloaded");
    REQUIRE(end.reason == "queue_full");
    REQUIRE(end.retry_after_s >= 1);
    REQUIRE(end.retry_after_s <= 60);
}

TEST_CASE("a request that waits past its bound ends, and its slot is not used for it", "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0", 1);
    f.ask("runs");
    pipe::Envelope hurried;
    hurried.ttft_ms = 100;
    f.ask("late", "smol", hurried);
    REQUIRE(f.ended("late"));
    REQUIRE(f.client.ends["late"][0].reason == "expired");
    worker.answerer->end("runs", {});
    f.until([] { return false; }, 100);
    REQUIRE(worker.asks.size() == 1);
}

namespace {

const char* kStart =
    R"({"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":0}}})";
const char* kBlock =
    R"({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}})";
const char* kStop = R"({"type":"content_block_stop","index":0})";
std::string delta(const std::string& text) {
    return R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":")" +
           text + "\"}}";
}

}  // namespace

TEST_CASE("a stream whose worker dies goes on with another, behind what its asker has",
          "[router]") {
    Fixture f;
    TestWorker& first = f.join("w0");
    pipe::Envelope envelope;
    envelope.org = "acme";
    f.ask("r", "smol", envelope);
    REQUIRE(f.until([&] { return first.asks.size() == 1; }));
    const uint32_t attempt = first.asks[0].envelope.attempt;
    pipe::EventMeta two;
    two.ids = {5, 6};
    REQUIRE(first.answerer->event("r", {}, kStart).has_value());
    REQUIRE(first.answerer->event("r", {}, kBlock).has_value());
    REQUIRE(first.answerer->event("r", two, delta("ab")).has_value());
    REQUIRE(first.answerer->event("r", {}, kStop).has_value());
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 3; }));
    first.answerer.reset();
    REQUIRE(f.until([&] { return f.router->waiting() == 1; }));
    f.until([] { return false; }, 100);
    REQUIRE(f.client.ends.empty());  // it waits
    TestWorker& second = f.join("w1");
    REQUIRE(f.until([&] { return second.asks.size() == 1; }));
    const auto& again = second.asks[0];
    REQUIRE(again.envelope.attempt > attempt);
    REQUIRE(again.envelope.continuation->produced == std::vector<int32_t>{5, 6});
    REQUIRE(again.envelope.continuation->released == 2);
    REQUIRE(again.body == first.asks[0].body);
    REQUIRE(second.answerer->event("r", {}, delta("cd")).has_value());
    pipe::EndMeta done;
    done.cost_s = 0.5;
    second.answerer->end("r", done);
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.events["r"].size() == 4);  // the numbers are dense: the asker's side checks it
    REQUIRE(f.client.events["r"][3] == delta("cd"));
    REQUIRE(f.client.ends["r"].size() == 1);
    REQUIRE(f.client.ends["r"][0].ok());
    REQUIRE(f.router->counters().moved == 1);
    REQUIRE(f.router->idle());
}

TEST_CASE("a stream that no worker takes up ends once, typed and retryable, at its stall deadline",
          "[router]") {
    Fixture f;
    TestWorker& first = f.join("w0");
    pipe::Envelope envelope;
    envelope.stall_ms = 300;
    f.ask("r", "smol", envelope);
    REQUIRE(f.until([&] { return first.asks.size() == 1; }));
    REQUIRE(first.answerer->event("r", {}, kStart).has_value());
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 1; }));
    first.answerer.reset();
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.ends["r"].size() == 1);
    REQUIRE(f.client.ends["r"][0].status == "overloaded_error");
    REQUIRE(f.client.ends["r"][0].reason == "no_worker");
    REQUIRE(f.client.ends["r"][0].retryable);
    REQUIRE(f.router->idle());
}

TEST_CASE("a worker that drains gives its streams to another before it ends", "[router]") {
    Fixture f;
    TestWorker& first = f.join("w0");
    f.ask("r");
    REQUIRE(f.until([&] { return first.asks.size() == 1; }));
    REQUIRE(first.answerer->event("r", {}, kStart).has_value());
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 1; }));
    TestWorker& second = f.join("w1");
    first.answerer->drain();
    pipe::EndMeta end;
    end.status = "overloaded_error";
    end.reason = "draining";
    end.retryable = true;
    first.answerer->end("r", end);
    REQUIRE(f.until([&] { return second.asks.size() == 1; }));
    REQUIRE(f.client.ends.empty());
    REQUIRE(second.answerer->event("r", {}, kStart).has_value());  // the asker has one
    REQUIRE(second.answerer->event("r", {}, kBlock).has_value());
    second.answerer->end("r", {});
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.events["r"] == std::vector<std::string>{kStart, kBlock});
}

TEST_CASE("before the first event a request is asked again only within the retry budget",
          "[router]") {
    RouterOptions options;
    options.scheduler.admission.retries_max = 1;
    options.scheduler.admission.retry_share = 0;
    Fixture f(options);
    for (const char* name : {"w0", "w1", "w2"}) f.join(name);
    f.ask("r");
    const auto holder = [&]() -> TestWorker* {
        for (auto& worker : f.workers)
            if (worker->answerer && !worker->asks.empty()) return worker.get();
        return nullptr;
    };
    REQUIRE(f.until([&] { return holder() != nullptr; }));
    holder()->answerer.reset();
    REQUIRE(f.until([&] { return holder() != nullptr; }));
    REQUIRE(f.client.ends.empty());
    holder()->answerer.reset();
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.ends["r"][0].retryable);
    REQUIRE(f.client.ends["r"][0].reason == "peer_gone");
    REQUIRE(f.router->counters().retried == 1);
}

TEST_CASE(
    "with no room to keep bodies the END goes up, and the asker's continuation waits for another",
    "[router]") {
    RouterOptions options;
    options.kept_bytes_max = 0;
    Fixture f(options);
    TestWorker& first = f.join("w0");
    f.ask("r");
    REQUIRE(f.until([&] { return first.asks.size() == 1; }));
    REQUIRE(first.answerer->event("r", {}, kStart).has_value());
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 1; }));
    first.answerer.reset();
    REQUIRE(f.ended("r"));
    REQUIRE(f.client.ends["r"][0].retryable);
    REQUIRE(f.client.ends["r"][0].reason == "peer_gone");
    pipe::Envelope again;
    again.attempt = 2;
    again.stall_ms = 30'000;
    again.continuation = pipe::Continuation{{5, 6}, 0, 2, "ab"};
    f.ask("r", "smol", again);
    f.until([] { return false; }, 200);
    REQUIRE(f.client.ends["r"].size() == 1);  // it waits
    TestWorker& second = f.join("w1");
    REQUIRE(f.until([&] { return second.asks.size() == 1; }));
    REQUIRE(second.asks[0].envelope.continuation->produced == std::vector<int32_t>{5, 6});
    REQUIRE(second.asks[0].envelope.continuation->text == "ab");
    second.answerer->end("r", {});
    REQUIRE(f.until([&] { return f.client.ends["r"].size() == 2; }));
    REQUIRE(f.client.ends["r"][1].ok());
}

TEST_CASE("the worker is told flow, weight and tag, and batch is a flow of its own", "[router]") {
    Fixture f;
    f.router->scheduler().set_weight("acme", 3);
    TestWorker& worker = f.join("w0", 8);
    pipe::Envelope envelope;
    envelope.org = "acme";
    f.ask("one", "smol", envelope);
    envelope.cls = pipe::Class::batch;
    f.ask("two", "smol", envelope);
    REQUIRE(f.until([&] { return worker.asks.size() == 2; }));
    REQUIRE(worker.asks[0].envelope.flow == "acme");
    REQUIRE(worker.asks[0].envelope.weight == 3);
    REQUIRE(worker.asks[1].envelope.flow == "acme/batch");
    pipe::EndMeta end;
    end.cost_s = 6;
    worker.answerer->end("one", end);
    REQUIRE(f.ended("one"));
    envelope.cls = pipe::Class::streaming;
    f.ask("three", "smol", envelope);
    REQUIRE(f.until([&] { return worker.asks.size() == 3; }));
    REQUIRE(worker.asks[2].envelope.tag == Approx(2));  // 6 compute-seconds over its weight
}

TEST_CASE("a cancel reaches the queue and the worker; an asker that dies cancels all of its own",
          "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0", 1);
    f.ask("runs");
    f.ask("waits");
    REQUIRE(f.until([&] { return worker.asks.size() == 1 && f.router->waiting() == 1; }));
    f.asker->cancel("waits", "client_gone");
    REQUIRE(f.ended("waits"));
    REQUIRE(f.client.ends["waits"][0].status == "cancelled");
    REQUIRE(worker.cancels.empty());
    f.asker.reset();
    REQUIRE(f.until([&] { return worker.cancels.size() == 1; }));
    REQUIRE(worker.cancels[0] == "runs");
}

TEST_CASE("credit passes through: the worker may send exactly what the asker can take",
          "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0");
    pipe::Envelope envelope;
    envelope.credit = 2;
    f.ask("r", "smol", envelope);
    REQUIRE(f.until([&] { return worker.asks.size() == 1; }));
    REQUIRE(worker.asks[0].envelope.credit == 2);
    REQUIRE(worker.answerer->event("r", {}, "1").has_value());
    REQUIRE(worker.answerer->event("r", {}, "2").has_value());
    REQUIRE(worker.answerer->event("r", {}, "3").error().code == base::Errc::again);
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 2; }));
    f.asker->grant("r", 5);
    REQUIRE(f.until([&] { return worker.answerer->credit("r") == 5; }));
    for (int i = 0; i < 5; ++i) REQUIRE(worker.answerer->event("r", {}, "x").has_value());
    REQUIRE(f.until([&] { return f.client.events["r"].size() == 7; }));
}

TEST_CASE("a higher attempt replaces the one that runs, and only the new one's END arrives",
          "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0");
    f.ask("r");
    REQUIRE(f.until([&] { return worker.asks.size() == 1; }));
    pipe::Envelope again;
    again.attempt = 2;
    f.ask("r", "smol", again);
    REQUIRE(f.until([&] { return worker.asks.size() == 2; }));
    REQUIRE(worker.asks[1].envelope.attempt > worker.asks[0].envelope.attempt);
    worker.answerer->end("r", {});
    REQUIRE(f.until([&] { return f.client.ends["r"].size() == 2; }));
    REQUIRE(f.client.ends["r"][0].reason == "replaced");  // made by the asker's own side
    REQUIRE(f.client.ends["r"][1].ok());
    REQUIRE(f.router->idle());
}

TEST_CASE("draining ends what waits, retryable, and lets what runs finish", "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0", 1);
    f.ask("runs");
    f.ask("waits");
    REQUIRE(f.until([&] { return f.router->waiting() == 1 && worker.asks.size() == 1; }));
    f.router->drain();
    REQUIRE(f.ended("waits"));
    REQUIRE(f.client.ends["waits"][0].retryable);
    REQUIRE_FALSE(f.router->idle());
    worker.answerer->end("runs", {});
    REQUIRE(f.ended("runs"));
    REQUIRE(f.client.ends["runs"][0].ok());
    REQUIRE(f.router->idle());
}

TEST_CASE("giving way ends what waits and what runs, retryable, and the worker is told",
          "[router]") {
    Fixture f;
    TestWorker& worker = f.join("w0", 1);
    f.ask("runs");
    f.ask("waits");
    REQUIRE(f.until([&] { return f.router->waiting() == 1 && worker.asks.size() == 1; }));
    f.router->hand_over();
    REQUIRE(f.router->idle());
    for (const std::string id : {"waits", "runs"}) {
        REQUIRE(f.ended(id));
        REQUIRE(f.client.ends[id].size() == 1);
        CHECK(f.client.ends[id][0].retryable);
        CHECK(f.client.ends[id][0].reason == "draining");
    }
    REQUIRE(f.until([&] { return worker.cancels == std::vector<std::string>{"runs"}; }));
    // What the worker says of it now is for nobody.
    worker.answerer->end("runs", {});
    CHECK_FALSE(f.until([&] { return f.client.ends["runs"].size() > 1; }, 200));
}

TEST_CASE("in a brownout answers of batch are cut, others stay as they are", "[router]") {
    RouterOptions options;
    options.scheduler.admission.level_max = 0;
    options.scheduler.admission.brownout_batch_tokens = 100;
    Fixture f(options);
    f.join("w0", 4, "smol", "north");
    TestWorker& stays = f.join("w1", 4, "smol", "south");
    f.workers[0]->answerer.reset();
    REQUIRE(f.until([&] { return f.router->scheduler().admission().brownout(); }));
    const std::string body = R"({"model":"smol","max_tokens":4000,"messages":[]})";
    pipe::Envelope batch;
    batch.cls = pipe::Class::batch;
    REQUIRE(f.asker->ask("batch", batch, body).has_value());
    REQUIRE(f.asker->ask("online", {}, body).has_value());
    REQUIRE(f.until([&] { return stays.asks.size() == 2; }));
    for (const pipe::Ask& ask : stays.asks)
        CHECK(ask.body ==
              (ask.id == "batch" ? R"({"model":"smol","max_tokens":100,"messages":[]})" : body));
    CHECK(f.router->counters().shortened == 1);
}
