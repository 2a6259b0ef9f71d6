#include "engine/speculator.hpp"

#include <algorithm>
#include <bit>
#include <queue>

namespace parley::engine {
namespace {

using model::Token;

// Of a class before anything of it was seen, and how many tokens that opinion weighs.
constexpr double kFirstChance[] = {0.3, 0.5, 0.7, 0.85};
constexpr double kFirstWeight = 2;
constexpr double kKeep = 0.95;  // 20 tokens back weigh a third

constexpr double kChanceLeast = 0.05;   // below it no row is spent, however cheap
constexpr double kRowUnknown = 0.3;     // of a token's time: a draft row that was never measured
constexpr uint32_t kTryEvery = 32;      // iterations; what a row costs may have been mismeasured
constexpr double kTryChance = 0.5;
constexpr uint32_t kTryRows = 4;
constexpr size_t kSlotsLeast = 256;

}  // namespace

size_t Speculator::class_of(uint32_t length) {
    return std::min<size_t>(std::bit_width(length) - 2, kClasses - 1);
}

// Of the two tokens that end at place `end`.
size_t Speculator::slot(std::span<const Token> tokens, uint32_t end) const {
    const uint64_t both = static_cast<uint64_t>(static_cast<uint32_t>(tokens[end - 1])) << 32 |
                          static_cast<uint32_t>(tokens[end]);
    return (both * 0x9E3779B97F4A7C15ull) >> 32 & (last_.size() - 1);
}

void Speculator::grow(std::span<const Token> tokens) {
    last_.assign(std::bit_ceil(std::max(tokens.size() + 1, kSlotsLeast)), kNone);
    for (uint32_t place = 1; place < before_.size(); ++place) {
        uint32_t& last = last_[slot(tokens, place)];
        before_[place] = last;
        last = place;
    }
}

// The longest match of the text up to place `end`, which is not known yet; of equals the latest.
void Speculator::search(std::span<const Token> tokens, uint32_t end) {
    next_ = kNone;
    length_ = 0;
    if (end < kMatchLeast) return;
    uint32_t candidate = last_[slot(tokens, end)];
    for (uint32_t n = 0; n < kCandidatesMax && candidate != kNone; ++n) {
        uint32_t length = 0;
        while (length < kMatchMost && length <= candidate &&
               tokens[candidate - length] == tokens[end - length])
            ++length;
        if (length >= kMatchLeast && length > length_) {
            length_ = length;
            next_ = candidate + 1;
        }
        candidate = before_[candidate];
    }
}

void Speculator::follow(std::span<const Token> tokens) {
    const auto known = static_cast<uint32_t>(before_.size());
    if (tokens.size() > last_.size()) grow(tokens);
    for (uint32_t place = known; place < tokens.size(); ++place) {
        if (next_ != kNone) {
            const bool right = tokens[next_] == tokens[place];
            Count& count = counts_[class_of(length_)];
            count.right = kKeep * count.right + (right ? 1 : 0);
            count.all = kKeep * count.all + 1;
            length_ = std::min(length_ + 1, kMatchMost);
            next_ = right ? next_ + 1 : kNone;
        }
        // Only the text as a whole has a next token.
        if (next_ == kNone && (known > 0 || place + 1 == tokens.size())) search(tokens, place);
        before_.push_back(kNone);
        if (place == 0) continue;
        uint32_t& last = last_[slot(tokens, place)];
        before_[place] = last;
        last = place;
    }
}

void Speculator::draft(std::span<const Token> tokens, uint32_t count,
                       std::vector<Token>& out) const {
    const size_t first = out.size();
    for (size_t place = next_; count > 0; ++place, --count)
        out.push_back(place < tokens.size() ? tokens[place] : out[first + place - tokens.size()]);
}

double Speculator::chance(uint32_t n) const {
    const size_t of = class_of(std::min(length_ + n, kMatchMost));
    return (counts_[of].right + kFirstChance[of] * kFirstWeight) / (counts_[of].all + kFirstWeight);
}

void DraftBudget::share(const CostModel& cost, const IterationLoad& decodes,
                        std::span<Guess> guesses, double seconds_most) {
    double seconds = cost.seconds(decodes);
    double tokens = decodes.decode_rows;
    if (seconds <= 0 || tokens <= 0 || guesses.empty()) return;
    const double row = cost.draft_known() ? cost.draft_row_s() : kRowUnknown * seconds / tokens;

    struct Next {
        double chance;  // that this token and all before it come true
        size_t guess;
        bool operator<(const Next& other) const {
            return chance != other.chance ? chance < other.chance : guess > other.guess;
        }
    };
    std::vector<Next> all;
    for (size_t i = 0; i < guesses.size(); ++i)
        if (guesses[i].most > 0) all.push_back({guesses[i].of->chance(0), i});
    std::priority_queue<Next> queue(std::less<Next>(), std::move(all));
    if (queue.empty()) return;
    const Next best = queue.top();
    bool any = false;
    while (!queue.empty()) {
        const Next next = queue.top();
        queue.pop();
        if (next.chance < kChanceLeast || next.chance * seconds <= row * tokens) break;
        if (seconds_most > 0 && seconds + row > seconds_most) return;
        any = true;
        tokens += next.chance;
        seconds += row;
        Guess& guess = guesses[next.guess];
        if (++guess.rows < guess.most)
            queue.push({next.chance * guess.of->chance(guess.rows), next.guess});
    }
    if (any) {
        refused_ = 0;
    } else if (best.chance >= kTryChance && ++refused_ >= kTryEvery) {
        refused_ = 0;
        guesses[best.guess].rows = std::min(kTryRows, guesses[best.guess].most);
    }
}

}  // namespace parley::engine
