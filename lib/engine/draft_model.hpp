// DraftModel: a second, smaller model of the same vocabulary guesses what sequences say next, where their
// own text (engine/speculator.hpp) does not. Its guesses are verified as all are: they never change a
// token, only when one comes.
//
// Guess    what the model thinks likeliest, token after token, for all that want one side by side.
// Reading  a text that it has not seen, a prompt or what was said without it, is read in kRowsMax rows an
//          iteration at most, over all; until it is read there is no guess.
// Worth    worth() says how many tokens raise the tokens a second, by how often guesses came true for each
//          sequence and by what a run of this model was measured to take; 0: none, and it is not
//          asked. Then it is tried again seldom and briefly.
// Bounds   its own blocks, as many as `forward` has; a sequence that finds none, or is longer than its
//          context, has no guess.
// Owns     the sequences' blocks in `forward`, from the first draft() to forget().
// Threads  one.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/block_pool.hpp"
#include "engine/cost_model.hpp"
#include "engine/forward.hpp"

namespace parley::engine {

class DraftModel {
  public:
    static constexpr uint32_t kRowsMax = 256;  // of ForwardOptions, at least

    explicit DraftModel(Forward& forward) : forward_(forward), pool_(forward.kv_blocks()) {}

    struct Want {
        uint64_t key = 0;                      // of the sequence; never used twice
        std::span<const model::Token> tokens;  // all of its text, ≥ 1
        uint32_t most = 0;                     // tokens, ≥ 1
        std::vector<model::Token> guessed;     // appended to
    };
    // At most for each of `wants`, whose `most` bounds it too. `decodes`: the iteration without these
    // guesses, which with them takes no more than `seconds_most`; 0: any time.
    uint32_t worth(const CostModel& cost, const IterationLoad& decodes, std::span<const Want> wants,
                   double seconds_most);
    void draft(std::span<Want> wants);
    // `seconds` that the last draft() took.
    void took(double seconds);
    // Of `guessed` tokens that were computed the first `right` came true.
    void judge(uint64_t key, uint32_t guessed, uint32_t right);
    void forget(uint64_t key);

    uint32_t blocks_free() const { return pool_.blocks_free(); }

  private:
    struct State {
        std::vector<uint32_t> blocks;
        std::vector<model::Token> fed;  // whose KV is there
        size_t agreed = 0;              // of these, known to be the text's
        double right = 0, all = 0;      // guesses, the latest weighing most
    };
    double chance(uint64_t key) const;
    bool cover(State& state, uint64_t tokens);

    Forward& forward_;
    BlockPool pool_;
    std::unordered_map<uint64_t, State> states_;
    std::vector<Chunk> chunks_;
    std::vector<float> logits_;
    double run_s_ = 0;      // of a run that guesses; 0: not measured yet
    uint32_t runs_ = 0;     // of the last draft(), if it read nothing beside
    uint32_t refused_ = 0;  // calls of worth() since guesses last paid
};

}  // namespace parley::engine
