// Arrivals: the intended start times of an open loop, the same for the same seed on every machine.
//
// Units    nanoseconds after the start of the run; never falling.
// Threads  one.
#pragma once

#include <cstdint>

namespace parley::load {

enum class Arrival { poisson, constant };

// SplitMix64 (Steele, Lea, Flood 2014). Ours, since the standard library's distributions give other
// numbers with every implementation.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next();
    double unit();  // [0, 1)

  private:
    uint64_t state_;
};

class Arrivals {
  public:
    // rate > 0, in requests per second. poisson: independent exponential gaps.
    Arrivals(Arrival kind, double rate_per_s, uint64_t seed);
    int64_t next_ns() const {
        return static_cast<int64_t>(at_s_ * 1e9);
    }                // the time of the next one
    void advance();  // it has been dealt with

  private:
    Arrival kind_;
    double rate_per_s_;
    Random random_;
    uint64_t index_ = 0;
    double at_s_ = 0;
};

}  // namespace parley::load
