// Slack: who of a flow begins first, and who is not begun at all since it cannot be in time. A row
// takes 1 ms on a clock of its own.
#include <algorithm>
#include <catch2/catch.hpp>

#include "engine/engine.hpp"
#include "fake_forward.hpp"

using namespace parley;
using engine::Engine;
using engine::Job;

namespace {

constexpr int64_t kMs = 1'000'000;

struct Bench {
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    engine::EngineOptions options;
    std::unique_ptr<Engine> engine;
    std::vector<engine::Handle> order;  // of admission

    Bench() {
        forward.end_bias = -100.0f;
        options.slots_max = 1;
    }
    void open() {
        forward.clock = &clock;
        engine = std::make_unique<Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    // What a prompt's row takes is known from then on.
    void measure() {
        submit(100, 2);
        run();
        order.clear();
        handles.clear();
    }
    Job job(uint32_t prompt_tokens, uint64_t max_tokens = 4) {
        Job j;
        for (uint32_t i = 0; i < prompt_tokens; ++i)
            j.prompt.push_back(static_cast<model::Token>(1 + (made * 7 + i * 5 + made * i) % 23));
        ++made;
        j.max_tokens = max_tokens;
        j.sampling.temperature = 0;
        j.credit = 1'000'000;
        j.flow = "a";
        return j;
    }
    engine::Handle submit(Job j) {
        handles.push_back(*engine->submit(std::move(j)));
        return handles.back();
    }
    engine::Handle submit(uint32_t prompt_tokens, uint64_t max_tokens) {
        return submit(job(prompt_tokens, max_tokens));
    }
    int64_t in_ms(int64_t ms) const { return clock.mono_ns() + ms * kMs; }
    void run() {
        while (engine->step())
            for (const auto h : handles)
                if (sink.answers[h].admitted &&
                    std::find(order.begin(), order.end(), h) == order.end())
                    order.push_back(h);
    }
    test::RecordingSink::Answer& answer(engine::Handle h) { return sink.answers[h]; }
    std::vector<engine::Handle> handles;
    uint32_t made = 0;
};

using Order = std::vector<engine::Handle>;

}  // namespace

TEST_CASE("of one flow the one that has to begin first begins first, whatever came first",
          "[deadline]") {
    Bench b;
    b.open();
    b.measure();
    const auto running = b.submit(20, 100);
    b.engine->step();
    const auto any_time = b.submit(20, 4);
    Job late = b.job(20);
    late.start_deadline_ns = b.in_ms(900);
    Job long_prompt = b.job(300);
    long_prompt.start_deadline_ns = b.in_ms(950);  // but it takes 300
    Job whole = b.job(20);
    whole.total_deadline_ns = b.in_ms(800);
    const auto h_late = b.submit(std::move(late));
    const auto h_long = b.submit(std::move(long_prompt));
    const auto h_whole = b.submit(std::move(whole));
    b.run();
    CHECK(b.order == Order{running, h_long, h_whole, h_late, any_time});
    for (const auto h : b.order) CHECK(b.answer(h).finished);
}

TEST_CASE("slack overtakes neither a class nor a flow that is further behind", "[deadline]") {
    Bench b;
    b.open();
    b.measure();
    const auto running = b.submit(20, 100);  // of flow a, which is ahead by it
    b.engine->step();
    Job hurried = b.job(20);
    hurried.start_deadline_ns = b.in_ms(200);
    Job other = b.job(20);
    other.flow = "b";
    other.start_deadline_ns = b.in_ms(2000);
    Job first = b.job(20);
    first.priority = engine::Priority::interactive;
    const auto h_hurried = b.submit(std::move(hurried));
    const auto h_other = b.submit(std::move(other));
    const auto h_first = b.submit(std::move(first));
    b.run();
    // A flow with nothing running does not wait for the slot of another.
    CHECK(b.order == Order{running, h_other, h_first, h_hurried});
}

TEST_CASE("a prompt that is longer than its time is ended at once, without a row", "[deadline]") {
    Bench b;
    b.open();
    b.measure();
    Job start = b.job(300);
    start.start_deadline_ns = b.in_ms(200);
    Job total = b.job(300);
    total.total_deadline_ns = b.in_ms(200);
    Job fits = b.job(300);
    fits.start_deadline_ns = b.in_ms(400);
    const uint32_t runs = b.forward.runs;
    const int64_t now_ns = b.clock.mono_ns();
    const auto h_start = b.submit(std::move(start));
    const auto h_total = b.submit(std::move(total));
    b.engine->step();
    CHECK(b.forward.runs == runs);
    CHECK(b.clock.mono_ns() == now_ns);
    const auto h_fits = b.submit(std::move(fits));
    b.run();
    for (const auto h : {h_start, h_total}) {
        REQUIRE(b.answer(h).failed);
        CHECK(b.answer(h).failed->error.code == base::Errc::timeout);
        CHECK(b.answer(h).failed->error.what.find("the prompt takes longer") != std::string::npos);
        CHECK_FALSE(b.answer(h).admitted);
    }
    CHECK(b.answer(h_fits).finished);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("a prompt whose time runs short half way is ended before the rest is computed",
          "[deadline]") {
    Bench b;
    b.options.slots_max = 2;
    b.open();
    b.measure();
    Job j = b.job(400);
    j.total_deadline_ns = b.in_ms(500);
    const auto h = b.submit(std::move(j));
    b.engine->step();
    REQUIRE(b.answer(h).admitted);
    REQUIRE_FALSE(b.answer(h).over());
    const uint32_t rows = static_cast<uint32_t>(b.engine->stats().prefill_rows);
    b.clock.advance_ms(200);
    b.run();
    REQUIRE(b.answer(h).failed);
    CHECK(b.engine->stats().prefill_rows == rows);
    CHECK(b.clock.mono_ns() < b.in_ms(0) + 1);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("what a prompt finds computed takes none of its time", "[deadline]") {
    Bench b;
    b.open();
    b.measure();
    Job first = b.job(300);
    first.tenant = "org";
    Job again = first, other = first;
    again.start_deadline_ns = other.start_deadline_ns = 0;
    b.submit(std::move(first));
    b.run();
    again.start_deadline_ns = b.in_ms(60);
    other.start_deadline_ns = b.in_ms(60);
    other.tenant = "another org";  // whose blocks it never finds
    const auto h_again = b.submit(std::move(again));
    const auto h_other = b.submit(std::move(other));
    b.run();
    CHECK(b.answer(h_again).finished);
    CHECK(b.answer(h_other).failed);
}

TEST_CASE("before a prompt was measured none is ended for what it might take", "[deadline]") {
    Bench b;
    b.open();
    Job j = b.job(300);
    j.start_deadline_ns = b.in_ms(10);
    const auto h = b.submit(std::move(j));
    b.run();
    CHECK(b.answer(h).finished);
}

TEST_CASE("an answer that has begun to be read is cut at its time, not before", "[deadline]") {
    Bench b;
    b.open();
    b.measure();
    Job j = b.job(300, 100);
    j.produced = {1, 2, 3, 4};
    j.released = 3;
    j.total_deadline_ns = b.in_ms(150);
    const auto h = b.submit(std::move(j));
    b.run();
    REQUIRE(b.answer(h).finished);
    CHECK(b.answer(h).finished->reason == engine::Finish::timeout);
}
