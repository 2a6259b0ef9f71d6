// A table of its own, and the sentence that all limits are held to.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "limits/limits.hpp"

namespace parley::limits {

using Why = Refusal::Why;

struct Folder {
    Folder() {
        char name[] = "/tmp/parley-limits-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~Folder() { (void)std::system(("rm -rf " + path).c_str()); }
    std::string path;
    Options options(uint32_t subjects = 1024, uint32_t reservations = 1024) const {
        return {path + "/limits", subjects, reservations};
    }
};

inline std::unique_ptr<Limiter> opened(const Options& options, const base::Clock& clock,
                                       bool warm = true) {
    auto limiter = Limiter::open(options, clock);
    if (!limiter) FAIL(limiter.error().what);
    if (warm && (*limiter)->begin_refill()) (*limiter)->end_refill();
    return std::move(*limiter);
}

inline Subject subject(std::string_view name, Limits limits) {
    Subject subject;
    subject.id = subject_id("key", name);
    subject.limits = limits;
    return subject;
}
inline Limits requests(uint64_t per_minute, uint64_t burst = 0) {
    Limits limits;
    limits.requests = {per_minute, burst};
    return limits;
}
inline Limits output(uint64_t per_minute, uint64_t burst = 0) {
    Limits limits;
    limits.output_tokens = {per_minute, burst};
    return limits;
}
inline Demand tokens(uint64_t out, uint64_t in = 0) { return {in, out, 0, true}; }

struct Admitted {
    int64_t at_ns;
    uint64_t amount;
};

// Every window [s, e]: sum ≤ burst + rate · (T + 1 ns), in whole numbers. The worst excess in tokens, or 0.
inline double worst_excess(std::vector<Admitted> all, const Rate& rate) {
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.at_ns < b.at_ns; });
    constexpr __int128 kMinute = 60'000'000'000;
    __int128 sum = 0, least = 0, worst = 0;
    bool first = true;
    for (const Admitted& each : all) {
        const __int128 opens = sum * kMinute - static_cast<__int128>(rate.per_minute) * each.at_ns;
        least = first ? opens : std::min(least, opens);
        first = false;
        sum += each.amount;
        const __int128 used =
            sum * kMinute - static_cast<__int128>(rate.per_minute) * each.at_ns - least;
        worst =
            std::max(worst, used - static_cast<__int128>(rate.most()) * kMinute - rate.per_minute);
    }
    return static_cast<double>(worst) / static_cast<double>(kMinute);
}

}  // namespace parley::limits
