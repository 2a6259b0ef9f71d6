// Model: a hashed n-gram linear model, several heads over one pass of the text.
//
// Score    z(head) = bias + scale * (sum of int8 weights) / sqrt(n), n the count of n-grams; sums are
//          integers, so a stream, a window and a whole text add up to exactly the same. Where most
//          n-grams are repeats of recent ones (Recent), repeats do not count: what is said a hundred
//          times is no stronger evidence than said once, and does not bury what stands beside it.
//          calibrated()
//          maps z to 0..1, higher is less safe; 0.5 lies where the stated share of ordinary benign
//          text from sources unseen in training lies above (Calibration).
// Windows  score() of a long text is the highest z over overlapping windows and the whole.
// File     "parleyW1", u32 length of the header, JSON header, padding to 16, then per head 2^bits int8.
//          A file that is too short, too long, or of another version is Errc::corrupt.
// Owns     its own copy of the weights (8 MiB at most), immutable after parse().
// Threads  any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "safety/features.hpp"

namespace parley::safety {

// unsafe is trained on all that is not benign, the others on one kind each. output judges answers.
enum class Head : uint8_t { unsafe, harmful, jailbreak, prompt_injection, output };
inline constexpr size_t kHeads = 5;
std::string_view name(Head head);
bool head_from_name(std::string_view name, Head& head);

using HeadValues = std::array<double, kHeads>;

// MLCommons hazard codes, in the order of the weights.
inline constexpr std::array<std::string_view, 12> kHazards = {
    "vcr", "ncr", "src", "cse", "ssh", "iwp", "ipv", "dfm", "hte", "prv", "spc", "sxc"};

struct HeadInfo {
    std::string name;
    uint32_t bits = 0;
    double scale = 0;
    double bias = 0;
    double slope = 1;  // calibrated = 1 / (1 + exp(-slope * (z - centre)))
    double centre = 0;
};

// Sums over a stretch of text, which subtract: window = later - earlier.
struct Sums {
    std::array<int64_t, kHeads> weight{};
    int64_t count = 0;
    // The same of those n-grams that were not seen shortly before.
    std::array<int64_t, kHeads> fresh_weight{};
    int64_t fresh = 0;
    Sums operator-(const Sums& earlier) const;
};

// The n-grams of the last thousand bytes or so of one stream, by their buckets: two that share one
// count as the same, so at worst a little is held for a repeat.
class Recent {
  public:
    // Was it not seen shortly before? seen() only looks.
    bool add(uint64_t hash);
    bool seen(uint64_t hash) const {
        const size_t word = hash >> (64 - kBits + 6);
        const uint64_t bit = uint64_t{1} << (hash >> (64 - kBits) & 63);
        return ((now_[word] | before_[word]) & bit) != 0;
    }

  private:
    static constexpr uint32_t kBits = 18;
    static constexpr uint32_t kHalf = 2048;  // n-grams, about 450 bytes; the memory is one to two

    std::vector<uint64_t> now_ = std::vector<uint64_t>(size_t{1} << (kBits - 6));
    std::vector<uint64_t> before_ = now_;
    uint32_t added_ = 0;
};

class Model {
  public:
    static constexpr uint32_t kMainBits = 18;
    static constexpr uint32_t kHazardBits = 14;
    static constexpr size_t kWindowBytes = 600;
    static constexpr size_t kStrideBytes = 300;

    static base::Result<std::shared_ptr<const Model>> parse(std::string_view file);
    // The weights that are built into this library.
    static base::Result<std::shared_ptr<const Model>> builtin();
    static std::string_view builtin_bytes();

    void add(uint64_t hash, Sums& sums, bool fresh) const {
        const int8_t* w = &weights_[(hash >> (64 - kMainBits)) * kStrideHeads];
        for (size_t h = 0; h < kHeads; ++h) sums.weight[h] += w[h];
        ++sums.count;
        if (!fresh) return;
        for (size_t h = 0; h < kHeads; ++h) sums.fresh_weight[h] += w[h];
        ++sums.fresh;
    }
    // The sums of one whole text.
    Sums sums(std::string_view text) const;
    double z(Head head, const Sums& sums) const;
    double calibrated(Head head, double z) const;
    // Highest z per head over windows and the whole.
    HeadValues score(std::string_view text) const;
    HeadValues calibrated(const HeadValues& z) const;
    // The hazard that fits best, "" when the text is too short to tell.
    std::string_view hazard(std::string_view text) const;
    // The n-grams of words that speak most for `head`, for an explanation: (word, contribution to z).
    std::vector<std::pair<std::string, double>> explain(Head head, std::string_view text,
                                                        size_t most) const;

    const HeadInfo& info(Head head) const { return infos_[static_cast<size_t>(head)]; }
    const std::string& sha256_hex() const { return sha256_hex_; }
    const std::string& header() const { return header_; }

  private:
    static constexpr size_t kStrideHeads = 8;  // heads of one bucket share a cache line

    std::array<HeadInfo, kHeads> infos_;
    std::array<HeadInfo, kHazards.size()> hazards_;
    std::vector<int8_t> weights_;         // [2^kMainBits][kStrideHeads]
    std::vector<int8_t> hazard_weights_;  // [hazard][2^kHazardBits]
    std::string sha256_hex_;
    std::string header_;
};

// 1 / (1 + exp(-x)) from additions and multiplications only, so that it gives the same bits on every
// machine (libm's exp differs with the processor's instruction set).
double sigmoid(double x);

}  // namespace parley::safety
