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
    std::unique_ptr<engine::Forward> draft;  // of --draft; null: none
    int64_t load_ms = 0;
};

// The compute threads run at options.nice; the calling thread and what it makes later do not.
base::Result<Loaded> load(Options& options);

// Of the calling thread, once it has made those that must stay quick (ZeroMQ's): it computes too.
void be_nice(int64_t nice);

}  // namespace parley::infer_worker
