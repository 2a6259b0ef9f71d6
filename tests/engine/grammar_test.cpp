// Answers under a grammar: whatever the model says, the text parses and validates.
#include <catch2/catch.hpp>
#include <random>

#include "../grammar/schemas.hpp"
#include "../grammar/validator.hpp"
#include "../grammar/vocabularies.hpp"
#include "engine/engine.hpp"
#include "fake_forward.hpp"
#include "grammar/schema.hpp"

using namespace parley;
using engine::Finish;
using engine::Job;

namespace {

class Tokens final : public engine::Vocabulary {
  public:
    std::string_view bytes(model::Token token) const override { return words.bytes(token); }
    bool ends_answer(model::Token token) const override { return words.ends_answer(token); }
    test::ByteVocabulary words;
};

struct Bench {
    test::FakeForward forward;
    Tokens vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    engine::EngineOptions options;
    std::unique_ptr<engine::Engine> engine;

    void open() {
        forward.vocab = vocabulary.words.size();
        forward.clock = &clock;
        engine = std::make_unique<engine::Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    void run() {
        for (int i = 0; i < 20'000 && engine->step(); ++i) {
        }
    }
};

struct Case {
    std::string schema;
    std::shared_ptr<const grammar::TokenGrammar> grammar;
    Job job;
};

Case make(uint64_t seed) {
    static const auto trie = std::make_shared<const grammar::Trie>(test::ByteVocabulary());
    Case out;
    test::SchemaMaker maker(seed);
    out.schema = maker.root();
    auto automaton = grammar::compile_schema(out.schema);
    INFO(out.schema);
    if (!automaton) FAIL(automaton.error().what);
    out.grammar = *grammar::TokenGrammar::create(std::move(*automaton), trie);
    out.job.grammar = out.grammar;
    out.job.prompt.assign(5 + seed % 30, static_cast<model::Token>(1 + seed % 200));
    out.job.max_tokens = out.grammar->tokens_least() + maker.below(3) * maker.below(60);
    out.job.sampling.temperature = maker.below(3) == 0 ? 0.0f : 1.0f;
    out.job.sampling.seed = seed;
    if (maker.below(3) == 0) out.job.sampling.top_k = 5;
    if (maker.below(3) == 0) out.job.sampling.top_p = 0.5f;
    if (maker.below(3) == 0) out.job.sampling.repetition_penalty = 1.3f;
    out.job.credit = 1'000'000;
    return out;
}

}  // namespace

TEST_CASE("every answer under a schema parses and validates, also in a batch",
          "[engine][grammar]") {
    const uint64_t seed = std::random_device{}();
    for (uint64_t round = 0; round < 12; ++round) {
        std::vector<Case> cases;
        std::vector<std::string> alone;
        Bench crowd;
        crowd.forward.blocks = 32;
        crowd.options.reserve_tokens = 1;
        crowd.options.slots_max = 12;
        crowd.options.rows_max = 64;
        crowd.open();
        std::vector<engine::Handle> handles;
        for (uint64_t n = 0; n < 12; ++n) {
            const uint64_t id = seed + round * 12 + n;
            CAPTURE(seed, id);
            cases.push_back(make(id));
            Bench b;
            b.open();
            Job copy = cases.back().job;
            const auto h = b.engine->submit(std::move(copy));
            REQUIRE(h);
            b.run();
            REQUIRE(b.sink.answers[*h].finished);
            alone.push_back(b.sink.answers[*h].text);
            copy = cases.back().job;
            handles.push_back(*crowd.engine->submit(std::move(copy)));
        }
        crowd.run();
        for (uint64_t n = 0; n < 12; ++n) {
            const auto& a = crowd.sink.answers[handles[n]];
            CAPTURE(seed, round, n, cases[n].schema, cases[n].job.max_tokens, a.text);
            REQUIRE(a.finished);
            CHECK(a.finished->output_tokens <= cases[n].job.max_tokens);
            test::Validator validator(cases[n].schema);
            CHECK(validator.check(a.text) == "");
            CHECK(a.text == alone[n]);
        }
    }
}

TEST_CASE("preemption leaves an answer under a grammar as it was", "[engine][grammar]") {
    Case c = make(1);
    c.schema = R"({"type":"string","minLength":90,"maxLength":99})";
    c.grammar = *grammar::TokenGrammar::create(
        *grammar::compile_schema(c.schema),
        std::make_shared<grammar::Trie>(test::ByteVocabulary(false)));
    c.job.grammar = c.grammar;
    c.job.prompt.assign(30, 7);
    c.job.max_tokens = 110;
    test::Validator validator(c.schema);
    Bench b;
    b.forward.blocks = 20;  // 8 × 130 tokens want 72
    b.open();
    std::vector<engine::Handle> handles;
    for (uint64_t n = 0; n < 8; ++n) {
        Job j = c.job;
        j.sampling.seed = n;
        handles.push_back(*b.engine->submit(std::move(j)));
    }
    b.run();
    CHECK(b.engine->stats().preempted > 0);
    for (uint64_t n = 0; n < 8; ++n) {
        Job j = c.job;
        j.sampling.seed = n;
        Bench alone;
        alone.open();
        const auto h = *alone.engine->submit(std::move(j));
        alone.run();
        REQUIRE(b.sink.answers[handles[n]].finished);
        CHECK(b.sink.answers[handles[n]].text == alone.sink.answers[h].text);
        CHECK(validator.check(b.sink.answers[handles[n]].text) == "");
    }
}

TEST_CASE("a continuation under a grammar goes on where the first attempt was",
          "[engine][grammar]") {
    const uint64_t seed = std::random_device{}();
    for (uint64_t n = 0; n < 30; ++n) {
        const Case c = make(seed + n);
        CAPTURE(seed, n, c.schema);
        Bench b;
        b.open();
        Job copy = c.job;
        const auto h = b.engine->submit(std::move(copy));
        REQUIRE(h);
        b.run();
        const auto whole = b.sink.answers[*h];
        REQUIRE(whole.finished);
        Job later = c.job;
        const auto& ids = whole.ids;
        later.produced.assign(ids.begin(),
                              ids.begin() + static_cast<long>((n * 7) % (ids.size() + 1)));
        Bench again;
        again.open();
        const auto g = again.engine->submit(std::move(later));
        REQUIRE(g);
        again.run();
        REQUIRE(again.sink.answers[*g].finished);
        CHECK(again.sink.answers[*g].text == whole.text);
        CHECK(again.sink.answers[*g].finished->output_tokens == whole.finished->output_tokens);
    }
}

TEST_CASE("a grammar that cannot be kept is refused at once", "[engine][grammar]") {
    Bench b;
    b.open();
    const Case c = make(3);
    const auto what = [&](auto&& change) {
        Job j = c.job;
        change(j);
        const auto h = b.engine->submit(std::move(j));
        if (h) return std::string("taken");
        CHECK(h.error().code == base::Errc::invalid);
        return h.error().what;
    };
    CHECK(what([&](Job& j) { j.max_tokens = c.grammar->tokens_least() - 1; }).substr(0, 10) ==
          "max_tokens");
    CHECK(what([&](Job& j) { j.stops = {"a"}; }).substr(0, 4) == "stop");
    CHECK(what([&](Job& j) { j.produced = {1 + '\n'}; }).substr(0, 8) == "produced");
    CHECK(b.engine->empty());
    CHECK(what([&](Job& j) { j.max_tokens = c.grammar->tokens_least(); }) == "taken");
}
