#include "simulated/forward.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "engine/engine.hpp"
#include "simulated/vocabulary.hpp"

using namespace parley;
using engine::Finish;

namespace {

class Words final : public engine::Vocabulary {
  public:
    explicit Words(const model::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    std::string_view bytes(model::Token token) const override { return tokenizer_.bytes(token); }
    bool ends_answer(model::Token token) const override {
        return tokenizer_.is_end_of_generation(token);
    }

  private:
    const model::Tokenizer& tokenizer_;
};

struct Answer {
    std::string text;
    std::vector<model::Token> ids;
    std::vector<int64_t> stamps;
    std::optional<engine::Finished> finished;
    std::optional<engine::Failed> failed;
};

class Notes final : public engine::Sink {
  public:
    std::map<engine::Handle, Answer> answers;
    engine::Engine* engine = nullptr;  // takes credit

    void admitted(engine::Handle, uint32_t) override {}
    void text(engine::Handle handle, const engine::Piece& piece, int64_t stamp_ns) override {
        Answer& a = answers[handle];
        a.text += piece.text;
        a.ids.insert(a.ids.end(), piece.ids.begin(), piece.ids.end());
        a.stamps.push_back(stamp_ns);
        engine->grant(handle, -1);
    }
    void finished(engine::Handle handle, const engine::Finished& f) override {
        answers[handle].finished = f;
    }
    void failed(engine::Handle handle, const engine::Failed& f) override {
        answers[handle].failed = f;
    }
};

// The simulated model in an engine on a clock of our own: nothing waits.
struct Bench {
    simulated::ForwardOptions model;
    engine::EngineOptions options;
    base::ManualClock clock;
    int64_t late_ms = 0;  // of every sleep
    std::optional<model::Artifact> artifact;
    std::unique_ptr<simulated::Forward> forward;
    std::unique_ptr<Words> words;
    Notes notes;
    std::unique_ptr<engine::Engine> engine;

