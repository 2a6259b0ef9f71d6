#include "load/arrivals.hpp"

#include <cmath>

namespace parley::load {

uint64_t Random::next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double Random::unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

Arrivals::Arrivals(Arrival kind, double rate_per_s, uint64_t seed)
    : kind_(kind), rate_per_s_(rate_per_s), random_(seed) {
    if (kind_ == Arrival::poisson) at_s_ = -std::log1p(-random_.unit()) / rate_per_s_;
}

void Arrivals::advance() {
    ++index_;
    if (kind_ == Arrival::constant)
        at_s_ = static_cast<double>(index_) / rate_per_s_;  // no sum of rounded gaps
    else
        at_s_ += -std::log1p(-random_.unit()) / rate_per_s_;
}

}  // namespace parley::load
