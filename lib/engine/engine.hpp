// Engine: continuous batching over one model. step() runs one iteration: every sequence that
// decodes gets a token, prompts advance by chunks, and what came out goes to the sink.
//
// Bits     a greedy or seeded answer depends on its job alone: not on the batch, the chunks,
// preemption,
//          or on being continued by another worker (Forward's contract, Sampler's counter).
// Credit   counts events, and is signed: what a sequence may still send, less what it has sent. At
// 0 or
//          below it is held: keeps its blocks, takes no rows, stops no one else. The sink's maker
//          calls grant() with -1 for each event made and +n for each CREDIT.
// Times    deadlines are looked at in each step; cancel() is at once, its blocks are free on
//          return. A sequence that has said nothing yet and whose prompt, what it finds in the prefix
//          cache left out, takes longer than is left of a deadline even if nobody else ran and the host
//          were as fast as it ever is (CostModel::seconds_least()) is ended at once: the time goes to
//          those that can still be in time.
// Drafts   what a sequence will say next is guessed from its own text where that pays
//          (engine/speculator.hpp), else by a draft model, if there is one and it pays: the guessed tokens are computed behind its last one, and each is
//          taken if the sampler, with that position's random number, penalties and grammar, picks the
//          same. Tokens of one iteration come in one piece.
// Cost     the measured time of an iteration is divided over its sequences by what the cost model
//          says that each added (rows, keys read; the fixed part evenly by rows), scaled so that the
//          shares sum to busy_s. Work done again after a preemption is charged again.
// Errors   submit(): see there. After submit() every sequence ends by exactly one finished() or
//          failed() of the sink, or by cancel() (then by neither).
// Threads  one. The sink is called inside step() and may call grant() and cancel(), not submit().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "engine/cost_model.hpp"
#include "engine/draft_model.hpp"
#include "engine/forward.hpp"
#include "engine/scheduler.hpp"
#include "engine/sequence.hpp"

namespace parley::engine {

// What the engine must know of a tokenizer.
class Vocabulary {
  public:
    virtual ~Vocabulary() = default;
    virtual std::string_view bytes(model::Token token) const = 0;
    virtual bool ends_answer(model::Token token) const = 0;
};

struct EngineOptions {
    uint32_t slots_max = 32;
    uint32_t queue_max = 64;      // waiting sequences beyond the free slots; one more is refused
    uint32_t context_tokens = 0;  // 0: the model's; never more than that, nor than the KV holds
    uint32_t rows_max = 512;      // as ForwardOptions::rows_max
    uint32_t reserve_tokens = 32;
    // KV blocks that nobody reads and that are kept for a prompt that begins alike; 0: none, and
    // nothing is looked for. Blocks are found again for the same model, KV type and Job::tenant.
    uint32_t prefix_blocks = UINT32_MAX;
    std::string model_hash;
    std::string kv_type = "f16";
    // An iteration takes as many prefill rows, in whole pages, as the cost model thinks to fit, its
    // decode rows included, and one page at least; 0: always rows_max.
    int64_t prefill_target_ms = 40;  // while something decodes: the gap that a reader sees
    // Nor longer than this many times its decode rows alone, or than prefill_free_ms, which no reader
    // notices; half a page at least, since that is a tile of the kernels beside eight that decode.
    // 0: any time.
    double prefill_slowdown = 0;
    int64_t prefill_free_ms = 8;
    int64_t alone_target_ms = 100;   // while nothing does: how late a cancel is seen, a STATUS said
    // Tokens of a sequence that are guessed ahead in one iteration, at most: as many as pay by the
    // cost model and by how often guesses came true; 0: none.
    uint32_t speculate_max = 0;
    // Guesses where the sequence's own text gives none (engine/draft_model.hpp); null: nobody does. Of the same
    // vocabulary, with ForwardOptions::rows_max ≥ DraftModel::kRowsMax. Outlives the engine, which alone
    // runs it.
    Forward* draft = nullptr;
    // As SchedulerOptions: how long the rows of those that decode may take (0: as long as they take),
    // how long one may rest for that, how far a flow's tag may be from the others'.
    int64_t itl_target_ms = 0;
    int64_t rest_max_ms = 1000;
    int64_t flow_lag_ms = 2000;
    uint32_t first_tokens = 0;       // as SchedulerOptions
    int64_t begin_lag_ms = 0;        // as SchedulerOptions
    double batch_share = 1;          // as SchedulerOptions
    int64_t park_ms = 1000;          // held for that long: others may have its slot and blocks
};

// What a sequence found computed already when it was admitted, and what it leaves.
struct Reuse {
    uint32_t read_tokens = 0;    // of the prompt, not computed again by this attempt
    uint32_t stored_tokens = 0;  // of the prompt, in the cache once it is computed
};

struct Finished {
    Finish reason = Finish::end_turn;
    std::string stop_sequence;
    uint32_t prompt_tokens = 0;
    uint32_t output_tokens = 0;  // replayed ones once
    Reuse reuse;
    double cost_s = 0;
    uint64_t drafted_tokens = 0, accepted_tokens = 0;  // as EngineStats, of this one
};

struct Failed {
    base::Error error;  // timeout (before any output), internal
    uint32_t prompt_tokens = 0;
    uint32_t output_tokens = 0;
    double cost_s = 0;
    Reuse reuse;
    uint64_t drafted_tokens = 0, accepted_tokens = 0;
};

class Sink {
  public:
    virtual ~Sink() = default;
    // Slot and blocks are there; prefill begins with this iteration. Once a sequence.
    virtual void admitted(Handle handle, uint32_t prompt_tokens) = 0;
    // stamp_ns: when the token that let it out was chosen.
    virtual void text(Handle handle, const Piece& piece, int64_t stamp_ns) = 0;
    virtual void finished(Handle handle, const Finished& finished) = 0;
    virtual void failed(Handle handle, const Failed& failed) = 0;
};

struct EngineStats {
    uint32_t running = 0, waiting = 0, held = 0;
    uint32_t resting = 0;  // of the running ones, those that it was not the turn of
    uint32_t slots_max = 0, queue_max = 0;
    uint32_t kv_blocks = 0, kv_blocks_free = 0;  // free: evictable ones too
    uint32_t prefix_blocks = 0, prefix_blocks_unused = 0;  // known to the prefix cache
    uint64_t prefix_hit_tokens = 0, prefix_sought_tokens = 0, prefix_evicted = 0;
    uint64_t prefix_copied = 0;  // blocks that only began as a prompt went on
    uint64_t iterations = 0, decode_rows = 0, prefill_rows = 0, preempted = 0;
    uint64_t drafted_tokens = 0, accepted_tokens = 0;  // guessed and computed; those that came true
    uint64_t waiting_tokens = 0;  // still to be prefilled, of waiting and running ones
    double busy_s = 0;
    double prefill_row_s = 0;          // of a prompt's row alone, as the cost model has it; 0: not yet
    int64_t longest_iteration_ns = 0;  // since the last call of take_longest_ns()
};

class Engine {
  public:
    Engine(Forward& forward, const Vocabulary& vocabulary, const EngineOptions& options, Sink& sink,
           const base::Clock& clock = base::system_clock());
    ~Engine();

