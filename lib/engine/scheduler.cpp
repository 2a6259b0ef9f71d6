#include "engine/scheduler.hpp"

#include <algorithm>
#include <cassert>
#include <tuple>

#include "engine/forward.hpp"

namespace parley::engine {
namespace {

uint32_t blocks_for(uint64_t tokens) {
    return static_cast<uint32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

// Greater goes first when blocks are short.
auto worth(const Sequence& s) {
    // Later arrivals have less claim among equals, so that two never preempt each other in turn.
    return std::make_tuple(-static_cast<int>(s.job.priority), !s.held(), s.produced(), s.computed,
                           UINT64_MAX - s.arrival);
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), pool_(options.kv_blocks) {
    options_.rows_max = std::max<uint32_t>(options_.rows_max, 1);
    options_.slots_max = std::clamp<uint32_t>(options_.slots_max, 1, options_.rows_max);
}

void Scheduler::add(Sequence& sequence) {
    const auto after = [](const Sequence* a, const Sequence* b) {
        return std::tie(a->job.priority, a->arrival) < std::tie(b->job.priority, b->arrival);
    };
    waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), &sequence, after),
                    &sequence);
}

void Scheduler::remove(Sequence& sequence) {
    // Its blocks could stay here as a cached prefix, by reference; the cache comes with its own
    // issue.
    pool_.give_back(sequence.blocks);
    sequence.blocks.clear();
    std::erase(sequence.running ? running_ : waiting_, &sequence);
    sequence.running = false;
}

void Scheduler::preempt(Sequence& sequence) {
    remove(sequence);
    sequence.computed = 0;
    ++sequence.preemptions;
    ++preempted_;
    add(sequence);
}

Sequence* Scheduler::victim() const {
    return *std::min_element(running_.begin(), running_.end(),
                             [](Sequence* a, Sequence* b) { return worth(*a) < worth(*b); });
}

// Blocks and a slot for `wanted`, at the cost of those that have to give way to it.
bool Scheduler::make_room(const Sequence& wanted, uint32_t blocks) {
    const auto fits = [&] {
        return running_.size() < options_.slots_max && pool_.blocks_free() >= blocks;
    };
    if (fits()) return true;
    std::vector<Sequence*> yielding;
    size_t could_free = pool_.blocks_free();
    for (Sequence* s : running_) {
        const bool gives_way = s->parked || (s->job.priority == Priority::batch &&
                                             wanted.job.priority != Priority::batch);
        if (!gives_way) continue;
        yielding.push_back(s);
        could_free += s->blocks.size();  // a shared block would count twice: at worst in vain
    }
    if (running_.size() - yielding.size() >= options_.slots_max || could_free < blocks)
        return false;
    std::sort(yielding.begin(), yielding.end(),
              [](Sequence* a, Sequence* b) { return worth(*a) < worth(*b); });
    for (Sequence* s : yielding) {
        if (fits()) break;
        preempt(*s);
    }
    return fits();
}

void Scheduler::admit(Plan& plan) {
    for (size_t i = 0; i < waiting_.size();) {
        Sequence& s = *waiting_[i];
        if (s.held()) {
            ++i;
            continue;
        }
        const uint64_t left = s.produced_max - std::min(s.produced_max, s.produced());
        const uint64_t growth = std::min<uint64_t>(left, options_.reserve_tokens);
        const uint32_t own = blocks_for(s.tokens.size());
        // A pool that is empty but for this one always lets it in.
        const uint32_t wanted = std::min(blocks_for(s.tokens.size() + growth), pool_.blocks_max());
        if (!make_room(s, wanted)) break;
        const auto taken = pool_.take(own, s.blocks);
        assert(taken);
        (void)taken;
        std::erase(waiting_, &s);  // batch ones that were preempted stand behind it
        s.running = true;
        running_.push_back(&s);
        if (!s.admitted) {
            s.admitted = true;
            plan.admitted.push_back(&s);
        }
    }
}

// Blocks for the first `tokens` positions; false when `sequence` itself had to give way.
bool Scheduler::cover(Sequence& sequence, uint32_t tokens) {
    const uint32_t wanted = blocks_for(tokens);
    while (sequence.blocks.size() < wanted) {
        const auto missing = static_cast<uint32_t>(wanted - sequence.blocks.size());
        if (pool_.take(missing, sequence.blocks)) return true;
        Sequence* least = victim();
        preempt(*least);
        if (least == &sequence) return false;
    }
    return true;
}

void Scheduler::plan(uint32_t prefill_rows, uint32_t alone_rows, Plan& plan) {
    plan.rows.clear();
    plan.admitted.clear();
    plan.decode_rows = plan.prefill_rows = 0;

    // Those that run get their blocks before anyone new does.
    const std::vector<Sequence*> before = running_;
    for (Sequence* s : before) {
        if (!s->running || s->held() || s->prefilling()) continue;
        cover(*s, s->computed + 1);
    }
    admit(plan);

    for (Sequence* s : running_) {
        if (s->held() || s->prefilling()) continue;
        // Only an admitted sequence of a single token, or an old one that was covered above.
        plan.rows.push_back({s, 1, true});
        ++plan.decode_rows;
    }
    uint32_t left = std::min(options_.rows_max - plan.decode_rows,
                             plan.decode_rows > 0 ? prefill_rows : alone_rows);
    std::vector<Sequence*> prefills;
    for (Sequence* s : running_)
        if (!s->held() && s->prefilling()) prefills.push_back(s);
    std::stable_sort(prefills.begin(), prefills.end(), [](const Sequence* a, const Sequence* b) {
        return std::make_tuple(a->computed == 0, a->job.priority, a->arrival) <
               std::make_tuple(b->computed == 0, b->job.priority, b->arrival);
    });
    for (Sequence* s : prefills) {
        const auto remaining = static_cast<uint32_t>(s->tokens.size()) - s->computed;
        uint32_t count = std::min(remaining, left);
        // Whole pages, but for the last chunk: kernels like tiles of 16 rows.
        if (count < remaining && count >= kBlockTokens) count -= count % kBlockTokens;
        if (count == 0) break;
        plan.rows.push_back({s, count, count == remaining});
        plan.prefill_rows += count;
        left -= count;
    }
}

}  // namespace parley::engine
