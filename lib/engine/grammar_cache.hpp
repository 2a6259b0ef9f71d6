// GrammarCache: grammars compiled for one model's vocabulary, the last used kept.
//
// Key      what the caller names it by: a schema's text, byte for byte. What fails is not kept.
// Owns     the trie over the vocabulary, made by the first call that needs it, and up to `kept` grammars;
//          one that was dropped lives on in the answers that hold it.
// Errors   those of whatever compiles, and of TokenGrammar::create().
// Threads  any may call. A grammar it gives out belongs to the engine's thread (grammar/mask.hpp): the
//          cache itself never touches it again.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/result.hpp"
#include "grammar/mask.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

class GrammarCache {
  public:
    using Grammar = std::shared_ptr<const grammar::TokenGrammar>;

    // `tokenizer` outlives it. kept ≥ 1.
    GrammarCache(const model::Tokenizer& tokenizer, size_t kept)
        : tokenizer_(tokenizer), kept_(kept) {}

    using Compile = std::function<base::Result<grammar::Automaton>()>;

    Grammar find(std::string_view key);  // null: not there
    // Takes up to half a second for a schema at the limits, 50 ms more for masks worked out ahead, and some
    // tens of milliseconds for the trie at the first call.
    base::Result<Grammar> get(const std::string& key, const Compile& compile);
    base::Result<Grammar> get(const std::string& schema);  // a JSON Schema is its own key
    size_t size() const;

  private:
    using Entry = std::pair<std::string, Grammar>;

    const model::Tokenizer& tokenizer_;
    const size_t kept_;
    mutable std::mutex mutex_;
    std::shared_ptr<const grammar::Trie> trie_;
    std::list<Entry> entries_;  // last used first
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
};

}  // namespace parley::engine