    // Errc::too_large "prompt is too long: N tokens > M maximum", Errc::invalid for a sampling
    // option or a prompt without tokens, Errc::again when queue_max wait for
    // want of a slot. With a grammar also
    // Errc::invalid when the tokens left are fewer than the shortest text surely needs, when
    // `produced` does not fit it, or beside stop sequences.
    base::Result<Handle> submit(Job job);
    // Ends it without a word to the sink; nullopt when there is no such sequence (any more).
    std::optional<Finished> cancel(Handle handle);
    void grant(Handle handle, int64_t credit);
    // The tag of its flow, as the router has it now.
    void correct(Handle handle, double tag);
    // One iteration. False when there was nothing to run: wait for something to happen, at most
    // until next_deadline_ns().
    bool step();

    bool empty() const { return sequences_.empty(); }
    int64_t next_deadline_ns() const;  // INT64_MAX: none
    uint32_t context_tokens() const { return context_tokens_; }
    EngineStats stats() const;
    int64_t take_longest_ns();
    double cost_s(Handle handle) const;
    Reuse reuse(Handle handle) const;  // known from Sink::admitted() on

  private:
    // What the tokens that a sequence got in this iteration mean for it; neither: it goes on.
    struct Outcome {
        std::optional<Finish> finish;
        const char* failure = nullptr;
    };
    void check_times(int64_t now_ns);
    const char* missed(Sequence& sequence, int64_t now_ns);
    void draft(IterationLoad& decodes);
    void keep_draft(Sequence& sequence, IterationLoad& decodes) const;
    void draft_by_model(IterationLoad& decodes);
    void run_forward();
    Outcome choose(Sequence& sequence, const Rows& rows, std::span<float> logits);
    Outcome accept(Sequence& sequence, model::Token token);
    void account(int64_t started_ns, int64_t now_ns);
    void conclude(Sequence& sequence, const Outcome& outcome, int64_t now_ns);
    void out(Sequence& sequence, int64_t now_ns);
    void finish(Sequence& sequence, Finish reason, int64_t now_ns);
    void fail(Sequence& sequence, base::Error error);
    void replay(Sequence& sequence);
    base::Result<void> replay_grammar(Sequence& sequence) const;
    uint32_t rows_for(int64_t target_ms, const IterationLoad& decodes, uint32_t position) const;
    Finished summary(const Sequence& sequence) const;
    Reuse reuse(const Sequence& sequence) const;
    void drop(Sequence& sequence);

    Forward& forward_;
    const Vocabulary& vocabulary_;
    EngineOptions options_;
    Sink& sink_;
    const base::Clock& clock_;
    uint32_t context_tokens_;
    Scheduler scheduler_;
    std::unordered_map<Handle, std::unique_ptr<Sequence>> sequences_;
    Handle next_handle_ = 1;

    Plan plan_;
    std::vector<Chunk> chunks_;
    std::vector<float> logits_;
    SamplerScratch scratch_;
    Piece piece_;
    std::vector<Outcome> outcomes_;  // one for each of plan_.rows
    std::vector<Guess> guesses_;
    std::vector<Sequence*> guessed_;  // the sequences of guesses_
    DraftBudget draft_budget_;
    std::optional<DraftModel> draft_model_;
    double drafting_s_ = 0;  // of this iteration, by the draft model

    uint64_t iterations_ = 0, decode_rows_ = 0, prefill_rows_ = 0;
    uint64_t drafted_ = 0, accepted_ = 0;
    double busy_s_ = 0;
    CostModel cost_;
    int64_t longest_ns_ = 0;
};

}  // namespace parley::engine
