// get, tail, export, backup, check: what reads the store and never writes it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "following.hpp"
#include "options.hpp"
#include "store/check.hpp"
#include "store/follower.hpp"
#include "store/reader.hpp"
#include "store/record.hpp"

namespace parley::convstore {

using base::Errc;
using base::fail;
using base::Result;

Result<void> put_out(std::string_view text) {
    while (!text.empty()) {
        const ssize_t wrote = ::write(STDOUT_FILENO, text.data(), text.size());
        if (wrote < 0) {
            if (errno == EINTR) continue;
            return fail(base::errno_error(errno, "cannot write to stdout"));
        }
        text.remove_prefix(static_cast<size_t>(wrote));
    }
    return {};
}

namespace {

int done(const Result<void>& result) {
    return result ? 0 : base::report("convstore", result.error());
}

Result<store::Table> table_of(std::string_view name) {
    for (size_t i = 0; i < store::kTables; ++i) {
        const auto table = static_cast<store::Table>(i);
        if (store::table_name(table) == name) return table;
    }
    return fail(Errc::usage, fmt::format("no table '{}': see parley-store(5)", name));
}

Result<std::shared_ptr<store::Env>> open_env(const std::string& dir, const std::string& keys = {}) {
    store::EnvOptions options;
    options.dir = dir;
    options.keys_dir = keys;
    return store::Env::open(options);
}

// Parts joined by '/': an id is its 16 bytes (and in a message's key brings its bucket), a number is 8
// bytes, x… is hex, anything else is itself.
Result<std::string> parse_key(store::Table table, std::string_view text) {
    std::string key;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find('/', at), text.size());
        const std::string_view part = text.substr(at, end - at);
        at = end + 1;
        const size_t underscore = part.find('_');
        std::optional<store::Ulid> id;
        if (underscore != std::string_view::npos)
            id = base::Ulid::parse(part.substr(underscore + 1));
        if (id) {
            if (table == store::Table::msg && !key.empty())
                store::put_u32(key, store::bucket_of(*id));
            key += id->view();
        } else if (part.starts_with("x") && part.size() % 2 == 1 && base::unhex(part.substr(1))) {
            key += *base::unhex(part.substr(1));
        } else if (!part.empty() &&
                   part.find_first_not_of("0123456789") == std::string_view::npos &&
                   part.size() < 20) {
            store::put_u64(key, std::stoull(std::string(part)));
        } else {
            key += part;
        }
        if (end == text.size()) break;
    }
    if (key.empty() || key.size() > 511) return fail(Errc::usage, "a key has 1 to 511 bytes");
    return key;
}

Result<void> get_row(const Options& o) {
    auto table = table_of(o.table);
    if (!table) return fail(table.error());
    auto key = parse_key(*table, o.key);
    if (!key) return fail(key.error());
    auto env = open_env(o.store_path(), o.keys_dir);
    if (!env) return fail(env.error());
    std::string json;
    {
        auto txn = store::ReadTxn::begin(**env);
        if (!txn) return fail(txn.error());
        auto walk = store::Cursor::open(**env, txn->handle(), *table);
        if (!walk) return fail(walk.error());
        if (!walk->seek(*key) || walk->key() != *key)
            return fail(Errc::not_found, fmt::format("no row '{}' in table '{}'", o.key, o.table));
        if (*table == store::Table::child) {
            do {
                json +=
                    '"' +
                    store::show_id(store::kMsg,
                                   base::Ulid::from_bytes(walk->value()).value_or(base::Ulid{})) +
                    "\"\n";
            } while (walk->next() && walk->key() == *key);
            return put_out(json);
        }
        auto row = store::decode_record(*table, *key, walk->value(), &(*env)->user_keys());
        if (!row) return fail(row.error());
        json = std::move(*row);
    }
    return put_out(json + "\n");
}

// What tail has printed, kept beside its position. Where stdout is a file that is appended to, the cursor
// also says how long the file was: what stands behind that was written by a tail that was killed before
// it could move the cursor, and is not written again. A pipe cannot be asked; there the lines of that
// moment come twice.
class Output {
  public:
    // The lease, where there is a cursor: only its holder moves it.
    Output(std::string cursor, store::Lease* lease) : cursor_(std::move(cursor)), lease_(lease) {
        struct stat about {};
        file_ = !cursor_.empty() && ::fstat(STDOUT_FILENO, &about) == 0 && S_ISREG(about.st_mode) &&
                (::fcntl(STDOUT_FILENO, F_GETFL) & O_APPEND);
        if (file_) name_ = fmt::format("{} {}", about.st_dev, about.st_ino);
    }

    // The position to go on from.
    Result<uint64_t> begin(uint64_t since) {
        if (cursor_.empty()) return since;
        auto kept = store::load_cursor(cursor_);
        if (!kept) return fail(kept.error());
        const uint64_t after = std::max(since, *kept);
        if (file_ && after == *kept) find_unconfirmed();
        if (unconfirmed_.empty()) {
            if (auto saved = save(after); !saved) return fail(saved.error());
        }
        return after;
    }

