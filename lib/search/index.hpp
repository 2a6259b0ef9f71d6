// Index: the words of all messages on disk (Xapian), one writer, any number of readers.
//
// Own only   every term carries the number of its user in front, so that a search walks over the words of
//            this one user and of nobody else; a prefix cannot grow into another's words, nor can the
//            ranking tell of them.
// Folder     DIR/current names the folder of the index in use (replaced by rename); DIR/rebuild.wanted asks
//            the writer to make a new one. An index is a projection: it may be dropped at any time.
// Checkpoint seq() is the change up to which everything is in; committed together with the words.
// Errors     Errc::unavailable  there is no index yet: `convstore index` makes it
//            Errc::corrupt      it is damaged: `convstore index --rebuild`; a reader asks for that itself
//            Errc::invalid      a cursor that is not ours, or of another query
// Threads    one per object; readers and the writer may be in different processes.
// Bounds     a message's first text_bytes_max bytes are found; a page has at most kHitsMax hits, and a
//            query is followed to its kDepthMax-th hit; a prefix to its 200 most frequent words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "search/query.hpp"
#include "store/ids.hpp"

namespace parley::search {

using store::Ulid;

inline constexpr size_t kTextBytesMax = 64u << 10;
inline constexpr size_t kHitsMax = 100;
inline constexpr size_t kDepthMax = 10'000;

struct Document {
    Ulid user, conv, message;
    std::string text;
};

struct Hit {
    Ulid conv, message;
    double score = 0;
};

struct Found {
    std::vector<Hit> hits;  // best first; of equals the newest
    bool has_more = false;
    std::string next_cursor;  // "" when there is no more
};

class IndexWriter {
  public:
    // Opens DIR/current, or makes an empty index where there is none.
    static base::Result<std::unique_ptr<IndexWriter>> open(const std::string& dir);
    // A new, empty one; readers see it from publish() on.
    static base::Result<std::unique_ptr<IndexWriter>> fresh(const std::string& dir);
    ~IndexWriter();

    base::Result<void> put(const Document& document);  // instead of what the message had
    base::Result<void> add(const Document& document);  // of a message that is known not to be in
    base::Result<void> remove_conversation(const Ulid& conv);
    base::Result<void> remove_user(const Ulid& user);
    base::Result<void> remove_message(const Ulid& message);
    // Everything so far, durable, with the checkpoint.
    base::Result<void> commit(uint64_t seq);
    uint64_t seq() const;         // as of the last commit
    uint64_t documents() const;
    base::Result<void> publish();  // of a fresh one: commits nothing; removes the ones before

  private:
    struct Impl;
    explicit IndexWriter(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

class Index {
  public:
    static base::Result<std::unique_ptr<Index>> open(const std::string& dir);
    ~Index();

    // Takes up what was committed since. Cheap; before each search.
    base::Result<void> refresh();
    uint64_t seq() const;
    uint64_t documents() const;
    // `tail`: messages after the checkpoint, searched along with the rest. `cursor`: next_cursor of the
    // same query and user, "" = from the start; what was sent since the first page does not shift it.
    base::Result<Found> find(const Ulid& user, const Query& query, size_t limit,
                             std::string_view cursor, const std::vector<Document>& tail = {});

  private:
    struct Impl;
    explicit Index(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

std::string rebuild_wanted_path(const std::string& dir);

}  // namespace parley::search
