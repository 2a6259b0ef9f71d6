// Indexer: the follower that keeps the index: changes of the store into words.
//
// Rebuild    reads all conversations into a fresh index and puts it in place of the old one, which goes
//            on answering meanwhile; the changes since are then followed. Where the index is damaged,
//            missing or older than the log reaches, that happens by itself.
// Commit     at the latest commit_ms after a change, or at commit_documents; the checkpoint goes with it. A
//            kill costs nothing: what was not committed is followed again.
// Erased     a user's erasure removes his words, and the index is rebuilt, so that no file holds them.
// Errors     the store's; Errc::io when the disk of the index fails
// Threads    one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "search/index.hpp"
#include "store/env.hpp"
#include "store/follower.hpp"
#include "store/reader.hpp"

namespace parley::search {

struct IndexerOptions {
    std::string dir;
    std::string store_dir;
    std::string changes_endpoint;  // "" = poll only
    int64_t commit_ms = 250;
    uint64_t commit_documents = 5000;
    int64_t poll_ms = 1000;
    // What an operator should know: an event of the log and its detail.
    std::function<void(std::string_view event, const std::string& detail)> tell =
        [](std::string_view, const std::string&) {};
};

class Indexer {
  public:
    // Errc::unavailable while there is no store.
    static base::Result<std::unique_ptr<Indexer>> open(IndexerOptions options);
    ~Indexer();

    // `keep_on` is asked between conversations; false leaves everything as it was (Errc::cancelled).
    base::Result<void> rebuild(const std::function<bool()>& keep_on);
    // Some changes, and a commit where it is due. True: there was something; call again at once.
    base::Result<bool> step();
    base::Result<void> flush();  // commits what is not yet
    // Waits for changes, `extra_fd`, or the time at which step() has to commit.
    void wait(int extra_fd);
    bool wants_rebuild() const;  // asked for, or needed since a user was erased
    uint64_t seq() const;        // followed up to here
    uint64_t documents() const;

  private:
    struct Impl;
    explicit Indexer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::search
