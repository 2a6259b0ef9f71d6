#include "telemetry/histogram.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

using parley::telemetry::Histogram;

TEST_CASE("every value lies in its bucket, and buckets join without gap or overlap",
          "[telemetry]") {
    for (uint32_t i = 0; i < 3000; ++i) {
        CHECK(Histogram::bucket_low(i + 1) == Histogram::bucket_high(i) + 1);
        CHECK(Histogram::bucket_index(Histogram::bucket_low(i)) == i);
        CHECK(Histogram::bucket_index(Histogram::bucket_high(i)) == i);
    }
}

TEST_CASE("a bucket is never wider than 1/64 of its least value", "[telemetry]") {
    for (uint32_t i = 128; i < 3700; ++i) {
        const int64_t low = Histogram::bucket_low(i);
        REQUIRE(Histogram::bucket_high(i) - low < low / 64);
    }
}

TEST_CASE("percentiles are at most 1/64 above the sorted truth", "[telemetry]") {
    const uint64_t seed = GENERATE(1u, 2u, 3u);
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    std::lognormal_distribution<double> draw(15.0, 2.0);  // milliseconds, in ns, with a long tail
    std::vector<int64_t> truth;
    Histogram histogram;
    for (int i = 0; i < 20'000; ++i) {
        truth.push_back(static_cast<int64_t>(draw(random)));
        histogram.record(truth.back());
    }
    std::sort(truth.begin(), truth.end());
    for (const double share : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
        CAPTURE(share);
        const auto rank = std::max<size_t>(1, static_cast<size_t>(std::ceil(share * 20'000)));
        const int64_t exact = truth[rank - 1];
        CHECK(histogram.percentile(share) >= exact);
        CHECK(static_cast<double>(histogram.percentile(share)) <=
              static_cast<double>(exact) * (1 + 1.0 / 64));
    }
    CHECK(histogram.count() == 20'000);
    CHECK(histogram.max() == truth.back());
    CHECK(histogram.min() == truth.front());
    int64_t sum = 0;
    for (const int64_t v : truth) sum += v;
    CHECK(histogram.sum() == sum);
}

TEST_CASE("two halves merged equal the whole", "[telemetry]") {
    Histogram whole, left, right;
    for (int64_t v = 0; v < 100'000; v += 37) {
        whole.record(v * v);
        (v % 2 ? left : right).record(v * v);
    }
    left.merge(right);
    CHECK(left.count() == whole.count());
    CHECK(left.sum() == whole.sum());
    CHECK(left.max() == whole.max());
    CHECK(left.min() == whole.min());
    for (double share = 0; share <= 1.0; share += 0.05)
        CHECK(left.percentile(share) == whole.percentile(share));
}

TEST_CASE("an empty histogram answers zeros, and merging it changes nothing", "[telemetry]") {
    Histogram empty, one;
    CHECK(empty.count() == 0);
    CHECK(empty.percentile(0.99) == 0);
    CHECK(empty.min() == 0);
    CHECK(empty.mean() == 0.0);
    one.record(5);
    one.merge(empty);
    CHECK(one.count() == 1);
    CHECK(one.min() == 5);
    one.reset();
    CHECK(one.count() == 0);
    CHECK(one.max() == 0);
}

TEST_CASE("what is above the bound or below zero is counted and said", "[telemetry]") {
    Histogram small(1000);
    small.record(1'000'000);
    small.record(-5);
    CHECK(small.count() == 2);
    CHECK(small.max() == 1'000'000);
    CHECK(small.percentile(1.0) == 1'000'000);
    CHECK(small.negatives() == 1);
    CHECK(small.count_at_most(2000) == 1);
}

TEST_CASE("no count is lost when four threads record at once", "[telemetry]") {
    Histogram histogram;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&histogram, t] {
            for (int i = 0; i < 10'000; ++i) histogram.record(t * 1000 + i % 7);
        });
    for (auto& thread : threads) thread.join();
    CHECK(histogram.count() == 40'000);
    CHECK(histogram.max() == 3006);
}