    Result<void> print(std::string_view lines, uint64_t position) {
        const size_t there = std::min(lines.size(), unconfirmed_.size());
        if (there > 0 &&
            lines.substr(0, there) == std::string_view(unconfirmed_).substr(0, there)) {
            lines.remove_prefix(there);
            unconfirmed_.erase(0, there);
        } else {
            unconfirmed_.clear();  // somebody else's
        }
        // Who was overtaken while it stood still has nothing more to say.
        if (lease_)
            if (auto held = lease_->renew(); !held) return held;
        if (auto put = put_out(lines); !put) return put;
        if (cursor_.empty()) return {};
        return lease_->guard([&] { return save(position); });
    }

  private:
    static constexpr uint64_t kUnconfirmedMax = 64u << 20;

    // The lines must be as durable as the cursor that says so.
    Result<void> save(uint64_t position) {
        std::string text = fmt::format("{}\n", position);
        if (file_) {
            struct stat about {};
            if (::fdatasync(STDOUT_FILENO) != 0 || ::fstat(STDOUT_FILENO, &about) != 0)
                return fail(base::errno_error(errno, "cannot sync stdout"));
            text += fmt::format("{} {}\n", name_,
                                about.st_size - static_cast<off_t>(unconfirmed_.size()));
        }
        return base::write_file(cursor_, text, 0600);
    }

    void find_unconfirmed() {
        auto text = base::read_file(cursor_, 256);
        const size_t line = text ? text->find('\n') : std::string::npos;
        if (line == std::string::npos ||
            text->compare(line + 1, name_.size() + 1, name_ + " ") != 0)
            return;
        const uint64_t size = std::strtoull(text->c_str() + line + 1 + name_.size(), nullptr, 10);
        const int fd = ::open("/proc/self/fd/1", O_RDONLY | O_CLOEXEC);
        struct stat about {};
        if (fd >= 0 && ::fstat(fd, &about) == 0 && static_cast<uint64_t>(about.st_size) > size &&
            static_cast<uint64_t>(about.st_size) - size <= kUnconfirmedMax) {
            unconfirmed_.resize(static_cast<uint64_t>(about.st_size) - size);
            if (::pread(fd, unconfirmed_.data(), unconfirmed_.size(), static_cast<off_t>(size)) !=
                static_cast<ssize_t>(unconfirmed_.size()))
                unconfirmed_.clear();
        }
        if (fd >= 0) ::close(fd);
    }

    std::string cursor_;
    store::Lease* lease_;
    std::string name_;  // device and inode
    bool file_ = false;
    std::string unconfirmed_;
};

Result<void> print_changes(const Options& o, const base::SignalFd& signals) {
    auto part = store::Partition::parse(o.partition);
    if (!part) return fail(part.error());
    // One tail a cursor: another one stands by, and goes on when the first dies or stands still.
    std::optional<store::Lease> lease;
    if (!o.cursor.empty()) {
        auto taken = stand_by(
            o.cursor + ".lease", o.lease_ms, signals, [&](bool) -> Result<bool> {
                if (o.follow) return true;
                return fail(Errc::conflict,
                            fmt::format("another tail goes on from '{}': end it, or use a cursor "
                                        "of your own",
                                        o.cursor));
            });
        if (!taken) return fail(taken.error());
        if (!*taken) return {};
        lease.emplace(std::move(**taken));
    }
    Output output(o.cursor, lease ? &*lease : nullptr);
    auto after = output.begin(o.since);
    if (!after) return fail(after.error());
    auto reader = store::open_reader(o.store_path());
    while (!reader && reader.error().code == Errc::unavailable && o.follow) {
        if (const auto number = signals.next(); number && *number != SIGHUP) return {};
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        reader = store::open_reader(o.store_path());
    }
    if (!reader) return fail(reader.error());
    store::FollowerOptions options;
    options.after = *after;
    if (o.follow)
        options.changes_endpoint = o.server.changes_endpoint.empty() ? o.places().changes_endpoint()
                                                                     : o.server.changes_endpoint;
    auto follower = store::Follower::open(**reader, options);
    if (!follower) return fail(follower.error());
    for (;;) {
        auto changes = (*follower)->next();
        if (!changes) return fail(changes.error());
        if (!changes->empty()) {
            std::string out;
            for (const auto& change : *changes)
                if (part->has(change)) out += change.json + "\n";
            if (auto put = output.print(out, (*follower)->position()); !put) return put;
        } else if (!o.follow) {
            return {};
        } else {
            (*follower)->wait(signals.fd());
            if (lease)
                if (auto held = lease->renew(); !held) return held;
        }
        while (const auto number = signals.next()) {
            if (*number != SIGHUP) return {};
        }
    }
}

