#include "engine/draft_model.hpp"

#include <algorithm>
#include <cassert>

namespace parley::engine {
namespace {

using model::Token;

constexpr double kFirstChance = 0.6, kFirstWeight = 2;  // before a sequence's guesses were judged
constexpr double kKeep = 0.98;                          // 50 guesses back weigh a third
constexpr double kChanceLeast = 0.05;
constexpr double kRowUnknown = 0.3;  // of a token's time: a row of a guess that was never measured
constexpr double kRunKeep = 0.8;     // of the measured time of a run
constexpr uint32_t kTryEvery = 128;  // calls; chances and times change
constexpr uint32_t kTryFor = 4;      // calls: the text since the last try has to be read first
constexpr uint32_t kTryTokens = 2;

// The lowest id on ties; nothing where no logit is a number.
Token likeliest(std::span<const float> logits) {
    Token best = -1;
    for (size_t i = 0; i < logits.size(); ++i)
        if (logits[i] == logits[i] && (best < 0 || logits[i] > logits[static_cast<size_t>(best)]))
            best = static_cast<Token>(i);
    return best;
}

}  // namespace

double DraftModel::chance(uint64_t key) const {
    const auto found = states_.find(key);
    const State none;
    const State& s = found == states_.end() ? none : found->second;
    return (s.right + kFirstChance * kFirstWeight) / (s.all + kFirstWeight);
}

uint32_t DraftModel::worth(const CostModel& cost, const IterationLoad& decodes,
                           std::span<const Want> wants, double seconds_most) {
    double seconds = cost.seconds(decodes);
    double tokens = decodes.decode_rows;
    if (seconds <= 0 || tokens <= 0 || wants.empty()) return 0;
    const double row = cost.draft_known() ? cost.draft_row_s() : kRowUnknown * seconds / tokens;
    std::vector<double> chances;
    uint32_t most = 0;
    for (const Want& want : wants) {
        chances.push_back(chance(want.key));
        most = std::max(most, want.most);
    }
    std::vector<double> so_far(chances.size(), 1);  // that all before come true
    uint32_t count = 0;
    for (; count < most; ++count) {
        double more = 0;
        for (size_t i = 0; i < chances.size(); ++i)
            if (count < wants[i].most) more += so_far[i] *= chances[i];
        const double longer = run_s_ + static_cast<double>(chances.size()) * row;
        if (more < kChanceLeast || more * seconds <= longer * tokens) break;
        if (seconds_most > 0 && seconds + longer > seconds_most) break;
        tokens += more;
        seconds += longer;
    }
    if (count > 0) {
        refused_ = 0;
        return count;
    }
    return ++refused_ % kTryEvery >= kTryEvery - kTryFor ? std::min(kTryTokens, most) : 0;
}

bool DraftModel::cover(State& state, uint64_t tokens) {
    if (tokens > forward_.context_tokens()) return false;
    const uint64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    if (state.blocks.size() >= blocks) return true;
    return pool_.take(static_cast<uint32_t>(blocks - state.blocks.size()), state.blocks)
        .has_value();
}

void DraftModel::draft(std::span<Want> wants) {
    struct Turn {
        Want* want;
        State* state;
        std::vector<Token> next;  // to be fed in this run
        uint32_t left;            // to be guessed
    };
    std::vector<Turn> turns;
    uint32_t rows = kRowsMax;
    bool reads = false;
    for (Want& want : wants) {
        State& s = states_[want.key];
        size_t same = std::min(s.agreed, want.tokens.size() - 1);
        while (same < s.fed.size() && same + 1 < want.tokens.size() &&
               s.fed[same] == want.tokens[same])
            ++same;
        s.fed.resize(same);
        s.agreed = same;
        const auto unread = want.tokens.size() - same;
        const auto count = static_cast<uint32_t>(std::min<size_t>(unread, rows));
        if (count == 0 || !cover(s, want.tokens.size() + want.most)) continue;
        rows -= count;
        reads = reads || unread > 1 + kBlockTokens;
        turns.push_back({&want, &s, {}, count == unread ? want.most : 0});
        const auto from = want.tokens.begin() + static_cast<ptrdiff_t>(same);
        turns.back().next.assign(from, from + count);
        s.agreed += count;
    }
    const size_t vocab = forward_.vocab_size();
    runs_ = 0;
    while (!turns.empty()) {
        chunks_.clear();
        size_t guesses = 0;
        for (const Turn& turn : turns) {
            const uint32_t logit_rows = turn.left > 0 ? 1 : 0;
            chunks_.push_back({turn.next, static_cast<uint32_t>(turn.state->fed.size()),
                               turn.state->blocks, logit_rows});
            guesses += logit_rows;
        }
        if (logits_.size() < guesses * vocab) logits_.resize(guesses * vocab);
        forward_.run(chunks_, std::span(logits_).first(guesses * vocab));
        ++runs_;
        size_t at = 0;
        for (Turn& turn : turns) {
            turn.state->fed.insert(turn.state->fed.end(), turn.next.begin(), turn.next.end());
            if (turn.left == 0) continue;
            const Token guess = likeliest(std::span(logits_).subspan(at++ * vocab, vocab));
            if (guess >= 0) turn.want->guessed.push_back(guess);
            turn.left = guess < 0 ? 0 : turn.left - 1;
            turn.next.assign(1, guess);
        }
        std::erase_if(turns, [](const Turn& turn) { return turn.left == 0; });
    }
    if (reads) runs_ = 0;  // what reading took says nothing of guessing
}

void DraftModel::took(double seconds) {
    if (runs_ == 0 || seconds <= 0) return;
    const double run = seconds / runs_;
    run_s_ = run_s_ == 0 ? run : kRunKeep * run_s_ + (1 - kRunKeep) * run;
}

void DraftModel::judge(uint64_t key, uint32_t guessed, uint32_t right) {
    const auto found = states_.find(key);
    if (found == states_.end()) return;
    State& s = found->second;
    // Behind the first that was wrong nothing is known.
    for (uint32_t i = 0; i < std::min(guessed, right + 1); ++i) {
        s.right = kKeep * s.right + (i < right ? 1 : 0);
        s.all = kKeep * s.all + 1;
    }
}

void DraftModel::forget(uint64_t key) {
    const auto found = states_.find(key);
    if (found == states_.end()) return;
    pool_.give_back(found->second.blocks);
    states_.erase(found);
}

}  // namespace parley::engine
