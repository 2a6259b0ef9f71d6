#include "engine/engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace parley::engine {
namespace {

using model::Token;

constexpr double kPrefillLeast = 1.5;  // of the decode rows' time, whatever the target
constexpr uint32_t kRowsFirst = 64;  // prefill rows before anything was measured, and the least

}  // namespace

Engine::Engine(Forward& forward, const Vocabulary& vocabulary, const EngineOptions& options,
               Sink& sink, const base::Clock& clock)
    : forward_(forward),
      vocabulary_(vocabulary),
      options_(options),
      sink_(sink),
      clock_(clock),
      context_tokens_(forward.context_tokens()),
      scheduler_({forward.kv_blocks(), options.slots_max, options.rows_max, options.reserve_tokens,
                  std::min(options.prefix_blocks, forward.kv_blocks()),
                  static_cast<double>(options.itl_target_ms) * 1e-3, options.rest_max_ms * 1'000'000,
                  static_cast<double>(options.flow_lag_ms) * 1e-3, options.first_tokens,
                  static_cast<double>(options.begin_lag_ms) * 1e-3, options.batch_share}) {
    if (options_.context_tokens > 0)
        context_tokens_ = std::min(context_tokens_, options_.context_tokens);
    // One sequence alone must always be able to reach its end.
    const uint64_t held = static_cast<uint64_t>(forward.kv_blocks()) * kBlockTokens;
    context_tokens_ = static_cast<uint32_t>(std::min<uint64_t>(context_tokens_, held));
    if (options_.draft != nullptr && options_.speculate_max > 0) {
        assert(options_.draft->vocab_size() == forward.vocab_size());
        draft_model_.emplace(*options_.draft);
    }
}

Engine::~Engine() = default;

base::Result<Handle> Engine::submit(Job job) {
    if (auto checked = check(job.sampling); !checked) return base::fail(checked.error());
    if (job.prompt.empty()) return base::fail(base::Errc::invalid, "the prompt has no tokens");
    if (job.prompt.size() >= context_tokens_)
        return base::fail(base::Errc::too_large,
                          fmt::format("prompt is too long: {} tokens > {} maximum",
                                      job.prompt.size(), context_tokens_ - 1));
    // Those that the next step admits do not wait for anyone.
    const size_t active = scheduler_.running().size() + scheduler_.waiting().size();
    const size_t slots = std::min(options_.slots_max, options_.rows_max);
    if (scheduler_.waiting().size() >= options_.queue_max && active >= slots + options_.queue_max)
        return base::fail(base::Errc::again,
                          fmt::format("{} requests wait already", scheduler_.waiting().size()));
    const auto prompt_tokens = static_cast<uint32_t>(job.prompt.size());
    const uint32_t room = context_tokens_ - prompt_tokens;
    if (job.produced.size() > room)
        return base::fail(base::Errc::invalid, "produced: more tokens than the context holds");
    for (const Token token : job.produced)
        if (token < 0 || static_cast<uint32_t>(token) >= forward_.vocab_size())
            return base::fail(base::Errc::invalid,
                              fmt::format("produced: no token has the id {}", token));

    const Handle handle = next_handle_++;
    auto sequence = std::make_unique<Sequence>(handle, std::move(job));
    Sequence& s = *sequence;
    s.arrival = handle;
    s.prompt_tokens = prompt_tokens;
    s.produced_max = static_cast<uint32_t>(std::min<uint64_t>(s.job.max_tokens, room));
    s.clamped = s.job.max_tokens > room;
    s.credit = s.job.credit;
    if (auto fits = replay_grammar(s); !fits) return base::fail(fits.error());
    s.tokens = std::move(s.job.prompt);
    if (options_.prefix_blocks > 0)
        s.root = s.job.tenant.empty()
                     ? private_root(options_.model_hash, options_.kv_type, handle)
                     : prefix_root(options_.model_hash, options_.kv_type, s.job.tenant);
    s.sampler.saw_prompt(s.tokens);
    replay(s);
    scheduler_.add(s);
    sequences_.emplace(handle, std::move(sequence));
    return handle;
}

