// Report: a run's result as a table for people, as one JSON object, and as histograms for later use.
//
// Threads  pure functions.
#pragma once

#include <string>

#include "load/runner.hpp"
#include "load/stats.hpp"

namespace parley::load {

struct ReportInput {
    std::string target;   // URL or endpoint
    std::string prompts;  // where they came from
    size_t prompt_count = 0;
    RunOptions options;
    RunResult result;
    const Stats& stats;
    uint64_t reconnects = 0;

    double per_s(uint64_t n) const {
        return result.window_s > 0 ? static_cast<double>(n) / result.window_s : 0.0;
    }
    // Measured requests that came to an end, or should have.
    uint64_t judged() const {
        return stats.completions + stats.failures + stats.cut_offs + result.unstarted;
    }
    double goodput_per_s() const { return per_s(stats.good); }
};

std::string report_table(const ReportInput& in);
// One line, with its newline. Keys are only ever added.
std::string report_json(const ReportInput& in);
// One JSON object a line: {"name":"ttft","unit":"ns","count":…,"sum":…,"max":…,"buckets":[[low,high,count],…]}.
std::string report_histograms(const Stats& stats);

}  // namespace parley::load
