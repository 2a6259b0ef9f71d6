// PromptSet: the request bodies of a run, read and completed once, before the first request.
//
// A line of the file is a Messages API body ({"messages":…}), an object with "prompt" (its other
// members go into the body), or plain text. Blank lines are skipped. The run's settings are laid
// over each: `stream` is always true; model, max_tokens and temperature replace the line's own when
// set, and fill in where the line has none.
// Bounds   file_bytes_max, prompts_max.
// Errors   Errc::invalid with the line number; Errc::too_large; Errc::not_found.
// Threads  immutable once made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::load {

struct PromptOptions {
    std::string model;                   // empty: the line's own, else "default"
    std::optional<uint64_t> max_tokens;  // unset: the line's own, else 128
    std::optional<double> temperature;
    uint64_t file_bytes_max = 256ull << 20;
    uint64_t prompts_max = 1'000'000;
};

class PromptSet {
  public:
    // "-" is standard input.
    static base::Result<PromptSet> read(const std::string& path, const PromptOptions& options);
    static base::Result<PromptSet> parse(std::string_view text, const PromptOptions& options);

    size_t size() const { return bodies_.size(); }
    const std::string& body(size_t index) const { return bodies_[index]; }

  private:
    std::vector<std::string> bodies_;
};

}  // namespace parley::load
