// What the operator's verbs share: asking the running router, and reading its answers.
#pragma once

#include <simdjson.h>

#include <string>

#include "options.hpp"

namespace parley::router {

// Sends a command to the running router; the body of its answer, which may take wait_ms. Errc::unavailable:
// none is there within a moment, or answers in time; Errc::invalid: it refuses, in its words.
base::Result<std::string> ask_router(const Options& options, const std::string& command,
                                     int64_t wait_ms);
std::string operator_name();  // who is at the keyboard, for histories

// Rollouts of `router status --json` as a table of where they stand, or of all their steps; of one alias
// where it is named.
std::string rollout_table(simdjson::dom::element status, bool history, const std::string& alias);

// Members of an object; 0 and "" where there is none.
inline double number(simdjson::dom::element at, const char* key) {
    double value = 0;
    return at[key].get(value) == simdjson::SUCCESS ? value : 0;
}
inline std::string text(simdjson::dom::element at, const char* key) {
    std::string_view value;
    return at[key].get(value) == simdjson::SUCCESS ? std::string(value) : std::string();
}

}  // namespace parley::router
