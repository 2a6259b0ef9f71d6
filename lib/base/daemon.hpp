// DaemonOptions: the options that every serving verb has, by the same names.
#pragma once

#include <cstdint>
#include <string>

#include "base/cli.hpp"
#include "base/file.hpp"

namespace parley::base {

struct DaemonOptions {
    std::string state;               // --state, PARLEY_STATE; empty: state_dir_from_env()
    std::string metrics;             // --metrics 127.0.0.1:PORT; empty: none
    std::string log_level = "info";  // --log-level
    int64_t drain_ms = 10'000;       // --drain-timeout

    void declare(Verb& verb) {
        verb.option("--state", state, "state folder (default: where PARLEY_STATE says)")
            .env("PARLEY_STATE");
        verb.option("--metrics", metrics,
                    "loopback ADDRESS:PORT of the metrics endpoint; port 0 takes a free one");
        verb.option("--log-level", log_level, "least level that is logged")
            .choices({"debug", "info", "warn", "error"});
        verb.duration("--drain-timeout", drain_ms,
                      "after SIGTERM, how long running work may take to finish");
    }
    Places places() const { return Places{state.empty() ? state_dir_from_env() : state}; }
};

}  // namespace parley::base
