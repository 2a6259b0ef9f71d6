// A draft model in the engine: the same answers as without, fewer iterations where it is good, none of its
// time where it is not.
#include "engine/draft_model.hpp"

#include <catch2/catch.hpp>

#include "engine/engine.hpp"
#include "fake_forward.hpp"

using namespace parley;
using engine::DraftModel;
using engine::Engine;
using engine::Job;
using Answer = test::RecordingSink::Answer;

namespace {

// `wrong_of_8` of its logits say another token than the model does.
class Student final : public engine::Forward {
  public:
    test::FakeForward inner;
    uint32_t wrong_of_8 = 0;
    uint32_t rows_most = 0;
    uint64_t runs = 0;
    base::ManualClock* clock = nullptr;
    int64_t run_ms = 0;

    void run(std::span<const engine::Chunk> chunks, std::span<float> logits) override {
        ++runs;
        uint32_t rows = 0;
        for (const auto& chunk : chunks) rows += static_cast<uint32_t>(chunk.tokens.size());
        rows_most = std::max(rows_most, rows);
        inner.run(chunks, logits);
        for (size_t at = 0; at < logits.size(); at += inner.vocab) {
            uint32_t bits = 0;
            for (uint32_t v = 0; v < inner.vocab; ++v)
                bits += static_cast<uint32_t>(logits[at + v] * 512);
            if (bits / 3 % 8 < wrong_of_8) std::reverse(&logits[at], &logits[at] + inner.vocab);
        }
        if (clock != nullptr) clock->advance_ms(run_ms);
    }
    void copy_block(uint32_t from, uint32_t to) override { inner.copy_block(from, to); }
    uint32_t vocab_size() const override { return inner.vocab; }
    uint32_t context_tokens() const override { return inner.context; }
    uint32_t kv_blocks() const override { return inner.blocks; }
    uint64_t kv_bytes() const override { return 0; }
    uint64_t weight_bytes() const override { return 0; }
    const char* kernel() const override { return "fake"; }
    uint32_t threads() const override { return 1; }
};

struct Bench {
    test::FakeForward forward;
    Student student;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    engine::EngineOptions options;
    std::unique_ptr<Engine> engine;

