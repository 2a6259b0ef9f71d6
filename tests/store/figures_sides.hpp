// The sides of store_figures that are not the store: raw LMDB and SQLite, each writing rows it is given.
#pragma once

#include <lmdb.h>
#ifdef PARLEY_SQLITE
#include <sqlite3.h>
#endif

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "store/env.hpp"

namespace parley::store::figures {

[[noreturn]] inline void die(const std::string& what) {
    std::fprintf(stderr, "store_figures: %s\n", what.c_str());
    std::exit(1);
}
template <class T>
T need(Result<T> result, const char* doing) {
    if (!result) die(std::string(doing) + ": " + result.error().what);
    return std::move(*result);
}
inline double now_ms() { return static_cast<double>(base::system_clock().mono_ns()) / 1e6; }
inline double percentile(std::vector<double> values, double share) {
    if (values.empty()) return 0;
    std::ranges::sort(values);
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}
struct Row {
    Table table;
    std::string key, value;
};
// What one send leaves: the rows it puts, and the one it takes away.
struct Sent {
    std::vector<Row> rows;
    std::string erased;  // of conv_user
};

struct Timed {
    double seconds = 0;
    double groups = 0;  // commits
    std::vector<double> waits_ms;
};

// LMDB and nothing else: the same tables, as the store sets them up.
class Raw {
  public:
    explicit Raw(const std::string& dir) {
        std::filesystem::create_directories(dir);
        if (mdb_env_create(&env_) || mdb_env_set_maxdbs(env_, kTables + 8) ||
            mdb_env_set_mapsize(env_, 64ull << 30) ||
            mdb_env_open(env_, dir.c_str(), MDB_NOTLS | MDB_NORDAHEAD, 0600))
            die("cannot open raw LMDB");
        MDB_txn* txn = nullptr;
        good(mdb_txn_begin(env_, nullptr, 0, &txn));
        for (size_t i = 0; i < kTables; ++i)
            good(mdb_dbi_open(
                txn, std::string(table_name(static_cast<Table>(i))).c_str(),
                MDB_CREATE |
                    (static_cast<Table>(i) == Table::child ? MDB_DUPSORT | MDB_DUPFIXED : 0),
                &dbis_[i]));
        good(mdb_txn_commit(txn));
    }
    ~Raw() { mdb_env_close(env_); }
    Timed write(const std::vector<Sent>& sends, size_t group) {
        Timed timed;
        const double begun = now_ms();
        for (size_t at = 0; at < sends.size(); at += group) {
            const double start = now_ms();
            MDB_txn* txn = nullptr;
            good(mdb_txn_begin(env_, nullptr, 0, &txn));
            for (size_t i = at; i < std::min(at + group, sends.size()); ++i) {
                if (!sends[i].erased.empty()) {
                    MDB_val k{sends[i].erased.size(), const_cast<char*>(sends[i].erased.data())};
                    mdb_del(txn, dbis_[static_cast<size_t>(Table::conv_user)], &k, nullptr);
                }
                for (const Row& row : sends[i].rows) {
                    MDB_val k{row.key.size(), const_cast<char*>(row.key.data())};
                    MDB_val v{row.value.size(), const_cast<char*>(row.value.data())};
                    good(mdb_put(txn, dbis_[static_cast<size_t>(row.table)], &k, &v, 0));
                }
            }
            good(mdb_txn_commit(txn));
            timed.waits_ms.push_back(now_ms() - start);
        }
        timed.seconds = (now_ms() - begun) / 1000;
        timed.groups = static_cast<double>(timed.waits_ms.size());
        return timed;
    }

