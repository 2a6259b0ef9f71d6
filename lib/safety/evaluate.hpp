// Evaluate: recall, false positives and AUROC of scores, by source, with Wilson intervals.
//
// Threads  pure.
#pragma once

#include <string>
#include <vector>

#include "safety/rows.hpp"

namespace parley::safety {

struct Interval {
    double low = 0, high = 1;
};
// Wilson score interval, 95 %.
Interval wilson(size_t hits, size_t of);

struct Share {
    size_t hits = 0, of = 0;
    double value() const {
        return of == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(of);
    }
};

struct SourceReport {
    std::string source;
    std::string kind;  // "unsafe", "benign", "hard"
    Share above;       // at or above the threshold: recall, or false positives
};

struct SideReport {
    bool output = false;
    double threshold = 0;  // the score that `fpr` of ordinary benign texts reach
    Share recall, fpr, hard_fpr;
    double auroc = 0;         // unsafe against ordinary benign
    double macro_recall = 0;  // mean over sources with 20 unsafe rows or more
    std::vector<SourceReport> sources;
};

struct Scored {
    const Row* row;
    double score;
    bool blocked;
};

// `threshold` under 0: set where at most `fpr` of ordinary benign rows lie at or above it. `sensitive`
// rows do not count. With `by_verdict` a row is above when it was blocked.
SideReport report(const std::vector<Scored>& scored, bool output, double threshold, double fpr,
                  bool by_verdict);
double auroc(std::vector<double> positive, std::vector<double> negative);
std::string to_json(const SideReport& report);
std::string to_table(const SideReport& report);

}  // namespace parley::safety
