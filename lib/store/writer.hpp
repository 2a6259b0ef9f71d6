// Writer: the only hand that changes the store. Many commands, one transaction, one fsync.
//
// Owns         the environment read-write and STORE/writer.lock; a second writer gets
// Errc::conflict
//              naming the pid of the first.
// Apply        commands run in their order; each succeeds or is refused alone, and a refused one
// leaves
//              nothing. apply() returns after the commit is durable: then, and only then, replies
//              may go out.
// Resend       (boot, seq) of an asker names a command. The reply is committed with it and kept for
// the
//              asker's last 1,024 numbers; the same pair again gets the first reply, without
//              effect.
// Full         map full, disk full: the batch is undone and tried command by command; those that
// still do
//              not fit are refused with Errc::again, and are not remembered: a resend tries anew.
// Errors       apply() itself fails only when the disk does (Errc::io, Errc::corrupt in a row it
// must
//              read is a refusal of that command): close the writer and open it again.
// Ids          ULIDs rise over every restart and clock step; the newest is durable.
// Threads      one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "store/env.hpp"
#include "store/rows.hpp"

namespace parley::store {

inline constexpr uint64_t kReplyWindow = 1024;

struct WriterOptions {
    EnvOptions env;
    int64_t idem_ttl_ms = 25ll * 3600 * 1000;
    int64_t journal_ttl_ms = 24ll * 3600 * 1000;  // after the end of the answer
    int64_t feed_ttl_ms = 7ll * 24 * 3600 * 1000;
    int64_t batch_ttl_ms = 29ll * 24 * 3600 * 1000;  // from its creation: then batch and results go
    size_t gc_rows_max = 1000;  // looked at per gc command
    size_t command_bytes_max = 8u << 20;
};

struct Command {
    std::string boot;       // of the asker, 1…64 bytes; "" = not resend-safe (in-process callers)
    uint64_t seq = 0;       // from 1, rising
    std::string_view json;  // must outlive apply()
};

struct Outcome {
    std::string json;  // the reply object
    bool refused = false;
    Errc code = Errc::internal;  // when refused
    bool resent = false;         // the first reply again
    uint64_t change_seq = 0;     // newest change in the log after this batch
};

class Writer {
  public:
    // Makes directory (0700), pepper and tables where missing.
    static Result<std::unique_ptr<Writer>> open(const WriterOptions& options,
                                                const base::Clock& clock = base::system_clock());
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    Result<std::vector<Outcome>> apply(std::span<const Command> commands);
    // One command of our own.
    Result<Outcome> apply_one(std::string_view json);

    // Changes of the last apply(), in order: what to publish.
    const std::vector<Change>& published() const;
    uint64_t last_change() const;
    const std::shared_ptr<Env>& env() const;

  private:
    struct Impl;
    explicit Writer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::store
