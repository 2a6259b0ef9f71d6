#include "engine/cost_model.hpp"

#include <algorithm>

namespace parley::engine {
namespace {

constexpr double kKeep = 0.98;        // 50 iterations back weigh a third
constexpr double kSlower = 0.5;       // weight of a slower iteration in slow_
constexpr double kFaster = 0.2;       // of a faster one
constexpr double kSlowMost = 16;      // a host that was suspended is not slow for ever
constexpr double kForgotten = 1e-6;   // of a term's greatest weight: below it the term stands still
constexpr int kSweeps = 16;

}  // namespace

IterationLoad IterationLoad::of(uint32_t position, uint32_t count, bool decode) {
    IterationLoad load;
    (decode ? load.decode_rows : load.prefill_rows) = count;
    const double rows = count;
    load.keys = rows * position + rows * (rows + 1) / 2;
    return load;
}

IterationLoad& IterationLoad::operator+=(const IterationLoad& other) {
    decode_rows += other.decode_rows;
    prefill_rows += other.prefill_rows;
    draft_rows += other.draft_rows;
    keys += other.keys;
    return *this;
}

CostModel::Vector CostModel::terms(const IterationLoad& load) {
    return {load.draft_rows, load.prefill_rows, load.decode_rows, load.keys, 1.0};
}

void CostModel::observe(const IterationLoad& load, double seconds) {
    if (seconds <= 0 || load.decode_rows + load.prefill_rows <= 0) return;
    double thought = 0;
    Vector x = terms(load);
    for (size_t i = 0; i < kTerms; ++i) thought += x[i] * fit_[i];
    // The first drafts take longer than was thought, and no one is slow for that.
    const bool told_apart = load.draft_rows == 0 || draft_known();
    if (observed_ > 0 && thought > 0 && told_apart) {
        const double ratio = std::min(seconds / thought, kSlowMost);
        slow_ = std::max(1.0, slow_ + (ratio > slow_ ? kSlower : kFaster) * (ratio - slow_));
    }
    ++observed_;
    largest_prefill_ = std::max(largest_prefill_, load.prefill_rows);

    // By the greater of both times: one that is told too short must not outweigh all the others.
    const double scale = std::max(seconds, thought);
    const double told = seconds / scale;
    for (double& value : x) value /= scale;
    for (size_t i = 0; i < kTerms; ++i) {
        for (size_t j = 0; j < kTerms; ++j)
            squares_[i][j] = kKeep * squares_[i][j] + x[i] * x[j];
        sums_[i] = kKeep * sums_[i] + x[i] * told;
        most_[i] = std::max(most_[i], squares_[i][i]);
    }
    // Coordinate descent from the last fit: exact in each term, and the bound at 0 is kept by
    // stopping there.
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        for (size_t i = 0; i < kTerms; ++i) {
            if (squares_[i][i] <= kForgotten * most_[i]) continue;
            double rest = sums_[i];
            for (size_t j = 0; j < kTerms; ++j)
                if (j != i) rest -= squares_[i][j] * fit_[j];
            fit_[i] = std::max(0.0, rest / squares_[i][i]);
        }
    }
}

double CostModel::seconds(const IterationLoad& load) const {
    const Vector x = terms(load);
    double sum = 0;
    for (size_t i = 0; i < kTerms; ++i) sum += x[i] * fit_[i];
    return sum * slow_;
}

double CostModel::share(const IterationLoad& load, double rows) const {
    const double own = load.prefill_rows + load.decode_rows;
    return slow_ * (fit_[0] * load.draft_rows + fit_[1] * load.prefill_rows +
                    fit_[2] * load.decode_rows + fit_[3] * load.keys +
                    fit_[4] * own / std::max(rows, 1.0));
}

uint32_t CostModel::prefill_rows(const IterationLoad& decodes, uint32_t position, double budget_s,
                                 uint32_t step, uint32_t most) const {
    most = static_cast<uint32_t>(std::min<double>(most, 2 * largest_prefill_));
    uint32_t low = 1;  // in steps
    uint32_t high = std::max(most / step, 1u);
    while (low < high) {
        const uint32_t middle = low + (high - low + 1) / 2;
        IterationLoad load = decodes;
        load += IterationLoad::of(position, middle * step, false);
        if (seconds(load) <= budget_s)
            low = middle;
        else
            high = middle - 1;
    }
    return low * step;
}

double CostModel::prefill_row_s(uint32_t rows) const {
    return prefill_known() ? seconds(IterationLoad::of(0, rows, false)) / rows : 0;
}

}  // namespace parley::engine
