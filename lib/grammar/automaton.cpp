#include "grammar/automaton.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <queue>
#include <unordered_map>

namespace parley::grammar {
namespace {

using base::Errc;

struct SetHash {
    size_t operator()(const std::vector<uint32_t>& set) const {
        uint64_t hash = 0x9E3779B97F4A7C15ull;
        for (const uint32_t x : set) {
            hash = (hash ^ x) * 0xBF58476D1CE4E5B9ull;
            hash ^= hash >> 29;
        }
        return hash;
    }
};

}  // namespace

Costs least_costs(const Automaton& a, std::span<const Step> steps) {
    const uint32_t n = a.states();
    Costs costs{std::vector<uint32_t>(n, kNever), std::vector<uint32_t>(n, 0)};
    // Who looks at a state: by a step, or by a call that begins or goes on there.
    struct Pair {
        uint32_t from, start, back;
    };
    std::vector<Pair> pairs;
    std::vector<uint32_t> step_begin(n + 2, 0), pair_begin(n + 2, 0);
    for (const Step& s : steps) ++step_begin[s.to + 2];
    for (uint32_t s = 0; s < n; ++s)
        for (const auto& call : a.calls(s)) {
            pairs.push_back({s, call.start, call.back});
            ++pair_begin[call.start + 2];
            if (call.back != call.start) ++pair_begin[call.back + 2];
        }
    for (uint32_t s = 1; s < n + 2; ++s) {
        step_begin[s] += step_begin[s - 1];
        pair_begin[s] += pair_begin[s - 1];
    }
    std::vector<uint32_t> step_at(steps.size()), pair_at(pairs.size() * 2);
    for (uint32_t i = 0; i < steps.size(); ++i) step_at[step_begin[steps[i].to + 1]++] = i;
    for (uint32_t i = 0; i < pairs.size(); ++i) {
        pair_at[pair_begin[pairs[i].start + 1]++] = i;
        if (pairs[i].back != pairs[i].start) pair_at[pair_begin[pairs[i].back + 1]++] = i;
    }

    struct Entry {
        uint32_t cost, depth, state;
        bool operator>(const Entry& o) const {
            return cost != o.cost ? cost > o.cost : depth > o.depth;
        }
    };
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
    for (uint32_t s = 0; s < n; ++s)
        if (a.accepts(s)) queue.push({0, 0, s});
    constexpr uint32_t kMost = 1u << 30;  // sums stay far from kNever
    while (!queue.empty()) {
        const Entry e = queue.top();
        queue.pop();
        if (costs.least[e.state] != kNever) continue;
        costs.least[e.state] = e.cost;
        costs.depth[e.state] = e.depth;
        for (uint32_t i = step_begin[e.state]; i < step_begin[e.state + 1]; ++i) {
            const Step& s = steps[step_at[i]];
            if (costs.least[s.from] == kNever) queue.push({e.cost + s.cost, e.depth, s.from});
        }
        for (uint32_t i = pair_begin[e.state]; i < pair_begin[e.state + 1]; ++i) {
            const Pair& p = pairs[pair_at[i]];
            const uint32_t start = costs.least[p.start];
            const uint32_t back = costs.least[p.back];
            if (start == kNever || back == kNever || costs.least[p.from] != kNever) continue;
            if (start + back >= kMost) continue;
            queue.push(
                {start + back, std::max(costs.depth[p.start] + 1, costs.depth[p.back]), p.from});
        }
    }
    return costs;
}

Builder::Rule Builder::rule(std::string name) {
    if (rules_.size() >= limits_.rules_max) {
        full_ = true;
        if (!rules_.empty()) return 0;
    }
    rules_.push_back({std::move(name)});
    return static_cast<Rule>(rules_.size() - 1);
}

void Builder::define(Rule rule, State start, State end) {
    if (full_) return;
    rules_[rule].start = start;
    rules_[rule].end = end;
}

Builder::State Builder::state() {
    if (parts_.size() >= limits_.parts_max) {
        full_ = true;
        return 0;
    }
    parts_.emplace_back();
    return static_cast<State>(parts_.size() - 1);
}

void Builder::skip(State from, State to) {
    if (!full_) parts_[from].skips.push_back(to);
}

void Builder::bytes(State from, uint8_t low, uint8_t high, State to) {
    if (!full_) parts_[from].edges.push_back({low, high, to});
}

void Builder::call(State from, Rule rule, State to) {
    if (!full_) parts_[from].calls.push_back({rule, to});
}

Builder::State Builder::text(State from, std::string_view literal) {
    for (const char c : literal) {
        const State next = state();
        bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
        from = next;
    }
    return from;
}

void Builder::alike(State state, uint32_t tag) {
    if (!full_) parts_[state].tag = tag;
}

base::Result<void> Builder::check() const {
    if (!full_) return {};
    return base::fail(Errc::too_large,
                      fmt::format("the grammar needs more than {} parts or {} rules: ask for fewer "
                                  "properties, items or characters",
                                  limits_.parts_max, limits_.rules_max));
}

base::Result<void> Builder::determinise(Rule rule, Automaton& out, uint64_t& work) {
    const RuleParts& r = rules_[rule];
    if (r.start == kNever)
        return base::fail(Errc::invalid, fmt::format("rule '{}' is not defined", r.name));
    std::unordered_map<std::vector<uint32_t>, uint32_t, SetHash> ids;
    std::vector<const std::vector<uint32_t>*> sets;
    std::unordered_map<uint32_t, uint32_t> first_of_tag;
    const uint32_t base = out.states();
    std::vector<uint32_t> mark(0);
    const auto close = [&](std::vector<uint32_t>& set) {
        std::sort(set.begin(), set.end());
        set.erase(std::unique(set.begin(), set.end()), set.end());
        std::vector<uint32_t> todo = set;
        std::unordered_map<uint32_t, bool> in;
        if (std::none_of(todo.begin(), todo.end(),
                         [&](uint32_t s) { return !parts_[s].skips.empty(); }))
            return;
        for (const uint32_t s : todo) in[s] = true;
        while (!todo.empty()) {
            const uint32_t s = todo.back();
            todo.pop_back();
            work += 1 + parts_[s].skips.size();
            for (const uint32_t t : parts_[s].skips)
                if (in.emplace(t, true).second) {
                    set.push_back(t);
                    todo.push_back(t);
                }
        }
        // A state that only skips is no part of the set's meaning, unless it is the end.
        std::erase_if(set, [&](uint32_t s) {
            return parts_[s].edges.empty() && parts_[s].calls.empty() && s != r.end;
        });
        std::sort(set.begin(), set.end());
    };
    const auto id_of = [&](std::vector<uint32_t> set) {
        close(set);
        work += 4 + set.size();
        const auto [it, fresh] =
            ids.emplace(std::move(set), base + static_cast<uint32_t>(sets.size()));
        if (fresh) sets.push_back(&it->first);
        return it->second;
    };
    (void)id_of({r.start});
    for (size_t i = 0; i < sets.size(); ++i) {
        if (work > limits_.work_max || base + sets.size() > limits_.states_max)
            return base::fail(
                Errc::too_large,
                fmt::format("the grammar needs more than {} states at '{}': ask for fewer optional "
                            "properties, items or characters",
                            limits_.states_max, r.name));
        const std::vector<uint32_t>& set = *sets[i];
        const auto id = base + static_cast<uint32_t>(i);
        uint16_t cuts[257];
        std::array<uint8_t, 257> cut{};
        std::map<uint32_t, std::vector<uint32_t>> calls;
        bool accepts = false;
        for (const uint32_t s : set) {
            accepts |= s == r.end;
            for (const auto& e : parts_[s].edges) cut[e.low] = cut[e.high + 1] = 1;
            for (const auto& c : parts_[s].calls) calls[c.start].push_back(c.back);
        }
        size_t count = 0;
        for (uint16_t b = 0; b < 257; ++b)
            if (cut[b]) cuts[count++] = b;
        std::vector<std::vector<uint32_t>> targets(count);
        for (const uint32_t s : set)
            for (const auto& e : parts_[s].edges) {
                auto* at = std::lower_bound(cuts, cuts + count, e.low);
                for (; at < cuts + count && *at <= e.high; ++at) {
                    targets[static_cast<size_t>(at - cuts)].push_back(e.target);
                    ++work;
                }
            }
        const size_t edges_from = out.edges_.size();
        for (size_t k = 0; k + 1 < count; ++k) {
            if (targets[k].empty()) continue;
            const uint32_t target = id_of(std::move(targets[k]));
            const auto low = static_cast<uint8_t>(cuts[k]);
            const auto high = static_cast<uint8_t>(cuts[k + 1] - 1);
            if (out.edges_.size() > edges_from && out.edges_.back().target == target &&
                out.edges_.back().high + 1 == low)
                out.edges_.back().high = high;
            else
                out.edges_.push_back({low, high, target});
        }
        for (auto& [callee, backs] : calls) out.calls_.push_back({callee, id_of(std::move(backs))});
        out.edge_begin_.push_back(static_cast<uint32_t>(out.edges_.size()));
        out.call_begin_.push_back(static_cast<uint32_t>(out.calls_.size()));
        out.accepts_.push_back(accepts);
        uint32_t alike = id;
        if (set.size() == 1 && parts_[set[0]].tag != 0)
            alike = first_of_tag.emplace(parts_[set[0]].tag, id).first->second;
        out.alike_.push_back(alike);
    }
    return {};
}

// Calls that take no byte must not come back to where they began: the stack would grow for ever.
base::Result<void> Builder::refuse_left_recursion(const Automaton& a,
                                                  std::span<const uint32_t> starts) const {
    std::vector<uint8_t> colour(a.states(), 0);
    struct Frame {
        uint32_t state;
        size_t next;
    };
    std::vector<Frame> path;
    for (uint32_t s = 0; s < a.states(); ++s) {
        if (colour[s] != 0) continue;
        path.push_back({s, 0});
        colour[s] = 1;
        while (!path.empty()) {
            Frame& f = path.back();
            const auto calls = a.calls(f.state);
            if (f.next == calls.size() * 2) {
                colour[f.state] = 2;
                path.pop_back();
                continue;
            }
            const auto& call = calls[f.next / 2];
            const bool back = f.next % 2 == 1;
            ++f.next;
            if (back && a.least_bytes(call.start) != 0) continue;
            const uint32_t to = back ? call.back : call.start;
            if (colour[to] == 1) {
                size_t rule = 0;
                for (size_t i = 0; i < starts.size(); ++i)
                    if (starts[i] != kNever && starts[i] <= to &&
                        (starts[rule] == kNever || starts[rule] > to || starts[i] >= starts[rule]))
                        rule = i;
                return base::fail(Errc::invalid,
                                  fmt::format("'{}' refers to itself before any text: there is no "
                                              "first byte",
                                              rules_[rule].name));
            }
            if (colour[to] == 0) {
                colour[to] = 1;
                path.push_back({to, 0});
            }
        }
    }
    return {};
}

base::Result<Automaton> Builder::build(Rule root) {
    if (auto ok = check(); !ok) return base::fail(ok.error());
    Automaton out;
    out.depth_max_ = limits_.depth_max;
    uint64_t work = 0;
    // Only what the root needs, in the order of need.
    std::vector<uint32_t> starts(rules_.size(), kNever);
    std::vector<Rule> todo{root};
    std::vector<uint8_t> wanted(rules_.size(), 0);
    wanted[root] = 1;
    while (!todo.empty()) {
        const Rule rule = todo.back();
        todo.pop_back();
        starts[rule] = out.states();
        const size_t from = out.calls_.size();
        if (auto ok = determinise(rule, out, work); !ok) return base::fail(ok.error());
        for (size_t i = from; i < out.calls_.size(); ++i)
            if (!wanted[out.calls_[i].start]) {
                wanted[out.calls_[i].start] = 1;
                todo.push_back(out.calls_[i].start);
            }
    }
    for (auto& call : out.calls_) call.start = starts[call.start];
    out.start_ = starts[root];
    std::vector<Step> steps;
    steps.reserve(out.edges_.size());
    for (uint32_t s = 0; s < out.states(); ++s)
        for (const auto& e : out.edges(s)) steps.push_back({s, e.target, 1});
    Costs costs = least_costs(out, steps);
    out.least_bytes_ = std::move(costs.least);
    if (auto ok = refuse_left_recursion(out, starts); !ok) return base::fail(ok.error());
    for (Rule r = 0; r < rules_.size(); ++r)
        if (r == root && out.least_bytes_[starts[r]] == kNever)
            return base::fail(Errc::invalid, fmt::format("'{}' can never be completed: it always "
                                                         "needs another of itself",
                                                         rules_[r].name));
    if (costs.depth[out.start_] > limits_.depth_max)
        return base::fail(Errc::too_large,
                          fmt::format("the shallowest text nests {} deep; at most {} is allowed",
                                      costs.depth[out.start_], limits_.depth_max));
    return out;
}

}  // namespace parley::grammar
