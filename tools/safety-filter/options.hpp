// The verbs of safety-filter and their options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/cli.hpp"
#include "base/daemon.hpp"
#include "base/result.hpp"

namespace parley::safety_filter {

struct Options {
    std::string policy;  // file; empty: the shipped one
    // run
    bool filter = false, output = false;
    std::string file = "-";
    // check, eval
    std::string side = "input";
    std::vector<std::string> data;
    bool json = false, leave_one_out = false, at_policy = false;
    double fpr = 0.01;
    // train
    std::string out = "weights.bin";
    uint64_t seed = 42;
    uint32_t epochs = 4;
    bool keep_share_alike = false;
    // serve
    base::DaemonOptions daemon;
    std::string bind, router, name = "safety-filter";
    std::string stamp_key, curve_key, curve_allow, router_curve_key;
    uint32_t workers = 2;
    uint32_t requests_max = 4096;
    uint32_t cache_max = 16'384;
};

base::Result<base::Parsed> parse(base::Cli& cli, Options& options, int argc,
                                 const char* const* argv);

// Each returns the exit status.
int run(const Options& options);
int check(const Options& options);
int eval(const Options& options);
int train(const Options& options);
int serve(Options options, int argc, const char* const* argv);

}  // namespace parley::safety_filter
