// convstore's options: one declaration for parser, help, environment and file (see convstore(8)).
#pragma once

#include <string>
#include <vector>

#include "base/cli.hpp"
#include "base/daemon.hpp"
#include "notify/notifier.hpp"
#include "store/server.hpp"

namespace parley::convstore {

struct Options {
    base::Parsed parsed;
    base::DaemonOptions daemon;
    store::ServerOptions server;
    int64_t lock_wait_ms = 5000;
    // get, export, check, backup
    std::string table, key, store_dir, keys_dir, dir, file, format = "jsonl";
    uint64_t file_bytes_max = 1ull << 30;
    std::vector<std::string> tables;
    bool json = false;
    uint32_t findings_max = 100;
    // tail
    bool follow = false;
    uint64_t since = 0;
    std::string cursor, partition = "0/1";
    int64_t lease_ms = 10'000;
    // index, search
    std::string search_dir, query, search_cursor;
    bool once = false, rebuild = false;
    int64_t commit_interval_ms = 250;
    uint32_t limit = 20;
    // notify
    notify::NotifierOptions notify;
    std::string smtp_password_file;
    // org, key, user
    std::string name, org, user = "default", service_class, key_id, limits = "{}";
    std::vector<std::string> scopes, models;
    double weight = 1.0;
    int64_t expires_in_ms = 0;
    int64_t retention_ms = 0;
    // org update, key update: "" and 0 leave what there is
    std::string new_limits, disabled;
    double new_weight = 0;
    bool no_retention = false, no_expiry = false, all_scopes = false, all_models = false;
    int64_t grace_ms = 0;
    int64_t wait_ms = 5000;
    bool password_stdin = false;
    bool replace = false;

    base::Places places() const { return daemon.places(); }
    std::string search_path() const {
        return search_dir.empty() ? places().state + "/search" : search_dir;
    }
    std::string store_path() const { return store_dir.empty() ? places().store() : store_dir; }
};

base::Result<Options> parse_options(int argc, const char* const* argv);

int serve(Options options, int argc, const char* const* argv);
int get(const Options& options);
int tail(const Options& options);
int index(const Options& options);
int search(const Options& options);
int notify(const Options& options);
int export_rows(const Options& options);
base::Result<void> export_user(const Options& options);
int import(const Options& options);
int backup(const Options& options);
int check(const Options& options);
int org_create(const Options& options);
int org_update(const Options& options);
int org_list(const Options& options);
int key_create(const Options& options);
int key_list(const Options& options);
int key_update(const Options& options);
int key_rotate(const Options& options);
int key_revoke(const Options& options);
int user_create(const Options& options);
int user_erase(const Options& options);

// Writes all of it to stdout; Errc::io when the reader has gone.
base::Result<void> put_out(std::string_view text);

}  // namespace parley::convstore
