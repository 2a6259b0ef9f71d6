// The same runner over parley/1: a stage in a thread of its own, asked through its ipc socket.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <map>
#include <thread>

#include "base/clock.hpp"
#include "load/report.hpp"
#include "load/runner.hpp"
#include "pipe/answerer.hpp"
#include "pipe/loop.hpp"

using namespace parley;
using namespace parley::load;
using Catch::Matchers::Contains;

namespace {

const char* kStart =
    R"({"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}})";
const char* kDelta =
    R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ab"}})";
const char* kEnd =
    R"({"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":600}})";
const char* kStop = R"({"type":"message_stop"})";

enum class Manner { answers, overloaded, silent, ends_early };

// Answers each ASK with 600 deltas, as credit allows, or misbehaves as told.
class Stage final : pipe::AnswererHandler {
  public:
    explicit Stage(Manner manner) : manner_(manner) {
        folder_ = "/tmp/load-pipe-" + std::to_string(::getpid());
        ::mkdir(folder_.c_str(), 0700);
        thread_ = std::thread([this] { serve(); });
        while (!open_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ~Stage() {
        stop();
        ::unlink((folder_ + "/s.lock").c_str());
        ::rmdir(folder_.c_str());
    }
    void stop() {
        stopping_ = true;
        if (thread_.joinable()) thread_.join();
    }
    std::string endpoint() const { return "ipc://" + folder_ + "/s"; }
    int cancels() const { return cancels_; }

  private:
    void serve() {
        pipe::Context context;
        pipe::AnswererOptions options;
        options.link.endpoint = endpoint();
        options.link.bind = true;
        options.link.hello.name = "stage";
        auto answerer = pipe::Answerer::open(context, options, *this);
        answerer_ = answerer ? answerer->get() : nullptr;
        open_ = true;
        if (!answerer_) return;
        pipe::Loop loop;
        loop.add(answerer_->link());
        while (!stopping_) loop.run_once(5);
    }
    void on_ask(pipe::Ask ask) override {
        if (manner_ == Manner::silent) return;
        if (manner_ == Manner::overloaded) return end(ask.id, "overloaded_error");
        sent_[ask.id] = 0;
        go_on(ask.id);
    }
    void end(const std::string& id, const char* status) {
        pipe::EndMeta meta;
        meta.status = status;
        answerer_->end(id, std::move(meta));
    }
    void go_on(const std::string& id) {
        const auto found = sent_.find(id);
        if (found == sent_.end()) return;
        for (int& n = found->second; n < 603; ++n) {
            if (manner_ == Manner::ends_early && n == 5) break;
            pipe::EventMeta meta;
            if (n > 0) meta.stamp_ns = base::system_clock().mono_ns();
            const char* body = n == 0 ? kStart : n <= 600 ? kDelta : n == 601 ? kEnd : kStop;
            if (!answerer_->event(id, std::move(meta), body)) return;  // no credit: later
        }
        sent_.erase(found);
        end(id, "ok");
    }
    void on_cancel(const std::string& id, uint32_t, pipe::Cancel) override {
        ++cancels_;
        sent_.erase(id);
        end(id, "cancelled");
    }
    void on_credit(const std::string& id, uint32_t) override { go_on(id); }

    const Manner manner_;
    std::string folder_;
    std::map<std::string, int> sent_;
    pipe::Answerer* answerer_ = nullptr;
    std::atomic<bool> open_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<int> cancels_{0};
    std::thread thread_;
};

struct Ran {
    telemetry::Registry registry;
    Stats stats{registry, Slo{}};
    RunResult result;
    double seconds = 0;
};

std::unique_ptr<Ran> run(const Stage& stage, RunOptions options, PipeOptions pipe = {},
                         std::function<void()> during = {}) {
    auto out = std::make_unique<Ran>();
    auto loop = Loop::make();
    auto prompts = PromptSet::parse("one", {});
    Runner runner(**loop, options, *prompts, out->stats);
    pipe.endpoint = stage.endpoint();
    pipe.slots = options.slots();
    auto transport = make_pipe_transport(**loop, pipe, runner.sink());
    REQUIRE(transport);
    REQUIRE((*transport)->probe());
    if (during)
        runner.on_progress([&](const Progress& p) {
            if (p.elapsed_ms >= 150) during();
        });
    const int64_t begun = base::system_clock().mono_ns();
    out->result = runner.run(**transport);
    out->seconds = static_cast<double>(base::system_clock().mono_ns() - begun) * 1e-9;
    return out;
}

}  // namespace

TEST_CASE("answers longer than the credit come whole over parley/1, with their stamps", "[load]") {
    Stage stage(Manner::answers);
    RunOptions options;
    options.concurrency = 8;
    options.requests = 40;
    auto ran = run(stage, options);
    CHECK(ran->stats.completions == 40);
    CHECK(ran->stats.failures == 0);
    CHECK(ran->stats.itl_ns.count() == 40 * 599);
    CHECK(ran->stats.output_tokens == 40 * 600);
    CHECK(ran->stats.chain_overhead_ns.count() == 40);
    CHECK(ran->stats.chain_overhead_ns.negatives() == 0);
    CHECK(ran->stats.chain_overhead_ns.percentile(0.5) < 1'000'000'000);
    CHECK(ran->seconds < 10);
}

TEST_CASE("a stage's refusal, silence and early end are counted by type", "[load]") {
    RunOptions options;
    options.concurrency = 2;
    options.requests = 4;
    options.error_pause_ms = 1;
    for (const auto& [manner, type] :
         std::vector<std::pair<Manner, std::string>>{{Manner::overloaded, "overloaded_error"},
                                                     {Manner::silent, "read_timeout"},
                                                     {Manner::ends_early, "ended_early"}}) {
        Stage stage(manner);
        PipeOptions pipe;
        pipe.read_timeout_ms = 200;
        auto ran = run(stage, options, pipe);
        CAPTURE(type);
        CHECK(ran->stats.failures == 4);
        REQUIRE(ran->stats.errors.size() == 1);
        CHECK(ran->stats.errors.begin()->first == type);
        CHECK(ran->seconds < 5);
        if (manner == Manner::silent) CHECK(stage.cancels() >= 2);  // the stage is told to stop
    }
}

TEST_CASE("a stage that goes away ends what it was asked", "[load]") {
    Stage stage(Manner::silent);
    RunOptions options;
    options.concurrency = 2;
    options.duration_ms = 1500;
    auto ran = run(stage, options, {}, [&] { stage.stop(); });
    CHECK(ran->stats.errors["peer_gone"].count > 0);
    CHECK(ran->stats.completions == 0);
    CHECK(ran->seconds < 6);
}

TEST_CASE("an endpoint where nobody answers is said to be unreachable", "[load]") {
    auto loop = Loop::make();
    auto prompts = PromptSet::parse("x", {});
    telemetry::Registry registry;
    Stats stats(registry, {});
    Runner runner(**loop, {}, *prompts, stats);
    PipeOptions pipe;
    pipe.endpoint = "ipc:///tmp/load-pipe-nobody";
    pipe.connect_timeout_ms = 200;
    auto transport = make_pipe_transport(**loop, pipe, runner.sink());
    REQUIRE(transport);
    auto reached = (*transport)->probe();
    REQUIRE_FALSE(reached);
    CHECK(reached.error().code == base::Errc::unavailable);
    CHECK_THAT(reached.error().what, Contains("load-pipe-nobody"));
}