Result<void> export_all(const Options& o) {
    std::vector<store::Table> tables;
    for (const auto& name : o.tables) {
        auto table = table_of(name);
        if (!table) return fail(table.error());
        tables.push_back(*table);
    }
    if (tables.empty()) {
        // All but what serves the writer alone.
        for (size_t i = 0; i < store::kTables; ++i) {
            const auto table = static_cast<store::Table>(i);
            if (table != store::Table::reply && table != store::Table::meta)
                tables.push_back(table);
        }
    }
    auto env = open_env(o.store_path(), o.keys_dir);
    if (!env) return fail(env.error());
    for (const store::Table table : tables) {
        auto count =
            store::each_row(**env, table, [&](std::string_view key, std::string_view json) {
                std::string line;
                base::JsonWriter(line)
                    .object()
                    .field("table", store::table_name(table))
                    .field("key", base::hex(key))
                    .key("row")
                    .raw(json)
                    .end();
                return put_out(line + "\n");
            });
        if (!count) return fail(count.error());
    }
    return {};
}

Result<bool> scrub(const Options& o, store::Env& env, std::string& out) {
    auto report = store::check_store(env, o.findings_max);
    if (!report) return fail(report.error());
    for (const auto& finding : report->first) {
        if (o.json) {
            base::JsonWriter(out)
                .object()
                .field("table", finding.table)
                .field("key", finding.key)
                .field("what", finding.what)
                .end();
        } else {
            out += fmt::format("table '{}' key {}: {}", finding.table, finding.key, finding.what);
        }
        out += '\n';
    }
    if (o.json)
        base::JsonWriter(out)
            .object()
            .field("values", report->values)
            .field("erased", report->erased)
            .field("unread", report->unread)
            .field("findings", report->findings)
            .end();
    else
        out += fmt::format("{} values read, {} findings", report->values, report->findings);
    if (!o.json && report->unread > 0)
        out += fmt::format(
            "\n{} of them are sealed and their keys are not here: their checksums were tried, no more "
            "(--keys DIR)",
            report->unread);
    out += '\n';
    return report->findings == 0;
}

Result<void> check_it(const Options& o) {
    auto env = open_env(o.store_path(), o.keys_dir);
    if (!env) return fail(env.error());
    std::string out;
    auto sound = scrub(o, **env, out);
    if (!sound) return fail(sound.error());
    if (auto put = put_out(out); !put) return put;
    if (!*sound)
        return fail(Errc::corrupt,
                    fmt::format("the store '{}' is damaged: restore a backup, or report this",
                                o.store_path()));
    return {};
}

Result<void> back_up(const Options& o) {
    std::error_code ignored;
    if (std::filesystem::exists(o.dir, ignored) && !std::filesystem::is_empty(o.dir, ignored))
        return fail(
            Errc::usage,
            fmt::format("'{}' is not empty: a backup goes into a new or empty folder", o.dir));
    auto env = open_env(o.store_path(), o.keys_dir);
    if (!env) return fail(env.error());
    if (auto made = base::make_dirs(o.dir); !made) return made;
    if (auto copied = (*env)->copy_to(o.dir, true); !copied) return copied;
    if (::chmod((o.dir + "/data.mdb").c_str(), 0600) != 0 || ::chmod(o.dir.c_str(), 0700) != 0)
        return fail(base::errno_error(errno, fmt::format("cannot make '{}' private", o.dir)));
    auto copy = open_env(o.dir, o.keys_dir.empty() ? o.store_path() + "/keys" : o.keys_dir);
    if (!copy) return fail("the copy cannot be read", copy.error());
    Options quiet = o;
    quiet.findings_max = 0;
    quiet.json = true;
    std::string out;
    auto sound = scrub(quiet, **copy, out);
    if (!sound) return fail("the copy cannot be read", sound.error());
    if (!*sound)
        return fail(Errc::corrupt, fmt::format("the copy in '{}' fails its check: {}", o.dir, out));
    const uint64_t bytes = std::filesystem::file_size(o.dir + "/data.mdb", ignored);
    if (!o.json) return put_out(fmt::format("{} bytes in '{}', verified\n", bytes, o.dir));
    std::string line;
    base::JsonWriter(line)
        .object()
        .field("dir", o.dir)
        .field("bytes", bytes)
        .field("verified", true)
        .end();
    return put_out(line + "\n");
}

}  // namespace

int get(const Options& o) { return done(get_row(o)); }
int tail(const Options& o) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT});
    return done(print_changes(o, signals));
}
int export_rows(const Options& o) { return done(o.org.empty() ? export_all(o) : export_user(o)); }
int backup(const Options& o) { return done(back_up(o)); }
int check(const Options& o) { return done(check_it(o)); }

}  // namespace parley::convstore
