#include "dispatch/admission.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace parley::dispatch {

namespace {
constexpr double kStep = 0.05;  // of a moving average
}

void Admission::waited(int64_t now_ms, int64_t waited_ms, int64_t of_ms, double predicted_ms) {
    tick(now_ms);
    if (of_ms > 0) {
        const double share = static_cast<double>(waited_ms) / static_cast<double>(of_ms);
        if (least_share_ < 0 || share < least_share_) least_share_ = share;
    }
    retries_ = std::min<double>(options_.retries_max, retries_ + options_.retry_share);
    // Of waits that are none, and were predicted as none, there is nothing to learn.
    if (waited_ms < 20 && predicted_ms < 20) return;
    waited_ms_ += kStep * (static_cast<double>(waited_ms) - waited_ms_);
    predicted_ms_ += kStep * (predicted_ms / factor_ - predicted_ms_);
    if (predicted_ms_ > 1) factor_ = std::clamp(waited_ms_ / predicted_ms_, 0.5, 1.5);
}

void Admission::first_event(double ttft_ms, double predicted_ms) {
    error_ms_ += kStep * (std::abs(predicted_ms - ttft_ms) - error_ms_);
    bias_ms_ += kStep * (predicted_ms - ttft_ms - bias_ms_);
}

void Admission::tick(int64_t now_ms, bool idle) {
    if (window_end_ms_ == 0) window_end_ms_ = now_ms + options_.window_ms;
    if (now_ms < window_end_ms_) return;
    const auto most = static_cast<int>(std::min(options_.level_max, kLevelMax));
    if (least_share_ > options_.standing_share / 2) {
        calm_ = 0;
        brownout_ = true;
        if (least_share_ > options_.standing_share) level_ = std::min(level_ + 1, most);
    } else if (least_share_ >= 0 || idle) {
        // One step back at a time, and not at the first sign: what was shed comes back at once.
        if (++calm_ >= options_.calm_windows) {
            calm_ = 0;
            brownout_ = brownout_ && level_ > 0;
            level_ = std::max(level_ - 1, 0);
        }
    }
    least_share_ = -1;
    ++windows_;
    window_end_ms_ = now_ms + options_.window_ms;
}

void Admission::zone_lost() {
    brownout_ = true;
    calm_ = 0;
    if (options_.level_max > 0) level_ = std::max(level_, 1);
}

bool Admission::takes(std::string_view org, bool batch) const {
    if (level_ == 0) return true;
    if (batch) return false;
    const uint64_t hash = std::hash<std::string_view>{}(org) ^ (windows_ * 0x9e3779b97f4a7c15ull);
    const uint64_t mixed = (hash ^ (hash >> 29)) * 0xbf58476d1ce4e5b9ull;
    return static_cast<int>((mixed >> 32) % 10) >= level_ - 1;
}

bool Admission::may_retry() {
    if (retries_ < 1) return false;
    retries_ -= 1;
    return true;
}

}  // namespace parley::dispatch
