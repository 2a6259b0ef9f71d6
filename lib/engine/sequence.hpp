// Sequence: one request inside the engine: its tokens, its KV blocks, where it stands.
//
// Tokens   prompt, then produced ones. The KV holds the first `computed` of them; the last token of
// a
//          sequence that decodes is never in the KV before the step that reads it.
// Life     waiting → running (prefill, then decode) → gone; preemption takes it back to waiting
// with
//          all its tokens and no blocks, and the KV is computed again from them.
// Threads  the engine's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/flows.hpp"
#include "engine/prefix_cache.hpp"
#include "engine/sampler.hpp"
#include "engine/speculator.hpp"
#include "engine/text_stage.hpp"
#include "grammar/mask.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

enum class Priority : uint8_t { interactive, streaming, batch };  // first is served first

enum class Finish : uint8_t { end_turn, max_tokens, stop_sequence, context_full, timeout };

using Handle = uint64_t;  // of a sequence; never used twice

// What is asked of the engine.
struct Job {
    std::vector<model::Token> prompt;  // ≥ 1
    uint64_t max_tokens = 0;           // clamped to the context; 0: run the prompt only
    std::vector<std::string> stops;
    SamplingOptions sampling;
    Priority priority = Priority::streaming;
    int64_t start_deadline_ns = 0;  // admitted by then, or failed; 0: none
    int64_t total_deadline_ns =
        0;                // finished by then, or cut; 0: none. Time without credit is added
    int64_t credit = 64;  // see Engine::grant()
    // A continuation: replayed, not sampled again; text before byte `released` is not given out.
    std::vector<model::Token> produced;
    uint64_t released = 0;
    // Whose requests may read each other's KV blocks (the org). "": no one's but its own.
    std::string tenant;
    // Whose turn it takes (engine/flows.hpp), the weight of that flow, and its tag as the router has
    // it; 0: no router says.
    std::string flow;
    double weight = 1;
    double tag = 0;
    // What the text must be; null: anything. Not beside `stops`, which would cut it. It is complete
    // unless a deadline, a cancel or an error cuts it.
    std::shared_ptr<const grammar::TokenGrammar> grammar;
    bool may_cut = false;  // stop sequences may: a part of such a text is an answer too
};

struct Sequence {
    Sequence(Handle handle_, Job job_)
        : handle(handle_),
          job(std::move(job_)),
          sampler(job.sampling),
          text(job.stops, job.released) {
        if (job.grammar) matcher.emplace(job.grammar);
    }

    uint32_t produced() const { return static_cast<uint32_t>(tokens.size()) - prompt_tokens; }
    bool prefilling() const { return running && computed + 1 < tokens.size(); }
    bool held() const { return credit <= 0; }
    // Takes a row of the next iteration for its last token.
    bool decodes() const { return running && !rests && !yields && !held() && !prefilling(); }

    Handle handle;
    Job job;
    Sampler sampler;
    TextStage text;
    std::optional<grammar::Matcher> matcher;  // has seen the produced tokens; preemption leaves it

    Speculator speculator;            // follows `tokens` when it is asked for a draft
    bool model_guessed = false;       // `draft` is the draft model's
    std::vector<model::Token> draft;  // of the next iteration: the last token, guessed ones; or empty

    std::vector<model::Token> tokens;
    uint32_t prompt_tokens = 0;
    uint32_t produced_max = 0;     // max_tokens, clamped
    bool clamped = false;          // the context is the limit, not max_tokens
    uint32_t computed = 0;         // tokens whose KV is there
    std::vector<uint32_t> blocks;  // covers computed, and the rows of the running iteration
    PrefixKey root{};              // of its tenant, or its own
    std::vector<PrefixKey> keys;   // of its full blocks, as far as they were asked for
    uint32_t kept = 0;             // of `blocks`, those that the prefix cache knows
    uint32_t reused = 0;           // tokens found there when it was last admitted
    uint32_t reused_first = 0;     // and when it was admitted first
    Flow* flow = nullptr;          // from Scheduler::add() to remove()
    bool running = false;
    bool rests = false;      // keeps its blocks and takes no row: it is others' turn
    bool yields = false;     // the same, for a prompt too: while another flow's answer begins
    int64_t turn_ns = 0;     // of its last row, as far as it could have had one
    bool admitted = false;   // has run before
    bool text_seen = false;  // some text was given out, by this attempt or by one before
    int64_t credit = 0;
    uint64_t arrival = 0;  // order among equals; kept over preemption
    // Of the waiting ones: when its prompt has to be begun, for its deadlines; INT64_MAX: any time.
    int64_t begin_by_ns = INT64_MAX;
    double cost_s = 0;     // its share of the busy time so far
    uint64_t drafted = 0, accepted = 0;  // guessed tokens that were computed, and that came true
    uint32_t preemptions = 0;
    int64_t held_since_ns = 0;    // 0: not held
    bool parked = false;          // held for long: its blocks and slot go to whoever waits
    std::optional<Finish> ended;  // found at submit(): the replayed tokens already end the answer
};

}  // namespace parley::engine
