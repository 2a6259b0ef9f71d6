#include "load/arrivals.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

using namespace parley::load;

namespace {

std::vector<double> gaps(Arrival kind, double rate, uint64_t seed, int n) {
    Arrivals arrivals(kind, rate, seed);
    std::vector<double> out;
    int64_t last = 0;
    for (int i = 0; i < n; ++i) {
        out.push_back(static_cast<double>(arrivals.next_ns() - last) * 1e-9);
        last = arrivals.next_ns();
        arrivals.advance();
    }
    return out;
}

}  // namespace

TEST_CASE("the same seed gives the same starts, another seed others", "[load]") {
    CHECK(gaps(Arrival::poisson, 10, 7, 100) == gaps(Arrival::poisson, 10, 7, 100));
    CHECK(gaps(Arrival::poisson, 10, 7, 100) != gaps(Arrival::poisson, 10, 8, 100));
}

TEST_CASE("the starts of seed 1 are those of every machine", "[load]") {
    Arrivals arrivals(Arrival::poisson, 1000, 1);
    // From SplitMix64's published outputs for seed 1: 0x910a2dec89025cc1, 0xbeeb8da1658eec67.
    const double u = static_cast<double>(0x910a2dec89025cc1u >> 11) * 0x1p-53;
    const double v = static_cast<double>(0xbeeb8da1658eec67u >> 11) * 0x1p-53;
    CHECK(arrivals.next_ns() == Approx(-std::log1p(-u) * 1e6).margin(2));
    arrivals.advance();
    CHECK(arrivals.next_ns() == Approx((-std::log1p(-u) - std::log1p(-v)) * 1e6).margin(2));
}

TEST_CASE("Poisson gaps are exponential with the wanted rate", "[load]") {
    const uint64_t seed = GENERATE(1u, 2u, 3u, 4u);
    CAPTURE(seed);
    constexpr int kN = 20'000;
    constexpr double kRate = 250;
    auto all = gaps(Arrival::poisson, kRate, seed, kN);
    double sum = 0, squares = 0, lagged = 0;
    for (const double g : all) sum += g;
    const double mean = sum / kN;
    for (int i = 0; i < kN; ++i) {
        squares += (all[i] - mean) * (all[i] - mean);
        if (i) lagged += (all[i] - mean) * (all[i - 1] - mean);
    }
    CHECK(mean == Approx(1 / kRate).epsilon(0.03));  // 4 sigma of the mean is 2.8 %
    CHECK(std::sqrt(squares / kN) / mean == Approx(1).epsilon(0.05));  // coefficient of variation
    CHECK(std::abs(lagged / squares) < 0.03);                          // no memory
    std::sort(all.begin(), all.end());
    double distance = 0;  // Kolmogorov–Smirnov against 1 − e^(−rate·t); 1.95/√n is p = 0.001
    for (int i = 0; i < kN; ++i)
        distance = std::max(distance, std::abs((1 - std::exp(-kRate * all[i])) - (i + 0.5) / kN));
    CHECK(distance < 1.95 / std::sqrt(kN));
}

TEST_CASE("constant starts do not drift", "[load]") {
    Arrivals arrivals(Arrival::constant, 3, 1);
    for (int i = 0; i < 300'000; ++i) arrivals.advance();
    CHECK(arrivals.next_ns() == 100'000'000'000'000);
}
