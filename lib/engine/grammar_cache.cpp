#include "engine/grammar_cache.hpp"

#include "grammar/schema.hpp"

namespace parley::engine {
namespace {

// So that the loop does not stall at the first masks, milliseconds each where nearly every token fits. An
// outcome is a bit a token: 6 KB.
constexpr size_t kWarmOutcomesMax = 256;
constexpr int64_t kWarmNs = 50'000'000;

class GrammarVocabulary final : public grammar::Vocabulary {
  public:
    explicit GrammarVocabulary(const model::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    uint32_t size() const override { return tokenizer_.vocab_size(); }
    std::string_view bytes(int32_t token) const override { return tokenizer_.bytes(token); }
    bool ends_answer(int32_t token) const override { return tokenizer_.is_end_of_generation(token); }

  private:
    const model::Tokenizer& tokenizer_;
};

}  // namespace

GrammarCache::Grammar GrammarCache::find(std::string_view key) {
    const std::lock_guard lock(mutex_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->second;
}

base::Result<GrammarCache::Grammar> GrammarCache::get(const std::string& schema) {
    return get(schema, [&] { return grammar::compile_schema(schema); });
}

base::Result<GrammarCache::Grammar> GrammarCache::get(const std::string& key,
                                                      const Compile& compile) {
    if (auto known = find(key)) return known;
    auto automaton = compile();
    if (!automaton) return base::fail(automaton.error());
    std::shared_ptr<const grammar::Trie> trie;
    {
        // Who comes second waits: making it twice would take longer.
        const std::lock_guard lock(mutex_);
        if (!trie_) trie_ = std::make_shared<const grammar::Trie>(GrammarVocabulary(tokenizer_));
        trie = trie_;
    }
    auto made = grammar::TokenGrammar::create(std::move(*automaton), std::move(trie));
    if (!made) return base::fail(made.error());
    (*made)->warm(kWarmOutcomesMax, kWarmNs);
    const std::lock_guard lock(mutex_);
    if (by_key_.count(key) == 0) {
        entries_.emplace_front(key, *made);
        by_key_.emplace(entries_.front().first, entries_.begin());
        if (entries_.size() > kept_) {
            by_key_.erase(entries_.back().first);
            entries_.pop_back();
        }
    }
    return *made;
}

size_t GrammarCache::size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
}

}  // namespace parley::engine
