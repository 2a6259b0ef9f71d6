// CostModel: what an iteration takes, learnt from those that ran:
//     t = t0 + decode·decode_rows + context·keys + prefill·prefill_rows + draft·draft_rows    (seconds)
//
// Fit      least squares of the relative error over all iterations, each later one making the
//          earlier ones weigh less (kKeep); no term is below 0. Where the iterations do not tell two
//          terms apart, the rows keep the time, not t0: a chunk is then thought too dear, not free.
// Slow     an iteration slower than the fit makes all seem slower at once (somebody took a core),
//          a faster one only by and by: an iteration that is too long delays every reader.
// Errors   a time of 0 or below, or a load of no rows, teaches nothing.
// Threads  one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace parley::engine {

struct IterationLoad {
    double decode_rows = 0;
    double prefill_rows = 0;
    double draft_rows = 0;  // guessed tokens behind a decode row (engine/speculator.hpp)
    // Read by all rows together: a row at position p reads p + 1. Not those of draft rows: they read
    // with the row before them.
    double keys = 0;

    // Of `count` rows from `position` on.
    static IterationLoad of(uint32_t position, uint32_t count, bool decode);
    IterationLoad& operator+=(const IterationLoad& other);
};

class CostModel {
  public:
    void observe(const IterationLoad& load, double seconds);
    bool known() const { return observed_ > 0; }
    bool prefill_known() const { return largest_prefill_ > 0; }
    double seconds(const IterationLoad& load) const;  // 0 before the first observe()
    // The same with the host to itself, as far as the fit knows it.
    double seconds_least(const IterationLoad& load) const { return seconds(load) / slow_; }
    // What `load` adds to an iteration of `rows` decode and prefill rows, who share t0 evenly.
    double share(const IterationLoad& load, double rows) const;
    // The most prefill rows from `position` on, a multiple of `step` ≥ step, with which an iteration
    // of `decodes` stays within `budget_s`. At most `most`, and twice the largest that was measured.
    uint32_t prefill_rows(const IterationLoad& decodes, uint32_t position, double budget_s,
                          uint32_t step, uint32_t most) const;
    // Of a prompt's row in a chunk of `rows`, its part of t0 included.
    double prefill_row_s(uint32_t rows) const;
    bool draft_known() const { return most_[0] > 0; }
    double draft_row_s() const { return fit_[0] * slow_; }  // more for each

  private:
    static constexpr size_t kTerms = 5;
    using Vector = std::array<double, kTerms>;
    static Vector terms(const IterationLoad& load);

    std::array<Vector, kTerms> squares_{};  // Σ x·xᵀ, x over the time it took or was thought to take
    Vector sums_{};                         // Σ x·(time over the same)
    Vector most_{};                         // greatest squares_[i][i] so far
    Vector fit_{};                          // as terms()
    double slow_ = 1;                       // ≥ 1
    double largest_prefill_ = 0;
    uint64_t observed_ = 0;
};

}  // namespace parley::engine
