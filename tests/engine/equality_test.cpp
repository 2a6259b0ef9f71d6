// The promise at its full width: 100 greedy answers of the real model, the same bits however they were
// computed. Slow, so hidden from the plain run of engine_test: ctest runs it as engine_equality.
//
// The reference path is naive: it answers kReferencePrompts of them.
#include <catch2/catch.hpp>
#include <set>

#include "engine/engine.hpp"
#include "fake_forward.hpp"
#include "kernels/kernels.hpp"
#include "model/artifact.hpp"
#include "model/gguf.hpp"
#include "support/model_file.hpp"

using namespace parley;

namespace {

constexpr uint32_t kPrompts = 100;
constexpr uint32_t kReferencePrompts = 3;
constexpr uint32_t kAnswerTokens = 24;  // over a block, so that running ones want more pages

using Ids = std::vector<model::Token>;

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

uint32_t draw(uint64_t& state, uint32_t below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX
    return static_cast<uint32_t>((state >> 33) % below);
}

struct Ways {
    uint32_t slots = 1;
    uint32_t rows = 256;
    uint32_t prefix_blocks = 0;
    uint64_t arrivals = 0;  // seed of the steps between two arrivals; 0: all come at once
    uint32_t speculate = 0;
};

class Model {
  public:
    explicit Model(const std::string& path) {
        auto file = model::Gguf::open(path);
        REQUIRE(file);
        file_.emplace(std::move(*file));
        auto artifact = model::Artifact::from_gguf(*file_, 0, "");
        REQUIRE(artifact);
        artifact_ = std::make_unique<model::Artifact>(std::move(*artifact));
    }

    std::unique_ptr<engine::Forward> forward(std::string_view kernel, uint32_t kv_blocks) const {
        engine::ForwardOptions options;
        options.kv_blocks = kv_blocks;
        options.rows_max = 256;
        options.kernel = kernel;
        auto made = engine::Forward::create(*file_, options);
        REQUIRE(made);
        if (!kernel.empty()) REQUIRE(std::string_view((*made)->kernel()) == kernel);
        return std::move(*made);
    }

    engine::Job job(uint32_t n) const {
        static constexpr const char* kAsk[] = {"Explain", "Describe", "Name", "Compare", "Translate"};
        static constexpr const char* kWhat[] = {"a river",     "the moon",  "two colours", "bread",
                                                "an old town", "a compiler", "the wind",   "a song"};
        static constexpr const char* kHow[] = {"briefly", "in one line", "for a child", "with 3 facts",
                                               "as a poem", "in German"};
        uint64_t state = n + 1;
        std::string text = kAsk[draw(state, 5)];
        const uint32_t things = 1 + draw(state, 4);
        for (uint32_t i = 0; i < things; ++i)
            text += (i == 0 ? " " : " and ") + std::string(kWhat[draw(state, 8)]);
        text += std::string(" ") + kHow[draw(state, 6)] + ", case " + std::to_string(n) + ".";
        engine::Job job;
        job.prompt = artifact_->chat_template().render(
            artifact_->tokenizer(), std::vector<model::Turn>{{model::Role::user, text}});
        job.max_tokens = kAnswerTokens;
        job.sampling.temperature = 0;
        job.credit = 1'000'000;
        job.tenant = "acme";
        return job;
    }

    std::vector<Ids> answers(engine::Forward& forward, uint32_t count, const Ways& ways,
                             engine::EngineStats* stats = nullptr) const {
        test::RecordingSink sink;
        const Words words(artifact_->tokenizer());
        engine::EngineOptions options;
        options.slots_max = ways.slots;
        options.queue_max = kPrompts;
        options.rows_max = ways.rows;
        options.prefix_blocks = ways.prefix_blocks;
        options.reserve_tokens = 1;
        options.speculate_max = ways.speculate;
        options.prefill_target_ms = options.alone_target_ms = 0;  // chunks by rows, not by the clock
        engine::Engine engine(forward, words, options, sink);
        std::vector<engine::Handle> handles;
        uint64_t state = ways.arrivals;
        for (uint32_t n = 0; n < count; ++n) {
            auto handle = engine.submit(job(n));
            REQUIRE(handle);
            handles.push_back(*handle);
            for (uint32_t i = ways.arrivals == 0 ? 0 : draw(state, 4); i > 0; --i) engine.step();
        }
        while (engine.step()) {
        }
        if (stats != nullptr) *stats = engine.stats();
        std::vector<Ids> out;
        for (const auto handle : handles) {
            REQUIRE(sink.answers[handle].finished);
            out.push_back(sink.answers[handle].ids);
        }
        return out;
    }

  private:
    std::optional<model::Gguf> file_;
    std::unique_ptr<model::Artifact> artifact_;
};

void check_same(const std::vector<Ids>& got, const std::vector<Ids>& alone) {
    for (size_t n = 0; n < got.size(); ++n) {
        INFO("prompt " << n);
        CHECK(got[n] == alone[n]);
    }
}

}  // namespace

TEST_CASE("100 greedy answers are the same alone, batched, chunked, from the cache, preempted, guessed, on each path",
          "[.][equality]") {
    const std::string path = test::model_file();
    if (path.empty()) return;
    const Model model(path);
    std::vector<Ids> alone;
    size_t tokens = 0;
    {
        const auto forward = model.forward("", 1024);
        alone = model.answers(*forward, kPrompts, {});
        for (const Ids& ids : alone) tokens += ids.size();
        CHECK(tokens > kPrompts * kAnswerTokens / 2);
        CHECK(std::set<Ids>(alone.begin(), alone.end()).size() > kPrompts / 2);
    }
    uint32_t paths = 0;
    for (const std::string_view kernel : kernels::names()) {
        if (kernels::find(kernel) == nullptr) continue;
        ++paths;
        INFO("path " << kernel);
        const auto forward = model.forward(kernel, 1024);
        if (kernel == "reference") {
            check_same(model.answers(*forward, kReferencePrompts, {}), alone);
            continue;
        }
        check_same(model.answers(*forward, kPrompts, {}), alone);
        {
            // How much is guessed depends on the host's pace, but never what comes out.
            INFO("speculation");
            engine::EngineStats stats;
            for (const uint32_t guesses : {8u, 15u})
                check_same(model.answers(*forward, kPrompts, {1, 256, 0, 0, guesses}, &stats), alone);
            CHECK(stats.accepted_tokens > 0);
            check_same(model.answers(*forward, kPrompts, {4, 256, UINT32_MAX, 7, 8}), alone);
        }
        for (const uint32_t rows : {16u, 256u}) {
            INFO("batch of 16, chunks of " << rows);
            check_same(model.answers(*forward, kPrompts, {16, rows, 0, 0}), alone);
            engine::EngineStats stats;
            check_same(model.answers(*forward, kPrompts, {16, rows, UINT32_MAX, 7}, &stats), alone);
            CHECK(stats.prefix_hit_tokens > kPrompts);
        }
        // Pages for about half of the sixteen: running ones lose theirs at any place.
        const auto scarce = model.forward(kernel, 36);
        for (const uint64_t seed : {1u, 2u}) {
            INFO("preempted, arrivals " << seed);
            engine::EngineStats stats;
            check_same(model.answers(*scarce, kPrompts, {16, 256, seed == 1 ? 0 : UINT32_MAX, seed, seed == 1 ? 0u : 8u}, &stats),
                       alone);
            CHECK(stats.preempted > 0);
        }
    }
    CHECK(paths >= 2);
}
