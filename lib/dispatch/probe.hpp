// Probe: prompts asked of one worker before a version takes traffic, and what should come back.
// For the router's own files.
#pragma once

#include "dispatch/router.hpp"

namespace parley::dispatch {

struct Golden {
    std::string prompt, expect;
    uint64_t max_tokens = 32;
    bool warm_up = false;  // any answer will do
};

struct Router::Probe {
    std::string operator_id;  // who asked for the rollout and waits; empty: gone
    rollout::Spec spec;
    std::vector<Golden> golden;
    pipe::Peer worker = 0;
    size_t at = 0;
    std::string id, text;  // of the one that runs
    uint32_t wrong = 0;
    std::string first_wrong;
    void read(const std::string& event);  // adds a text_delta's text
};

}  // namespace parley::dispatch
