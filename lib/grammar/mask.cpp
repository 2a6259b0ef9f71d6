#include "grammar/mask.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>

namespace parley::grammar {
namespace {

constexpr uint32_t kCostMost = Walker::kCostMost;
constexpr size_t kSeenMax = 1024;
constexpr size_t kScanMax = 32;  // seen configurations; a scan of so few beats a hash

void set(std::span<uint64_t> bits, int32_t token) {
    bits[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
}

uint64_t hash(uint32_t state, uint32_t above) {
    uint64_t x = (uint64_t{state} << 32 | above) * 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 32);
}

}  // namespace

Walker::Walker(const TokenGrammar& grammar)
    : grammar_(grammar),
      slots_(64, kNever),
      levels_(kTokenBytesMax + 1),
      marks_(kTokenBytesMax + 1) {
    frames_.push_back({kNever, kNever, 0, 0, 0});  // kBottom
    frames_.push_back({kNever, kNever, 0, 0, 0});  // kUnknown
}

// Frames are taken back in the order in which they came, so that an open table stays whole.
void Walker::back_to(size_t mark) {
    while (frames_.size() > mark) {
        const auto number = static_cast<uint32_t>(frames_.size() - 1);
        size_t slot = hash(frames_.back().state, frames_.back().above) & (slots_.size() - 1);
        while (slots_[slot] != number) slot = (slot + 1) & (slots_.size() - 1);
        slots_[slot] = kNever;
        frames_.pop_back();
    }
}

uint32_t Walker::push(uint32_t state, uint32_t above) {
    const size_t mask = slots_.size() - 1;
    size_t slot = hash(state, above) & mask;
    for (; slots_[slot] != kNever; slot = (slot + 1) & mask) {
        const Frame& f = frames_[slots_[slot]];
        if (f.state == state && f.above == above) return slots_[slot];
    }
    const auto number = static_cast<uint32_t>(frames_.size());
    const Frame& a = frames_[above];
    frames_.push_back({state, above, a.depth + 1, cost({state, above}), reach({state, above})});
    slots_[slot] = number;
    if (frames_.size() * 2 > slots_.size()) {
        std::vector<uint32_t> wider(slots_.size() * 2, kNever);
        for (uint32_t f = 2; f < frames_.size(); ++f) {
            size_t at = hash(frames_[f].state, frames_[f].above) & (wider.size() - 1);
            while (wider[at] != kNever) at = (at + 1) & (wider.size() - 1);
            wider[at] = f;
        }
        slots_ = std::move(wider);
    }
    return number;
}

uint32_t Walker::reach(Configuration c) const {
    if (c.state == kDone) return 0;
    const Frame& f = frames_[c.frame];
    return std::max(f.reach, f.depth + grammar_.depth(c.state));
}

uint32_t Walker::cost(Configuration c) const {
    if (c.state == kDone) return 0;
    const uint32_t own = grammar_.cost(c.state);
    if (own == kNever || reach(c) > grammar_.automaton().depth_max()) return kCostMost;
    return std::min(own + frames_[c.frame].cost, kCostMost);
}

uint32_t Walker::least_cost(const Configurations& set) const {
    uint32_t least = kCostMost;
    for (const Configuration c : set) least = std::min(least, cost(c));
    return least;
}

void Walker::keep_open(Configurations& set) const {
    std::erase_if(set, [this](Configuration c) { return cost(c) == kCostMost; });
}

void Walker::forget() {
    seen_.clear();
    seen_slots_.clear();
}

bool Walker::saw(Configuration c) {
    if (seen_.size() <= kScanMax) {
        if (std::find(seen_.begin(), seen_.end(), c) != seen_.end()) return true;
    } else {
        if (seen_slots_.size() < seen_.size() * 2) {
            seen_slots_.assign(seen_.size() * 4, kNever);
            for (uint32_t i = 0; i < seen_.size(); ++i) {
                size_t at = hash(seen_[i].state, seen_[i].frame) % seen_slots_.size();
                while (seen_slots_[at] != kNever) at = (at + 1) % seen_slots_.size();
                seen_slots_[at] = i;
            }
        }
        size_t at = hash(c.state, c.frame) % seen_slots_.size();
        for (; seen_slots_[at] != kNever; at = (at + 1) % seen_slots_.size())
            if (seen_[seen_slots_[at]] == c) return true;
        if (seen_.size() < seen_max_) seen_slots_[at] = static_cast<uint32_t>(seen_.size());
    }
    if (seen_.size() >= seen_max_) {
        narrowed_ = true;
        return true;
    }
    seen_.push_back(c);
    return false;
}

// Follows calls and ends until every configuration waits for a byte.
void Walker::close(uint32_t state, uint32_t frame, Configurations& out) {
    const Automaton& a = grammar_.automaton();
    todo_.push_back({state, frame});
    while (!todo_.empty()) {
        const Configuration c = todo_.back();
        todo_.pop_back();
        if (c.state == kDone) {
            if (std::find(out.begin(), out.end(), c) == out.end()) out.push_back(c);
            continue;
        }
        const auto calls = a.calls(c.state);
        const bool accepts = a.accepts(c.state);
        if (saw(c)) continue;
        if (!a.edges(c.state).empty()) out.push_back(c);
        if (accepts) {
            if (c.frame == kUnknown)
                left_ = true;
            else if (c.frame == kBottom)
                todo_.push_back({kDone, kBottom});
            else
                todo_.push_back({frames_[c.frame].state, frames_[c.frame].above});
        }
        for (const auto& call : calls) {
            // A call at the very end of a rule needs no frame of its own.
            const bool last =
                a.accepts(call.back) && a.edges(call.back).empty() && a.calls(call.back).empty();
            if (last)
                todo_.push_back({call.start, c.frame});
            else if (frames_[c.frame].depth < a.depth_max())
                todo_.push_back({call.start, push(call.back, c.frame)});
        }
    }
}

void Walker::trim(Configurations& out, size_t most) {
    if (out.size() <= most) return;
    narrowed_ = true;
    std::stable_sort(out.begin(), out.end(),
                     [this](Configuration x, Configuration y) { return cost(x) < cost(y); });
    out.resize(most);
}

void Walker::begin(Configurations& out) {
    out.clear();
    forget();
    seen_max_ = kWaysMax;
    close(grammar_.automaton().start(), kBottom, out);
    trim(out);
}

void Walker::leave(uint32_t frame, Configurations& out) {
    out.clear();
    forget();
    seen_max_ = kSeenMax;
    if (frame == kBottom)
        out.push_back({kDone, kBottom});
    else
        close(frames_[frame].state, frames_[frame].above, out);
    trim(out);
}

bool Walker::step(const Configurations& in, uint8_t byte, Configurations& out, bool wide) {
    const Automaton& a = grammar_.automaton();
    out.clear();
    forget();
    seen_max_ = wide ? kWaysMax : kSeenMax;
    left_ = false;
    for (const Configuration c : in) {
        if (c.state == kDone) continue;
        for (const auto& e : a.edges(c.state)) {
            if (byte < e.low) break;
            if (byte > e.high) continue;
            // The usual case, without the bookkeeping: one configuration that only reads bytes.
            if (in.size() == 1 && !a.accepts(e.target) && a.calls(e.target).empty()) {
                out.push_back({e.target, c.frame});
            } else {
                close(e.target, c.frame, out);
            }
            break;
        }
    }
    trim(out, wide ? kWaysMax : kConfigurationsMax);
    return !out.empty() || left_;
}

template <class F>
void Walker::walk(uint32_t node, const Configurations& from, F&& at) {
    const Trie& trie = grammar_.trie();
    const size_t bottom = mark();
    const size_t top = trie.depth(node);
    levels_[top] = from;
    marks_[top] = bottom;
    for (uint32_t i = node + 1; i < trie.next(node);) {
        const size_t d = trie.depth(i);
        back_to(marks_[d - 1]);
        if (!step(levels_[d - 1], trie.byte(i), levels_[d])) {
            i = trie.next(i);
            continue;
        }
        marks_[d] = mark();
        at(i, levels_[d]);
        ++i;
    }
    back_to(bottom);
}

TokenGrammar::TokenGrammar(Automaton automaton, std::shared_ptr<const Trie> trie)
    : automaton_(std::move(automaton)), trie_(std::move(trie)) {
    bool has[257] = {};
    for (uint32_t i = 1; i < trie_->nodes(); i = trie_->next(i))
        has[trie_->byte(i)] = !trie_->tokens(i).empty();
    std::vector<Step> steps;
    for (uint32_t s = 0; s < automaton_.states(); ++s) {
        for (const auto& e : automaton_.edges(s))
            for (int b = e.low; b <= e.high; ++b)
                if (has[b]) {
                    steps.push_back({s, e.target, 1});
                    break;
                }
        // Along a literal whole tokens count once.
        uint32_t node = 0;
        for (uint32_t at = s;;) {
            const auto edges = automaton_.edges(at);
            if (edges.size() != 1 || edges[0].low != edges[0].high) break;
            node = trie_->child(node, edges[0].low);
            if (node == 0) break;
            at = edges[0].target;
            if (!trie_->tokens(node).empty()) steps.push_back({s, at, 1});
        }
    }
    costs_ = least_costs(automaton_, steps);
    walker_ = std::make_unique<Walker>(*this);
}

TokenGrammar::~TokenGrammar() = default;

base::Result<std::shared_ptr<const TokenGrammar>> TokenGrammar::create(
    Automaton automaton, std::shared_ptr<const Trie> trie) {
    std::shared_ptr<const TokenGrammar> out(
        new TokenGrammar(std::move(automaton), std::move(trie)));
    if (out->tokens_least() == kNever)
        return base::fail(base::Errc::unsupported,
                          "the model's vocabulary lacks a byte that the grammar needs");
    if (out->depth(out->automaton_.start()) > out->automaton_.depth_max())
        return base::fail(base::Errc::too_large, fmt::format("the shortest text nests over {} deep",
                                                             out->automaton_.depth_max()));
    return out;
}

const TokenGrammar::Outcome& TokenGrammar::outcome(uint32_t state) const {
    state = automaton_.alike(state);
    const auto [it, fresh] = outcomes_.try_emplace(state);
    Outcome& out = it->second;
    if (!fresh) return out;
    out.taken.assign(words(), 0);
    int64_t most = 0;
    walker_->walk(0, {{state, Walker::kUnknown}}, [&](uint32_t node, const Configurations& now) {
        const auto tokens = trie_->tokens(node);
        if (walker_->left() && trie_->next(node) > node + 1) out.exits.push_back(node);
        if (tokens.empty()) return;
        const uint32_t least = walker_->left() ? 0 : walker_->least_cost(now);
        if (least == kCostMost) return;
        for (const int32_t token : tokens) set(out.taken, token);
        most = std::max(most, static_cast<int64_t>(least));
        for (const Configuration c : now)
            if (walker_->cost(c) != kCostMost) out.need = std::max(out.need, walker_->reach(c));
    });
    out.rise = most - static_cast<int64_t>(costs_.least[state]);
    return out;
}

void TokenGrammar::warm(size_t outcomes_most, int64_t most_ns) const {
    using Clock = std::chrono::steady_clock;
    const auto until = Clock::now() + std::chrono::nanoseconds(most_ns);
    std::vector<bool> met(automaton_.states(), false);
    std::deque<uint32_t> next;
    const auto meet = [&](uint32_t state) {
        if (!met[state]) next.push_back(state);
        met[state] = true;
    };
    meet(automaton_.start());
    while (!next.empty() && outcomes_.size() < outcomes_most && Clock::now() < until) {
        const uint32_t state = next.front();
        next.pop_front();
        if (!automaton_.edges(state).empty()) outcome(state);
        for (const auto& call : automaton_.calls(state)) {
            meet(call.start);
            meet(call.back);
        }
        for (const auto& edge : automaton_.edges(state)) meet(edge.target);
    }
}

Matcher::Matcher(std::shared_ptr<const TokenGrammar> grammar)
    : grammar_(std::move(grammar)), walker_(*grammar_), mask_(grammar_->words(), 0) {
    walker_.begin(now_);
    walker_.keep_open(now_);
}

uint32_t Matcher::tokens_least() const { return ended_ ? 0 : walker_.least_cost(now_); }

bool Matcher::finished() const {
    return ended_ || std::any_of(now_.begin(), now_.end(),
                                 [](Configuration c) { return c.state == Walker::kDone; });
}

bool Matcher::over() const { return ended_ || (finished() && now_.size() == 1); }

// The walk with the real stack, token by token against the budget: near the end, and near the depth
// allowed. About a millisecond where nearly every token is possible.
void Matcher::mask_within(Configuration c, uint64_t budget) {
    const Trie& trie = grammar_->trie();
    walker_.walk(0, {c}, [&](uint32_t node, const Configurations& now) {
        const auto tokens = trie.tokens(node);
        if (tokens.empty()) return;
        const uint32_t least = walker_.least_cost(now);
        if (least < kCostMost && least < budget)
            for (const int32_t token : tokens) set(mask_, token);
    });
}

const Matcher::Kept& Matcher::mask_of(Configuration c) {
    const Configuration key{grammar_->automaton().alike(c.state), c.frame};
    ++clock_;
    Kept* oldest = nullptr;
    for (Kept& kept : kept_) {
        if (kept.key == key) {
            kept.used = clock_;
            return kept;
        }
        if (oldest == nullptr || kept.used < oldest->used) oldest = &kept;
    }
    if (kept_.size() < kMasksKept) {
        if (kept_.empty()) kept_.reserve(kMasksKept);
        oldest = &kept_.emplace_back();
    }
    const auto& outcome = grammar_->outcome(c.state);
    oldest->key = key;
    oldest->used = clock_;
    oldest->bits = outcome.taken;
    int64_t most = outcome.rise + static_cast<int64_t>(walker_.cost(c));
    if (!outcome.exits.empty() && c.frame != Walker::kBottom) {
        const Trie& trie = grammar_->trie();
        const size_t mark = walker_.mark();
        walker_.leave(c.frame, spare_);
        for (const uint32_t exit : outcome.exits)
            walker_.walk(exit, spare_, [&](uint32_t node, const Configurations& now) {
                const auto tokens = trie.tokens(node);
                if (tokens.empty()) return;
                const uint32_t least = walker_.least_cost(now);
                if (least == kCostMost) return;
                for (const int32_t token : tokens) set(oldest->bits, token);
                most = std::max(most, static_cast<int64_t>(least));
            });
        walker_.back_to(mark);
    }
    oldest->rise = most - static_cast<int64_t>(walker_.cost(c));
    return *oldest;
}

std::span<const uint64_t> Matcher::mask(uint64_t budget) {
    std::fill(mask_.begin(), mask_.end(), 0);
    if (budget == 0) return mask_;
    if (finished())
        for (const int32_t token : grammar_->trie().ends()) set(mask_, token);
    // A walk adds frames and takes them back; the set itself stays.
    const uint32_t depth_max = grammar_->automaton().depth_max();
    for (const Configuration c : now_) {
        if (c.state == Walker::kDone) continue;
        const auto& outcome = grammar_->outcome(c.state);
        if (walker_.depth(c.frame) + outcome.need > depth_max) {
            mask_within(c, budget);
            continue;
        }
        const Kept& kept = mask_of(c);
        const int64_t worst = kept.rise + static_cast<int64_t>(walker_.cost(c));
        if (budget > static_cast<uint64_t>(std::max<int64_t>(worst, 0)))
            for (size_t i = 0; i < mask_.size(); ++i) mask_[i] |= kept.bits[i];
        else
            mask_within(c, budget);
    }
    return mask_;
}

bool Matcher::accept(int32_t token, std::string_view bytes) {
    if (ended_) return false;
    const auto ends = grammar_->trie().ends();
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
        if (!finished()) return false;
        ended_ = true;
        now_.clear();
        return true;
    }
    if (bytes.empty() || bytes.size() > kTokenBytesMax) return false;
    const size_t mark = walker_.mark();
    next_ = now_;
    for (const char byte : bytes) {
        if (!walker_.step(next_, static_cast<uint8_t>(byte), spare_, true)) {
            walker_.back_to(mark);
            return false;
        }
        std::swap(next_, spare_);
    }
    walker_.keep_open(next_);
    if (next_.empty()) {
        walker_.back_to(mark);
        return false;
    }
    walker_.trim(next_);
    std::swap(now_, next_);
    return true;
}

}  // namespace parley::grammar
