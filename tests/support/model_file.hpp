// model_file(): where the model of the tests lies: PARLEY_MODEL, else the cache that the quickstart
// fills. gemma_file(): where examples/fetch_gemma3.sh puts the other one, in the same cache.
// Empty, after a line that says SKIPPED, if it is not there: a test that cannot run must not
// look as if it had.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace parley::test {

inline std::string cached_model(const char* name) {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    return (cache && *cache ? cache : std::string(home ? home : "") + "/.cache") +
           "/parley/models/" + name;
}

inline std::string model_file() {
    const char* named = std::getenv("PARLEY_MODEL");
    const std::string path = named ? named : cached_model("SmolLM2-135M-Instruct.Q4_1.gguf");
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return path;
    WARN("SKIPPED: no model at " << path << " (set PARLEY_MODEL)");
    return "";
}

inline std::string gemma_file() {
    const std::string path = cached_model("gemma3-270m-q4_k_m.gguf");
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return path;
    WARN("SKIPPED: no model at " << path << " (examples/fetch_gemma3.sh fetches it)");
    return "";
}

}  // namespace parley::test
