// The real model through the whole engine: what the fake cannot show is that the numbers hold.
#include <catch2/catch.hpp>

#include "engine/service.hpp"
#include "fake_forward.hpp"
#include "model/gguf.hpp"
#include "support/model_file.hpp"

using namespace parley;

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

struct Real {
    std::unique_ptr<engine::Forward> forward;
    std::unique_ptr<model::Artifact> artifact;
};

// Once for all cases: loading repacks the weights.
Real* real() {
    static std::optional<Real> loaded;
    const std::string path = test::model_file();
    if (path.empty()) return nullptr;
    if (!loaded) {
        auto file = model::Gguf::open(path);
        REQUIRE(file);
        auto artifact = model::Artifact::from_gguf(*file, 0, "");
        REQUIRE(artifact);
        engine::ForwardOptions options;
        options.kv_blocks = 1024;
        options.rows_max = 256;
        auto forward = engine::Forward::create(*file, options);
        REQUIRE(forward);
        loaded = Real{std::move(*forward), std::make_unique<model::Artifact>(std::move(*artifact))};
    }
    return &*loaded;
}

const char* const kQuestions[] = {"Why is the sky blue?",
                                  "Write a poem about rain.",
                                  "What is 2 + 2?",
                                  "Name three rivers.",
                                  "Tell me a short story about a lighthouse keeper and her dog.",
                                  "Explain what a compiler does.",
                                  "Hi",
                                  "Wie geht es dir? 😀"};

engine::Job question(const Real& r, uint32_t n) {
    engine::Job job;
    job.prompt = r.artifact->chat_template().render(
        r.artifact->tokenizer(),
        std::vector<model::Turn>{{model::Role::user, kQuestions[n % std::size(kQuestions)]}});
    job.max_tokens = 24;
    job.sampling.temperature = n % 2 == 0 ? 0.0f : 0.8f;
    job.sampling.top_p = n % 4 == 1 ? 0.9f : 1.0f;
    job.sampling.seed = n;
    job.credit = 1'000'000;
    return job;
}

std::vector<test::RecordingSink::Answer> answers(Real& r, const std::vector<engine::Job>& jobs,
                                                 engine::EngineOptions options = {}) {
    test::RecordingSink sink;
    Words words(r.artifact->tokenizer());
    options.rows_max = std::min<uint32_t>(options.rows_max, 256);
    engine::Engine e(*r.forward, words, options, sink);
    std::vector<engine::Handle> handles;
    for (const engine::Job& job : jobs) {
        handles.push_back(*e.submit(engine::Job(job)));
        e.step();  // so that they stand at different places
    }
    while (e.step()) {
    }
    std::vector<test::RecordingSink::Answer> out;
    for (const auto handle : handles) out.push_back(sink.answers[handle]);
    CHECK(e.stats().kv_blocks_free == r.forward->kv_blocks());
    return out;
}

}  // namespace

TEST_CASE("the real model answers the same alone, in a batch of 3 and of 16", "[real]") {
    Real* r = real();
    if (r == nullptr) return;
    std::vector<engine::Job> jobs;
    for (uint32_t n = 0; n < 16; ++n) jobs.push_back(question(*r, n));
    std::vector<test::RecordingSink::Answer> alone;
    for (const auto& job : jobs) alone.push_back(answers(*r, {job})[0]);
    for (const auto& batch : {answers(*r, {jobs[0], jobs[1], jobs[2]}), answers(*r, jobs)}) {
        for (size_t n = 0; n < batch.size(); ++n) {
            INFO("question " << n);
            CHECK(batch[n].ids == alone[n].ids);
            CHECK(batch[n].text == alone[n].text);
            REQUIRE(batch[n].finished);
            CHECK(batch[n].finished->output_tokens == alone[n].finished->output_tokens);
        }
    }
    size_t characters = 0;
    for (const auto& a : alone) characters += a.text.size();
    CHECK(characters > 400);
}

