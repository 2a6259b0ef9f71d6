// Any bytes as a JSON Schema and as a plain grammar: refused, or texts of it can be made to the end
// within the tokens that it says suffice.
#include <cstdlib>
#include <string>

#include "grammar/mask.hpp"
#include "grammar/plain.hpp"
#include "grammar/schema.hpp"
#include "grammar/vocabularies.hpp"
#include "replay_main.hpp"

namespace {

using namespace parley;

void try_one(base::Result<grammar::Automaton> automaton, uint64_t seed) {
    static const test::ByteVocabulary vocabulary;
    static const auto trie = std::make_shared<const grammar::Trie>(vocabulary);
    if (!automaton) return;
    const auto made = grammar::TokenGrammar::create(std::move(*automaton), trie);
    if (!made) return;
    grammar::Matcher matcher(*made);
    uint64_t budget = (*made)->tokens_least() + seed % 32;
    if (budget > 300 || matcher.tokens_least() != (*made)->tokens_least()) return;
    for (; budget > 0 && !matcher.over(); --budget) {
        const auto mask = matcher.mask(budget);
        const auto count = static_cast<uint32_t>(vocabulary.size());
        uint32_t token = static_cast<uint32_t>((seed >> 16) % count);
        uint32_t looked = 0;
        while (looked < count && !test::allowed(mask, static_cast<int32_t>(token))) {
            token = (token + 1) % count;
            ++looked;
        }
        if (matcher.narrowed()) return;  // no promise holds past the bound
        if (looked == count) std::abort();
        const auto id = static_cast<int32_t>(token);
        if (!matcher.accept(id, vocabulary.bytes(id))) {
            if (matcher.narrowed()) return;
            std::abort();
        }
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    }
    if (!matcher.finished()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    uint64_t seed = 14695981039346656037ull;
    for (const char c : text) seed = (seed ^ static_cast<uint8_t>(c)) * 1099511628211ull;
    grammar::SchemaOptions options;
    options.limits.work_max = 200'000;
    options.limits.states_max = 4'000;
    options.limits.parts_max = 40'000;
    options.spaces = size % 2 == 1;
    try_one(grammar::compile_schema(text, options), seed);
    try_one(grammar::compile_plain(text, options.limits), seed);
    return 0;
}
