#include "load.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <future>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "engine/draft_model.hpp"
#include "simulated/vocabulary.hpp"

namespace parley::infer_worker {

namespace {

// One request must be able to use the whole window that is promised: no more than the KV holds.
uint32_t window(const Options& o, uint64_t own) {
    uint64_t context =
        std::min(own, static_cast<uint64_t>(o.forward.kv_blocks) * engine::kBlockTokens);
    if (o.forward.context_tokens > 0)
        context = std::min<uint64_t>(context, o.forward.context_tokens);
    return static_cast<uint32_t>(context);
}

base::Result<Loaded> simulate(Options& o) {
    engine::EngineOptions& engine = o.service.engine;
    o.simulated.context_tokens = o.forward.context_tokens =
        window(o, o.forward.context_tokens > 0 ? INT32_MAX : o.simulated.context_tokens);
    o.simulated.kv_blocks = o.forward.kv_blocks;
    // Where every slot decodes there must be rows left for prompts.
    o.forward.rows_max = std::max(o.forward.rows_max, 2 * engine.slots_max);
    // All slots may be asked for at once, and each request waits for an iteration before it has one.
    engine.queue_max = std::max(engine.queue_max, engine.slots_max);
    engine.context_tokens = o.forward.context_tokens;
    engine.rows_max = o.forward.rows_max;
    auto artifact =
        simulated::make_artifact(o.simulated.context_tokens, o.simulated.answer_tokens_mean);
    if (!artifact) return base::fail(artifact.error());
    auto forward = simulated::Forward::create(o.simulated, artifact->tokenizer());
    if (!forward) return base::fail(forward.error());
    base::log(base::Level::warn, "worker.simulated",
              {{"answers", "synthetic"}, {"speed", o.simulated.cost.speed}});
    Loaded loaded;
    loaded.artifact = std::make_unique<model::Artifact>(std::move(*artifact));
    loaded.forward = std::move(*forward);
    return loaded;
}

// A guess is a token id: it has to mean the same to both.
base::Result<void> same_vocabulary(const model::Tokenizer& own, const model::Tokenizer& draft) {
    if (own.vocab_size() != draft.vocab_size())
        return base::fail(
            base::Errc::config,
            fmt::format("it has {} tokens, the model {}: a draft model needs the model's tokenizer",
                        draft.vocab_size(), own.vocab_size()));
    for (uint32_t i = 0; i < own.vocab_size(); ++i) {
        const auto token = static_cast<model::Token>(i);
        if (own.spelling(token) == draft.spelling(token) &&
            own.bytes(token) == draft.bytes(token) &&
            own.is_end_of_generation(token) == draft.is_end_of_generation(token))
            continue;
        return base::fail(
            base::Errc::config,
            fmt::format(
                "its token {} is not the model's: a draft model needs the model's tokenizer",
                token));
    }
    return {};
}

base::Result<std::unique_ptr<engine::Forward>> load_draft(const Options& o,
                                                          const model::Artifact& artifact) {
    auto file = model::Gguf::open(o.draft);
    if (!file) return base::fail(file.error());
    const auto tokenizer = model::Tokenizer::from_gguf(*file);
    if (!tokenizer) return base::fail("--draft '" + o.draft + "'", tokenizer.error());
    if (auto same = same_vocabulary(artifact.tokenizer(), *tokenizer); !same)
        return base::fail("--draft '" + o.draft + "'", same.error());
    engine::ForwardOptions options = o.forward;
    const std::string architecture(file->string("general.architecture").value_or(""));
    options.context_tokens = static_cast<uint32_t>(
        std::min<uint64_t>(file->uint(architecture + ".context_length").value_or(UINT32_MAX),
                           o.forward.context_tokens));
    options.rows_max = std::max(engine::DraftModel::kRowsMax, o.service.engine.slots_max);
    auto forward = engine::Forward::create(*file, options);
    if (!forward) return base::fail("--draft '" + o.draft + "'", forward.error());
    if ((*forward)->vocab_size() != artifact.tokenizer().vocab_size())
        return base::fail(base::Errc::corrupt,
                          "--draft '" + o.draft + "': its output is not as wide as its vocabulary");
    file->drop_pages();
    return forward;
}

base::Result<Loaded> load_here(Options& o) {
    const int64_t started_ms = base::system_clock().mono_ms();
    if (!o.draft.empty() && o.simulate)
        return base::fail(base::Errc::usage,
                          "--draft: not beside --simulate, which guesses nothing");
    if (!o.draft.empty() && o.service.engine.speculate_max == 0 && o.compared_speculation == 0)
        return base::fail(base::Errc::usage,
                          "--draft needs --speculate above 0: it guesses as many tokens");
    if (o.simulate) return simulate(o);
    if (o.model.empty())
        return base::fail(base::Errc::usage,
                          "no model: name a GGUF file with --model or PARLEY_MODEL");
    auto file = model::Gguf::open(o.model);
    if (!file) return base::fail(file.error());

    const std::string architecture(file->string("general.architecture").value_or(""));
    o.forward.context_tokens =
        window(o, file->uint(architecture + ".context_length").value_or(UINT32_MAX));
    o.service.engine.context_tokens = o.forward.context_tokens;
    o.service.engine.rows_max = o.forward.rows_max;
    o.service.engine.kv_type = o.forward.kv_type;

    // The hash of the file and its tokenizer take as long as the repacking of the weights.
    auto artifact = std::async(std::launch::async, [&] {
        return model::Artifact::from_gguf(*file, o.forward.context_tokens, o.chat_template);
    });
    auto forward = engine::Forward::create(*file, o.forward);
    auto made = artifact.get();
    if (!made) return base::fail("'" + o.model + "'", made.error());
    if (!forward) return base::fail("'" + o.model + "'", forward.error());
    file->drop_pages();
    Loaded loaded;
    loaded.artifact = std::make_unique<model::Artifact>(std::move(*made));
    loaded.forward = std::move(*forward);
    if (!o.draft.empty()) {
        auto draft = load_draft(o, *loaded.artifact);
        if (!draft) return base::fail(draft.error());
        if ((*draft)->vocab_size() != loaded.forward->vocab_size())
            return base::fail(
                base::Errc::config,
                "--draft '" + o.draft + "': its output is not as wide as the model's");
        loaded.draft = std::move(*draft);
        o.service.engine.draft = loaded.draft.get();
    }
    loaded.load_ms = base::system_clock().mono_ms() - started_ms;
    return loaded;
}

}  // namespace

void be_nice(int64_t nice) {
    if (nice > 0) setpriority(PRIO_PROCESS, 0, static_cast<int>(nice));  // of this thread alone
}

base::Result<Loaded> load(Options& o) {
    // From a thread of its own: the compute threads inherit its nice value.
    return std::async(std::launch::async,
                      [&] {
                          be_nice(o.nice);
                          return load_here(o);
                      })
        .get();
}

}  // namespace parley::infer_worker
