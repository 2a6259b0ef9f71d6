// Whose turn it is: tags alone, then an engine whose rows cost 1 ms each.
#include "engine/flows.hpp"

#include <catch2/catch.hpp>

#include "fake_forward.hpp"

using namespace parley;
using engine::Engine;
using engine::Flow;
using engine::Flows;
using engine::Job;

namespace {

struct Bench {
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    engine::EngineOptions options;
    std::unique_ptr<Engine> engine;

    Bench() {
        forward.end_bias = -100.0f;
        forward.blocks = 2000;
        options.slots_max = 4;
        options.prefix_blocks = 0;
    }
    void open() {
        forward.clock = &clock;
        engine = std::make_unique<Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    std::vector<engine::Handle> submit(const std::string& flow, int count, double weight = 1,
                                       uint64_t max_tokens = 400,
                                       engine::Priority priority = engine::Priority::streaming) {
        std::vector<engine::Handle> handles;
        for (int i = 0; i < count; ++i) {
            Job job;
            for (int t = 0; t < 16; ++t)
                job.prompt.push_back(static_cast<model::Token>(1 + (made * 7 + t * 3) % 23));
            ++made;
            job.max_tokens = max_tokens;
            job.sampling.temperature = 0;
            job.credit = 1'000'000;
            job.flow = flow;
            job.weight = weight;
            job.priority = priority;
            handles.push_back(*engine->submit(std::move(job)));
        }
        return handles;
    }
    double cost(const std::vector<engine::Handle>& handles) const {
        double sum = 0;
        for (const auto h : handles) sum += engine->cost_s(h);
        return sum;
    }
    void steps(int count) {
        while (count-- > 0) engine->step();
    }
    int made = 0;
};

}  // namespace

TEST_CASE("an idle flow banks nothing, and finds what it used before again", "[flows]") {
    Flows flows(2);
    Flow* a = flows.enter("a", 1, 0);
    Flow* b = flows.enter("b", 1, 0);
    Flows::charge(*a, 3);
    Flows::charge(*b, 5);
    CHECK(flows.enter("c", 1, 0)->tag == 3);  // new: at the least
    flows.leave(*b);
    Flows::charge(*a, 1);
    b = flows.enter("b", 1, 0);
    CHECK(b->tag == 5);  // still ahead
    flows.leave(*b);
    Flows::charge(*a, 9);
    flows.leave(*flows.enter("c", 1, 0));
    flows.leave(*flows.enter("c", 1, 0));  // the first of c is still live: its tag stands
    Flow* c = flows.enter("c", 1, 0);
    CHECK(c->tag == 3);
    flows.leave(*c);
    flows.leave(*c);
    CHECK(flows.enter("b", 1, 0)->tag == 13);  // the least that have requests has passed it
}

TEST_CASE("weights divide what is charged, and a bad weight counts as 1", "[flows]") {
    Flows flows(2);
    Flow* heavy = flows.enter("heavy", 4, 0);
    Flow* bad = flows.enter("bad", -3, 0);
    Flows::charge(*heavy, 2);
    Flows::charge(*bad, 2);
    CHECK(heavy->tag == 0.5);
    CHECK(bad->tag == 2);
}

TEST_CASE("the router's tag counts, but no further than the lag from the others", "[flows]") {
    Flows flows(2);
    CHECK(flows.enter("a", 1, 100)->tag == 100);  // alone: as it is
    Flow* b = flows.enter("b", 1, 99);
    CHECK(b->tag == 99);
    CHECK(flows.enter("b", 1, 50)->tag == 99);             // only with a flow's first request
    CHECK(flows.enter("restarted", 1, 0.001)->tag == 97);  // of 99, two back
    Flow* far = flows.enter("far", 1, 1e9);
    CHECK(far->tag == 102);
    flows.correct(*b, 98);
    CHECK(b->tag == 98);
    flows.correct(*b, -7);
    CHECK(b->tag == 95);
    flows.correct(*b, 1e300);
    CHECK(b->tag == 104);
}

TEST_CASE("flows without requests are forgotten beyond a bound, and all when none has any",
          "[flows]") {
    Flows flows(1e9);
    Flow* stays = flows.enter("stays", 1, 0);
    for (size_t i = 0; i < Flows::kIdleMost + 500; ++i) {
        Flow* f = flows.enter(std::to_string(i), 1, 0);
        Flows::charge(*f, 1.0 + static_cast<double>(i));
        flows.leave(*f);
    }
    CHECK(flows.known() == Flows::kIdleMost + 1);
    CHECK(flows.enter("0", 1, 0)->tag == 0);       // had used least: forgotten
    CHECK(flows.enter("1000", 1, 0)->tag == 1001);
    flows.leave(*flows.enter("stays", 1, 0));
    flows.leave(*stays);
    CHECK(flows.known() > 1);
    Flows empty(2);
    empty.leave(*empty.enter("a", 1, 7));
    CHECK(empty.known() == 0);
}

TEST_CASE("a flow with nothing running enters though the slots are taken, and gets its share",
          "[flows]") {
    Bench b;
    b.open();
    const auto flood = b.submit("flood", 8);
    b.steps(40);
    CHECK(b.engine->stats().running == 4);  // one flow alone does not enter above the slots
    const double before = b.cost(flood);
    const auto victim = b.submit("victim", 1);
    b.steps(3);
    CHECK(b.engine->stats().running == 5);
    CHECK(b.engine->stats().resting == 1);
    CHECK(b.sink.answers[victim[0]].pieces.size() >= 1);
    b.steps(60);
    // It has a row in every iteration, since a quarter of the slots is less than its share.
    CHECK(b.cost(victim) >= 0.058 + 0.016);
    CHECK(b.cost(flood) - before > 2 * b.cost(victim));  // nothing is left idle for fairness
    CHECK(b.engine->stats().preempted == 0);
    for (const auto h : flood) CHECK(!b.sink.answers[h].failed);
}

TEST_CASE("two backlogged flows get compute-seconds by weight, however many requests each has",
          "[flows]") {
    for (const double weight : {1.0, 3.0}) {
        Bench b;
        b.options.slots_max = 8;
        b.open();
        const auto many = b.submit("many", 16, 1, 480);
        b.steps(20);
        const auto few = b.submit("few", 8, weight, 480);
        b.steps(30);
        CHECK(b.engine->stats().running > 8 + 2);  // both could use more rows than there are
        const auto want = b.cost(few);
        const auto had = b.cost(many);
        b.steps(150);
        CHECK((b.cost(few) - want) / (b.cost(many) - had) == Approx(weight).epsilon(0.1));
        CHECK(b.engine->stats().preempted == 0);
    }
}

TEST_CASE("a flow that is ahead of all that run waits for a slot", "[flows]") {
    Bench b;
    b.open();
    auto ahead = b.submit("ahead", 1, 0.1);
    b.submit("others", 3);
    b.steps(100);
    for (const auto h : ahead) b.engine->cancel(h);
    b.submit("others", 3);
    b.steps(5);
    REQUIRE(b.engine->stats().running == 4);
    ahead = b.submit("ahead", 1, 0.1);
    b.steps(5);
    CHECK(b.engine->stats().running == 4);
    CHECK_FALSE(b.sink.answers[ahead[0]].admitted);
    b.steps(300);  // until the others have used as much, or a slot is free
    CHECK(b.sink.answers[ahead[0]].admitted);
    CHECK(b.engine->stats().preempted == 0);
}

TEST_CASE("rows beyond the ITL target rest in turn, and answers are the same", "[flows]") {
    std::vector<std::string> expected;
    {
        Bench b;
        b.options.slots_max = 16;
        b.open();
        const auto handles = b.submit("a", 12, 1, 60);
        b.steps(500);
        for (const auto h : handles) expected.push_back(b.sink.answers[h].text);
    }
    Bench b;
    b.options.slots_max = 16;
    b.options.itl_target_ms = 5;
    b.open();
    const auto handles = b.submit("a", 12, 1, 60);
    b.steps(30);  // prompts, and the cost model
    REQUIRE(b.engine->stats().running == 12);
    const size_t first = b.forward.chunk_rows.size();
    size_t least = SIZE_MAX, most = 0;
    b.steps(60);
    for (const auto h : handles) {
        least = std::min(least, b.sink.answers[h].pieces.size());
        most = std::max(most, b.sink.answers[h].pieces.size());
    }
    for (size_t i = first; i < b.forward.chunk_rows.size(); ++i)
        CHECK(b.forward.chunk_rows[i].size() <= 5);
    CHECK(most - least <= 30);  // those that were there first have had more; nobody stands still
    CHECK(least >= 20);
    while (b.engine->step()) {
    }
    for (size_t i = 0; i < handles.size(); ++i) {
        REQUIRE(b.sink.answers[handles[i]].finished);
        CHECK(b.sink.answers[handles[i]].text == expected[i]);
    }
    CHECK(b.engine->stats().preempted == 0);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("batch rests where others fill the time, but no longer than it may", "[flows]") {
    Bench b;
    b.options.slots_max = 16;
    b.options.itl_target_ms = 4;
    b.options.rest_max_ms = 100;
    b.open();
    const auto batch = b.submit("x", 4, 1, 480, engine::Priority::batch);
    b.steps(20);
    const auto online = b.submit("x", 5, 1, 480);
    b.steps(30);
    REQUIRE(b.engine->stats().running == 9);
    const double had = b.cost(batch), others = b.cost(online);
    const int64_t started_ms = b.clock.mono_ms();
    std::map<engine::Handle, std::pair<double, int64_t>> last;  // cost, and when it grew
    for (const auto h : batch) last[h] = {b.engine->cost_s(h), started_ms};
    int64_t longest_ms = 0;
    for (int i = 0; i < 250; ++i) {
        b.steps(1);
        for (auto& [h, seen] : last) {
            const int64_t now_ms = b.clock.mono_ms();
            longest_ms = std::max(longest_ms, now_ms - seen.second);
            if (b.engine->cost_s(h) > seen.first) seen = {b.engine->cost_s(h), now_ms};
        }
    }
    const auto passed_s = static_cast<double>(b.clock.mono_ms() - started_ms) * 1e-3;
    // Each of the four has a row of 1 ms in 100 ms, the rest is the others'.
    CHECK(b.cost(batch) - had == Approx(4 * 0.01 * passed_s).epsilon(0.2));
    CHECK(b.cost(online) - others == Approx(0.96 * passed_s).epsilon(0.05));
    CHECK(longest_ms <= 110);
}

TEST_CASE("beside an answer batch takes its share of the time and no more, alone all of it", "[flows]") {
    Bench b;
    b.options.slots_max = 16;
    b.options.first_tokens = 16;
    b.options.batch_share = 0.05;
    b.open();
    const auto batch = b.submit("x", 12, 1, 100'000, engine::Priority::batch);
    b.steps(40);
    auto start = b.clock.mono_ns();
    const auto seconds = [&] { return static_cast<double>(b.clock.mono_ns() - start) * 1e-9; };
    double before = b.cost(batch);
    b.steps(40);
    CHECK(b.cost(batch) - before == Approx(seconds()));
    before = b.cost(batch);
    start = b.clock.mono_ns();
    const auto one = b.submit("y", 1, 1, 400);
    for (int i = 0; i < 2000 && !b.sink.answers[one[0]].over(); ++i) b.engine->step();
    REQUIRE(b.sink.answers[one[0]].over());
    const double got = (b.cost(batch) - before) / seconds();
    INFO("batch got " << got << " of " << seconds() << " s");
    CHECK(got >= 0.03);  // it moves
    CHECK(got <= 0.09);  // iterations are whole: the last of them may be one too many
    before = b.cost(batch);
    start = b.clock.mono_ns();
    b.steps(40);
    CHECK(b.cost(batch) - before == Approx(seconds()));
}

TEST_CASE("no sequence starves when there are more than turns allow", "[flows]") {
    Bench b;
    b.options.slots_max = 2;
    b.options.rest_max_ms = 50;
    b.options.itl_target_ms = 1;  // one row an iteration
    b.open();
    std::vector<engine::Handle> all;
    for (int i = 0; i < 4; ++i) all.push_back(b.submit("flow" + std::to_string(i), 1, 1, 100)[0]);
    b.steps(600);
    for (const auto h : all) CHECK(b.sink.answers[h].finished);
}

TEST_CASE("a flow with little running begins its answer as if it were alone beside a flood", "[flows]") {
    const auto begin = [](uint32_t first_tokens, int flood, uint32_t tokens) {
        Bench b;
        b.options.slots_max = 8;
        b.options.first_tokens = first_tokens;
        b.open();
        if (flood > 0) b.submit("flood", flood);
        b.steps(30);
        const auto start = b.clock.mono_ns();
        const auto one = b.submit("quiet", 1);
        for (int i = 0; i < 1000 && b.sink.answers[one[0]].ids.size() < tokens; ++i) b.engine->step();
        return (b.clock.mono_ns() - start) / 1'000'000;
    };
    const auto alone = begin(8, 0, 8);
    CHECK(begin(8, 8, 8) <= alone + 16 + 8);  // one iteration that was on its way, its prompt's chunk at most
    CHECK(begin(0, 8, 8) >= 2 * alone);       // without it each token waits for eight others' rows
    CHECK(begin(8, 2, 8) > alone + 8);        // who has not four times as much running does not wait
}

TEST_CASE("who is ahead by no more than a short answer begins before a flood all the same", "[flows]") {
    // Tokens of the second answer of one who has just been given a first one, when so much time has passed.
    const auto second = [](int64_t begin_lag_ms) {
        Bench b;
        b.options.slots_max = 8;
        b.options.first_tokens = 16;
        b.options.begin_lag_ms = begin_lag_ms;
        b.open();
        b.submit("flood", 16);
        b.steps(30);
        const auto first = b.submit("quiet", 1, 1, 100);
        for (int i = 0; i < 1000 && !b.sink.answers[first[0]].over(); ++i) b.engine->step();
        REQUIRE(b.sink.answers[first[0]].over());
        const auto start = b.clock.mono_ns();
        const auto one = b.submit("quiet", 1, 1, 100);
        for (int i = 0; i < 1000 && b.sink.answers[one[0]].ids.size() < 16; ++i) b.engine->step();
        return (b.clock.mono_ns() - start) / 1'000'000;
    };
    const auto without = second(0), with = second(250);
    INFO(without << " ms, " << with << " ms");
    CHECK(with <= 16 + 16 + 24);  // its prompt and tokens, and the iteration that was on its way
    CHECK(without >= with + 16);
}

TEST_CASE("a flood gets its share beside one who begins all the time", "[flows]") {
    Bench b;
    b.options.slots_max = 8;
    b.options.first_tokens = 16;
    b.options.begin_lag_ms = 100;
    b.open();
    const auto flood = b.submit("flood", 8, 1, 100'000);
    b.steps(30);
    const double before = b.cost(flood);
    const auto start = b.clock.mono_ns();
    double quiet = 0;
    for (int n = 0; n < 40; ++n) {
        const auto one = b.submit("quiet", 1, 1, 16);
        for (int i = 0; i < 1000 && !b.sink.answers[one[0]].over(); ++i) b.engine->step();
        quiet += b.sink.answers[one[0]].finished->cost_s;
    }
    const double elapsed = static_cast<double>(b.clock.mono_ns() - start) * 1e-9;
    const double got = b.cost(flood) - before;
    INFO(got << " of " << elapsed << " s, quiet " << quiet);
    CHECK(got >= 0.4 * elapsed);
}
