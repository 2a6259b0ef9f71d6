// Speculation in the engine: the same answers as without, guesses that come true where the text
// repeats itself, and none where it does not or where rows are dear.
#include <catch2/catch.hpp>
#include <set>

#include "../grammar/schemas.hpp"
#include "../grammar/vocabularies.hpp"
#include "engine/engine.hpp"
#include "fake_forward.hpp"
#include "grammar/schema.hpp"

using namespace parley;
using engine::Engine;
using engine::EngineOptions;
using engine::Finish;
using engine::Job;
using test::mixed_job;
using Answer = test::RecordingSink::Answer;

namespace {

class Bytes final : public engine::Vocabulary {
  public:
    std::string_view bytes(model::Token token) const override { return words.bytes(token); }
    bool ends_answer(model::Token token) const override { return words.ends_answer(token); }
    test::ByteVocabulary words;
};

struct Bench {
    test::FakeForward forward;
    test::FakeVocabulary words;
    const engine::Vocabulary* vocabulary = &words;
    test::RecordingSink sink;
    base::ManualClock clock;
    EngineOptions options;
    std::unique_ptr<Engine> engine;

    explicit Bench(uint32_t speculate) {
        options.speculate_max = speculate;
        forward.copies = 7;
        forward.run_ms = 50;  // so that a row more is cheap
        forward.blocks = 128;
    }
    void open() {
        forward.clock = &clock;
        engine = std::make_unique<Engine>(forward, *vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    void run() {
        for (int i = 0; i < 20'000 && engine->step(); ++i) {
        }
    }
    Answer& answer(engine::Handle h) { return sink.answers[h]; }
};


template <class Change>
Answer alone(Job j, uint32_t speculate, Change change, engine::EngineStats* stats = nullptr) {
    Bench b(speculate);
    change(b);
    b.open();
    const auto h = b.engine->submit(std::move(j));
    REQUIRE(h);
    b.run();
    REQUIRE(b.answer(*h).over());
    if (stats != nullptr) *stats = b.engine->stats();
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
    return b.answer(*h);
}

Answer alone(Job j, uint32_t speculate = 0, engine::EngineStats* stats = nullptr) {
    return alone(std::move(j), speculate, [](Bench&) {}, stats);
}

void check_same(const Answer& a, const Answer& b) {
    CHECK(a.text == b.text);
    CHECK(a.ids == b.ids);
    REQUIRE(a.finished);
    REQUIRE(b.finished);
    CHECK(a.finished->reason == b.finished->reason);
    CHECK(a.finished->stop_sequence == b.finished->stop_sequence);
    CHECK(a.finished->output_tokens == b.finished->output_tokens);
}

}  // namespace

TEST_CASE("greedy, seeded, penalised and stopped answers are the same with speculation",
          "[engine][speculation]") {
    uint64_t drafted = 0, accepted = 0;
    std::set<Finish> reasons;
    for (uint32_t n = 0; n < 24; ++n) {
        INFO("job " << n);
        const Answer expected = alone(mixed_job(n));
        for (const uint32_t speculate : {1u, 3u, 8u, 15u}) {
            engine::EngineStats stats;
            check_same(alone(mixed_job(n), speculate, &stats), expected);
            drafted += stats.drafted_tokens;
            accepted += stats.accepted_tokens;
            // Each iteration that decodes gives a token, and one more for each guess that came true;
            // the prompt's last chunk gives the first.
            CHECK(stats.decode_rows + stats.accepted_tokens + 1 >= expected.finished->output_tokens);
            CHECK(stats.decode_rows + stats.accepted_tokens <= expected.finished->output_tokens);
        }
        reasons.insert(expected.finished->reason);
    }
    CHECK(accepted > 500);
    CHECK(drafted > accepted);  // some were wrong, and did no harm
    CHECK(reasons.count(Finish::stop_sequence) == 1);
    CHECK(reasons.count(Finish::max_tokens) == 1);
}

TEST_CASE("a batch of 16 at different places, in chunks of any size, has the same answers",
          "[engine][speculation]") {
    std::vector<Answer> expected;
    for (uint32_t n = 0; n < 16; ++n) expected.push_back(alone(mixed_job(n, 10 + n * 3)));
    for (const uint32_t rows : {16u, 20u, 40u, 512u}) {
        Bench b(8);
        b.options.rows_max = rows;
        b.options.prefill_target_ms = rows == 512 ? 40 : 0;
        b.open();
        std::vector<engine::Handle> handles;
        for (uint32_t n = 0; n < 16; ++n) {
            handles.push_back(*b.engine->submit(mixed_job(n, 10 + n * 3)));
            for (uint32_t i = n % 3; i > 0; --i) b.engine->step();
        }
        b.run();
        INFO(rows << " rows");
        CHECK(b.forward.rows_most <= rows);
        for (uint32_t n = 0; n < 16; ++n) check_same(b.answer(handles[n]), expected[n]);
        if (rows > 32) CHECK(b.engine->stats().accepted_tokens > 0);
        CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
    }
}

TEST_CASE("sequences that guess and are preempted have the same answers, and no block is lost",
          "[engine][speculation]") {
    std::vector<Answer> expected;
    const auto endless = [](Bench& b) { b.forward.end_bias = -1000.0f; };
    for (uint32_t n = 0; n < 8; ++n) expected.push_back(alone(mixed_job(n, 30, 100), 0, endless));
    for (const uint32_t prefix : {0u, UINT32_MAX}) {
        Bench b(8);
        endless(b);
        b.forward.blocks = 20;
        b.options.prefix_blocks = prefix;
        b.options.reserve_tokens = 1;
        b.open();
        std::vector<engine::Handle> handles;
        for (uint32_t n = 0; n < 8; ++n) {
            Job j = mixed_job(n, 30, 100);
            j.tenant = "acme";
            handles.push_back(*b.engine->submit(std::move(j)));
        }
        b.run();
        CHECK(b.engine->stats().preempted > 0);
        CHECK(b.engine->stats().accepted_tokens > 0);
        for (uint32_t n = 0; n < 8; ++n) check_same(b.answer(handles[n]), expected[n]);
        CHECK(b.engine->stats().kv_blocks_free == 20);
    }
}

TEST_CASE("sequences of flows that take turns have the same answers with guesses",
          "[engine][speculation]") {
    const auto endless = [](Bench& b) { b.forward.end_bias = -1000.0f; };
    std::vector<Answer> expected;
    for (uint32_t n = 0; n < 12; ++n) expected.push_back(alone(mixed_job(n, 30, 80), 0, endless));
    for (const int64_t target_ms : {0, 55}) {
        Bench b(8);
        endless(b);
        b.options.slots_max = 4;
        b.options.itl_target_ms = target_ms;
        b.open();
        std::vector<engine::Handle> handles;
        for (uint32_t n = 0; n < 12; ++n) {
            Job j = mixed_job(n, 30, 80);
            j.flow = "flow " + std::to_string(n % 5);
            j.weight = 1 + n % 3;
            handles.push_back(*b.engine->submit(std::move(j)));
            for (uint32_t i = n; i > 0; --i) b.engine->step();
        }
        b.run();
        for (uint32_t n = 0; n < 12; ++n) check_same(b.answer(handles[n]), expected[n]);
        CHECK(b.engine->stats().accepted_tokens > 0);
        CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
    }
}

TEST_CASE("guesses make no one give way: blocks that only they need are not taken from a sequence",
          "[engine][speculation]") {
    const auto preempted = [](uint32_t speculate) {
        Bench b(speculate);
        b.forward.end_bias = -1000.0f;
        b.forward.blocks = 8;
        b.options.prefix_blocks = 0;
        b.open();
        // Two sequences that fill the pool to its last block, and no more.
        (void)b.engine->submit(mixed_job(2, 33, 31));
        (void)b.engine->submit(mixed_job(4, 33, 31));
        b.run();
        if (speculate > 0) CHECK(b.engine->stats().accepted_tokens > 0);
        return b.engine->stats().preempted;
    };
    CHECK(preempted(0) == 0);
    CHECK(preempted(15) == 0);
}

TEST_CASE("every max_tokens and context ends a run where it ends without guesses",
          "[engine][speculation]") {
    const auto endless = [](Bench& b) { b.forward.end_bias = -1000.0f; };
    for (uint64_t most = 1; most < 24; ++most) {
        const Answer got = alone(mixed_job(2, 40, most), 8, endless);
        CHECK(got.finished->output_tokens == most);
        check_same(got, alone(mixed_job(2, 40, most), 0, endless));
    }
    for (uint32_t context = 42; context < 70; ++context) {
        const auto narrow = [&](Bench& b) {
            endless(b);
            b.forward.context = context;
        };
        const Answer got = alone(mixed_job(2, 40, 1000), 8, narrow);
        REQUIRE(got.finished);
        CHECK(got.finished->reason == Finish::context_full);
        CHECK(got.finished->output_tokens == context - 40);
        check_same(got, alone(mixed_job(2, 40, 1000), 0, narrow));
    }
}

TEST_CASE("an answer under a schema is the same with guesses, whatever its budget",
          "[engine][speculation][grammar]") {
    const auto trie = std::make_shared<const grammar::Trie>(test::ByteVocabulary());
    const Bytes bytes;
    uint64_t accepted = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
        test::SchemaMaker maker(seed);
        const std::string schema = maker.root();
        INFO(schema);
        auto automaton = grammar::compile_schema(schema);
        REQUIRE(automaton);
        Job j;
        j.grammar = *grammar::TokenGrammar::create(std::move(*automaton), trie);
        // A prompt that has what an answer may have, so that there is something to copy.
        for (const char c : schema + schema)
            j.prompt.push_back(static_cast<model::Token>(static_cast<uint8_t>(c)));
        j.max_tokens = j.grammar->tokens_least() + maker.below(3) * maker.below(60);
        j.sampling.temperature = seed % 2 == 0 ? 0.0f : 1.0f;
        j.sampling.seed = seed;
        if (seed % 3 == 0) j.sampling.repetition_penalty = 1.3f;
        j.credit = 1'000'000;
        const auto change = [&](Bench& b) {
            b.vocabulary = &bytes;
            b.forward.vocab = bytes.words.size();
            b.forward.context = 8192;
            b.forward.blocks = 1024;
        };
        engine::EngineStats stats;
        const Answer expected = alone(j, 0, change);
        check_same(alone(j, 8, change, &stats), expected);
        CHECK(expected.finished->reason == Finish::end_turn);
        accepted += stats.accepted_tokens;
    }
    CHECK(accepted > 50);
}

TEST_CASE("a reader without credit holds a sequence that guesses; granted, it goes on alike",
          "[engine][speculation]") {
    const auto endless = [](Bench& b) { b.forward.end_bias = -1000.0f; };
    const Answer expected = alone(mixed_job(2, 40, 100), 0, endless);
    Bench b(8);
    endless(b);
    b.open();
    Job j = mixed_job(2, 40, 100);
    j.credit = 1;
    const auto h = *b.engine->submit(std::move(j));
    size_t pieces = 0;
    while (!b.answer(h).over()) {
        b.run();
        CHECK(b.answer(h).pieces.size() <= ++pieces);
        b.engine->grant(h, 1);
    }
    CHECK(pieces < 80);
    check_same(b.answer(h), expected);
}

TEST_CASE("a continuation at any token gives the very rest, guessed or not", "[engine][speculation]") {
    for (const uint32_t n : {1u, 2u, 3u, 5u}) {
        const Answer whole = alone(mixed_job(n));
        for (size_t cut = 1; cut < whole.ids.size(); cut += 5) {
            Job rest = mixed_job(n);
            rest.produced.assign(whole.ids.begin(), whole.ids.begin() + static_cast<long>(cut));
            const Answer got = alone(rest, 8);
            const Answer plain = alone(rest, 0);
            INFO("job " << n << " cut " << cut);
            check_same(got, plain);
            CHECK(got.finished->output_tokens == whole.finished->output_tokens);
        }
    }
}

TEST_CASE("a sink that cancels in the midst of guesses gets no more, and no block is lost",
          "[engine][speculation]") {
    struct Canceller : engine::Sink {
        Engine* engine = nullptr;
        engine::Handle own = 0, other = 0;
        size_t texts_most = 0, texts = 0, later = 0, ends = 0;
        bool done = false;
        void admitted(engine::Handle, uint32_t) override {}
        void text(engine::Handle handle, const engine::Piece& piece, int64_t) override {
            if (done && handle != 0) later += handle == own || handle == other;
            if (handle != own || done) return;
            texts += piece.ids.size() > 1;  // of a run in which guesses came true
            if (texts < texts_most) return;
            done = true;
            engine->cancel(own);
            engine->cancel(other);
        }
        void finished(engine::Handle, const engine::Finished&) override { ++ends; }
        void failed(engine::Handle, const engine::Failed&) override { ++ends; }
    };
    for (size_t texts = 1; texts < 6; ++texts) {
        Canceller sink;
        sink.texts_most = texts;
        test::FakeForward forward;
        forward.end_bias = -1000.0f;
        forward.copies = 7;
        forward.run_ms = 50;
        base::ManualClock clock;
        forward.clock = &clock;
        test::FakeVocabulary vocabulary;
        EngineOptions options;
        options.speculate_max = 8;
        Engine e(forward, vocabulary, options, sink, clock);
        sink.engine = &e;
        sink.other = *e.submit(mixed_job(4, 40, 100));
        sink.own = *e.submit(mixed_job(2, 40, 100));
        (void)*e.submit(mixed_job(6, 40, 100));
        while (e.step()) {
        }
        CHECK(sink.done);
        CHECK(sink.later == 0);
        CHECK(sink.ends == 1);
        CHECK(e.stats().kv_blocks_free == forward.blocks);
    }
}

TEST_CASE("the prefix cache holds what was said, never what was guessed in vain",
          "[engine][speculation]") {
    const auto endless = [](Bench& b) { b.forward.end_bias = -1000.0f; };
    Bench b(8);
    endless(b);
    b.open();
    for (uint32_t n = 0; n < 12; n += 2) {
        Job first = mixed_job(n, 40, 90);
        first.tenant = "acme";
        const auto prompt = first.prompt;
        const auto h = *b.engine->submit(std::move(first));
        const uint32_t known = b.engine->stats().prefix_blocks;
        b.run();
        // The last token's KV was never computed.
        CHECK(b.engine->stats().prefix_blocks - known <= (40 + 90 - 1) / 16);
        // Its text as the beginning of the next prompt: found, and the very KV that is meant.
        Job next = mixed_job(n + 1, 0, 50);
        next.prompt = prompt;
        next.prompt.insert(next.prompt.end(), b.answer(h).ids.begin(), b.answer(h).ids.end());
        next.prompt.push_back(5);
        next.tenant = "acme";
        const Answer expected = alone(next, 0, endless);
        const uint64_t hits = b.engine->stats().prefix_hit_tokens;
        const auto h2 = *b.engine->submit(std::move(next));
        b.run();
        CHECK(b.engine->stats().prefix_hit_tokens - hits == (40 + 90 - 1) / 16 * 16);
        check_same(b.answer(h2), expected);
    }
    CHECK(b.engine->stats().drafted_tokens > b.engine->stats().accepted_tokens);
    CHECK(b.engine->stats().accepted_tokens > 0);
}

TEST_CASE("text that repeats itself takes a fraction of the iterations", "[engine][speculation]") {
    const auto steady = [](Bench& b) {
        b.forward.end_bias = -1000.0f;
        b.forward.copies = 8;
        b.forward.context = 2048;
    };
    engine::EngineStats plain, guessed;
    const Answer expected = alone(mixed_job(2, 40, 800), 0, steady, &plain);
    check_same(alone(mixed_job(2, 40, 800), 8, steady, &guessed), expected);
    CHECK(plain.drafted_tokens == 0);
    CHECK(guessed.accepted_tokens > 600);
    CHECK(guessed.iterations < plain.iterations / 5);
    CHECK(guessed.busy_s < plain.busy_s / 3);
}

TEST_CASE("text that does not repeat itself soon costs no more rows", "[engine][speculation]") {
    const auto random = [](Bench& b) {
        b.forward.end_bias = -1000.0f;
        b.forward.copies = 0;
        b.forward.context = 2048;
    };
    engine::EngineStats plain, guessed;
    const Answer expected = alone(mixed_job(1, 40, 1500), 0, random, &plain);
    check_same(alone(mixed_job(1, 40, 1500), 8, random, &guessed), expected);
    // Of 23 words nearly every pair has been there before: there is always a guess.
    CHECK(guessed.drafted_tokens < 150);
    CHECK(guessed.busy_s < plain.busy_s * 1.02);
}

TEST_CASE("where a row more costs what a sequence more does, guesses are only tried now and then",
          "[engine][speculation]") {
    Bench b(8);
    b.forward.end_bias = -1000.0f;
    b.forward.copies = 8;
    b.forward.blocks = 2048;
    b.forward.run_ms = 0;
    b.open();
    for (uint32_t n = 0; n < 16; ++n) (void)b.engine->submit(mixed_job(2 * n, 40, 400));
    b.run();
    const auto stats = b.engine->stats();
    CHECK(stats.decode_rows > 16 * 300);
    CHECK(stats.drafted_tokens < stats.iterations / 4 + 100);
}

TEST_CASE("the cost of guesses is their sequence's, and all charges make the busy time",
          "[engine][speculation]") {
    Bench b(8);
    b.forward.end_bias = -1000.0f;
    b.open();
    for (uint32_t n = 0; n < 6; ++n) (void)b.engine->submit(mixed_job(2 * n, 40, 100));
    b.run();
    double sum = 0;
    for (const auto& [handle, answer] : b.sink.answers) sum += answer.finished->cost_s;
    CHECK(b.engine->stats().accepted_tokens > 0);
    CHECK(sum == Approx(b.engine->stats().busy_s).epsilon(1e-6));
}

TEST_CASE("a model that breaks in the midst of guesses fails its sequences, and frees them",
          "[engine][speculation]") {
    Bench b(8);
    b.forward.end_bias = -1000.0f;
    b.open();
    const auto h = *b.engine->submit(mixed_job(2, 40, 200));
    while (b.engine->stats().accepted_tokens == 0) REQUIRE(b.engine->step());
    b.forward.broken = true;
    b.run();
    REQUIRE(b.answer(h).failed);
    CHECK(b.answer(h).failed->error.code == base::Errc::internal);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}
