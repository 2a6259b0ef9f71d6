// Query: what somebody typed into a search box, and what of a text it finds.
//
// Form     words, all of which must be there; "words in quotes" stand next to each other in this order;
//          word* finds every word that begins so. A word that is cut into several (snake_case, 日本) is a
//          phrase. An open quote goes to the end. Everything else separates words.
// Errors   Errc::invalid     nothing that can be searched for
//          Errc::too_large   over kQueryBytesMax or kQueryWordsMax
// Threads  values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::search {

inline constexpr size_t kQueryBytesMax = 1024;
inline constexpr size_t kQueryWordsMax = 32;

struct Clause {
    std::vector<std::string> words;  // folded; more than one: a phrase
    bool prefix = false;             // of a single word: what begins so
};

struct Query {
    std::vector<Clause> clauses;
    static base::Result<Query> parse(std::string_view text);
    // A canonical form: the same for queries that find the same.
    std::string text() const;
};

// HTML: the part of the text where the query shows most, `bytes` long or a little more, its matches in
// <mark>…</mark>, everything else escaped (& < > " '), runs of white space as one blank, … where it was cut.
// Where nothing matches (the text has changed since), the beginning.
std::string snippet(std::string_view text, const Query& query, size_t bytes, size_t text_bytes_max);

}  // namespace parley::search