base::Result<void> Engine::replay_grammar(Sequence& s) const {
    if (!s.matcher) return {};
    if (!s.job.stops.empty() && !s.job.may_cut)
        return base::fail(base::Errc::invalid, "stop_sequences: not beside a grammar, which they cut");
    for (const Token token : s.job.produced)
        if (!s.matcher->accept(token, vocabulary_.bytes(token)))
            return base::fail(base::Errc::invalid,
                              fmt::format("produced: token {} does not fit the grammar", token));
    const uint64_t needed = s.job.produced.size() + s.matcher->tokens_least();
    if (s.produced_max > 0 && needed > s.produced_max)
        return base::fail(base::Errc::invalid,
                          fmt::format("max_tokens: {} are left for the answer, and the shortest that "
                                      "fits the grammar may need {}",
                                      s.produced_max, needed));
    return {};
}

// Brings penalties, stop matcher, text and the random position to where the earlier attempt was.
void Engine::replay(Sequence& s) {
    for (const Token token : s.job.produced) {
        s.tokens.push_back(token);
        s.sampler.produced(token);
        if (vocabulary_.ends_answer(token))
            s.ended = Finish::end_turn;
        else if (s.text.replay(vocabulary_.bytes(token)))
            s.ended = Finish::stop_sequence;
        if (s.ended) break;
    }
    s.text_seen = s.job.released > 0;
    if (!s.ended && s.matcher && s.matcher->over()) s.ended = Finish::end_turn;
    if (!s.ended && s.produced() > 0 && s.produced() >= s.produced_max)
        s.ended = s.clamped ? Finish::context_full : Finish::max_tokens;
    s.job.produced.clear();
    s.job.produced.shrink_to_fit();
}

std::optional<Finished> Engine::cancel(Handle handle) {
    const auto found = sequences_.find(handle);
    if (found == sequences_.end()) return std::nullopt;
    Finished summed = summary(*found->second);
    drop(*found->second);
    return summed;
}

void Engine::grant(Handle handle, int64_t credit) {
    const auto found = sequences_.find(handle);
    if (found != sequences_.end()) found->second->credit += credit;
}

void Engine::correct(Handle handle, double tag) {
    const auto found = sequences_.find(handle);
    if (found != sequences_.end()) scheduler_.flows().correct(*found->second->flow, tag);
}

Finished Engine::summary(const Sequence& s) const {
    Finished f;
    f.prompt_tokens = s.prompt_tokens;
    f.output_tokens = s.produced();
    f.reuse = reuse(s);
    f.cost_s = s.cost_s;
    f.drafted_tokens = s.drafted;
    f.accepted_tokens = s.accepted;
    return f;
}

// A continuation finds its answer's blocks too: only those of the prompt are told.
Reuse Engine::reuse(const Sequence& s) const {
    Reuse reuse;
    if (options_.prefix_blocks == 0) return reuse;
    reuse.read_tokens = std::min(s.reused_first, s.prompt_tokens);
    if (!s.job.tenant.empty())
        reuse.stored_tokens =
            std::max(s.prompt_tokens / kBlockTokens * kBlockTokens, reuse.read_tokens);
    return reuse;
}

// Frees all that the sequence holds. It may stand in the plan that is being worked off.
void Engine::drop(Sequence& sequence) {
    scheduler_.remove(sequence);
    if (draft_model_) draft_model_->forget(sequence.handle);
    for (Rows& rows : plan_.rows)
        if (rows.sequence == &sequence) rows.sequence = nullptr;
    for (Sequence*& admitted : plan_.admitted)
        if (admitted == &sequence) admitted = nullptr;
    sequences_.erase(sequence.handle);
}

