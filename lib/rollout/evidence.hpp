// Evidence: how strongly events (errors, late tokens, triggers of a filter) speak against a canary.
//
// Test     under "no difference" each event comes from the canary with the chance theta0, its share of
//          the requests, fixed before the event. With n events of which k are the canary's, and a Beta
//          prior a = 10·theta0, b = 10·(1 − theta0) over the chance:
//            E  = B(a+k, b+n−k) / (B(a,b) · theta0^k · (1−theta0)^(n−k))
//          and one-sided, the prior cut to the side that is looked for:
//            up  = E · (1 − I(a+k, b+n−k)) / (1 − I(a, b)),   down = E · I(a+k, b+n−k) / I(a, b)
//          I the regularised incomplete beta function at theta0. Each is a likelihood ratio integrated
//          over a prior, so a martingale of mean 1 under the null: P(ever >= 100) <= 1/100, at every
//          look (Ville 1939; Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon, Ann. Statist. 49, 2021).
//          A new share begins a segment; segments multiply.
// Assumes  that requests fall to the canary independently. One conversation is one coin, so long ones
//          make clumps: Rollout watches the ratio of requests for that, and holds.
// Numbers  natural logarithms.
// Threads  values.
#pragma once

#include <cstdint>

namespace parley::rollout {

// Regularised incomplete beta function, a, b > 0, 0 <= x <= 1; about 1e-12. Continued fraction of
// DLMF 8.17.22 by Lentz's method.
double incomplete_beta(double a, double b, double x);

class Evidence {
  public:
    void share(double theta0);  // from now on; closes the segment
    void add(bool canary);      // an event
    double up() const { return closed_up_ + open_up(); }        // log E: the canary has more
    double down() const { return closed_down_ + open_down(); }  // log E: it has fewer
    uint64_t events() const { return events_; }
    uint64_t canary() const { return canary_; }

    struct Saved {
        double theta0 = 0, closed_up = 0, closed_down = 0;
        uint64_t n = 0, k = 0, events = 0, canary = 0;
    };
    Saved save() const {
        return {theta0_, closed_up_, closed_down_, n_, k_, events_, canary_};
    }
    void restore(const Saved& saved);

  private:
    double both() const;  // log E of the open segment, both sides
    double open_up() const;
    double open_down() const;
    double theta0_ = 0, closed_up_ = 0, closed_down_ = 0;
    uint64_t n_ = 0, k_ = 0;              // of the open segment
    uint64_t events_ = 0, canary_ = 0;  // of all
};

}  // namespace parley::rollout
