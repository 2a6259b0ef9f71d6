#include "engine/engine.hpp"

#include <catch2/catch.hpp>

#include "fake_forward.hpp"

using namespace parley;
using engine::Engine;
using engine::EngineOptions;
using engine::Finish;
using engine::Job;

namespace {

struct Bench {
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    EngineOptions options;
    std::unique_ptr<Engine> engine;

    void open() {
        forward.clock = &clock;
        engine = std::make_unique<Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    void run(int steps_max = 20'000) {
        while (steps_max-- > 0 && engine->step()) {
        }
    }
    test::RecordingSink::Answer& answer(engine::Handle h) { return sink.answers[h]; }
};

Job job(uint32_t n, uint32_t prompt_tokens = 20, uint64_t max_tokens = 40) {
    Job j;
    for (uint32_t i = 0; i < prompt_tokens; ++i)
        j.prompt.push_back(static_cast<model::Token>(1 + (n * 7 + i * 5 + n * i) % 23));
    j.max_tokens = max_tokens;
    j.sampling.temperature = n % 2 == 0 ? 0.0f : 1.0f;
    j.sampling.seed = 1000 + n;
    if (n % 3 == 0) j.sampling.repetition_penalty = 1.2f;
    if (n % 4 == 1) j.stops = {"STOP", "ab"};
    j.credit = 1'000'000;
    return j;
}

// The answer of a job that has the engine to itself.
test::RecordingSink::Answer alone(const Job& j, float end_bias = -2.0f) {
    Bench b;
    b.forward.end_bias = end_bias;
    b.open();
    Job copy = j;
    const auto h = b.engine->submit(std::move(copy));
    REQUIRE(h);
    b.run();
    REQUIRE(b.answer(*h).over());
    REQUIRE(b.engine->stats().kv_blocks_free == b.forward.blocks);
    return b.answer(*h);
}

void check_same(const test::RecordingSink::Answer& a, const test::RecordingSink::Answer& b) {
    CHECK(a.text == b.text);
    CHECK(a.ids == b.ids);
    REQUIRE(a.finished);
    REQUIRE(b.finished);
    CHECK(a.finished->reason == b.finished->reason);
    CHECK(a.finished->stop_sequence == b.finished->stop_sequence);
    CHECK(a.finished->prompt_tokens == b.finished->prompt_tokens);
    CHECK(a.finished->output_tokens == b.finished->output_tokens);
}

}  // namespace

TEST_CASE("answers in a batch of 1, 3 and 16 are the same", "[engine]") {
    std::vector<test::RecordingSink::Answer> expected;
    for (uint32_t n = 0; n < 16; ++n) expected.push_back(alone(job(n, 5 + n * 3)));
    for (const uint32_t batch : {3u, 16u}) {
        for (const uint32_t rows : {16u, 20u, 512u}) {
            Bench b;
            b.options.rows_max = rows;
            b.options.prefill_target_ms = rows == 512 ? 40 : 0;
            b.open();
            std::vector<engine::Handle> handles;
            for (uint32_t n = 0; n < batch; ++n) {
                handles.push_back(*b.engine->submit(job(n, 5 + n * 3)));
                if (n % 4 == 0) b.engine->step();  // so that they are at different places
            }
            b.run();
            CHECK(b.forward.rows_most <= rows);
            for (uint32_t n = 0; n < batch; ++n) check_same(b.answer(handles[n]), expected[n]);
            CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
        }
    }
}

TEST_CASE("preempted sequences give the same answers, and no block is lost", "[engine]") {
    std::vector<test::RecordingSink::Answer> expected;
    for (uint32_t n = 0; n < 8; ++n) expected.push_back(alone(job(n, 30, 100), -100.0f));
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.blocks = 20;  // 8 × 130 tokens want 72
    b.open();
    std::vector<engine::Handle> handles;
    for (uint32_t n = 0; n < 8; ++n) {
        Job j = job(n, 30, 100);
        if (n >= 6) j.priority = engine::Priority::batch;
        handles.push_back(*b.engine->submit(std::move(j)));
    }
    b.run();
    CHECK(b.engine->stats().preempted > 0);
    for (uint32_t n = 0; n < 8; ++n) check_same(b.answer(handles[n]), expected[n]);
    CHECK(b.engine->stats().kv_blocks_free == 20);
}

TEST_CASE("a sequence as large as the whole pool runs alone to its end", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.blocks = 4;
    b.forward.context = 64;
    b.open();
    const auto big = *b.engine->submit(job(0, 40, 1000));
    const auto small = *b.engine->submit(job(2, 10, 20));
    b.run();
    REQUIRE(b.answer(big).finished);
    CHECK(b.answer(big).finished->reason == Finish::context_full);
    CHECK(b.answer(big).finished->output_tokens == 24);
    REQUIRE(b.answer(small).finished);
}

TEST_CASE("cancel frees the blocks at once and says nothing more", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    const auto h = *b.engine->submit(job(0, 100, 100));
    const auto other = *b.engine->submit(job(2, 20, 50));
    for (int i = 0; i < 10; ++i) b.engine->step();
    const auto before = b.engine->stats().kv_blocks_free;
    const auto summary = b.engine->cancel(h);
    REQUIRE(summary);
    CHECK(summary->prompt_tokens == 100);
    CHECK(summary->output_tokens > 0);
    CHECK(summary->cost_s > 0);
    CHECK(b.engine->stats().kv_blocks_free >= before + 7);
    CHECK_FALSE(b.engine->cancel(h));
    const auto pieces = b.answer(h).pieces.size();
    b.run();
    CHECK(b.answer(h).pieces.size() == pieces);
    CHECK_FALSE(b.answer(h).over());
    CHECK(b.answer(other).finished);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("a sink may cancel its own and other sequences while they are being served", "[engine]") {
    struct Canceller : engine::Sink {
        Engine* engine = nullptr;
        std::vector<engine::Handle> victims;
        int texts = 0;
        int ends = 0;
        void admitted(engine::Handle, uint32_t) override {}
        void text(engine::Handle, const engine::Piece&, int64_t) override {
            if (++texts == 5)
                for (const auto v : victims) engine->cancel(v);
        }
        void finished(engine::Handle, const engine::Finished&) override { ++ends; }
        void failed(engine::Handle, const engine::Failed&) override { ++ends; }
    } sink;
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    forward.end_bias = -100.0f;
    Engine e(forward, vocabulary, {}, sink);
    sink.engine = &e;
    for (uint32_t n = 0; n < 6; ++n) sink.victims.push_back(*e.submit(job(n * 4, 10, 30)));
    sink.victims.pop_back();
    while (e.step()) {
    }
    CHECK(sink.ends == 1);
    CHECK(e.stats().kv_blocks_free == forward.blocks);
}

TEST_CASE("a sequence without credit holds itself and no other", "[engine]") {
    Job slow = job(0, 20, 60);
    const auto expected = alone(slow, -100.0f);
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    slow.credit = 3;
    const auto held = *b.engine->submit(std::move(slow));
    const auto other = *b.engine->submit(job(2, 20, 60));
    b.run();
    CHECK(b.answer(held).pieces.size() == 3);
    CHECK_FALSE(b.answer(held).over());
    CHECK(b.answer(other).finished);
    CHECK(b.engine->stats().held == 1);
    CHECK_FALSE(b.engine->step());
    b.engine->grant(held, 2);
    b.run();
    CHECK(b.answer(held).pieces.size() == 5);
    b.engine->grant(held, 1000);
    b.run();
    check_same(b.answer(held), expected);
}

TEST_CASE("a reader that stays away gives slot and blocks to those that wait", "[engine]") {
    Job slow = job(0, 20, 60);
    const auto expected = alone(slow, -100.0f);
    Bench b;
    b.forward.end_bias = -100.0f;
    b.options.slots_max = 1;
    b.options.park_ms = 500;
    b.open();
    slow.credit = 2;
    const auto held = *b.engine->submit(std::move(slow));
    const auto next = *b.engine->submit(job(2, 20, 20));
    b.run();
    CHECK_FALSE(b.answer(next).over());
    b.clock.advance_ms(501);
    b.run();
    CHECK(b.answer(next).finished);
    b.engine->grant(held, 1000);
    b.run();
    check_same(b.answer(held), expected);
}

TEST_CASE("a continuation at any token gives the very rest of the answer", "[engine]") {
    for (const uint32_t n : {1u, 2u, 3u, 5u, 9u}) {
        const Job j = job(n, 12, 60);
        const auto whole = alone(j, -3.0f);
        for (size_t cut = 0; cut <= whole.ids.size(); cut += 3) {
            // What a client has after some piece: ids, and text bytes.
            size_t ids = 0, bytes = 0;
            Bench first;
            first.forward.end_bias = -3.0f;
            first.open();
            Job again = j;
            again.credit = static_cast<int64_t>(cut);
            const auto h1 = *first.engine->submit(std::move(again));
            first.run();
            ids = first.answer(h1).ids.size();
            bytes = first.answer(h1).text.size();
            if (first.answer(h1).over()) break;

            Bench second;
            second.forward.end_bias = -3.0f;
            second.open();
            Job rest = j;
            rest.produced.assign(whole.ids.begin(), whole.ids.begin() + static_cast<long>(ids));
            rest.released = bytes;
            const auto h2 = *second.engine->submit(std::move(rest));
            second.run();
            INFO("job " << n << " cut " << cut);
            REQUIRE(second.answer(h2).finished);
            CHECK(first.answer(h1).text + second.answer(h2).text == whole.text);
            CHECK(second.answer(h2).finished->output_tokens == whole.finished->output_tokens);
            CHECK(second.answer(h2).finished->reason == whole.finished->reason);
            auto all_ids = first.answer(h1).ids;
            all_ids.insert(all_ids.end(), second.answer(h2).ids.begin(),
                           second.answer(h2).ids.end());
            CHECK(all_ids == whole.ids);
        }
    }
}

TEST_CASE("a continuation that had everything ends without another token", "[engine]") {
    Bench b;
    b.open();
    Job j = job(2, 12, 3);
    j.produced = {1, 2, 3};
    j.released = 4;
    const auto h = *b.engine->submit(std::move(j));
    b.run();
    REQUIRE(b.answer(h).finished);
    CHECK(b.answer(h).finished->reason == Finish::max_tokens);
    CHECK(b.answer(h).finished->output_tokens == 3);
    CHECK(b.answer(h).text.empty());
    CHECK(b.forward.runs == 0);
}

TEST_CASE("a continuation with an id out of the vocabulary is refused", "[engine]") {
    Bench b;
    b.open();
    Job j = job(2);
    j.produced = {24};
    CHECK(b.engine->submit(std::move(j)).error().code == base::Errc::invalid);
    CHECK(b.engine->empty());
}

TEST_CASE("the limits of length end an answer by their own reasons", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.context = 64;
    b.open();
    const auto three = *b.engine->submit(job(0, 20, 3));
    const auto full = *b.engine->submit(job(2, 60, 1000));
    const auto exact = *b.engine->submit(job(4, 60, 4));
    const auto none = *b.engine->submit(job(6, 20, 0));
    b.run();
    CHECK(b.answer(three).finished->reason == Finish::max_tokens);
    CHECK(b.answer(three).finished->output_tokens == 3);
    CHECK(b.answer(full).finished->reason == Finish::context_full);
    CHECK(b.answer(full).finished->output_tokens == 4);
    CHECK(b.answer(exact).finished->reason == Finish::max_tokens);
    CHECK(b.answer(none).admitted);
    CHECK(b.answer(none).finished->reason == Finish::max_tokens);
    CHECK(b.answer(none).finished->output_tokens == 0);
    CHECK(b.answer(none).finished->cost_s > 0);  // the prompt was run
    CHECK(b.answer(none).text.empty());
}

TEST_CASE("a prompt that leaves no room is refused in the exact words", "[engine]") {
    Bench b;
    b.forward.context = 64;
    b.open();
    const auto refused = b.engine->submit(job(0, 64));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::too_large);
    CHECK(refused.error().what == "prompt is too long: 64 tokens > 63 maximum");
    CHECK(b.engine->submit(job(0, 63)));
}

TEST_CASE("the context is never more than the KV blocks hold", "[engine]") {
    Bench b;
    b.forward.blocks = 2;
    b.open();
    CHECK(b.engine->context_tokens() == 32);
    CHECK(b.engine->submit(job(0, 32)).error().what ==
          "prompt is too long: 32 tokens > 31 maximum");
}

TEST_CASE("a full queue refuses the next request and keeps the others", "[engine]") {
    Bench b;
    b.options.queue_max = 2;
    b.options.slots_max = 1;
    b.open();
    REQUIRE(b.engine->submit(job(0)));
    b.engine->step();
    REQUIRE(b.engine->submit(job(2)));
    REQUIRE(b.engine->submit(job(4)));
    CHECK(b.engine->submit(job(6)).error().code == base::Errc::again);
    b.run();
    CHECK(b.sink.answers.size() == 3);
    for (const auto& [h, a] : b.sink.answers) CHECK(a.finished);
}

TEST_CASE("a stop sequence is told, and neither it nor what follows is shown", "[engine]") {
    int stopped = 0;
    for (uint32_t n = 0; n < 40; ++n) {
        Job j = job(n, 10, 200);
        j.stops = {"ab", "STOP"};
        const auto a = alone(j, -100.0f);
        for (const auto& stop : j.stops) CHECK(a.text.find(stop) == std::string::npos);
        if (a.finished->reason != Finish::stop_sequence) continue;
        ++stopped;
        CHECK((a.finished->stop_sequence == "ab" || a.finished->stop_sequence == "STOP"));
    }
    CHECK(stopped > 20);
}

TEST_CASE("the same seed gives the same answer, another one another", "[engine]") {
    Job j = job(1, 10, 60);
    j.stops.clear();
    const auto a = alone(j, -100.0f);
    check_same(a, alone(j, -100.0f));
    j.sampling.seed ^= 1ull << 40;
    CHECK(alone(j, -100.0f).text != a.text);
}

TEST_CASE("decoding sequences get their token in every iteration while a long prompt comes in",
          "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.options.prefill_target_ms = 40;  // a row takes 1 ms here
    b.open();
    const auto reader = *b.engine->submit(job(0, 16, 200));
    for (int i = 0; i < 3; ++i) b.engine->step();
    const auto before = b.answer(reader).finished ? 0 : b.engine->stats().decode_rows;
    b.forward.chunk_rows.clear();
    const auto heavy = *b.engine->submit(job(2, 400, 5));
    int iterations = 0;
    while (!b.answer(heavy).over() && b.engine->step()) ++iterations;
    CHECK(iterations > 8);
    CHECK(b.engine->stats().decode_rows >= before + static_cast<uint64_t>(iterations));
    for (const auto& rows : b.forward.chunk_rows) {
        REQUIRE(rows.front() == 1);
        if (rows.size() > 1) CHECK(rows[1] <= 64);
    }
}

TEST_CASE("an iteration with a prompt takes no longer than so many times one without", "[engine]") {
    for (const int64_t free_ms : {8, 30}) {
        Bench b;
        b.forward.end_bias = -100.0f;
        b.forward.blocks = 400;
        b.options.rows_max = 256;
        b.options.prefill_slowdown = 1.7;
        b.options.prefill_free_ms = free_ms;
        b.open();
        for (uint32_t n = 0; n < 16; ++n) REQUIRE(b.engine->submit(job(2 * n + 4, 16, 400)));
        for (int i = 0; i < 60; ++i) b.engine->step();
        REQUIRE(b.engine->stats().decode_rows > 16 * 30);
        const size_t first = b.forward.chunk_rows.size();
        const auto prompt = *b.engine->submit(job(1, 400, 1));
        while (!b.answer(prompt).over() && b.engine->step()) {
        }
        REQUIRE(b.answer(prompt).over());
        size_t beside = 0;
        for (size_t i = first; i < b.forward.chunk_rows.size(); ++i) {
            uint32_t rows = 0, most = 0;
            for (const uint32_t count : b.forward.chunk_rows[i]) {
                rows += count;
                most = std::max(most, count);
            }
            // Of 1 ms each: 16 × 1.7, or 30; both in halves of pages below one, else in pages.
            CHECK(rows <= (free_ms == 8 ? 27 : 32));
            beside += most > 1;
        }
        // It comes in all the same.
        CHECK(beside >= 400 / 16);
        CHECK(beside <= 400 / 8 + 1);
    }
}

TEST_CASE("a prompt comes in though the others alone take longer than the target", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.blocks = 1200;
    b.options.slots_max = 64;
    b.options.prefill_slowdown = 1.7;
    b.options.prefill_target_ms = 10;
    b.open();
    for (uint32_t n = 0; n < 32; ++n) REQUIRE(b.engine->submit(job(2 * n + 4, 16, 400)));
    for (int i = 0; i < 100; ++i) b.engine->step();
    const size_t first = b.forward.runs;
    const auto prompt = *b.engine->submit(job(1, 400, 1));
    while (!b.answer(prompt).over() && b.engine->step()) {
    }
    REQUIRE(b.answer(prompt).over());
    CHECK(b.forward.runs - first < 40);  // up to half of 32 rows each time: half a page would take 50
}

TEST_CASE("a prompt that is alone leaves room for a heartbeat, also when rows become slower",
          "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    const auto heavy = *b.engine->submit(job(0, 450, 1));
    int64_t longest_ms = 0;
    int iterations = 0;
    while (!b.answer(heavy).over()) {
        const int64_t before_ms = b.clock.mono_ms();
        b.engine->step();
        const int64_t took_ms = b.clock.mono_ms() - before_ms;
        longest_ms = std::max(longest_ms, took_ms);
        // Every row takes twice as long from here on: one iteration may be caught out.
        if (++iterations == 2) b.forward.row_ms = 2;
        if (iterations > 3) CHECK(took_ms <= 150);
    }
    CHECK(iterations > 4);
    CHECK(longest_ms <= 200);
}

TEST_CASE("classes are served in their order, and batch gives way for want of a slot", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.options.slots_max = 1;
    b.open();
    const auto submit = [&](engine::Priority p, uint32_t n) {
        Job j = job(n, 10, 10);
        j.priority = p;
        return *b.engine->submit(std::move(j));
    };
    const auto batch = submit(engine::Priority::batch, 0);
    for (int i = 0; i < 4; ++i) b.engine->step();
    const auto batch2 = submit(engine::Priority::batch, 2);
    const auto streaming = submit(engine::Priority::streaming, 4);
    const auto interactive = submit(engine::Priority::interactive, 6);
    std::vector<engine::Handle> order;
    while (b.engine->step())
        for (const auto& [h, a] : b.sink.answers)
            if (a.over() && std::find(order.begin(), order.end(), h) == order.end())
                order.push_back(h);
    CHECK(order == std::vector<engine::Handle>{interactive, streaming, batch, batch2});
    CHECK(b.engine->stats().preempted == 1);
    check_same(b.answer(batch), alone(job(0, 10, 10), -100.0f));
}

TEST_CASE("who is admitted has room to grow: the reserve keeps a prompt that would fit out", "[engine]") {
    for (const uint32_t reserve : {0u, 32u}) {
        CAPTURE(reserve);
        Bench b;
        b.forward.end_bias = -100.0f;
        b.forward.blocks = 4;  // two prompts of 32 fill it
        b.options.reserve_tokens = reserve;
        b.options.prefix_blocks = 0;
        b.open();
        const auto first = *b.engine->submit(job(0, 32, 24));
        const auto second = *b.engine->submit(job(2, 32, 24));
        b.engine->step();
        CHECK(b.answer(first).admitted);
        CHECK(b.answer(second).admitted == (reserve == 0));
        b.run();
        CHECK((b.engine->stats().preempted > 0) == (reserve == 0));
        check_same(b.answer(second), alone(job(2, 32, 24), -100.0f));
    }
}

TEST_CASE("no more is reserved than the answer may still take", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.blocks = 4;
    b.options.reserve_tokens = 1000;
    b.options.prefix_blocks = 0;
    b.open();
    const auto first = *b.engine->submit(job(0, 17, 15));
    const auto second = *b.engine->submit(job(2, 17, 15));
    b.engine->step();
    CHECK(b.answer(first).admitted);
    CHECK(b.answer(second).admitted);
}

TEST_CASE("a request not admitted in its time fails with timeout", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.options.slots_max = 1;
    b.open();
    const auto first = *b.engine->submit(job(0, 10, 200));
    b.engine->step();
    Job late = job(2);
    late.start_deadline_ns = b.clock.mono_ns() + 50'000'000;
    const auto h = *b.engine->submit(std::move(late));
    b.run();
    REQUIRE(b.answer(h).failed);
    CHECK(b.answer(h).failed->error.code == base::Errc::timeout);
    CHECK_FALSE(b.answer(h).admitted);
    CHECK(b.answer(first).finished);
}

TEST_CASE("the total time cuts an answer that has begun, and fails one that has not", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    Job begun = job(0, 10, 400);
    begun.total_deadline_ns = b.clock.mono_ns() + 100'000'000;
    Job mute = job(2, 300, 10);
    mute.total_deadline_ns = b.clock.mono_ns() + 100'000'000;
    const auto h1 = *b.engine->submit(std::move(begun));
    const auto h2 = *b.engine->submit(std::move(mute));
    b.run();
    REQUIRE(b.answer(h1).finished);
    CHECK(b.answer(h1).finished->reason == Finish::timeout);
    CHECK(b.answer(h1).finished->output_tokens > 0);
    REQUIRE(b.answer(h2).failed);
    CHECK(b.answer(h2).failed->error.code == base::Errc::timeout);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("time without credit is not the answer's time", "[engine]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    Job j = job(0, 10, 20);
    j.total_deadline_ns = b.clock.mono_ns() + 200'000'000;
    j.credit = 2;
    const auto h = *b.engine->submit(std::move(j));
    b.run();
    b.clock.advance_ms(10'000);
    b.engine->step();
    CHECK_FALSE(b.answer(h).over());
    b.engine->grant(h, 1000);
    b.run();
    REQUIRE(b.answer(h).finished);
    CHECK(b.answer(h).finished->reason == Finish::max_tokens);
}

TEST_CASE("costs sum to the busy time", "[engine]") {
    Bench b;
    b.forward.blocks = 24;
    b.open();
    for (uint32_t n = 0; n < 12; ++n) REQUIRE(b.engine->submit(job(n, 10 + n * 5, 60)));
    b.run();
    double sum = 0;
    for (const auto& [h, a] : b.sink.answers) sum += a.finished->cost_s;
    CHECK(sum == Approx(b.engine->stats().busy_s));
    CHECK(sum > 0.1);
}

TEST_CASE("logits that are no numbers fail the sequence, not the engine", "[engine]") {
    Bench b;
    b.forward.broken = true;
    b.open();
    const auto h = *b.engine->submit(job(1));
    b.run();
    REQUIRE(b.answer(h).failed);
    CHECK(b.answer(h).failed->error.code == base::Errc::internal);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}
