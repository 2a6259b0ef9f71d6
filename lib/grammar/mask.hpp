// Mask: which tokens may come next, by an automaton over one vocabulary.
//
// Stacks   what was read so far is a set of configurations: a state and the frames above it. Frames are
//          shared (a stack is a list that grows at its head) and found by hash, so that equal stacks are
//          one number.
// Masks    a state's own outcome is worked out once for all matchers by one walk over the trie: tokens that
//          it takes whatever is above it, and the trie nodes at which its rule ends. Only from those is
//          the walk taken up again with a real stack (Dong et al. 2024, "XGrammar"). The mask of a
//          configuration is kept by the matcher (kMasksKept).
// Closing  each state knows the fewest tokens that surely bring its rule to an end (single bytes, and
//          whole tokens along literals). With a budget only those tokens are allowed after which the rest
//          still fits: a mask for a budget ≥ tokens_least() is never empty, and so on to the end.
//          The token that ends the answer is not counted: what is over() needs none.
//          The bound is the exact fewest but for tokens that reach over the end of a rule (`":"` and the
//          like), which it does not count on: an answer may fit in fewer tokens than tokens_least() says.
// Bounds   kConfigurationsMax between tokens (an ambiguous grammar): past it the cheapest to close stay.
//          Inside a token accept() follows kWaysMax: more than any mask follows, so that it finds every
//          token that a mask promises, and at no higher cost to the end.
//          Frames: Limits::depth_max. A matcher's memory grows with the frames that its text opened.
// Threads  one thread for a TokenGrammar and all its matchers: they share the states' outcomes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "grammar/automaton.hpp"
#include "grammar/vocabulary.hpp"

namespace parley::grammar {

inline constexpr size_t kConfigurationsMax = 256;
inline constexpr size_t kWaysMax = 16 * 1024;
inline constexpr size_t kMasksKept = 16;

class TokenGrammar;

struct Configuration {
    uint32_t state;
    uint32_t frame;  // number in the walker's list
    bool operator==(const Configuration&) const = default;
};
using Configurations = std::vector<Configuration>;

// Runs configurations over bytes, and over the trie.
class Walker {
  public:
    static constexpr uint32_t kBottom = 0;     // frame: the end of the text
    static constexpr uint32_t kUnknown = 1;    // frame: whatever called the rule
    static constexpr uint32_t kDone = kNever;  // state: only the end may follow

    explicit Walker(const TokenGrammar& grammar);

    void begin(Configurations& out);
    // False when nothing is left. `wide`: up to kWaysMax are kept.
    bool step(const Configurations& in, uint8_t byte, Configurations& out, bool wide = false);
    void trim(Configurations& out, size_t most = kConfigurationsMax);  // the cheapest to close stay
    void leave(uint32_t frame, Configurations& out);  // the rule above is done
    bool left() const { return left_; }               // the last step ended a rule under kUnknown
    // Tokens to the end of the text (of the rule, under kUnknown); kCostMost where there is no end, or
    // none within the depth allowed. Asked where a token ends: inside one, all ways are open.
    static constexpr uint32_t kCostMost = 1u << 30;
    uint32_t cost(Configuration c) const;
    uint32_t reach(Configuration c) const;  // frames of the cheapest end
    uint32_t depth(uint32_t frame) const { return frames_[frame].depth; }
    uint32_t least_cost(const Configurations& set) const;
    void keep_open(Configurations& set) const;  // drops those without an end
    bool narrowed() const { return narrowed_; }  // ways were dropped past the bound
    size_t mark() const { return frames_.size(); }
    void back_to(size_t mark);

    // Calls at(node, configurations) for every node below `node` that can be reached.
    template <class F>
    void walk(uint32_t node, const Configurations& from, F&& at);

  private:
    struct Frame {
        uint32_t state, above;
        uint32_t depth;
        uint32_t cost;   // of the whole stack
        uint32_t reach;  // the same
    };
    uint32_t push(uint32_t state, uint32_t above);
    void close(uint32_t state, uint32_t frame, Configurations& out);

