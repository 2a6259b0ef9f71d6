// Speculator: what a sequence will say next, guessed from what it has said: the tokens that followed
// the longest earlier occurrence of its last ones (prompt lookup), in prompt and answer alike. A
// guess is verified by rows that are added to its decode row; it never changes a token, only when
// one comes.
//
// Guess    the earlier place goes on with the text for as long as the text repeats it; only where it
//          did not is another one looked for. Where the repetition is shorter than the draft it goes
//          round.
// Chance   that a guessed token comes true, by how long the match before it is: counted over this
//          sequence's own tokens, whether rows were spent on the guess or not. So a sequence that
//          stops copying costs a few rows, and one that begins to copy is noticed without any.
// Tenants  only the sequence's own tokens are looked at: nothing passes from one to another.
// Bounds   8 to 12 bytes a token, and kCandidatesMax places compared a lookup.
// Threads  one.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/cost_model.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

class Speculator {
  public:
    static constexpr uint32_t kMatchLeast = 2;    // tokens that must be alike
    static constexpr uint32_t kMatchMost = 32;    // compared at most
    static constexpr uint32_t kCandidatesMax = 16;

    // `tokens`: all of the sequence; they only ever grow. What came since the last call says how good
    // the guess was; of the first call's nothing is judged.
    void follow(std::span<const model::Token> tokens);
    bool guesses() const { return next_ != kNone; }
    // Appends the next `count` guessed tokens. `tokens` as of the last follow(), after which
    // guesses().
    void draft(std::span<const model::Token> tokens, uint32_t count,
               std::vector<model::Token>& out) const;
    // Of guessed token `n` (from 0), if all before it come true.
    double chance(uint32_t n) const;

  private:
    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr size_t kClasses = 4;  // of match lengths: 2-3, 4-7, 8-15, 16 and more
    struct Count {
        double right = 0, all = 0;
    };
    static size_t class_of(uint32_t length);
    size_t slot(std::span<const model::Token> tokens, uint32_t end) const;
    void search(std::span<const model::Token> tokens, uint32_t end);
    void grow(std::span<const model::Token> tokens);

    std::vector<uint32_t> last_;    // by hash of two tokens: where the second of them was last
    std::vector<uint32_t> before_;  // by place: the one before with the same hash
    uint32_t next_ = kNone;         // place of the guessed token
    uint32_t length_ = 0;           // of the match before it
    std::array<Count, kClasses> counts_{};
};

struct Guess {
    const Speculator* of = nullptr;
    uint32_t most = 0;  // tokens
    uint32_t rows = 0;  // set by DraftBudget::share()
};

// Which guessed tokens are worth a row of the next iteration: those that raise the tokens that it
// yields a second. Seldom in a large batch, where a row costs what it does for a sequence more.
class DraftBudget {
  public:
    // `decodes`: the iteration without drafts, which with them takes no more than `seconds_most`; 0:
    // any time.
    void share(const CostModel& cost, const IterationLoad& decodes, std::span<Guess> guesses,
               double seconds_most = 0);

  private:
    uint32_t refused_ = 0;  // iterations since a likely guess was last tried
};

}  // namespace parley::engine