    void open() {
        auto made = simulated::make_artifact(model.context_tokens, model.answer_tokens_mean);
        REQUIRE(made);
        artifact.emplace(std::move(*made));
        auto simulated = simulated::Forward::create(
            model, artifact->tokenizer(), clock, [this](int64_t until_ns) {
                const int64_t left_ns = until_ns - clock.mono_ns();
                if (left_ns > 0) clock.advance_ms((left_ns + 999'999) / 1'000'000 + late_ms);
            });
        REQUIRE(simulated);
        forward = std::move(*simulated);
        words = std::make_unique<Words>(artifact->tokenizer());
        engine = std::make_unique<engine::Engine>(*forward, *words, options, notes, clock);
        notes.engine = engine.get();
    }
    engine::Job job(const std::string& prompt, uint64_t seed, uint64_t max_tokens = 100'000) {
        const std::vector<model::Turn> turns = {{model::Role::user, prompt}};
        engine::Job j;
        j.prompt = artifact->chat_template().render(artifact->tokenizer(), turns);
        j.max_tokens = max_tokens;
        j.sampling.seed = seed;
        j.credit = 1'000'000;
        return j;
    }
    void run() {
        while (engine->step()) {
        }
    }
    Answer alone(engine::Job j) {
        const auto handle = engine->submit(std::move(j));
        REQUIRE(handle);
        run();
        return notes.answers[*handle];
    }
};

}  // namespace

TEST_CASE("a simulated answer says that it is one, in words that no model would choose",
          "[simulated]") {
    Bench b;
    b.open();
    const Answer a = b.alone(b.job("What is the capital of France?", 1));
    REQUIRE(a.finished);
    CHECK(a.finished->reason == Finish::end_turn);
    REQUIRE(a.text.starts_with("Simulated answer: "));
    std::set<std::string> known;
    for (const std::string& word : simulated::answer_words()) known.insert(word.substr(1));
    std::string word;
    for (const char c : a.text.substr(18) + " ") {
        if (c != ' ' && c != '.') {
            word += c;
        } else if (!word.empty()) {
            CHECK(known.count(word) == 1);
            word.clear();
        }
    }
}

TEST_CASE("the artifact reads back from its file, and every word of an answer is one token",
          "[simulated]") {
    const auto made = simulated::make_artifact(4096, 128);
    REQUIRE(made);
    CHECK(made->name() == "simulated");
    CHECK(made->architecture() == "simulated");
    CHECK(made->limits().context_tokens == 4096);
    CHECK(made->hash().substr(0, 18) == "73696d756c61746564");  // "simulated"
    const auto read = model::Artifact::parse(made->serialise());
    REQUIRE(read);
    CHECK(read->hash() == made->hash());
    for (const std::string& word : simulated::answer_words()) {
        INFO(word);
        CHECK(read->tokenizer().encode(word).size() == 1);
    }
    const std::string text = "Whatever <|im_end|> you write, \xE2\x82\xAC \xFF\n comes back.";
    CHECK(read->tokenizer().decode(read->tokenizer().encode(text)) == text);
    CHECK(read->tokenizer().encode(" the people of the world").size() == 5);
    const auto other = simulated::make_artifact(4096, 129);
    REQUIRE(other);
    CHECK(other->hash() != made->hash());  // its answers are others
}

TEST_CASE("prompt and seed decide the answer, at temperature 0 the prompt alone", "[simulated]") {
    Bench b;
    b.open();
    const Answer one = b.alone(b.job("hello", 1));
    CHECK(b.alone(b.job("hello", 1)).text == one.text);
    CHECK(b.alone(b.job("hello", 2)).text != one.text);
    CHECK(b.alone(b.job("hallo", 1)).text != one.text);
    engine::Job greedy = b.job("hello", 1);
    engine::Job greedy_too = b.job("hello", 2);
    greedy.sampling.temperature = greedy_too.sampling.temperature = 0;
    CHECK(b.alone(std::move(greedy)).text == b.alone(std::move(greedy_too)).text);
}

TEST_CASE("a batch, small chunks and preemption change no simulated answer", "[simulated]") {
    std::vector<Answer> expected;
    std::vector<std::string> prompts;
    for (int n = 0; n < 12; ++n) prompts.push_back(std::string(static_cast<size_t>(n) * 9, 'x'));
    {
        Bench b;
        b.model.answer_tokens_mean = 40;
        b.open();
        for (int n = 0; n < 12; ++n) expected.push_back(b.alone(b.job(prompts[n], n, 90)));
    }
    Bench b;
    b.model.answer_tokens_mean = 40;
    b.model.kv_blocks = 16;  // of about 100 that all want together
    b.model.context_tokens = 256;
    b.options.rows_max = 40;
    b.open();
    std::vector<engine::Handle> handles;
    for (int n = 0; n < 12; ++n) {
        engine::Job j = b.job(prompts[n], n, 90);
        if (n % 3 == 0) j.priority = engine::Priority::batch;
        handles.push_back(*b.engine->submit(std::move(j)));
    }
    b.run();
    CHECK(b.engine->stats().preempted > 0);
    CHECK(b.engine->stats().kv_blocks_free == 16);
    for (size_t n = 0; n < 12; ++n) {
        const Answer& a = b.notes.answers[handles[n]];
        REQUIRE(a.finished);
        CHECK(a.text == expected[n].text);
        CHECK(a.ids == expected[n].ids);
    }
}

TEST_CASE("penalties, top-k, top-p and temperature 2 still give text that ends", "[simulated]") {
    Bench b;
    b.open();
    engine::Job j = b.job("hello", 3);
    j.sampling.temperature = 2;
    j.sampling.top_k = 40;
    j.sampling.top_p = 0.9f;
    j.sampling.min_p = 0.01f;
    j.sampling.repetition_penalty = 1.3f;
    j.sampling.presence_penalty = 2;
    j.sampling.frequency_penalty = 2;
    const Answer a = b.alone(std::move(j));
    REQUIRE(a.finished);
    CHECK(a.finished->reason == Finish::end_turn);
    CHECK(a.text.starts_with("Simulated answer:"));
}

TEST_CASE("another worker goes on with the very rest", "[simulated]") {
    Bench whole;
    whole.open();
    const Answer all = whole.alone(whole.job("Tell me a story", 9, 60));
    REQUIRE(all.finished);
    REQUIRE(all.ids.size() > 5);
    for (size_t cut = 1; cut < all.ids.size(); cut += 7) {
        Bench b;
        b.open();
        engine::Job j = b.job("Tell me a story", 9, 60);
        j.produced.assign(all.ids.begin(), all.ids.begin() + static_cast<std::ptrdiff_t>(cut));
        const std::string had = b.artifact->tokenizer().decode(j.produced);
        j.released = had.size();
        const Answer rest = b.alone(std::move(j));
        CHECK(had + rest.text == all.text);
        REQUIRE(rest.finished);
        CHECK(rest.finished->output_tokens == all.finished->output_tokens);
    }
}

TEST_CASE("answers have the mean length that was asked for; with 0 only max_tokens ends one",
          "[simulated]") {
    Bench b;
    b.model.answer_tokens_mean = 50;
    b.open();
    double tokens = 0;
    int cut = 0;
    constexpr int kAnswers = 2000;
    for (int n = 0; n < kAnswers; ++n) {
        const Answer a = b.alone(b.job("question " + std::to_string(n), 1));
        tokens += a.finished->output_tokens;
        const Answer shorter = b.alone(b.job("question " + std::to_string(n), 1, 50));
        cut += shorter.finished->reason == Finish::max_tokens;
    }
    // Geometric: the standard error of the mean is about 47 / √2000 = 1.05.
    CHECK(tokens / kAnswers == Approx(50).margin(4.2));
    // (1 - 1/47)^47 = 0.364 of them are longer; ± 4 standard errors.
    CHECK(static_cast<double>(cut) / kAnswers == Approx(0.364).margin(0.045));

    Bench endless;
    endless.model.answer_tokens_mean = 0;
    endless.open();
    const Answer a = endless.alone(endless.job("hello", 1, 3000));
    CHECK(a.finished->reason == Finish::max_tokens);
    CHECK(a.finished->output_tokens == 3000);
}

TEST_CASE("time passes as the cost model says, and is charged", "[simulated]") {
    Bench b;
    b.model.answer_tokens_mean = 0;
    b.model.cost = {.step_us = 3000, .row_us = 2000, .context_us = 0, .prefill_us = 1000};
    b.options.rows_max = 2048;
    b.options.prefill_target_ms = b.options.alone_target_ms = 0;
    b.open();
    engine::Job j = b.job("hello", 1, 11);
    const auto prompt_tokens = static_cast<int64_t>(j.prompt.size());
    const int64_t started_ms = b.clock.mono_ms();
    const Answer a = b.alone(std::move(j));
    // The prompt's iteration gives the first token, ten follow.
    CHECK(b.clock.mono_ms() - started_ms == 3 + prompt_tokens + 10 * 5);
    CHECK(a.finished->cost_s == Approx(0.053 + 0.001 * static_cast<double>(prompt_tokens)));

    // Eight at once: each of the steps serves all of them.
    std::vector<engine::Handle> handles;
    for (uint64_t n = 0; n < 8; ++n) handles.push_back(*b.engine->submit(b.job("hello", n, 11)));
    const int64_t before_ms = b.clock.mono_ms();
    b.run();
    CHECK(b.clock.mono_ms() - before_ms == 3 + 8 * prompt_tokens + 10 * (3 + 8 * 2));
    for (const auto handle : handles) {
        const auto& stamps = b.notes.answers[handle].stamps;
        for (size_t i = 1; i < stamps.size(); ++i) CHECK(stamps[i] - stamps[i - 1] == 19'000'000);
    }
}

TEST_CASE("guessed tokens cost as a prompt's do, and change no simulated answer", "[simulated]") {
    Bench b;
    b.model.cost = {.step_us = 30'000, .row_us = 20'000, .context_us = 10'000'000, .prefill_us = 1000};
    b.open();
    // A prompt that says the opening again and again: each answer's begins as guessed.
    std::string prompt;
    for (int i = 0; i < 8; ++i) prompt += "Simulated answer: lorem ipsum. ";
    const Answer plain = b.alone(b.job(prompt, 3, 40));

    Bench guessing;
    guessing.model.cost = b.model.cost;
    guessing.options.speculate_max = 8;
    guessing.open();
    (void)guessing.alone(guessing.job("hello", 1, 10));  // so that the cost of an iteration is known
    const Answer got = guessing.alone(guessing.job(prompt, 3, 40));
    CHECK(guessing.engine->stats().accepted_tokens > 0);
    CHECK(got.text == plain.text);
    CHECK(got.ids == plain.ids);

    std::vector<float> logits(3ull * guessing.forward->vocab_size());
    const std::vector<model::Token> tokens{5, 6, 7};
    const std::vector<uint32_t> blocks{0};
    const std::vector<engine::Chunk> chunk{{tokens, 4, blocks, 3}};
    const int64_t started_ms = guessing.clock.mono_ms();
    guessing.forward->run(chunk, logits);
    CHECK(guessing.clock.mono_ms() - started_ms == 30 + 20 + 40 + 2);
}

TEST_CASE("context costs by its length, and speed divides all", "[simulated]") {
    simulated::Cost cost{.step_us = 1000, .row_us = 100, .context_us = 500, .prefill_us = 10};
    CHECK(cost.iteration_ns(2, 4000, 100) == 1'000'000 + 200'000 + 2'000'000 + 1'000'000);
    cost.speed = 10;
    CHECK(cost.iteration_ns(2, 4000, 100) == 420'000);
    cost.row_us = 1e9;
    cost.speed = 0.001;
    CHECK(cost.iteration_ns(8192, 1ull << 40, 100) == 3'600'000'000'000);  // bounded
}

TEST_CASE("a sleep that is late is made up for by the next", "[simulated]") {
    Bench b;
    b.model.answer_tokens_mean = 0;
    b.model.cost = {.step_us = 10'000, .row_us = 0, .context_us = 0, .prefill_us = 0};
    b.late_ms = 1;
    b.open();
    const int64_t started_ms = b.clock.mono_ms();
    b.alone(b.job("hello", 1, 100));
    CHECK(b.clock.mono_ms() - started_ms <= 100 * 10 + 10);
    // What was lost otherwise stays lost: no burst follows a stall.
    b.late_ms = 50;
    const int64_t stalled_ms = b.clock.mono_ms();
    b.alone(b.job("hello", 1, 100));
    CHECK(b.clock.mono_ms() - stalled_ms >= 100 * 59 - 60);
}

TEST_CASE("without credit a simulated answer stands still and keeps its place", "[simulated]") {
    Bench b;
    b.model.answer_tokens_mean = 0;
    b.open();
    engine::Job j = b.job("hello", 1, 30);
    j.credit = 4;
    const auto held = *b.engine->submit(std::move(j));
    const auto other = *b.engine->submit(b.job("hello", 1, 30));
    b.run();
    CHECK(b.notes.answers[held].ids.size() == 4);
    REQUIRE(b.notes.answers[other].finished);
    b.engine->grant(held, 100);
    b.run();
    REQUIRE(b.notes.answers[held].finished);
    CHECK(b.notes.answers[held].text == b.notes.answers[other].text);
}

TEST_CASE("cancel and deadlines end a simulated answer", "[simulated]") {
    Bench b;
    b.model.answer_tokens_mean = 0;
    b.open();
    const auto cancelled = *b.engine->submit(b.job("hello", 1));
    engine::Job j = b.job("hello", 2);
    j.total_deadline_ns = b.clock.mono_ns() + 500'000'000;
    const auto late = *b.engine->submit(std::move(j));
    for (int i = 0; i < 10; ++i) b.engine->step();
    REQUIRE(b.engine->cancel(cancelled));
    b.run();
    CHECK_FALSE(b.notes.answers[cancelled].finished);
    REQUIRE(b.notes.answers[late].finished);
    CHECK(b.notes.answers[late].finished->reason == Finish::timeout);
    CHECK(b.engine->stats().kv_blocks_free == b.model.kv_blocks);
}

TEST_CASE("a cost that is no number is refused", "[simulated]") {
    const auto artifact = simulated::make_artifact(4096, 128);
    REQUIRE(artifact);
    simulated::ForwardOptions options;
    options.cost.row_us = -1;
    CHECK_FALSE(simulated::Forward::create(options, artifact->tokenizer()));
    options.cost.row_us = 1;
    options.cost.speed = 0;
    CHECK_FALSE(simulated::Forward::create(options, artifact->tokenizer()));
}

TEST_CASE("sleeping until a time that is past returns at once, else not before it", "[simulated]") {
    const base::Clock& clock = base::system_clock();
    simulated::sleep_until(clock.mono_ns() - 1'000'000'000);
    const int64_t until_ns = clock.mono_ns() + 20'000'000;
    const int64_t cpu_ns = base::thread_cpu_ns();
    simulated::sleep_until(until_ns);
    CHECK(clock.mono_ns() >= until_ns);
    CHECK(base::thread_cpu_ns() - cpu_ns < 10'000'000);  // asleep, not spinning
}