    const TokenGrammar& grammar_;
    std::vector<Frame> frames_;
    std::vector<uint32_t> slots_;  // hash of frames, open
    // What close() has followed since forget(): found by a scan while there are few, by hash after that.
    void forget();
    bool saw(Configuration c);  // false: it is new, and noted
    std::vector<Configuration> seen_, todo_;
    std::vector<uint32_t> seen_slots_;
    size_t seen_max_ = 0;
    std::vector<Configurations> levels_;
    std::vector<size_t> marks_;
    bool left_ = false;
    bool narrowed_ = false;
};

class TokenGrammar {
  public:
    // `trie` may serve many grammars. Errc::unsupported when the vocabulary lacks a byte that the grammar
    // cannot do without.
    static base::Result<std::shared_ptr<const TokenGrammar>> create(
        Automaton automaton, std::shared_ptr<const Trie> trie);
    ~TokenGrammar();

    const Automaton& automaton() const { return automaton_; }
    const Trie& trie() const { return *trie_; }
    // Tokens that suffice for a whole text, the end not counted. (Never fewer than the fewest.)
    uint32_t tokens_least() const { return costs_.least[automaton_.start()]; }
    uint32_t bytes_least() const { return automaton_.least_bytes(automaton_.start()); }
    uint32_t cost(uint32_t state) const { return costs_.least[state]; }
    uint32_t depth(uint32_t state) const { return costs_.depth[state]; }
    size_t words() const { return (trie_->vocabulary_size() + 63) / 64; }

    // What one state makes of every token, whatever is above it.
    struct Outcome {
        std::vector<uint64_t> taken;
        std::vector<uint32_t> exits;  // trie nodes with children where the rule ends
        int64_t rise = 0;             // most that a token adds to the tokens still needed
        uint32_t need = 0;            // frames
    };
    const Outcome& outcome(uint32_t state) const;
    size_t outcomes() const { return outcomes_.size(); }
    // Works out outcomes ahead, nearest to the start first, until there are `outcomes_most` or `most_ns`
    // have passed: for whoever has the time, before a matcher needs them.
    void warm(size_t outcomes_most, int64_t most_ns) const;

  private:
    TokenGrammar(Automaton automaton, std::shared_ptr<const Trie> trie);
    Automaton automaton_;
    std::shared_ptr<const Trie> trie_;
    Costs costs_;
    mutable std::unordered_map<uint32_t, Outcome> outcomes_;
    mutable std::unique_ptr<Walker> walker_;
};

class Matcher {
  public:
    explicit Matcher(std::shared_ptr<const TokenGrammar> grammar);

    // The tokens that may come next when at most `budget` may, this one included. Valid until the next
    // call. One bit a token, token 0 the lowest of the first word.
    std::span<const uint64_t> mask(uint64_t budget = UINT64_MAX);
    // False, and nothing changed, for a token that does not fit here.
    bool accept(int32_t token, std::string_view bytes);
    // Tokens that suffice to the end; 0: the text is complete.
    uint32_t tokens_least() const;
    bool finished() const;  // complete as it is
    // The grammar is so ambiguous here that ways were dropped: what is accepted is still of the language
    // and what a mask promises is accepted, but some texts of the language are not offered.
    bool narrowed() const { return walker_.narrowed(); }
    bool over() const;      // and nothing may follow
    const TokenGrammar& grammar() const { return *grammar_; }

  private:
    struct Kept {
        Configuration key{kNever, kNever};
        std::vector<uint64_t> bits;
        int64_t rise = 0;
        uint64_t used = 0;
    };
    const Kept& mask_of(Configuration c);
    void mask_within(Configuration c, uint64_t budget);

    std::shared_ptr<const TokenGrammar> grammar_;
    Walker walker_;
    Configurations now_, next_, spare_;
    std::vector<Kept> kept_;
    std::vector<uint64_t> mask_;
    uint64_t clock_ = 0;
    bool ended_ = false;
};

}  // namespace parley::grammar