void Engine::out(Sequence& s, int64_t now_ns) {
    if (!s.text.take(piece_)) return;
    s.text_seen = true;
    sink_.text(s.handle, piece_, now_ns);
}

void Engine::finish(Sequence& s, Finish reason, int64_t now_ns) {
    const Handle handle = s.handle;
    if (!s.text.stopped()) s.text.finish();
    out(s, now_ns);
    if (sequences_.count(handle) == 0) return;  // cancelled by the sink
    Finished f = summary(s);
    f.reason = reason;
    if (s.text.stopped()) {
        f.reason = Finish::stop_sequence;
        f.stop_sequence = s.text.matched();
    }
    drop(s);
    sink_.finished(handle, f);
}

void Engine::fail(Sequence& s, base::Error error) {
    const Handle handle = s.handle;
    const Finished f = summary(s);
    drop(s);
    sink_.failed(handle, {std::move(error), f.prompt_tokens, f.output_tokens, f.cost_s, f.reuse,
                          f.drafted_tokens, f.accepted_tokens});
}

uint32_t Engine::rows_for(int64_t target_ms, const IterationLoad& decodes,
                          uint32_t position) const {
    if (target_ms <= 0) return options_.rows_max;
    if (!cost_.prefill_known()) return std::min(kRowsFirst, options_.rows_max);
    double budget_s = static_cast<double>(target_ms) * 1e-3;
    uint32_t step = kBlockTokens;
    if (options_.prefill_slowdown > 0 && decodes.decode_rows > 0) {
        const double free_s = static_cast<double>(options_.prefill_free_ms) * 1e-3;
        const double alone_s = cost_.seconds(decodes);
        budget_s = std::min(budget_s, std::max(options_.prefill_slowdown * alone_s, free_s));
        // Where the decode rows alone pass the target, prompts would starve at half a page each time.
        budget_s = std::max(budget_s, std::min(options_.prefill_slowdown, kPrefillLeast) * alone_s);
        step = kBlockTokens / 2;
    }
    return cost_.prefill_rows(decodes, position, budget_s, step, options_.rows_max);
}

void Engine::run_forward() {
    chunks_.clear();
    size_t wanted = 0;
    for (const Rows& rows : plan_.rows) {
        if (rows.sequence == nullptr) continue;
        const Sequence& s = *rows.sequence;
        // A prompt that is only run needs no logits.
        const uint32_t logit_rows = rows.samples && s.produced_max > 0 ? 1 + rows.drafts : 0;
        chunks_.push_back({rows.drafts > 0 ? std::span(s.draft).first(1 + rows.drafts)
                                           : std::span(s.tokens).subspan(s.computed, rows.count),
                           s.computed, s.blocks, logit_rows});
        wanted += logit_rows;
    }
    const size_t vocab = forward_.vocab_size();
    if (logits_.size() < wanted * vocab) logits_.resize(wanted * vocab);
    std::span<float> logits(logits_.data(), wanted * vocab);
    if (!chunks_.empty()) forward_.run(chunks_, logits);

    outcomes_.assign(plan_.rows.size(), {});
    for (size_t i = 0; i < plan_.rows.size(); ++i) {
        const Rows& rows = plan_.rows[i];
        if (rows.sequence == nullptr) continue;
        Sequence& s = *rows.sequence;
        s.computed += rows.count;
        if (rows.samples && s.produced_max > 0) {
            const uint64_t accepted = s.accepted;
            outcomes_[i] = choose(s, rows, logits);
            if (rows.drafts > 0 && s.model_guessed)
                draft_model_->judge(s.handle, rows.drafts, static_cast<uint32_t>(s.accepted - accepted));
            logits = logits.subspan((1 + rows.drafts) * vocab);
        }
        s.draft.clear();
        scheduler_.advanced(s);  // of guessed tokens only those that came true are computed
    }
}

