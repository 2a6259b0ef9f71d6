// The worker's options: flags, environment and file, one declaration (see infer-worker(8)).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/cli.hpp"
#include "base/daemon.hpp"
#include "engine/forward.hpp"
#include "engine/service.hpp"
#include "simulated/forward.hpp"

namespace parley::infer_worker {

struct Options {
    base::Parsed parsed;

    // Every verb
    std::string model;
    std::string chat_template;  // family; empty: by the file's own text
    std::string draft;          // GGUF file of a draft model; empty: none
    engine::ForwardOptions forward;
    engine::ServiceOptions service;
    bool json = false;

    // serve and run: no model, see lib/simulated
    bool simulate = false;
    uint32_t simulate_fail_every = 0;  // requests; 0: none fails
    simulated::ForwardOptions simulated;

    // serve
    base::DaemonOptions daemon;
    std::vector<std::string> models;  // of --model, see model_list.hpp; `model` is the other verbs'
    std::string name = "infer-worker-0";
    std::string model_name;  // empty: model::served_name of the path
    std::string zone;
    std::string router;  // endpoint; empty: run/workers.sock of the state folder
    std::string bind;    // endpoint of an own front instead
    int64_t nice = 5;
    std::string curve_key, curve_server, curve_allow;

    // load, unload: of a running worker
    std::string file, unload_model;
    uint32_t load_kv_blocks = 0;  // 0: as the worker's --kv-blocks

    // run
    bool text = false;
    int64_t seed = -1;  // of requests that name none; -1: drawn for each

    // bench
    uint32_t prompt_tokens = 325;
    std::vector<std::string> depths;  // prompts of several lengths instead of prompt_tokens
    uint32_t cached_tokens = 0;
    uint32_t decode_tokens = 64;
    std::vector<std::string> batches = {"1", "4", "16"};
    uint32_t repeats = 3;
    std::string perplexity;  // file of text; empty: speed
    uint32_t perplexity_window = 512;
    uint32_t compared_speculation = 0;  // --speculate of bench
    std::string requests;  // file of Messages API bodies instead of random prompts

    // tokenize
    std::vector<std::string> words;  // the text itself, joined by spaces; empty: `input`
    std::string input = "-";
    bool special = false;
    bool decode = false;
    bool messages = false;
};

base::Result<Options> parse_options(int argc, const char* const* argv);

int serve(Options options, int argc, const char* const* argv);
int run(const Options& options);
int bench(const Options& options);

}  // namespace parley::infer_worker
