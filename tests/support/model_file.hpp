// model_file(): where the model of the tests lies: PARLEY_MODEL, else the cache that the quickstart
// fills. Empty, after a line that says SKIPPED, if it is not there: a test that cannot run must not
// look as if it had.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace parley::test {

inline std::string model_file() {
    std::string path;
    if (const char* named = std::getenv("PARLEY_MODEL")) {
        path = named;
    } else {
        const char* cache = std::getenv("XDG_CACHE_HOME");
        const char* home = std::getenv("HOME");
        path = cache && *cache ? cache : std::string(home ? home : "") + "/.cache";
        path += "/parley/models/SmolLM2-135M-Instruct.Q4_1.gguf";
    }
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return path;
    WARN("SKIPPED: no model at " << path << " (set PARLEY_MODEL)");
    return "";
}

}  // namespace parley::test
