#include "roofline.hpp"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/clock.hpp"
#include "engine/huge_memory.hpp"
#include "engine/thread_pool.hpp"

namespace parley::infer_worker {
namespace {

constexpr uint64_t kPiece = 256 * 1024;  // bytes of a unit
constexpr uint32_t kPasses = 9;
constexpr uint64_t kRounds = 20'000;  // of a unit of arithmetic
constexpr uint32_t kChains = 12;      // independent sums: more than latency times ports

std::atomic<uint64_t> sunk{0};  // so that nothing measured is left out

// The widest loads that every x86-64 has are enough: the memory is slower than two of them a cycle.
class Reader final : public engine::ThreadPool::Body {
  public:
    explicit Reader(const uint8_t* data) : data_(data) {}
    void units(uint32_t, uint32_t begin, uint32_t end, uint32_t) override {
        __m128i sums[8] = {};
        const auto* at = reinterpret_cast<const __m128i*>(data_ + begin * kPiece);
        const auto* stop = reinterpret_cast<const __m128i*>(data_ + end * kPiece);
        for (; at < stop; at += 8)
            for (int i = 0; i < 8; ++i) sums[i] = _mm_xor_si128(sums[i], _mm_load_si128(at + i));
        for (int i = 1; i < 8; ++i) sums[0] = _mm_xor_si128(sums[0], sums[i]);
        sunk ^= static_cast<uint64_t>(_mm_cvtsi128_si64(sums[0]));
    }

  private:
    const uint8_t* data_;
};

__attribute__((target("avx512f,avx512vnni"))) int32_t multiply512(uint64_t rounds) {
    __m512i sums[kChains];
    for (uint32_t i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(static_cast<int>(i));
    __m512i a = _mm512_set1_epi8(3);
    __m512i b = _mm512_set1_epi8(5);
    for (uint64_t n = 0; n < rounds; ++n) {
        asm volatile("" : "+v"(a), "+v"(b));  // not one product taken out of the loop
#pragma GCC unroll 12
        for (uint32_t i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
    __m512i all = sums[0];
    for (uint32_t i = 1; i < kChains; ++i) all = _mm512_xor_si512(all, sums[i]);
    int32_t out[16];
    _mm512_storeu_si512(out, all);
    return out[0];
}

__attribute__((target("avx2"))) int32_t multiply256(uint64_t rounds) {
    __m256i sums[kChains];
    for (uint32_t i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi32(static_cast<int>(i));
    __m256i a = _mm256_set1_epi8(3);
    __m256i b = _mm256_set1_epi8(5);
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint64_t n = 0; n < rounds; ++n) {
#pragma GCC unroll 12
        for (uint32_t i = 0; i < kChains; ++i) {
            asm volatile("" : "+x"(a), "+x"(b));
            sums[i] = _mm256_add_epi32(sums[i],
                                       _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    __m256i all = sums[0];
    for (uint32_t i = 1; i < kChains; ++i) all = _mm256_xor_si256(all, sums[i]);
    return _mm_cvtsi128_si32(_mm256_castsi256_si128(all));
}

class Multiplier final : public engine::ThreadPool::Body {
  public:
    explicit Multiplier(bool wide) : wide_(wide) {}
    void units(uint32_t, uint32_t begin, uint32_t end, uint32_t) override {
        for (; begin < end; ++begin)
            sunk ^= static_cast<uint64_t>(wide_ ? multiply512(kRounds) : multiply256(kRounds));
    }

  private:
    bool wide_;
};

// Of kPasses: noise only ever slows one down.
base::Result<double> best_s(engine::ThreadPool::Body& body, uint32_t units, uint32_t threads) {
    auto pool = engine::ThreadPool::create(threads);
    if (!pool) return base::fail(pool.error());
    const base::Clock& clock = base::system_clock();
    const engine::Phase phase{units, false};
    int64_t best_ns = INT64_MAX;
    for (uint32_t pass = 0; pass < kPasses; ++pass) {
        const int64_t from_ns = clock.mono_ns();
        (*pool)->run({&phase, 1}, body);
        best_ns = std::min(best_ns, clock.mono_ns() - from_ns);
    }
    return static_cast<double>(std::max<int64_t>(best_ns, 1)) * 1e-9;
}

}  // namespace

base::Result<double> read_bytes_per_s(uint64_t bytes, uint32_t threads) {
    const auto units = static_cast<uint32_t>(std::max<uint64_t>(bytes / kPiece, 1));
    auto memory = engine::HugeMemory::map(units * kPiece);
    if (!memory) return base::fail(memory.error());
    std::memset(memory->data(), 1, units * kPiece);  // real pages, not the one page of zeros
    Reader reader(memory->data());
    auto seconds = best_s(reader, units, threads);
    if (!seconds) return base::fail(seconds.error());
    return static_cast<double>(units * kPiece) / *seconds;
}

base::Result<double> int8_ops_per_s(std::string_view kernel, uint32_t threads) {
    const bool wide = kernel == "avx512vnni" || kernel == "amx";
    if (!wide && kernel != "avx2") return 0.0;
    Multiplier multiplier(wide);
    const uint32_t units = threads * 16;
    auto seconds = best_s(multiplier, units, threads);
    if (!seconds) return base::fail(seconds.error());
    return 2.0 * (wide ? 64 : 32) * kChains * kRounds * units / *seconds;
}

}  // namespace parley::infer_worker
