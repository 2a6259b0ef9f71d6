#include "store/env.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <mutex>
#include <utility>

#include "base/file.hpp"
#include "store/secret.hpp"

namespace parley::store {
namespace {

constexpr std::array<std::string_view, kTables> kNames = {
    "conv",  "conv_user", "msg",       "child",      "idem",   "idem_exp", "stream", "sdelta",
    "feed",  "changes",   "usage_log", "usage",      "apikey", "org",      "user",   "session",
    "model", "alias",     "batch",     "batch_item", "read",   "reply",    "trash",  "meta",
};

unsigned dbi_flags(Table table) { return table == Table::child ? MDB_DUPSORT | MDB_DUPFIXED : 0; }

// Made by whoever makes the store, before the first table: a reader that finds tables finds it too.
Result<void> make_pepper(const std::string& dir) {
    const std::string path = dir + "/pepper";
    if (::access(path.c_str(), F_OK) == 0) return {};
    std::string bytes(32, '\0');
    randombytes_buf(bytes.data(), bytes.size());
    return base::write_file(path, bytes, 0600);
}

}  // namespace

std::string_view table_name(Table table) { return kNames[static_cast<size_t>(table)]; }

Error lmdb_error(int rc, std::string doing) {
    switch (rc) {
        case MDB_NOTFOUND:
            return {Errc::not_found, doing + ": no such row"};
        case MDB_MAP_FULL:
            return {
                Errc::again,
                doing + ": the store's map is full: restart convstore with a larger --map-size"};
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
            return {Errc::again, doing + ": the disk is full: free some space, nothing was lost"};
        case MDB_READERS_FULL:
            return {Errc::unavailable,
                    doing + ": all reader slots are taken: too many processes read this store"};
        case MDB_TXN_FULL:
            return {Errc::too_large, doing + ": too much in one transaction"};
        case MDB_CORRUPTED:
        case MDB_PAGE_NOTFOUND:
        case MDB_INVALID:
        case MDB_VERSION_MISMATCH:
            return {Errc::corrupt, doing + ": " + mdb_strerror(rc)};
        case MDB_PANIC:
        case EIO:
            return {Errc::io, doing + ": " + mdb_strerror(rc)};
        default:
            if (rc > 0) return base::errno_error(rc, std::move(doing));
            return {Errc::internal, doing + ": " + mdb_strerror(rc)};
    }
}

Result<std::shared_ptr<Env>> Env::open(const EnvOptions& options) {
    const std::string data = options.dir + "/data.mdb";
    if (options.writable) {
        if (auto made = base::make_dirs(options.dir); !made) return fail(made.error());
        if (::chmod(options.dir.c_str(), 0700) != 0)
            return fail(
                base::errno_error(errno, fmt::format("cannot make '{}' private", options.dir)));
        if (auto made = make_pepper(options.dir); !made) return fail(made.error());
    } else if (::access(data.c_str(), F_OK) != 0) {
        return fail(
            Errc::unavailable,
            fmt::format("there is no store in '{}' yet: start convstore first", options.dir));
    }

    std::shared_ptr<Env> env(new Env());
    env->options_ = options;
    const std::string doing = fmt::format("cannot open store '{}'", options.dir);
    if (const int rc = mdb_env_create(&env->env_)) return fail(lmdb_error(rc, doing));
    mdb_env_set_maxdbs(env->env_, kTables + 8);
    mdb_env_set_maxreaders(env->env_, options.readers_max);
    mdb_env_set_mapsize(env->env_, options.map_bytes);
    // NOTLS: a slot belongs to a transaction, not to a thread. NORDAHEAD: keys are scattered.
    const unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (options.writable ? 0u : MDB_RDONLY);
    if (const int rc = mdb_env_open(env->env_, options.dir.c_str(), flags, 0600)) {
        if (rc == ENOMEM)
            return fail(Errc::config,
                        fmt::format("{}: no address space for a map of {} bytes: give a smaller "
                                    "--map-size",
                                    doing, options.map_bytes));
        return fail(lmdb_error(rc, doing));
    }

    MDB_txn* txn = nullptr;
    int rc = mdb_txn_begin(env->env_, nullptr, options.writable ? 0u : MDB_RDONLY, &txn);
    if (rc == MDB_MAP_RESIZED) {
        mdb_env_set_mapsize(env->env_, 0);
        rc = mdb_txn_begin(env->env_, nullptr, options.writable ? 0u : MDB_RDONLY, &txn);
    }
    if (rc) return fail(lmdb_error(rc, doing));
    for (size_t i = 0; i < kTables; ++i) {
        const unsigned open_flags =
            dbi_flags(static_cast<Table>(i)) | (options.writable ? MDB_CREATE : 0u);
        rc = mdb_dbi_open(txn, std::string(kNames[i]).c_str(), open_flags, &env->dbis_[i]);
        if (rc) {
            mdb_txn_abort(txn);
            if (rc == MDB_NOTFOUND)
                return fail(Errc::unavailable,
                            fmt::format("store '{}' lacks the table '{}': start convstore first",
                                        options.dir, kNames[i]));
            return fail(lmdb_error(rc, doing));
        }
    }
    // Commit also keeps the handles of a read-only transaction open.
    if ((rc = mdb_txn_commit(txn))) return fail(lmdb_error(rc, doing));

    auto pepper = read_pepper(options.dir);
    if (!pepper) return fail(doing, pepper.error());
    env->pepper_ = std::move(*pepper);
    auto keys = UserKeys::open(options.keys_dir.empty() ? options.dir + "/keys" : options.keys_dir,
                               options.writable);
    if (!keys) return fail(doing, keys.error());
    env->user_keys_ = std::move(*keys);
    return env;
}

Env::~Env() {
    if (env_) mdb_env_close(env_);
}

int Env::reader_check() {
    int dead = 0;
    mdb_reader_check(env_, &dead);
    return dead;
}

Env::Info Env::info() const {
    Info out;
    MDB_envinfo info{};
    MDB_stat stat{};
    mdb_env_info(env_, &info);
    mdb_env_stat(env_, &stat);
    out.used_bytes = (static_cast<uint64_t>(info.me_last_pgno) + 1) * stat.ms_psize;
    out.map_bytes = info.me_mapsize;
    out.readers = info.me_numreaders;
    out.readers_max = info.me_maxreaders;
    out.last_txn = info.me_last_txnid;
    struct Oldest {
        uint64_t last, lag;
    } oldest{info.me_last_txnid, 0};
    // The list comes as text, a line a reader: "pid thread txnid", where an idle one has "-".
    mdb_reader_list(
        env_,
        [](const char* line, void* context) {
            auto* state = static_cast<Oldest*>(context);
            unsigned long pid = 0, thread = 0, txn = 0;
            if (std::sscanf(line, "%lu %lx %lu", &pid, &thread, &txn) == 3 && txn < state->last)
                state->lag = std::max<uint64_t>(state->lag, state->last - txn);
            return 0;
        },
        &oldest);
    out.oldest_reader_lag = oldest.lag;
    return out;
}

Result<void> Env::copy_to(const std::string& dir, bool compact) {
    if (const int rc = mdb_env_copy2(env_, dir.c_str(), compact ? MDB_CP_COMPACT : 0))
        return fail(lmdb_error(rc, fmt::format("cannot copy the store to '{}'", dir)));
    return base::write_file(dir + "/pepper", pepper_, 0600);
}

Result<void> Env::adopt_map_size() {
    std::unique_lock<std::shared_mutex> alone(resize_);
    if (const int rc = mdb_env_set_mapsize(env_, 0))
        return fail(lmdb_error(rc, "cannot take over the new size of the map"));
    return {};
}

Result<ReadTxn> ReadTxn::begin(Env& env) {
    for (int attempt = 0;; ++attempt) {
        std::shared_lock<std::shared_mutex> lock(env.resize_);
        MDB_txn* txn = nullptr;
        const int rc = mdb_txn_begin(env.env_, nullptr, MDB_RDONLY, &txn);
        if (rc == MDB_SUCCESS) return ReadTxn(std::move(lock), txn);
        lock.unlock();
        if (rc == MDB_MAP_RESIZED && attempt < 3) {
            if (auto adopted = env.adopt_map_size(); !adopted) return fail(adopted.error());
            continue;
        }
        if (rc == MDB_READERS_FULL && attempt < 1 && env.reader_check() > 0) continue;
        return fail(lmdb_error(rc, "cannot begin a read"));
    }
}
ReadTxn::ReadTxn(ReadTxn&& other) noexcept
    : lock_(std::move(other.lock_)), txn_(std::exchange(other.txn_, nullptr)) {}
ReadTxn::~ReadTxn() {
    if (txn_) mdb_txn_abort(txn_);
}

Result<Cursor> Cursor::open(const Env& env, MDB_txn* txn, Table table) {
    MDB_cursor* cursor = nullptr;
    if (const int rc = mdb_cursor_open(txn, env.dbi(table), &cursor))
        return fail(lmdb_error(rc, fmt::format("cannot walk table '{}'", table_name(table))));
    return Cursor(cursor);
}
Cursor::Cursor(Cursor&& other) noexcept
    : cursor_(std::exchange(other.cursor_, nullptr)), key_(other.key_), value_(other.value_) {}
Cursor::~Cursor() {
    if (cursor_) mdb_cursor_close(cursor_);
}

bool Cursor::move(MDB_cursor_op op) {
    const int rc = mdb_cursor_get(cursor_, &key_, &value_, op);
    if (rc == MDB_SUCCESS) return true;
    if (rc != MDB_NOTFOUND) failure_ = lmdb_error(rc, "cannot walk a table");
    return false;
}
bool Cursor::seek(std::string_view at_least) {
    if (at_least.empty()) return first();
    key_ = {at_least.size(), const_cast<char*>(at_least.data())};
    return move(MDB_SET_RANGE);
}
bool Cursor::seek_before(std::string_view below) {
    return seek(below) ? prev() : !failure_ && last();
}
bool Cursor::next() { return move(MDB_NEXT); }
bool Cursor::prev() { return move(MDB_PREV); }
bool Cursor::first() { return move(MDB_FIRST); }
bool Cursor::last() { return move(MDB_LAST); }
std::string_view Cursor::key() const {
    return {static_cast<const char*>(key_.mv_data), key_.mv_size};
}
std::string_view Cursor::value() const {
    return {static_cast<const char*>(value_.mv_data), value_.mv_size};
}
Result<void> Cursor::erase() {
    if (const int rc = mdb_cursor_del(cursor_, 0))
        return fail(lmdb_error(rc, "cannot remove a row"));
    return {};
}

}  // namespace parley::store
