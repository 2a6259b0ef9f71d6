#include "engine/cost_model.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "fake_forward.hpp"

using namespace parley;
using engine::CostModel;
using engine::IterationLoad;

namespace {

double law(const IterationLoad& load, double times) {
    return times * (2e-3 + 0.4e-3 * load.decode_rows + 0.2e-6 * load.keys +
                    0.3e-3 * load.prefill_rows);
}

IterationLoad some(std::mt19937& random) {
    IterationLoad load;
    for (uint32_t i = random() % 16; i > 0; --i)
        load += IterationLoad::of(random() % 2000, 1, true);
    load += IterationLoad::of(random() % 2000, 16 * (1 + random() % 16), false);
    return load;
}

void run(CostModel& model, std::mt19937& random, int iterations, double times) {
    for (int i = 0; i < iterations; ++i) {
        const IterationLoad load = some(random);
        const double noise = 0.98 + 0.04 * static_cast<double>(random() % 1000) / 1000;
        model.observe(load, law(load, times) * noise);
    }
}

void check(const CostModel& model, std::mt19937& random, double times) {
    for (int i = 0; i < 50; ++i) {
        const IterationLoad load = some(random);
        CHECK(model.seconds(load) == Approx(law(load, times)).epsilon(0.08));
    }
}

}  // namespace

TEST_CASE("the cost model finds the law behind the times, and forgets one that holds no more") {
    std::mt19937 random(7);
    CostModel model;
    run(model, random, 300, 1);
    check(model, random, 1);
    run(model, random, 400, 3);
    check(model, random, 3);
    run(model, random, 400, 1);
    check(model, random, 1);
}

TEST_CASE("one slow iteration is believed at once, one fast one is not") {
    std::mt19937 random(7);
    CostModel slow, fast;
    run(slow, random, 300, 1);
    fast = slow;
    const IterationLoad load = IterationLoad::of(0, 256, false);
    const double before = slow.seconds(load);
    slow.observe(load, 4 * before);
    fast.observe(load, before / 4);
    CHECK(slow.seconds(load) > 2 * before);
    CHECK(fast.seconds(load) > 0.5 * before);
}

TEST_CASE("a chunk is the largest multiple of 16 that fits, and 16 where nothing does") {
    CostModel model;
    std::mt19937 random(3);
    for (int i = 0; i < 400; ++i) {
        const IterationLoad load = some(random);
        model.observe(load, law(load, 1));
    }
    IterationLoad decodes;
    for (int i = 0; i < 8; ++i) decodes += IterationLoad::of(500, 1, true);
    const uint32_t rows = model.prefill_rows(decodes, 0, 0.040, 16, 512);
    IterationLoad fits = decodes, over = decodes;
    fits += IterationLoad::of(0, rows, false);
    over += IterationLoad::of(0, rows + 16, false);
    CHECK(rows % 16 == 0);
    CHECK(model.seconds(fits) <= 0.040);
    CHECK(model.seconds(over) > 0.040);
    CHECK(law(fits, 1) == Approx(0.040).margin(0.006));
    CHECK(model.prefill_rows(decodes, 0, 0.001, 16, 512) == 16);
}

TEST_CASE("no chunk is more than twice the largest that was measured") {
    CostModel model;
    model.observe(IterationLoad::of(0, 64, false), 0.001);
    CHECK(model.prefill_rows({}, 0, 10.0, 16, 4096) == 128);
}

TEST_CASE("charges sum to the busy time, and a longer context is charged more") {
    base::ManualClock clock;
    test::FakeForward forward;
    forward.clock = &clock;
    forward.end_bias = -1e6f;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    engine::EngineOptions options;
    engine::Engine engine(forward, vocabulary, options, sink, clock);
    for (int i = 0; i < 6; ++i) {
        engine::Job job;
        job.prompt.assign(static_cast<size_t>(20 + 10 * i), 1 + i);
        job.max_tokens = 30;
        job.credit = 1000;
        job.sampling.temperature = 0;
        REQUIRE(engine.submit(std::move(job)));
    }
    while (engine.step()) {
    }
    double charged = 0;
    for (const auto& [handle, answer] : sink.answers) {
        REQUIRE(answer.finished);
        charged += answer.finished->cost_s;
    }
    CHECK(charged == Approx(engine.stats().busy_s).epsilon(1e-9));
    CHECK(sink.answers.rbegin()->second.finished->cost_s >
          sink.answers.begin()->second.finished->cost_s);
}

TEST_CASE("free slots are not counted against the queue") {
    base::ManualClock clock;
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    engine::EngineOptions options;
    options.slots_max = 3;
    options.queue_max = 2;
    engine::Engine engine(forward, vocabulary, options, sink, clock);
    const auto submit = [&] {
        engine::Job job;
        job.prompt = {1, 2, 3};
        job.max_tokens = 4;
        return engine.submit(std::move(job));
    };
    for (int i = 0; i < 5; ++i) CHECK(submit());
    const auto refused = submit();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::again);
}

TEST_CASE("what a load takes at least does not grow while the host is slow") {
    std::mt19937 random(7);
    CostModel model;
    run(model, random, 300, 1);
    const IterationLoad load = IterationLoad::of(0, 256, false);
    const double before = model.seconds_least(load);
    CHECK(before == Approx(law(load, 1)).epsilon(0.1));
    model.observe(load, law(load, 8));
    CHECK(model.seconds(load) > 3 * before);
    CHECK(model.seconds_least(load) < 1.5 * before);
}
