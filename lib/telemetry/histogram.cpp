#include "telemetry/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace parley::telemetry {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kLinearBits = Histogram::kSubBits + 1;  // values below 2^7 are their own bucket

void raise(std::atomic<int64_t>& slot, int64_t value) {
    int64_t seen = slot.load(kRelaxed);
    while (value > seen && !slot.compare_exchange_weak(seen, value, kRelaxed)) {
    }
}

void lower(std::atomic<int64_t>& slot, int64_t value) {
    int64_t seen = slot.load(kRelaxed);
    while (value < seen && !slot.compare_exchange_weak(seen, value, kRelaxed)) {
    }
}

}  // namespace

uint32_t Histogram::bucket_index(int64_t value) {
    const auto v = static_cast<uint64_t>(std::max<int64_t>(value, 0));
    const int width = static_cast<int>(std::bit_width(v));
    if (width <= kLinearBits) return static_cast<uint32_t>(v);
    // The top kLinearBits bits of v name the bucket within its octave (64…127), the shift its
    // octave.
    const int shift = width - kLinearBits;
    return static_cast<uint32_t>((static_cast<uint64_t>(shift) << kSubBits) + (v >> shift));
}

int64_t Histogram::bucket_low(uint32_t index) {
    if (index < (1u << kLinearBits)) return index;
    const uint32_t shift = (index >> kSubBits) - 1;
    const uint64_t top = (index & ((1u << kSubBits) - 1)) | (1u << kSubBits);
    return static_cast<int64_t>(top << shift);
}

int64_t Histogram::bucket_high(uint32_t index) {
    if (index < (1u << kLinearBits)) return index;
    const uint32_t shift = (index >> kSubBits) - 1;
    return bucket_low(index) + static_cast<int64_t>((uint64_t{1} << shift) - 1);
}

Histogram::Histogram(int64_t value_max)
    : value_max_(std::max<int64_t>(value_max, 1)),
      bucket_count_(bucket_index(value_max_) + 1),
      buckets_(new std::atomic<uint64_t>[bucket_count_]()) {}

Histogram::Histogram(const Histogram& other) : Histogram(other.value_max_) { merge(other); }

void Histogram::record(int64_t value, uint64_t times) {
    if (times == 0) return;
    if (value < 0) {
        negatives_.fetch_add(times, kRelaxed);
        value = 0;
    }
    const uint32_t index = std::min(bucket_index(value), bucket_count_ - 1);
    sum_.fetch_add(value * static_cast<int64_t>(times), kRelaxed);
    raise(max_, value);
    lower(min_, value);
    buckets_[index].fetch_add(times, kRelaxed);
}

void Histogram::merge(const Histogram& other) {
    bool any = false;
    for (uint32_t i = 0; i < other.bucket_count_; ++i) {
        const uint64_t n = other.buckets_[i].load(kRelaxed);
        if (n == 0) continue;
        any = true;
        buckets_[std::min(i, bucket_count_ - 1)].fetch_add(n, kRelaxed);
    }
    if (!any) return;
    sum_.fetch_add(other.sum_.load(kRelaxed), kRelaxed);
    negatives_.fetch_add(other.negatives_.load(kRelaxed), kRelaxed);
    raise(max_, other.max_.load(kRelaxed));
    lower(min_, other.min_.load(kRelaxed));
}

void Histogram::reset() {
    for (uint32_t i = 0; i < bucket_count_; ++i) buckets_[i].store(0, kRelaxed);
    sum_.store(0, kRelaxed);
    max_.store(0, kRelaxed);
    min_.store(INT64_MAX, kRelaxed);
    negatives_.store(0, kRelaxed);
}

uint64_t Histogram::count() const {
    uint64_t n = 0;
    for (uint32_t i = 0; i < bucket_count_; ++i) n += buckets_[i].load(kRelaxed);
    return n;
}

int64_t Histogram::min() const {
    const int64_t value = min_.load(kRelaxed);
    return value == INT64_MAX ? 0 : value;
}

double Histogram::mean() const {
    const uint64_t n = count();
    return n == 0 ? 0.0 : static_cast<double>(sum()) / static_cast<double>(n);
}

int64_t Histogram::percentile(double share) const {
    const uint64_t n = count();
    if (n == 0) return 0;
    const double wanted = std::ceil(std::clamp(share, 0.0, 1.0) * static_cast<double>(n));
    const auto rank = std::max<uint64_t>(1, static_cast<uint64_t>(wanted));
    uint64_t seen = 0;
    for (uint32_t i = 0; i < bucket_count_; ++i) {
        seen += buckets_[i].load(kRelaxed);
        if (seen < rank) continue;
        // The last bucket also holds what lies above value_max: only max() knows how far.
        return i + 1 == bucket_count_ ? max() : std::min(bucket_high(i), max());
    }
    return max();
}

uint64_t Histogram::count_at_most(int64_t value) const {
    uint64_t n = 0;
    for (uint32_t i = 0; i < bucket_count_ && bucket_high(i) <= value; ++i) {
        if (i + 1 == bucket_count_ && max() > value) break;
        n += buckets_[i].load(kRelaxed);
    }
    return n;
}

void Histogram::for_each(const std::function<void(int64_t, int64_t, uint64_t)>& visit) const {
    for (uint32_t i = 0; i < bucket_count_; ++i) {
        const uint64_t n = buckets_[i].load(kRelaxed);
        if (n == 0) continue;
        const int64_t high =
            i + 1 == bucket_count_ ? std::max(bucket_high(i), max()) : bucket_high(i);
        visit(bucket_low(i), high, n);
    }
}

}  // namespace parley::telemetry
