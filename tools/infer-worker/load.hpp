// Loaded: a model made ready to compute: its artifact (tokenizer, template, limits) and its weights.
#pragma once

#include <memory>

#include "base/result.hpp"
#include "engine/forward.hpp"
#include "model/artifact.hpp"
#include "options.hpp"

namespace parley::infer_worker {

struct Loaded {
    std::unique_ptr<model::Artifact> artifact;
    std::unique_ptr<engine::Forward> forward;
    int64_t load_ms = 0;
};

// The compute threads run at options.nice, and so does the calling thread from here on: it computes
// too. Threads that were made before (ZeroMQ's) keep theirs.
base::Result<Loaded> load(Options& options);

}  // namespace parley::infer_worker
