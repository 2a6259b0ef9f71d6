// Histogram: counts of values in log-linear buckets; percentiles with a bounded relative error.
//
// The layout is that of HdrHistogram (http://hdrhistogram.org, Gil Tene): values below 128 have a
// bucket each, every octave above is cut into 64 equal ones, so a reported value is at most 1/64
// (1.6 %) above the true one, whatever its size. Memory is fixed by value_max, never by how many
// values came in: 21 KiB for a day in nanoseconds.
//
// Units    the caller's; integers ≥ 0. Nanoseconds for times, throughout parley.
// Bounds   a value above value_max is counted in the last bucket (max() and sum() stay exact); a
//          negative one counts as 0 and in negatives().
// Threads  record() and all readers from any thread, without locks. A reader beside a writer sees a
//          count that may lag by the values just coming in; it never sees a torn one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace parley::telemetry {

class Histogram {
  public:
    static constexpr int kSubBits = 6;  // 64 buckets per octave: the 1/64
    static constexpr int64_t kDayNs = 86'400'000'000'000;

    explicit Histogram(int64_t value_max = kDayNs);
    Histogram(const Histogram& other);  // a snapshot
    Histogram& operator=(const Histogram&) = delete;

    void record(int64_t value) { record(value, 1); }
    void record(int64_t value, uint64_t times);
    // Adds all of `other`; where value_max differs, what does not fit goes into the last bucket.
    void merge(const Histogram& other);
    void reset();

    uint64_t count() const;
    int64_t sum() const { return sum_.load(std::memory_order_relaxed); }
    int64_t max() const { return max_.load(std::memory_order_relaxed); }  // exact; 0 when empty
    int64_t min() const;                                                  // exact; 0 when empty
    uint64_t negatives() const { return negatives_.load(std::memory_order_relaxed); }
    double mean() const;
    // The least bucket bound that at least `share` (0…1) of the values do not exceed; never above
    // max(). 0 when empty.
    int64_t percentile(double share) const;
    // How many values lie in buckets that end at or below `value`.
    uint64_t count_at_most(int64_t value) const;
    // Every bucket that is not empty, in order: its least value, its greatest value, its count.
    void for_each(const std::function<void(int64_t, int64_t, uint64_t)>& visit) const;
    int64_t value_max() const { return value_max_; }

    // The bucket that holds `value`, and its bounds. What a test checks the error with.
    static uint32_t bucket_index(int64_t value);
    static int64_t bucket_low(uint32_t index);
    static int64_t bucket_high(uint32_t index);

  private:
    const int64_t value_max_;
    const uint32_t bucket_count_;
    std::unique_ptr<std::atomic<uint64_t>[]> buckets_;
    std::atomic<int64_t> sum_{0};
    std::atomic<int64_t> max_{0};
    std::atomic<int64_t> min_{INT64_MAX};
    std::atomic<uint64_t> negatives_{0};
};

}  // namespace parley::telemetry
