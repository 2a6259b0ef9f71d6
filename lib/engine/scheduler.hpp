// Scheduler: who waits, who runs, who gets which rows of the next iteration, and whose KV blocks
// go.
//
// Order      decode first, one row for each sequence that may go on: a reader in mid-answer notices
// a
//            late token sooner than a waiting one a late start. Then prefill chunks, started ones
//            before new ones, by class and arrival, within the rows that are left.
// Turns      where the rows of all that decode would take longer than `itl_target_s`, or are more than
//            slots_max, some rest: they keep their blocks and take no row. The flow that is furthest
//            behind goes first (engine/flows.hpp), batch after all others, within a flow the class and
//            then who has waited longest. Who has rested for rest_max_ns goes before all that, the
//            longest first, in up to half of the time: no one starves, and no flow wins by it.
// Admission  by class, flow, slack (when it has to begin for its deadlines, as the engine says; those
//            without one behind those that have one), then arrival; needs blocks for all its tokens and
//            `reserve_tokens` of growth.
//            The first that does not fit stops those behind it: a long prompt is not overtaken for
//            ever by short ones. For want of blocks or slots one that waits preempts those that are
//            parked (without credit for long), and batch ones if it is of a higher class.
//            A flow with nothing running needs no free slot, unless it is ahead of all that run, nor
//            does one that has less running for its weight than another that is ahead of it: it
//            enters, up to twice slots_max, and others rest.
// Beginning  while a sequence of a flow that is not ahead (by more than begin_lag_s: what one short
//            answer costs is soon given back) still makes its first `first_tokens`, no flow
//            that has four times as much running for its weight takes rows, nor does batch: who asks
//            little sees text as soon as if it were alone, and pays for it by its tag. Flows that have
//            much the same running share iterations as ever; rest_max_ns holds here too.
// Batch      takes rows beside others only while it has had less than `batch_share` of the time since
//            those began, so that an answer takes hardly longer for it; alone it takes what there is.
// Preempt    when a decoding sequence needs a block and none is free, the running sequence of the
//            lowest class with the least work done gives its blocks back and waits, to be computed
//            again; that may be the one that asked. The greatest always goes on, so all end.
// Prefixes   full blocks are known to the prefix cache as soon as they are computed, and stay there
//            when their sequence ends or is preempted; a sequence that is admitted begins behind
//            those that it finds, and within a copy of one that goes on as it does for a while, but
//            for its last token, whose logits are wanted. Blocks that
//            nobody reads count as free: they are evicted before anyone is preempted.
// Hold       a sequence without credit keeps its blocks and takes no rows; among equals it is
//            preempted first, and not admitted.
// Drafts     guessed tokens go with their sequence's decode row where rows and blocks are left over:
//            no one gives way for them, and blocks that the accepted ones do not fill are free again
//            when the iteration ends.
// Owns       the block pool and the prefix cache; sequences belong to the engine.
// Threads    the engine's.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block_pool.hpp"
#include "engine/cost_model.hpp"
#include "engine/flows.hpp"
#include "engine/prefix_cache.hpp"
#include "engine/sequence.hpp"

namespace parley::engine {

struct SchedulerOptions {
    uint32_t kv_blocks = 4096;
    uint32_t slots_max = 32;  // sequences that decode at once; as many again may rest
    uint32_t rows_max = 512;  // rows of one iteration; ≥ slots_max
    uint32_t reserve_tokens = 32;
    uint32_t prefix_blocks = 0;  // kept at most when nobody reads them; 0: no prefix cache
    double itl_target_s = 0;     // of an iteration's decode rows; 0: none
    int64_t rest_max_ns = 1'000'000'000;
    double flow_lag_s = 2;  // as Flows
    uint32_t first_tokens = 0;  // 0: no one waits for others' beginnings
    double begin_lag_s = 0;     // a flow that is ahead by so much still counts as not ahead
    double batch_share = 1;     // of the time while others compute, that batch may take; 1: as rows are free
};

struct Rows {
    Sequence* sequence = nullptr;
    uint32_t count = 0;    // tokens [position, position + count)
    bool samples = false;  // the last of them is the sequence's last token
    uint32_t position = 0; // the sequence's `computed` before the iteration
    uint32_t drafts = 0;   // guessed tokens behind it: draft[1 … drafts] of the sequence
};

// Of a whole block, to be made before the rows are computed, in order.
struct BlockCopy {
    uint32_t from = 0, to = 0;
};

struct Plan {
    std::vector<BlockCopy> copies;
    std::vector<Rows> rows;
    std::vector<Sequence*> admitted;  // for the first time: their answers begin now
    uint32_t decode_rows = 0;
    uint32_t prefill_rows = 0;
    uint32_t draft_rows = 0;
};

class Scheduler {
  public:
    explicit Scheduler(const SchedulerOptions& options);

    void add(Sequence& sequence);     // to the waiting ones
    void remove(Sequence& sequence);  // wherever it is; its blocks are free, or evictable, at once
    // Who decodes in the next iteration and who rests; to be called before plan().
    void take_turns(const CostModel& cost, int64_t now_ns);
    // At most `prefill_rows` rows of prefill where something decodes, and `alone_rows` where
    // nothing does.
    void plan(uint32_t prefill_rows, uint32_t alone_rows, Plan& plan);

    // What the last iteration's rows have cost.
    void spent(double online_s, double batch_s);

    // `sequence.computed` has grown: its full blocks are known from now on, and those behind its last
    // token are free.
    void advanced(Sequence& sequence);

    Flows& flows() { return flows_; }
    const std::vector<Sequence*>& running() const { return running_; }
    const std::vector<Sequence*>& waiting() const { return waiting_; }
    const BlockPool& pool() const { return pool_; }
    const PrefixCache& prefixes() const { return prefixes_; }
    // Tokens of one that waits whose KV it would find if it were admitted now.
    uint32_t would_find(Sequence& sequence) const;
    uint32_t blocks_free() const { return pool_.blocks_free() + prefixes_.unused(); }
    bool yielding() const { return yielding_; }  // somebody takes no rows for another's beginning
    uint64_t preempted() const { return preempted_; }
    uint64_t copied() const { return copied_; }  // blocks that begin as a prompt went on
    uint64_t hit_tokens() const { return hit_tokens_; }        // not computed again
    uint64_t sought_tokens() const { return sought_tokens_; }  // of all that were admitted

  private:
    bool online() const;
    void let_begin(int64_t now_ns);
    void admit(Plan& plan);
    Sequence* next() const;
    bool enters_above(const Sequence& sequence) const;
    bool fits(const Sequence& sequence, uint32_t blocks) const;
    bool make_room(const Sequence& wanted, uint32_t blocks);
    bool take(uint32_t count, std::vector<uint32_t>& out);
    void find_keys(Sequence& sequence, uint32_t blocks) const;
    void give_back(Sequence& sequence);
    bool cover(Sequence& sequence, uint32_t tokens);
    void add_drafts(Plan& plan);
    void preempt(Sequence& sequence);
    Sequence* victim() const;

    SchedulerOptions options_;
    BlockPool pool_;
    PrefixCache prefixes_;
    Flows flows_;
    std::vector<Sequence*> running_;  // in order of admission
    std::vector<Sequence*> waiting_;  // by class, then arrival
    bool yielding_ = false;
    double batch_ahead_s_ = 0;  // of its share, while others compute
    uint64_t preempted_ = 0;
    uint64_t copied_ = 0;
    uint64_t hit_tokens_ = 0;
    uint64_t sought_tokens_ = 0;
};

}  // namespace parley::engine
