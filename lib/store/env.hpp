// Env: the LMDB environment of a process, its tables, and transactions with owners.
//
// One        per process and directory; opened after fork, never used across one.
// Owns       the map. Values read are copies made by record decoding; LMDB pointers stay inside a
// call. Threads    read transactions from any thread (NOTLS), each used by one; write transactions
// from the
//            writer's thread only.
// Grow       the map is sparse and reserved big. Where another process grew it (MDB_MAP_RESIZED)
// the Env
//            takes the new size between calls and the call begins again.
// Errors     full reader table → unavailable, map or disk full → again, bad value → corrupt, disk →
// io.
#pragma once

#include <lmdb.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>

#include "store/rows.hpp"
#include "store/user_keys.hpp"

namespace parley::store {

// In this order the tables are listed everywhere.
enum class Table : uint8_t {
    conv,
    conv_user,
    msg,
    child,
    idem,
    idem_exp,
    stream,
    sdelta,
    feed,
    changes,
    usage_log,
    usage,
    apikey,
    org,
    user,
    session,
    model,
    alias,
    batch,
    batch_item,
    read,
    reply,
    trash,
    meta,
};
inline constexpr size_t kTables = 24;
std::string_view table_name(Table table);

struct EnvOptions {
    std::string dir;
    uint64_t map_bytes = 64ull << 30;  // sparse: costs address space, not disk
    uint32_t readers_max = 1024;       // said by whoever makes lock.mdb
    bool writable = false;
    std::string keys_dir = {};  // of the users' keys; "": DIR/keys
};

class Env {
  public:
    static Result<std::shared_ptr<Env>> open(const EnvOptions& options);
    ~Env();
    Env(const Env&) = delete;
    Env& operator=(const Env&) = delete;

    MDB_env* handle() const { return env_; }
    MDB_dbi dbi(Table table) const { return dbis_[static_cast<size_t>(table)]; }
    const EnvOptions& options() const { return options_; }
    const std::string& pepper() const { return pepper_; }
    UserKeys& user_keys() const { return *user_keys_; }

    // Frees the slots of dead readers; how many. The writer calls it each second.
    int reader_check();
    struct Info {
        uint64_t used_bytes = 0;  // pages in use of the file, free ones included
        uint64_t map_bytes = 0;
        uint32_t readers = 0;
        uint32_t readers_max = 0;
        uint64_t last_txn = 0;
        uint64_t oldest_reader_lag = 0;  // transactions that the oldest live reader is behind
    };
    Info info() const;
    // Hot copy into an existing empty directory, without the users' keys; compacted. A long reader while it runs.
    Result<void> copy_to(const std::string& dir, bool compact);

  private:
    friend class ReadTxn;
    Env() = default;
    Result<void> adopt_map_size();

    EnvOptions options_;
    MDB_env* env_ = nullptr;
    std::array<MDB_dbi, kTables> dbis_{};
    std::string pepper_;
    std::unique_ptr<UserKeys> user_keys_;
    std::shared_mutex
        resize_;  // shared: a read transaction lives; unique: the map is being replaced
};

Error lmdb_error(int rc, std::string doing);

// A read transaction; ends with the object.
class ReadTxn {
  public:
    static Result<ReadTxn> begin(Env& env);
    ReadTxn(ReadTxn&& other) noexcept;
    ReadTxn& operator=(ReadTxn&&) = delete;
    ~ReadTxn();
    MDB_txn* handle() const { return txn_; }

  private:
    ReadTxn(std::shared_lock<std::shared_mutex> lock, MDB_txn* txn)
        : lock_(std::move(lock)), txn_(txn) {}
    std::shared_lock<std::shared_mutex> lock_;
    MDB_txn* txn_;
};

// Walks one table in key order. Valid while its transaction lives; key() and value() point into the
// map until the next move or write.
class Cursor {
  public:
    static Result<Cursor> open(const Env& env, MDB_txn* txn, Table table);
    Cursor(Cursor&& other) noexcept;
    Cursor& operator=(Cursor&&) = delete;
    ~Cursor();
    bool seek(std::string_view at_least);      // first key >= it
    bool seek_before(std::string_view below);  // last key < it
    bool next();
    bool prev();
    bool first();
    bool last();
    std::string_view key() const;
    std::string_view value() const;
    Result<void> erase();  // the row it stands on; next() then gives the following one
    // Errc::ok is no error: `status` tells after a false whether the end or a failure was met.
    const std::optional<Error>& failure() const { return failure_; }

  private:
    explicit Cursor(MDB_cursor* cursor) : cursor_(cursor) {}
    bool move(MDB_cursor_op op);
    MDB_cursor* cursor_;
    MDB_val key_{};
    MDB_val value_{};
    std::optional<Error> failure_;
};

}  // namespace parley::store