  private:
    static void good(int rc) {
        if (rc) die(std::string("raw LMDB: ") + mdb_strerror(rc));
    }
    MDB_env* env_ = nullptr;
    std::array<MDB_dbi, kTables> dbis_{};
};

#ifdef PARLEY_SQLITE
class Sqlite {
  public:
    explicit Sqlite(const std::string& dir) : path_(dir + "/figures.sqlite") {
        std::filesystem::create_directories(dir);
        sqlite3* db = connect();
        for (size_t i = 0; i < kTables; ++i) {
            const bool dup = static_cast<Table>(i) == Table::child;
            run(db, "CREATE TABLE t" + std::to_string(i) + "(k BLOB, v BLOB, PRIMARY KEY(k" +
                        (dup ? ",v" : "") + ")) WITHOUT ROWID");
        }
        sqlite3_close(db);
    }
    Timed write(const std::vector<Sent>& sends, size_t connections) {
        std::vector<std::vector<double>> waits(connections);
        std::vector<std::thread> threads;
        std::vector<sqlite3*> dbs;
        for (size_t c = 0; c < connections; ++c) dbs.push_back(connect());
        const double begun = now_ms();
        for (size_t c = 0; c < connections; ++c)
            threads.emplace_back([&, c] {
                sqlite3* db = dbs[c];
                std::map<Table, sqlite3_stmt*> puts;
                for (size_t i = c; i < sends.size(); i += connections) {
                    const double start = now_ms();
                    run(db, "BEGIN IMMEDIATE");
                    if (!sends[i].erased.empty()) {
                        sqlite3_stmt* erase = nullptr;
                        prepare(db, "DELETE FROM t1 WHERE k=?", &erase);
                        sqlite3_bind_blob(erase, 1, sends[i].erased.data(),
                                          static_cast<int>(sends[i].erased.size()), SQLITE_STATIC);
                        sqlite3_step(erase);
                        sqlite3_finalize(erase);
                    }
                    for (const Row& row : sends[i].rows) {
                        sqlite3_stmt*& put = puts[row.table];
                        if (!put)
                            prepare(db,
                                    "INSERT OR REPLACE INTO t" +
                                        std::to_string(static_cast<int>(row.table)) +
                                        " VALUES(?,?)",
                                    &put);
                        sqlite3_bind_blob(put, 1, row.key.data(), static_cast<int>(row.key.size()),
                                          SQLITE_STATIC);
                        sqlite3_bind_blob(put, 2, row.value.data(),
                                          static_cast<int>(row.value.size()), SQLITE_STATIC);
                        if (sqlite3_step(put) != SQLITE_DONE)
                            die(std::string("SQLite: ") + sqlite3_errmsg(db));
                        sqlite3_reset(put);
                    }
                    run(db, "COMMIT");
                    waits[c].push_back(now_ms() - start);
                }
                for (auto& [table, put] : puts) sqlite3_finalize(put);
            });
        for (auto& thread : threads) thread.join();
        Timed timed;
        timed.seconds = (now_ms() - begun) / 1000;
        for (size_t c = 0; c < connections; ++c) {
            timed.waits_ms.insert(timed.waits_ms.end(), waits[c].begin(), waits[c].end());
            sqlite3_close(dbs[c]);
        }
        return timed;
    }

  private:
    static_assert(static_cast<int>(Table::conv_user) == 1);
    sqlite3* connect() {
        sqlite3* db = nullptr;
        if (sqlite3_open(path_.c_str(), &db)) die("cannot open SQLite");
        sqlite3_busy_timeout(db, 120'000);
        run(db, "PRAGMA journal_mode=WAL");
        run(db, "PRAGMA synchronous=FULL");
        return db;
    }
    static void run(sqlite3* db, const std::string& sql) {
        char* error = nullptr;
        if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error))
            die("SQLite: " + sql + ": " + (error ? error : "?"));
    }
    static void prepare(sqlite3* db, const std::string& sql, sqlite3_stmt** out) {
        if (sqlite3_prepare_v2(db, sql.c_str(), -1, out, nullptr)) die("SQLite: " + sql);
    }
    std::string path_;
};
#endif

}  // namespace parley::store::figures
