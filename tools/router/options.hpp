// The router's options: flags, environment and file, one declaration (see router(8)).
#pragma once

#include <string>

#include "base/cli.hpp"
#include "base/daemon.hpp"
#include "dispatch/router.hpp"

namespace parley::router {

struct Options {
    base::Parsed parsed;
    base::DaemonOptions daemon;
    std::string bind;          // askers; empty: run/router.sock of the state folder
    std::string workers_bind;  // workers; empty: run/workers.sock
    std::string curve_key;     // secret key file, for tcp beyond loopback
    std::string curve_allow;   // file of public keys, one a line
    bool standby = false;      // wait for the end of the one that serves
    int64_t hung_ms = 1500;    // without a beat, then it is killed; 0: never
    dispatch::RouterOptions router;
    // model, alias, status
    bool json = false, watch = false;
    std::string name, target, why;
    std::string key_file;  // key
    std::string small;     // alias set: the model for what is small; "": no rule
    uint64_t small_prompt_tokens = 512, small_max_tokens = 256;
    std::string say = "alias";
    std::string stages, golden;  // rollout start: empty: the router's ladder; file of prompts
    // simulate
    std::string scenario, trace, svg;
    uint64_t seed = 0;   // 0: the scenario's
    double seconds = 0;  // 0: the scenario's
    double load = 1;     // times the rates of open loops
    bool no_predict = false;
    uint32_t rollouts = 0;  // trials of each kind, instead of a scenario
};

base::Result<Options> parse_options(int argc, const char* const* argv);

int serve(Options options, int argc, const char* const* argv);
int show_status(const Options& options);
int run_simulation(const Options& options);
int list_models(const Options& options);
int list_aliases(const Options& options);
int set_alias(const Options& options);
int rollback_alias(const Options& options);
int create_key(const Options& options);
int show_key(const Options& options);
int rollout_command(const Options& options, const std::string& verb);
int show_rollouts(const Options& options, bool history);

}  // namespace parley::router
