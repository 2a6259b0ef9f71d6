#include "load.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <future>

#include "base/clock.hpp"

namespace parley::infer_worker {

namespace {

base::Result<Loaded> load_here(Options& o) {
    const int64_t started_ms = base::system_clock().mono_ms();
    if (o.model.empty())
        return base::fail(base::Errc::usage,
                          "no model: name a GGUF file with --model or PARLEY_MODEL");
    auto file = model::Gguf::open(o.model);
    if (!file) return base::fail(file.error());

    // One request must be able to use the whole window that is promised.
    uint64_t context = static_cast<uint64_t>(o.forward.kv_blocks) * engine::kBlockTokens;
    const std::string architecture(file->string("general.architecture").value_or(""));
    if (const auto own = file->uint(architecture + ".context_length"))
        context = std::min(context, *own);
    if (o.forward.context_tokens > 0)
        context = std::min<uint64_t>(context, o.forward.context_tokens);
    o.forward.context_tokens = static_cast<uint32_t>(context);
    o.service.engine.context_tokens = o.forward.context_tokens;
    o.service.engine.rows_max = o.forward.rows_max;

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