TEST_CASE("chunks, and a hand-over in mid-answer, do not change the real model's answer",
          "[real]") {
    Real* r = real();
    if (r == nullptr) return;
    for (const uint32_t n : {1u, 4u}) {
        engine::Job job = question(*r, n);
        const auto whole = answers(*r, {job})[0];
        engine::EngineOptions small;
        small.rows_max = 16;
        CHECK(answers(*r, {job}, small)[0].text == whole.text);
        REQUIRE(whole.pieces.size() > 10);
        engine::Job rest = job;
        size_t ids = 0;
        std::string released;
        // Every piece of these answers holds the ids that end in it: take the first ten.
        test::RecordingSink sink;
        Words words(r->artifact->tokenizer());
        engine::Engine e(*r->forward, words, {}, sink);
        sink.engine = &e;
        engine::Job first = job;
        first.credit = 10;
        const auto handle = *e.submit(std::move(first));
        while (e.step()) {
        }
        released = sink.answers[handle].text;
        ids = sink.answers[handle].ids.size();
        e.cancel(handle);
        rest.produced.assign(whole.ids.begin(), whole.ids.begin() + static_cast<long>(ids));
        rest.released = released.size();
        const auto continued = answers(*r, {rest})[0];
        CHECK(released + continued.text == whole.text);
        CHECK(continued.finished->output_tokens == whole.finished->output_tokens);
    }
}

TEST_CASE("prefix hits do not change the real model's answers", "[real]") {
    Real* r = real();
    if (r == nullptr) return;
    // 16 questions behind one long system text, which is no multiple of a block.
    std::string system = "You answer in one sentence.";
    for (int i = 0; i < 12; ++i) system += " Rule " + std::to_string(i) + ": be brief and kind.";
    std::vector<engine::Job> jobs;
    for (uint32_t n = 0; n < 16; ++n) {
        engine::Job job = question(*r, n);
        job.prompt = r->artifact->chat_template().render(
            r->artifact->tokenizer(),
            std::vector<model::Turn>{{model::Role::system, system},
                                     {model::Role::user, kQuestions[n % std::size(kQuestions)]}});
        job.max_tokens = 16;
        job.tenant = "acme";
        jobs.push_back(std::move(job));
    }
    engine::EngineOptions off;
    off.prefix_blocks = 0;
    std::vector<test::RecordingSink::Answer> cold;
    for (const auto& job : jobs) cold.push_back(answers(*r, {job}, off)[0]);

    for (const uint32_t rows : {16u, 256u}) {
        const bool scarce = rows == 16;
        test::RecordingSink sink;
        Words words(r->artifact->tokenizer());
        engine::EngineOptions options;
        options.rows_max = rows;
        options.slots_max = 16;
        if (scarce) options.prefix_blocks = 20;  // kept blocks come and go
        engine::Engine e(*r->forward, words, options, sink);
        std::vector<engine::Handle> handles;
        for (uint32_t n = 0; n < 16; ++n) {
            handles.push_back(*e.submit(engine::Job(jobs[n])));
            e.step();
        }
        while (e.step()) {
        }
        INFO("rows " << rows << (scarce ? ", scarce" : ""));
        CHECK(e.stats().prefix_hit_tokens > 100);
        CHECK(e.stats().kv_blocks_free == r->forward->kv_blocks());
        for (uint32_t n = 0; n < 16; ++n) {
            INFO("question " << n);
            CHECK(sink.answers[handles[n]].ids == cold[n].ids);
            CHECK(sink.answers[handles[n]].text == cold[n].text);
        }
        // And once more, each alone, on what is left.
        const uint64_t before = e.stats().prefix_hit_tokens;
        for (const uint32_t n : {2u, 5u}) {
            const auto h = *e.submit(engine::Job(jobs[n]));
            while (e.step()) {
            }
            CHECK(sink.answers[h].ids == cold[n].ids);
        }
        CHECK(e.stats().prefix_hit_tokens > before + 100);
    }
}
