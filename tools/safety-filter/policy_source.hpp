// Where safety-filter's verbs get their policy and their stdin from.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "safety/policy.hpp"

namespace parley::safety_filter {

inline base::Result<std::shared_ptr<const safety::Policy>> load_policy(const std::string& path) {
    return path.empty() ? safety::Policy::builtin() : safety::Policy::load(path);
}

inline base::Result<std::string> read_stdin(size_t bytes_max) {
    std::string out;
    char buffer[65536];
    while (true) {
        const size_t n = std::fread(buffer, 1, sizeof buffer, stdin);
        out.append(buffer, n);
        if (out.size() > bytes_max) return base::fail(base::Errc::too_large, "input is too large");
        if (n < sizeof buffer) break;
    }
    if (std::ferror(stdin)) return base::fail(base::Errc::io, "cannot read stdin");
    return out;
}

}  // namespace parley::safety_filter