// The tokens that `rows` yield, one more than guesses came true. Each is picked in the state that
// the one before it has left.
Engine::Outcome Engine::choose(Sequence& s, const Rows& rows, std::span<float> logits) {
    const size_t vocab = forward_.vocab_size();
    drafted_ += rows.drafts;
    s.drafted += rows.drafts;
    for (uint32_t i = 0;; ++i) {
        std::span<const uint64_t> allowed;
        if (s.matcher) allowed = s.matcher->mask(s.produced_max - s.produced());
        const Token token =
            s.sampler.pick(logits.subspan(i * vocab, vocab), s.produced(), scratch_, allowed);
        const Outcome outcome = accept(s, token);
        if (outcome.finish || outcome.failure != nullptr) return outcome;
        if (i == rows.drafts || token != s.draft[i + 1]) return outcome;
        ++s.computed;
        ++s.accepted;
        ++accepted_;
    }
}

Engine::Outcome Engine::accept(Sequence& s, Token token) {
    if (token == kNoToken) return {{}, "the model gave no number for any token"};
    if (s.matcher && !s.matcher->accept(token, vocabulary_.bytes(token)))
        return {{}, "the grammar allowed no token"};
    s.tokens.push_back(token);
    s.sampler.produced(token);
    if (vocabulary_.ends_answer(token)) return {Finish::end_turn};
    if (s.text.feed(token, vocabulary_.bytes(token))) return {Finish::stop_sequence};
    // Complete: no token to say so is asked of the model.
    if (s.matcher && s.matcher->over()) return {Finish::end_turn};
    if (s.produced() >= s.produced_max)
        return {s.clamped ? Finish::context_full : Finish::max_tokens};
    return {};
}

void Engine::account(int64_t started_ns, int64_t now_ns) {
    const double spent_s = static_cast<double>(now_ns - started_ns) * 1e-9 - drafting_s_;
    IterationLoad all;
    std::vector<std::pair<Sequence*, IterationLoad>> loads;
    for (const Rows& rows : plan_.rows) {
        if (rows.sequence == nullptr) continue;
        const bool decode = rows.count == 1 && rows.samples;
        IterationLoad load = IterationLoad::of(rows.position, rows.count, decode);
        load.draft_rows = rows.drafts;
        loads.emplace_back(rows.sequence, load);
        all += load;
    }
    cost_.observe(all, spent_s);
    const double total = all.decode_rows + all.prefill_rows;
    double shares = 0;
    for (const auto& [sequence, load] : loads) shares += cost_.share(load, total);
    double online_s = 0, batch_s = 0;
    for (const auto& [sequence, load] : loads) {
        const double part = shares > 0 ? cost_.share(load, total) / shares
                                       : (load.decode_rows + load.prefill_rows) / total;
        sequence->cost_s += spent_s * part;
        (sequence->job.priority == Priority::batch ? batch_s : online_s) += spent_s * part;
        Flows::charge(*sequence->flow, spent_s * part);
    }
    scheduler_.spent(online_s, batch_s);
    busy_s_ += spent_s;
    ++iterations_;
    decode_rows_ += static_cast<uint64_t>(all.decode_rows);
    prefill_rows_ += static_cast<uint64_t>(all.prefill_rows);
    longest_ns_ = std::max(longest_ns_, now_ns - started_ns);
}

void Engine::conclude(Sequence& s, const Outcome& outcome, int64_t now_ns) {
    if (outcome.failure != nullptr)
        fail(s, {base::Errc::internal, outcome.failure});
    else if (outcome.finish)
        finish(s, *outcome.finish, now_ns);
    else
        out(s, now_ns);
}

