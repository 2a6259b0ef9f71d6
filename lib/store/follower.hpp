// Follower: every change once, in order, from a cursor of one's own.
//
// How        the log is the truth, the PUB socket only says that there is more: the follower always
//            reads rows after its position. A lost publication costs at most `poll_ms`, never a
//            change, and a restart of either side goes on where the cursor stands.
// Cursor     the seq of the last change handled. The caller keeps it (save_cursor: rename, synced)
// after
//            it has made its own effect durable.
// Errors     Errc::corrupt when the log has a hole: the cursor is older than the log, or it is
// damaged. Threads    one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "store/reader.hpp"

namespace parley::store {

struct FollowerOptions {
    std::string changes_endpoint;  // "" = poll only
    uint64_t after = 0;            // first change given is after + 1
    size_t batch_max = 512;
    int64_t poll_ms = 1000;
};

class Follower {
  public:
    // The reader must outlive it.
    static Result<std::unique_ptr<Follower>> open(Reader& reader, FollowerOptions options);
    ~Follower();

    // The next changes, at most batch_max; empty when there are none yet. Never waits.
    Result<std::vector<Change>> next();
    // Waits until something may have been committed, `extra_fd` (or -1) is readable, or poll_ms
    // passed.
    void wait(int extra_fd);
    int fd() const;  // readable when a commit was published; drained by next()
    uint64_t position() const;

  private:
    struct Impl;
    explicit Follower(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Part `index` of `count` of the log: the changes of the conversations whose id hashes to it (FNV-1a, 64
// bits, over the 16 bytes, modulo count), so that a conversation's order stays whole. Changes of no
// conversation belong to part 0.
struct Partition {
    uint32_t index = 0;
    uint32_t count = 1;
    // "k/n": n from 1 to 4096, k from 0 to n; n/n is the same as 0/n, so that one may count from 1.
    static Result<Partition> parse(std::string_view text);
    bool has(const Ulid& conv) const;
    bool has(const Change& change) const;
};

// The first line of the file, 0 when there is none; a caller may keep more below it.
Result<uint64_t> load_cursor(const std::string& path);
Result<void> save_cursor(const std::string& path, uint64_t seq);

}  // namespace parley::store
