#include "rollout/evidence.hpp"

#include <algorithm>
#include <cmath>

namespace parley::rollout {
namespace {

constexpr double kPrior = 10;  // as many events as the prior is worth
constexpr double kTiny = 1e-300;

double log_beta(double a, double b) { return std::lgamma(a) + std::lgamma(b) - std::lgamma(a + b); }

double fraction(double a, double b, double x) {
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
    double h = d;
    for (int m = 1; m <= 10'000; ++m) {
        const double two = 2.0 * m;
        double step = m * (b - m) * x / ((a + two - 1) * (a + two));
        d = 1 + step * d;
        c = 1 + step / c;
        d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
        if (std::fabs(c) < kTiny) c = kTiny;
        h *= d * c;
        step = -(a + m) * (a + b + m) * x / ((a + two) * (a + two + 1));
        d = 1 + step * d;
        c = 1 + step / c;
        d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
        if (std::fabs(c) < kTiny) c = kTiny;
        h *= d * c;
        if (std::fabs(d * c - 1) < 1e-14) break;
    }
    return h;
}

// log of the weight of one side; far out, where it underflows, the least that there is.
double log_side(double part) { return std::log(std::max(part, kTiny)); }

}  // namespace

double incomplete_beta(double a, double b, double x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const double front = std::exp(a * std::log(x) + b * std::log1p(-x) - log_beta(a, b));
    if (x < (a + 1) / (a + b + 2)) return front * fraction(a, b, x) / a;
    return 1 - front * fraction(b, a, 1 - x) / b;
}

void Evidence::share(double theta0) {
    if (theta0 == theta0_) return;
    closed_up_ = up();
    closed_down_ = down();
    theta0_ = theta0;
    n_ = k_ = 0;
}

void Evidence::add(bool canary) {
    if (theta0_ <= 0 || theta0_ >= 1) return;  // nothing to compare with
    ++n_;
    ++events_;
    k_ += canary;
    canary_ += canary;
}

double Evidence::both() const {
    const double a = kPrior * theta0_, b = kPrior * (1 - theta0_);
    const auto k = static_cast<double>(k_), rest = static_cast<double>(n_ - k_);
    return log_beta(a + k, b + rest) - log_beta(a, b) - k * std::log(theta0_) -
           rest * std::log1p(-theta0_);
}

double Evidence::open_up() const {
    if (n_ == 0) return 0;
    const double a = kPrior * theta0_, b = kPrior * (1 - theta0_);
    const auto k = static_cast<double>(k_), rest = static_cast<double>(n_ - k_);
    // 1 − I_x(a, b) = I_{1−x}(b, a), without the cancellation.
    return both() + log_side(incomplete_beta(b + rest, a + k, 1 - theta0_)) -
           log_side(incomplete_beta(b, a, 1 - theta0_));
}

double Evidence::open_down() const {
    if (n_ == 0) return 0;
    const double a = kPrior * theta0_, b = kPrior * (1 - theta0_);
    const auto k = static_cast<double>(k_), rest = static_cast<double>(n_ - k_);
    return both() + log_side(incomplete_beta(a + k, b + rest, theta0_)) -
           log_side(incomplete_beta(a, b, theta0_));
}

void Evidence::restore(const Saved& saved) {
    theta0_ = saved.theta0;
    closed_up_ = saved.closed_up;
    closed_down_ = saved.closed_down;
    n_ = saved.n;
    k_ = saved.k;
    events_ = saved.events;
    canary_ = saved.canary;
}

}  // namespace parley::rollout
