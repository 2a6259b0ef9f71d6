// Searcher: one search from its words to what a client sees, in steps that may run in two threads.
//
//   gather   the caller's messages after the index's checkpoint    where the store's Reader lives
//   find     over the index and those                              where the Index lives
//   fetch    the rows of the hits                                  where the Reader lives
//   show     the snippets                                          anywhere
//
// Visible    what a send or an answer's end has committed before gather() is found, indexed or not. What
//            the store does not have any more, or has under another user, is not shown: deleted is gone at
//            once. A page may so hold fewer results than its limit.
// Errors     Errc::again: the follower is so far behind that more than kTailMax of this caller's changes are
//            not in the index yet; try later
#pragma once

#include "search/index.hpp"
#include "store/reader.hpp"

namespace parley::search {

inline constexpr size_t kTailMax = 2000;
inline constexpr size_t kSnippetBytes = 200;

struct Shown {
    Ulid conv, message;
    std::string title;
    std::string role;
    std::string text;     // of the message, until show() makes the snippet of it
    std::string snippet;  // HTML: only <mark> is markup
    double score = 0;
    int64_t created_ms = 0;
};

base::Result<std::vector<Document>> gather(store::Reader& reader, const Ulid& org, const Ulid& user,
                                           uint64_t after);
base::Result<std::vector<Shown>> fetch(store::Reader& reader, const Ulid& org, const Ulid& user,
                                       const std::vector<Hit>& hits);
void show(std::vector<Shown>& results, const Query& query);
// {"data":[…],"has_more","next_cursor"}
std::string results_json(const std::vector<Shown>& results, const Found& found);

}  // namespace parley::search
