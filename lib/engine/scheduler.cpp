#include "engine/scheduler.hpp"

#include <algorithm>
#include <cassert>
#include <tuple>
#include <unordered_map>

#include "engine/forward.hpp"

namespace parley::engine {
namespace {

uint32_t blocks_for(uint64_t tokens) {
    return static_cast<uint32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

// Full blocks before the token that is computed in any case.
uint32_t reusable(const Sequence& s) {
    return static_cast<uint32_t>((s.tokens.size() - 1) / kBlockTokens);
}

bool is_batch(const Sequence& s) { return s.job.priority == Priority::batch; }

// Greater goes first when blocks are short.
auto worth(const Sequence& s) {
    // Later arrivals have less claim among equals, so that two never preempt each other in turn.
    return std::make_tuple(-static_cast<int>(s.job.priority), !s.held(), s.produced(), s.computed,
                           UINT64_MAX - s.arrival);
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      pool_(options.kv_blocks),
      prefixes_(pool_, options.prefix_blocks),
      flows_(options.flow_lag_s) {
    options_.rows_max = std::max<uint32_t>(options_.rows_max, 1);
    options_.slots_max = std::clamp<uint32_t>(options_.slots_max, 1, options_.rows_max);
}

void Scheduler::add(Sequence& sequence) {
    if (sequence.flow == nullptr)
        sequence.flow =
            flows_.enter(sequence.job.flow, sequence.job.weight, sequence.job.tag);
    const auto after = [](const Sequence* a, const Sequence* b) {
        return std::tie(a->job.priority, a->arrival) < std::tie(b->job.priority, b->arrival);
    };
    waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), &sequence, after),
                    &sequence);
}

void Scheduler::remove(Sequence& sequence) {
    give_back(sequence);
    // No one else can ever find them.
    if (sequence.job.tenant.empty()) prefixes_.forget(sequence.keys);
    std::erase(sequence.running ? running_ : waiting_, &sequence);
    sequence.flow->running -= sequence.running;
    sequence.running = false;
    flows_.leave(*sequence.flow);
    sequence.flow = nullptr;
}

void Scheduler::give_back(Sequence& sequence) {
    prefixes_.give_back(sequence.blocks);
    sequence.blocks.clear();
    sequence.kept = 0;
}

void Scheduler::find_keys(Sequence& s, uint32_t blocks) const {
    if (!prefixes_.on()) return;
    while (s.keys.size() < blocks)
        s.keys.push_back(
            prefix_key(s.keys.empty() ? s.root : s.keys.back(),
                       std::span(s.tokens).subspan(s.keys.size() * kBlockTokens, kBlockTokens)));
}

void Scheduler::advanced(Sequence& s) {
    if (const uint32_t wanted = blocks_for(s.tokens.size()); s.blocks.size() > wanted) {
        pool_.give_back(std::span(s.blocks).subspan(wanted));
        s.blocks.resize(wanted);
    }
    if (!prefixes_.on()) return;
    const uint32_t full = s.computed / kBlockTokens;
    find_keys(s, full);
    for (; s.kept < full; ++s.kept) {
        uint32_t& block = s.blocks[s.kept];
        block = prefixes_.keep(s.keys[s.kept], block, s.kept == 0,
                               s.kept == 0 ? 0 : s.blocks[s.kept - 1]);
        prefixes_.describe(block, s.kept == 0 ? s.root : s.keys[s.kept - 1],
                           std::span(s.tokens).subspan(uint64_t{s.kept} * kBlockTokens, kBlockTokens));
    }
}

bool Scheduler::take(uint32_t count, std::vector<uint32_t>& out) {
    if (count > pool_.blocks_free()) {
        if (count > blocks_free()) return false;
        prefixes_.evict(count - pool_.blocks_free());
    }
    return pool_.take(count, out).has_value();
}

void Scheduler::preempt(Sequence& sequence) {
    give_back(sequence);
    std::erase(running_, &sequence);
    --sequence.flow->running;
    sequence.running = sequence.rests = sequence.yields = false;
    sequence.computed = 0;
    sequence.draft.clear();
    ++sequence.preemptions;
    ++preempted_;
    add(sequence);
}

Sequence* Scheduler::victim() const {
    return *std::min_element(running_.begin(), running_.end(),
                             [](Sequence* a, Sequence* b) { return worth(*a) < worth(*b); });
}

bool Scheduler::enters_above(const Sequence& s) const {
    if (running_.size() >= 2 * uint64_t{options_.slots_max}) return false;
    return std::any_of(running_.begin(), running_.end(), [&](const Sequence* one) {
        const Flow& other = *one->flow;
        return &other != s.flow && other.tag + options_.begin_lag_s >= s.flow->tag && (is_batch(*one) || !is_batch(s)) &&
               (s.flow->running == 0 ||
                (s.flow->running + 1) * other.weight <= other.running * s.flow->weight);
    });
}

// A slot, and `blocks` in all for it, those that it would find among them.
bool Scheduler::fits(const Sequence& s, uint32_t blocks) const {
    if (running_.size() >= options_.slots_max && !enters_above(s)) return false;
    const auto found =
        prefixes_.match(std::span(s.keys).first(std::min<size_t>(s.keys.size(), reusable(s))));
    return blocks_free() - found.unused >= blocks - found.blocks;
}

// Blocks and a slot for `wanted`, at the cost of those that have to give way to it.
bool Scheduler::make_room(const Sequence& wanted, uint32_t blocks) {
    if (fits(wanted, blocks)) return true;
    std::vector<Sequence*> yielding;
    std::unordered_map<uint32_t, uint32_t> released;
    for (Sequence* s : running_) {
        const bool gives_way = s->parked || (is_batch(*s) && !is_batch(wanted));
        if (!gives_way) continue;
        yielding.push_back(s);
        for (const uint32_t block : s->blocks) ++released[block];
    }
    if (yielding.empty() || running_.size() - yielding.size() >= options_.slots_max) return false;
    const auto found = prefixes_.match(
        std::span(wanted.keys).first(std::min<size_t>(wanted.keys.size(), reusable(wanted))));
    // Those that it finds are its own already: they make no room.
    for (uint32_t i = 0; i < found.blocks; ++i) released.erase(prefixes_.block(wanted.keys[i]));
    size_t could_free = blocks_free() - found.unused;
    for (const auto& [block, times] : released) {
        if (prefixes_.knows(block) ? pool_.references(block) == times + 1
                                   : pool_.references(block) == times)
            ++could_free;
    }
    if (could_free < blocks - found.blocks) return false;
    std::sort(yielding.begin(), yielding.end(),
              [](Sequence* a, Sequence* b) { return worth(*a) < worth(*b); });
    for (Sequence* s : yielding) {
        if (fits(wanted, blocks)) break;
        preempt(*s);
    }
    return fits(wanted, blocks);
}

uint32_t Scheduler::would_find(Sequence& s) const {
    if (!prefixes_.on()) return 0;
    find_keys(s, reusable(s));
    const std::span<const PrefixKey> keys =
        std::span<const PrefixKey>(s.keys).first(std::min<size_t>(s.keys.size(), reusable(s)));
    const uint32_t blocks = prefixes_.match(keys).blocks;
    const uint32_t tokens = blocks * kBlockTokens;
    const size_t most = std::min<size_t>(kBlockTokens, s.tokens.size() - 1 - tokens);
    return tokens + prefixes_.part(blocks == 0 ? s.root : s.keys[blocks - 1],
                                   std::span(s.tokens).subspan(tokens, most)).tokens;
}

// The first of those that wait and for whom there may be a slot.
Sequence* Scheduler::next() const {
    const bool slot = running_.size() < options_.slots_max;
    bool parked = false, batch = false;
    for (const Sequence* s : running_) {
        if (slot) break;
        parked = parked || s->parked;
        batch = batch || is_batch(*s);
    }
    const auto before = [](const Sequence& a, const Sequence& b) {
        return std::tie(a.job.priority, a.flow->tag, a.begin_by_ns, a.arrival) <
               std::tie(b.job.priority, b.flow->tag, b.begin_by_ns, b.arrival);
    };
    Sequence* first = nullptr;
    for (Sequence* s : waiting_) {
        if (s->held() || (first != nullptr && !before(*s, *first))) continue;
        if (slot || parked || (batch && !is_batch(*s)) || enters_above(*s)) first = s;
    }
    return first;
}

void Scheduler::admit(Plan& plan) {
    while (Sequence* first = next()) {
        Sequence& s = *first;
        const uint64_t left = s.produced_max - std::min(s.produced_max, s.produced());
        const uint64_t growth = std::min<uint64_t>(left, options_.reserve_tokens);
        const uint32_t own = blocks_for(s.tokens.size());
        // A pool that is empty but for this one always lets it in.
        const uint32_t wanted = std::min(blocks_for(s.tokens.size() + growth), pool_.blocks_max());
        find_keys(s, reusable(s));
        if (!make_room(s, wanted)) break;
        const std::span<const PrefixKey> keys =
            std::span<const PrefixKey>(s.keys).first(std::min<size_t>(s.keys.size(), reusable(s)));
        s.kept = prefixes_.match(keys).blocks;
        prefixes_.share(keys.first(s.kept), s.blocks);
        s.computed = s.kept * kBlockTokens;
        PrefixCache::Part part;
        if (prefixes_.on()) {
            const size_t most = std::min<size_t>(kBlockTokens, s.tokens.size() - 1 - s.computed);
            part = prefixes_.part(s.kept == 0 ? s.root : s.keys[s.kept - 1],
                                  std::span(s.tokens).subspan(s.computed, most));
        }
        s.reused = s.computed + part.tokens;
        if (!s.admitted) s.reused_first = s.reused;
        hit_tokens_ += s.reused;
        sought_tokens_ += s.tokens.size();
        const bool taken = take(own - s.kept, s.blocks);
        assert(taken);
        (void)taken;
        if (part.tokens > 0) {
            plan.copies.push_back({part.block, s.blocks[s.kept]});
            s.computed = s.reused;
            ++copied_;
        }
        std::erase(waiting_, &s);  // batch ones that were preempted stand behind it
        s.running = true;
        ++s.flow->running;
        running_.push_back(&s);
        // One that has nothing to prefill waits for the next turns.
        s.rests = running_.size() > options_.slots_max;
        if (!s.admitted) {
            s.admitted = true;
            plan.admitted.push_back(&s);
        }
    }
}

bool Scheduler::online() const {
    return std::any_of(running_.begin(), running_.end(),
                       [](const Sequence* s) { return !is_batch(*s) && !s->held(); });
}

void Scheduler::spent(double online_s, double batch_s) {
    if (!online()) {
        batch_ahead_s_ = 0;  // what it takes alone is nobody's
        return;
    }
    const double share = options_.batch_share;
    if (share >= 1) return;
    // What it has not taken is not saved up.
    batch_ahead_s_ = std::max(0.0, batch_ahead_s_ + batch_s * (1 - share) - online_s * share);
}

// Who makes way: for whose beginning, and batch that has had its share.
void Scheduler::let_begin(int64_t now_ns) {
    constexpr double kTimesRunning = 4;
    yielding_ = false;
    for (Sequence* s : running_) s->yields = false;
    const bool batch_waits = batch_ahead_s_ > 0 && online();
    if (options_.first_tokens == 0 && !batch_waits) return;
    std::vector<const Sequence*> beginning;
    for (const Sequence* s : running_)
        if (!is_batch(*s) && !s->held() && s->produced() < options_.first_tokens)
            beginning.push_back(s);
    for (Sequence* s : running_) {
        const Flow& own = *s->flow;
        const bool waited = s->turn_ns != 0 && now_ns - s->turn_ns >= options_.rest_max_ns;
        if (s->held() || waited) continue;
        const bool batch = is_batch(*s);
        s->yields = (batch && batch_waits) ||
                    std::any_of(beginning.begin(), beginning.end(), [&](const Sequence* one) {
                        const Flow& other = *one->flow;
                        if (&other == &own && !batch) return false;
                        if (batch) return true;
                        return other.tag <= own.tag + options_.begin_lag_s &&
                               own.running * other.weight >=
                                   kTimesRunning * other.running * own.weight;
                    });
        yielding_ = yielding_ || s->yields;
    }
}

void Scheduler::take_turns(const CostModel& cost, int64_t now_ns) {
    let_begin(now_ns);
    std::vector<Sequence*> ready;
    IterationLoad all;
    for (Sequence* s : running_) {
        s->rests = false;
        if (s->yields) {
            if (s->turn_ns == 0) s->turn_ns = now_ns;
            continue;
        }
        if (!s->decodes()) {
            s->turn_ns = now_ns;
            continue;
        }
        if (s->turn_ns == 0) s->turn_ns = now_ns;
        ready.push_back(s);
        all += IterationLoad::of(s->computed, 1, true);
    }
    const double target_s = options_.itl_target_s;
    const auto in_time = [&](const IterationLoad& load, double share) {
        return target_s <= 0 || cost.seconds(load) <= share * target_s;
    };
    if (ready.size() <= options_.slots_max && in_time(all, 1)) {
        for (Sequence* s : ready) s->turn_ns = now_ns;
        return;
    }
    for (Sequence* s : ready) s->rests = true;
    IterationLoad load;
    uint32_t taken = 0;
    const auto take_row = [&](Sequence& s, double share, uint32_t most) {
        IterationLoad with = load;
        with += IterationLoad::of(s.computed, 1, true);
        if (taken > 0 && (taken >= most || !in_time(with, share))) return false;
        load = with;
        ++taken;
        s.rests = false;
        return true;
    };
    std::sort(ready.begin(), ready.end(), [](const Sequence* a, const Sequence* b) {
        return std::tie(a->turn_ns, a->arrival) < std::tie(b->turn_ns, b->arrival);
    });
    for (Sequence* s : ready)
        if (now_ns - s->turn_ns < options_.rest_max_ns ||
            !take_row(*s, 0.5, std::max(options_.slots_max / 2, 1u)))
            break;

    // The next of each flow, where a flow's tag moves on with each row that it is given.
    std::unordered_map<Flow*, std::vector<Sequence*>> lines;  // the first at the back
    std::unordered_map<Flow*, double> tags;
    for (const Sequence* s : ready) tags.emplace(s->flow, s->flow->tag);
    const auto charge = [&](const Sequence& s) {
        tags[s.flow] += cost.share(IterationLoad::of(s.computed, 1, true),
                                   static_cast<double>(ready.size())) /
                        s.flow->weight;
    };
    for (Sequence* s : ready) {
        if (s->rests)
            lines[s->flow].push_back(s);
        else
            charge(*s);
    }
    const auto order = [&](const Sequence* s) {
        return std::make_tuple(is_batch(*s), tags[s->flow], s->turn_ns, s->arrival);
    };
    std::vector<Sequence*> heads;
    const auto later = [&](const Sequence* a, const Sequence* b) { return order(a) > order(b); };
    for (auto& [flow, line] : lines) {
        std::sort(line.begin(), line.end(), [](const Sequence* a, const Sequence* b) {
            return std::tie(a->job.priority, a->turn_ns, a->arrival) >
                   std::tie(b->job.priority, b->turn_ns, b->arrival);
        });
        heads.push_back(line.back());
    }
    std::make_heap(heads.begin(), heads.end(), later);
    while (!heads.empty()) {
        std::pop_heap(heads.begin(), heads.end(), later);
        Sequence* s = heads.back();
        heads.pop_back();
        if (!take_row(*s, 1, options_.slots_max)) break;
        charge(*s);
        auto& line = lines[s->flow];
        line.pop_back();
        if (line.empty()) continue;
        heads.push_back(line.back());
        std::push_heap(heads.begin(), heads.end(), later);
    }
    for (Sequence* s : ready)
        if (!s->rests) s->turn_ns = now_ns;
}

// Blocks for the first `tokens` positions; false when `sequence` itself had to give way.
bool Scheduler::cover(Sequence& sequence, uint32_t tokens) {
    const uint32_t wanted = blocks_for(tokens);
    while (sequence.blocks.size() < wanted) {
        const auto missing = static_cast<uint32_t>(wanted - sequence.blocks.size());
        if (take(missing, sequence.blocks)) return true;
        Sequence* least = victim();
        preempt(*least);
        if (least == &sequence) return false;
    }
    return true;
}

// Rows and blocks that nobody else wants in this iteration; a page of rows is left to prompts.
void Scheduler::add_drafts(Plan& plan) {
    const uint32_t taken = plan.decode_rows + kBlockTokens;
    uint32_t left = options_.rows_max - std::min(options_.rows_max, taken);
    for (Rows& rows : plan.rows) {
        Sequence& s = *rows.sequence;
        if (s.draft.empty() || left == 0) continue;
        const uint32_t wanted = std::min(static_cast<uint32_t>(s.draft.size()) - 1, left);
        while (s.blocks.size() < blocks_for(rows.position + 1 + uint64_t{wanted}) &&
               take(1, s.blocks)) {
        }
        const auto covered = static_cast<uint32_t>(s.blocks.size() * kBlockTokens);
        rows.drafts = std::min(wanted, covered - rows.position - 1);
        plan.draft_rows += rows.drafts;
        left -= rows.drafts;
    }
}

void Scheduler::plan(uint32_t prefill_rows, uint32_t alone_rows, Plan& plan) {
    plan.rows.clear();
    plan.admitted.clear();
    plan.copies.clear();
    plan.decode_rows = plan.prefill_rows = plan.draft_rows = 0;

    // Those that run get their blocks before anyone new does.
    const std::vector<Sequence*> before = running_;
    for (Sequence* s : before) {
        if (!s->decodes()) continue;
        cover(*s, s->computed + 1);
    }
    admit(plan);

    for (Sequence* s : running_) {
        if (!s->decodes()) continue;
        // Only an admitted sequence of a single token, or an old one that was covered above.
        plan.rows.push_back({s, 1, true, s->computed});
        ++plan.decode_rows;
    }
    add_drafts(plan);
    uint32_t left = std::min(options_.rows_max - plan.decode_rows - plan.draft_rows,
                             plan.decode_rows > 0 ? prefill_rows : alone_rows);
    std::vector<Sequence*> prefills;
    for (Sequence* s : running_)
        if (!s->held() && !s->yields && s->prefilling()) prefills.push_back(s);
    std::stable_sort(prefills.begin(), prefills.end(), [](const Sequence* a, const Sequence* b) {
        return std::make_tuple(a->computed == a->reused, a->job.priority, a->flow->tag, a->arrival) <
               std::make_tuple(b->computed == b->reused, b->job.priority, b->flow->tag, b->arrival);
    });
    for (Sequence* s : prefills) {
        const auto remaining = static_cast<uint32_t>(s->tokens.size()) - s->computed;
        uint32_t count = std::min(remaining, left);
        // Whole pages, but for the last chunk: kernels like tiles of 16 rows.
        if (count < remaining && count >= kBlockTokens) count -= count % kBlockTokens;
        if (count == 0) break;
        plan.rows.push_back({s, count, count == remaining, s->computed});
        plan.prefill_rows += count;
        left -= count;
    }
}

}  // namespace parley::engine
