// Automaton: a language of bytes as a pushdown automaton, and the builder that makes one.
//
// Shape    rules, each a deterministic automaton over bytes whose states may also call a rule and go
//          on elsewhere when it is done. What is not decided yet (two calls that begin alike) is
//          carried by whoever runs it as a set of stacks (grammar/mask.hpp).
// Build    Thompson's construction into states of the builder, then the subset construction rule by
//          rule; calls are symbols of the alphabet there.
// Errors   build(): Errc::too_large past a limit, named; Errc::invalid for left recursion and for a
//          rule that can never be completed. The builder goes quiet once full(): compilers look at it
//          in their loops, so that a hostile source costs bounded time.
// Threads  an automaton is immutable; a builder belongs to one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::grammar {

struct Limits {
    size_t source_bytes_max = 256 * 1024;  // of a schema or grammar text
    uint32_t nesting_max = 64;             // of the source itself
    uint32_t rules_max = 20'000;
    uint32_t states_max = 60'000;   // of the finished automaton
    uint32_t parts_max = 400'000;   // states of the builder
    uint64_t work_max = 8'000'000;  // steps of the subset construction, about 50 ns each
    uint32_t depth_max = 128;       // frames of a stack: bounds how deep the output nests
};

inline constexpr uint32_t kTokenBytesMax = 128;  // longer tokens are never allowed under a grammar
inline constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();

class Automaton {
  public:
    struct Edge {
        uint8_t low, high;
        uint32_t target;
    };
    struct Call {
        uint32_t start;  // of the rule
        uint32_t back;   // the state after it
    };

    uint32_t states() const { return static_cast<uint32_t>(accepts_.size()); }
    uint32_t start() const { return start_; }
    std::span<const Edge> edges(uint32_t state) const {
        return std::span(edges_).subspan(edge_begin_[state],
                                         edge_begin_[state + 1] - edge_begin_[state]);
    }
    std::span<const Call> calls(uint32_t state) const {
        return std::span(calls_).subspan(call_begin_[state],
                                         call_begin_[state + 1] - call_begin_[state]);
    }
    bool accepts(uint32_t state) const { return accepts_[state] != 0; }
    // A state whose outcome for one token is the same as this one's: see Builder::alike().
    uint32_t alike(uint32_t state) const { return alike_[state]; }
    // The fewest bytes to the end of the state's rule.
    uint32_t least_bytes(uint32_t state) const { return least_bytes_[state]; }
    uint32_t depth_max() const { return depth_max_; }

  private:
    friend class Builder;
    std::vector<uint32_t> edge_begin_{0}, call_begin_{0};
    std::vector<Edge> edges_;
    std::vector<Call> calls_;
    std::vector<uint8_t> accepts_;
    std::vector<uint32_t> alike_, least_bytes_;
    uint32_t start_ = 0;
    uint32_t depth_max_ = 0;
};

// The cheapest way from each state to the end of its rule (Knuth 1977, "A generalization of Dijkstra's
// algorithm"). `depth` is how many frames that very way needs.
struct Step {
    uint32_t from, to, cost;
};
struct Costs {
    std::vector<uint32_t> least;  // kNever: there is none
    std::vector<uint32_t> depth;
};
Costs least_costs(const Automaton& automaton, std::span<const Step> steps);

class Builder {
  public:
    using State = uint32_t;
    using Rule = uint32_t;

    explicit Builder(const Limits& limits) : limits_(limits) {}

    const Limits& limits() const { return limits_; }
    Rule rule(std::string name);
    void define(Rule rule, State start, State end);
    bool defined(Rule rule) const { return rules_[rule].start != kNever; }

    State state();
    void skip(State from, State to);  // without a byte
    void bytes(State from, uint8_t low, uint8_t high, State to);
    void call(State from, Rule rule, State to);
    State text(State from, std::string_view literal);
    // States of one rule with the same tag (not 0) differ only in counts that a token of up to
    // kTokenBytesMax bytes cannot reach: one mask does for all of them.
    void alike(State state, uint32_t tag);
    uint32_t new_tag() { return ++tags_; }

    bool full() const { return full_; }
    base::Result<void> check() const;  // the error of a full builder
    base::Result<Automaton> build(Rule root);

  private:
    struct Part {
        std::vector<uint32_t> skips;
        std::vector<Automaton::Edge> edges;
        std::vector<Automaton::Call> calls;  // start is the rule's number here
        uint32_t tag = 0;
    };
    struct RuleParts {
        std::string name;
        State start = kNever;
        State end = kNever;
    };
    base::Result<void> determinise(Rule rule, Automaton& out, uint64_t& work);
    base::Result<void> refuse_left_recursion(const Automaton& out,
                                             std::span<const uint32_t> starts) const;

    Limits limits_;
    std::vector<Part> parts_;
    std::vector<RuleParts> rules_;
    uint32_t tags_ = 0;
    bool full_ = false;
};

}  // namespace parley::grammar
