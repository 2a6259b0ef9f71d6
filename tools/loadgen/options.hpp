// What `loadgen run` is told: the command line, checked, in the words of the libraries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/cli.hpp"
#include "load/prompts.hpp"
#include "load/runner.hpp"
#include "load/transport.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::loadgen {

struct Options {
    std::optional<int> exit;  // stop with this: --help, --version
    std::string target;       // URL or endpoint, as given
    bool over_pipe = false;
    load::HttpOptions http;
    load::PipeOptions pipe;
    load::RunOptions run;
    load::Slo slo;
    load::PromptSet prompts;
    std::string prompts_from;
    telemetry::MetricsServerOptions metrics;
    std::string histogram_path;
    double goodput_least = 0;  // --fail-below
    bool json = false;
};

base::Result<Options> parse_options(int argc, const char* const* argv);

}  // namespace parley::loadgen
