// The guesses of an iteration: from the sequences' own texts, then from the draft model.
#include <algorithm>

#include "engine/engine.hpp"

namespace parley::engine {

using model::Token;

// Guesses for those that decode, as many as pay, and their load. A guess that is not computed in
// this iteration after all is made anew in the next.
void Engine::draft(IterationLoad& decodes) {
    drafting_s_ = 0;
    if (options_.speculate_max == 0) return;
    guesses_.clear();
    guessed_.clear();
    for (Sequence* s : scheduler_.running()) {
        s->draft.clear();
        if (!s->decodes()) continue;
        s->speculator.follow(s->tokens);
        // The row of the last token yields one without a guess.
        const uint32_t left = s->produced_max - std::min(s->produced_max, s->produced());
        const uint32_t most = std::min(options_.speculate_max, std::max(left, 1u) - 1);
        if (most == 0 || !s->speculator.guesses()) continue;
        guesses_.push_back({&s->speculator, most, 0});
        guessed_.push_back(s);
    }
    draft_budget_.share(cost_, decodes, guesses_,
                        static_cast<double>(options_.itl_target_ms) * 1e-3);
    for (size_t i = 0; i < guesses_.size(); ++i) {
        if (guesses_[i].rows == 0) continue;
        Sequence& s = *guessed_[i];
        s.draft.push_back(s.tokens.back());
        s.speculator.draft(s.tokens, guesses_[i].rows, s.draft);
        keep_draft(s, decodes);
    }
    if (draft_model_) draft_by_model(decodes);
}

void Engine::keep_draft(Sequence& s, IterationLoad& decodes) const {
    // What would follow the end of an answer is never asked for.
    const auto end = std::find_if(s.draft.begin() + 1, s.draft.end(),
                                  [&](Token token) { return vocabulary_.ends_answer(token); });
    s.draft.erase(end, s.draft.end());
    decodes.draft_rows += static_cast<double>(s.draft.size() - 1);
}

// For those that have no guess from their own text. Its time is theirs, in equal parts: it is no part of
// what the cost model learns from.
void Engine::draft_by_model(IterationLoad& decodes) {
    std::vector<DraftModel::Want> wants;
    std::vector<Sequence*> of;
    for (Sequence* s : scheduler_.running()) {
        s->model_guessed = false;
        const uint32_t left = s->produced_max - std::min(s->produced_max, s->produced());
        if (!s->decodes() || !s->draft.empty() || left < 2) continue;
        wants.push_back({s->handle, s->tokens, std::min(options_.speculate_max, left - 1), {}});
        of.push_back(s);
    }
    const double most_s = static_cast<double>(options_.itl_target_ms) * 1e-3;
    const uint32_t count = draft_model_->worth(cost_, decodes, wants, most_s);
    if (count == 0) return;
    for (DraftModel::Want& want : wants) want.most = std::min(want.most, count);
    const int64_t started_ns = clock_.mono_ns();
    draft_model_->draft(wants);
    drafting_s_ = static_cast<double>(clock_.mono_ns() - started_ns) * 1e-9;
    draft_model_->took(drafting_s_);
    busy_s_ += drafting_s_;
    for (size_t i = 0; i < wants.size(); ++i) {
        Sequence& s = *of[i];
        const double part_s = drafting_s_ / static_cast<double>(wants.size());
        s.cost_s += part_s;
        Flows::charge(*s.flow, part_s);
        if (wants[i].guessed.empty()) continue;
        s.model_guessed = true;
        s.draft.push_back(s.tokens.back());
        s.draft.insert(s.draft.end(), wants[i].guessed.begin(), wants[i].guessed.end());
        keep_draft(s, decodes);
    }
}

}  // namespace parley::engine
