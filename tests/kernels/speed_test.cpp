// How fast products are, type beside type: hidden, for it is asked for by name,
//   kernels_test "[speed]"
// One thread, weights in the second-level cache, the best of many short runs, since a busy host can only
// make a run longer. Ticks are the processor's time stamp counter, whose rate is not the core's.
#include <chrono>
#include <limits>

#include "kernels/tensors.hpp"
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace parley::kernels {
namespace {

uint64_t ticks() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return 0;
#endif
}

}  // namespace

TEST_CASE("products are timed", "[.][speed]") {
    constexpr uint64_t kRows = 256, kCols = 512, kRuns = 2000;
    constexpr uint64_t kBlocks = kRows / kGroup * kCols / kBlock;
    std::printf("%-11s %-5s %5s", "path", "type", "bits");
    for (const uint32_t m : {1, 4, 8, 16}) std::printf("   M=%-2u ticks/block   GB/s", m);
    std::printf("\n");
    for (const Kernels* path : fast_paths()) {
        for (const Type type : kTypes) {
            if (traits(type).block_weights == 1) continue;
            Random random{31};
            const auto tensor = random_tensor(random, type, kRows, kCols);
            Weights weights = pack(*path, type, tensor, kRows, kCols);
            const auto bytes = static_cast<double>(weights.ops->packed_bytes(kRows, kCols));
            std::printf("%-11s %-5s %5.3f", path->name, traits(type).name,
                        bytes * 8 / (kRows * kCols));
            const auto x = random.reals(kTileRows * kCols);
            std::vector<Q8Block> tile(kCols / kBlock);
            for (uint32_t i = 0; i < kTileRows; ++i) {
                path->quantise(x.data() + i * kCols, kCols, i, tile.data());
            }
            std::vector<float> out(kTileRows * kRows);
            for (const uint32_t m : {1, 4, 8, 16}) {
                const MatmulArgs args{.packed = weights.packed.data(),
                                      .rows = kRows,
                                      .cols = kCols,
                                      .group_end = kRows / kGroup,
                                      .tile = tile.data(),
                                      .tile_rows = m,
                                      .out = out.data(),
                                      .stride = kRows};
                uint64_t best = std::numeric_limits<uint64_t>::max();
                auto best_time = std::chrono::nanoseconds::max();
                for (uint64_t run = 0; run < kRuns; ++run) {
                    const auto started = std::chrono::steady_clock::now();
                    const uint64_t from = ticks();
                    weights.ops->matmul(args);
                    best = std::min(best, ticks() - from);
                    best_time = std::min<std::chrono::nanoseconds>(
                        best_time, std::chrono::steady_clock::now() - started);
                }
                REQUIRE(best_time.count() > 0);
                std::printf("   %16.1f %6.1f", static_cast<double>(best) / kBlocks,
                            bytes / static_cast<double>(best_time.count()));
            }
            std::printf("\n");
        }
    }
}

}  // namespace parley::kernels