    explicit Bench(bool drafts, uint32_t wrong_of_8 = 2) {
        forward.run_ms = 50;  // so that a row more is cheap
        forward.blocks = 128;
        student.wrong_of_8 = wrong_of_8;
        student.run_ms = 4;
        student.inner.end_bias = forward.end_bias;
        student.inner.blocks = 128;
        options.speculate_max = 4;
        if (drafts) options.draft = &student;
    }
    void open() {
        forward.clock = student.clock = &clock;
        engine = std::make_unique<Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    void run() {
        for (int i = 0; i < 20'000 && engine->step(); ++i) {
        }
    }
};

// A draft of the same weights guesses by likelihood alone: what bends it far would be no test of it.
Job job(uint32_t n, uint32_t prompt_tokens, uint64_t max_tokens = 60) {
    Job j = test::mixed_job(n, prompt_tokens, max_tokens);
    j.sampling.frequency_penalty = 0;
    j.sampling.top_p = 1;
    return j;
}

template <class Change>
std::vector<Answer> all(bool drafts, uint32_t wrong_of_8, uint32_t count, Change change,
                        engine::EngineStats* stats = nullptr, uint64_t* runs = nullptr) {
    Bench b(drafts, wrong_of_8);
    change(b);
    b.open();
    std::vector<engine::Handle> handles;
    for (uint32_t n = 0; n < count; ++n) handles.push_back(*b.engine->submit(job(n, 20 + n * 9)));
    b.run();
    std::vector<Answer> answers;
    double cost_s = 0;
    for (const auto h : handles) {
        REQUIRE(b.sink.answers[h].finished);
        cost_s += b.sink.answers[h].finished->cost_s;
        answers.push_back(b.sink.answers[h]);
    }
    CHECK(cost_s == Approx(b.engine->stats().busy_s));
    CHECK(b.engine->stats().busy_s ==
          Approx(static_cast<double>(b.clock.mono_ns() - base::ManualClock().mono_ns()) * 1e-9));
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
    if (stats != nullptr) *stats = b.engine->stats();
    if (runs != nullptr) *runs = b.student.runs;
    return answers;
}

void check_same(const std::vector<Answer>& a, const std::vector<Answer>& b) {
    REQUIRE(a.size() == b.size());
    for (size_t i = 0; i < a.size(); ++i) {
        CAPTURE(i);
        CHECK(a[i].text == b[i].text);
        CHECK(a[i].ids == b[i].ids);
        CHECK(a[i].finished->reason == b[i].finished->reason);
        CHECK(a[i].finished->output_tokens == b[i].finished->output_tokens);
    }
}

}  // namespace

TEST_CASE("answers with a draft model, good or bad, are those without", "[draft]") {
    const auto plain = all(false, 0, 8, [](Bench& b) { b.options.speculate_max = 0; });
    for (const uint32_t wrong : {0u, 3u, 8u}) {
        for (const uint32_t slots : {1u, 3u, 8u}) {
            CAPTURE(wrong, slots);
            check_same(plain, all(true, wrong, 8, [&](Bench& b) { b.options.slots_max = slots; }));
        }
    }
}

TEST_CASE("answers with a draft model are the same under preemption and in any chunks", "[draft]") {
    const auto plain = all(false, 0, 8, [](Bench& b) { b.options.speculate_max = 0; });
    engine::EngineStats stats;
    const auto tight = all(
        true, 2, 8,
        [](Bench& b) {
            b.forward.blocks = 18;
            b.options.rows_max = 24;
            b.options.slots_max = 8;
            b.options.reserve_tokens = 1;
        },
        &stats);
    check_same(plain, tight);
    CHECK(stats.preempted > 0);
    CHECK(stats.accepted_tokens > 0);
}

TEST_CASE("a good draft model takes a fraction of the iterations", "[draft]") {
    engine::EngineStats without, with;
    const auto greedy = [](Bench& b) {
        b.forward.end_bias = b.student.inner.end_bias = -100.0f;
        b.options.slots_max = 1;
    };
    all(false, 0, 1, greedy, &without);
    all(
        true, 0, 1, [&](Bench& b) { greedy(b); }, &with);
    CHECK(with.accepted_tokens * 2 > with.drafted_tokens);
    CHECK(with.iterations * 2 < without.iterations);
    CHECK(with.busy_s < without.busy_s);
}

TEST_CASE("a draft model that is always wrong, or as slow as the model, is soon asked no more",
          "[draft]") {
    for (const bool slow : {false, true}) {
        CAPTURE(slow);
        Bench b(true, slow ? 2 : 8);
        b.forward.end_bias = b.student.inner.end_bias = -100.0f;
        if (slow) b.student.run_ms = 200;
        b.open();
        Job j = job(0, 20, 400);
        j.sampling.repetition_penalty = 1;
        const auto h = *b.engine->submit(std::move(j));
        b.run();
        REQUIRE(b.sink.answers[h].finished);
        CHECK(b.engine->stats().iterations > 300);
        CHECK(b.student.runs < 80);  // of more than 300 iterations
    }
}

TEST_CASE("a draft model reads a long text by and by, and has no guess until it has", "[draft]") {
    Student student;
    student.inner.context = 2048;
    student.inner.blocks = 128;
    DraftModel draft(student);
    std::vector<model::Token> text;
    for (int i = 0; i < 700; ++i) text.push_back(1 + i * 7 % 23);
    std::vector<DraftModel::Want> wants{{1, text, 4, {}}};
    for (const bool reads : {true, true, false}) {
        draft.draft(wants);
        CHECK(wants[0].guessed.empty() == reads);
    }
    CHECK(wants[0].guessed.size() == 4);
    CHECK(student.rows_most == DraftModel::kRowsMax);
    // Read once: another guess is a row or two.
    student.rows_most = 0;
    text.push_back(wants[0].guessed[0]);
    wants[0] = {1, text, 2, {}};
    const auto before = wants[0].guessed;
    draft.draft(wants);
    CHECK(student.rows_most <= 2);
    CHECK(wants[0].guessed.size() == 2);
    draft.forget(1);
    CHECK(draft.blocks_free() == 128);
}

TEST_CASE("a guess depends on the text alone, not on what was guessed wrongly before", "[draft]") {
    Student student;
    DraftModel draft(student), fresh(student);
    std::vector<model::Token> text{1, 2, 3, 4, 5};
    for (int i = 0; i < 40; ++i) {
        std::vector<DraftModel::Want> wants{{1, text, 4, {}}};
        draft.draft(wants);
        Student other;
        DraftModel anew(other);
        std::vector<DraftModel::Want> again{{1, text, 4, {}}};
        anew.draft(again);
        CHECK(wants[0].guessed == again[0].guessed);
        // Sometimes as guessed, sometimes not.
        text.push_back(i % 3 == 0 ? 1 + i % 23 : wants[0].guessed[0]);
    }
}

TEST_CASE("where the draft model has no blocks or too short a context, nothing is guessed",
          "[draft]") {
    Student student;
    student.inner.blocks = 3;
    DraftModel draft(student);
    std::vector<model::Token> text(40, 3);
    std::vector<DraftModel::Want> wants{{1, text, 4, {}}, {2, text, 4, {}}};
    draft.draft(wants);
    CHECK(wants[0].guessed.size() == 4);
    CHECK(wants[1].guessed.empty());
    draft.forget(1);
    wants[1].guessed.clear();
    draft.draft(std::span(wants).subspan(1));
    CHECK(wants[1].guessed.size() == 4);
    student.inner.context = 43;
    draft.forget(2);
    wants[1].guessed.clear();
    draft.draft(std::span(wants).subspan(1));
    CHECK(wants[1].guessed.empty());
}