bool Engine::step() {
    const int64_t started_ns = clock_.mono_ns();
    const size_t before = sequences_.size();
    check_times(started_ns);
    scheduler_.take_turns(cost_, started_ns);
    IterationLoad decodes;
    uint32_t position = 0;  // of the furthest prompt: its rows are the dearest
    for (const Sequence* s : scheduler_.running()) {
        if (s->held() || s->yields) continue;
        if (s->prefilling())
            position = std::max(position, s->computed);
        else if (s->decodes())
            decodes += IterationLoad::of(s->computed, 1, true);
    }
    draft(decodes);
    // Where nothing decodes no reader waits for the next token: few rows only lengthen the prompt.
    const uint32_t alone_rows = std::max(rows_for(options_.alone_target_ms, {}, position),
                                         std::min(kRowsFirst, options_.rows_max));
    scheduler_.plan(rows_for(options_.prefill_target_ms, decodes, position), alone_rows, plan_);
    for (const BlockCopy& copy : plan_.copies) forward_.copy_block(copy.from, copy.to);
    for (size_t i = 0; i < plan_.admitted.size(); ++i)
        if (const Sequence* s = plan_.admitted[i]; s != nullptr) {
            sink_.admitted(s->handle, s->prompt_tokens);
            // What an earlier attempt produced is said before a token is added: it may be all there is to say.
            if (plan_.admitted[i] != nullptr) out(*plan_.admitted[i], started_ns);
        }
    if (std::all_of(plan_.rows.begin(), plan_.rows.end(),
                    [](const Rows& rows) { return rows.sequence == nullptr; }))
        return sequences_.size() != before || scheduler_.yielding();  // the one made way for gave way itself

    run_forward();
    const int64_t now_ns = clock_.mono_ns();
    account(started_ns, now_ns);

    // A sink may cancel any of them meanwhile, and then only the pointer goes.
    for (size_t i = 0; i < plan_.rows.size(); ++i) {
        Sequence* s = plan_.rows[i].sequence;
        if (s == nullptr || !plan_.rows[i].samples) continue;
        if (s->produced_max > 0)
            conclude(*s, outcomes_[i], now_ns);
        else
            finish(*s, Finish::max_tokens, now_ns);
    }
    return true;
}

EngineStats Engine::stats() const {
    EngineStats out;
    out.running = static_cast<uint32_t>(scheduler_.running().size());
    out.waiting = static_cast<uint32_t>(scheduler_.waiting().size());
    for (const auto& [handle, s] : sequences_) {
        out.held += s->held();
        out.resting += s->rests;
        out.waiting_tokens += s->tokens.size() - s->computed;
    }
    out.slots_max = options_.slots_max;
    out.queue_max = options_.queue_max;
    out.kv_blocks = scheduler_.pool().blocks_max();
    out.kv_blocks_free = scheduler_.blocks_free();
    out.prefix_blocks = scheduler_.prefixes().known();
    out.prefix_blocks_unused = scheduler_.prefixes().unused();
    out.prefix_hit_tokens = scheduler_.hit_tokens();
    out.prefix_sought_tokens = scheduler_.sought_tokens();
    out.prefix_evicted = scheduler_.prefixes().evicted();
    out.prefix_copied = scheduler_.copied();
    out.iterations = iterations_;
    out.decode_rows = decode_rows_;
    out.prefill_rows = prefill_rows_;
    out.preempted = scheduler_.preempted();
    out.drafted_tokens = drafted_;
    out.accepted_tokens = accepted_;
    out.busy_s = busy_s_;
    out.prefill_row_s = cost_.prefill_row_s(kRowsFirst);
    out.longest_iteration_ns = longest_ns_;
    return out;
}

int64_t Engine::take_longest_ns() {
    const int64_t longest = longest_ns_;
    longest_ns_ = 0;
    return longest;
}

double Engine::cost_s(Handle handle) const {
    const auto found = sequences_.find(handle);
    return found == sequences_.end() ? 0.0 : found->second->cost_s;
}

Reuse Engine::reuse(Handle handle) const {
    const auto found = sequences_.find(handle);
    return found == sequences_.end() ? Reuse{} : reuse(*found->second);
}

}  // namespace parley::engine
