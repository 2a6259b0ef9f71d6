#include "store/writer.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>

#include "base/file.hpp"
#include "store/batch.hpp"

namespace parley::store {
namespace {

struct TxnAbort {
    void operator()(MDB_txn* txn) const noexcept { mdb_txn_abort(txn); }
};
using Txn = std::unique_ptr<MDB_txn, TxnAbort>;  // changes nothing unless committed

// What an asker has had: its highest number, so that a forgotten one is not run a second time.
struct Boot {
    uint64_t high = 0;
    bool touched = false;
};

std::string refusal_json(const Refusal& refusal) {
    std::string json = R"({"error":{"code":")";
    json += base::name(refusal.code);
    json += '"';
    json += member("what", refusal.what);
    if (!refusal.reason.empty()) json += member("reason", refusal.reason);
    json += refusal.extra;
    json += "}}";
    return json;
}

Outcome refused(const Refusal& refusal) {
    Outcome outcome;
    outcome.json = refusal_json(refusal);
    outcome.refused = true;
    outcome.code = refusal.code;
    return outcome;
}

}  // namespace

struct Writer::Impl {
    WriterOptions options;
    const base::Clock* clock = nullptr;
    std::optional<base::LockFile> lock;
    std::shared_ptr<Env> env;
    std::optional<base::UlidSource> ids;
    uint64_t last_change = 0;
    uint64_t last_usage = 0;
    std::map<std::string, uint64_t, std::less<>> boots;  // highs that are committed; a cache
    std::vector<Change> published;
    simdjson::dom::parser parser;
    bool broken = false;  // a commit failed half-way: the environment must be opened again

    Result<void> load();
    Result<std::vector<Outcome>> apply(std::span<const Command> commands);
    Result<void> shred_rest();
    Result<std::vector<Outcome>> apply_singly(std::span<const Command> commands);
    Result<Outcome> run(Batch& batch, const Command& command, std::map<std::string, Boot>& touched,
                        std::optional<Refusal>& spoiled);
    Result<Boot> boot(Batch& batch, std::map<std::string, Boot>& touched, const std::string& name);
    Step dispatch(Batch& batch, const Command& command);
};

Result<void> Writer::Impl::load() {
    auto txn = ReadTxn::begin(*env);
    if (!txn) return fail(txn.error());
    const auto last_of = [&](Table table) -> Result<uint64_t> {
        auto walk = Cursor::open(*env, txn->handle(), table);
        if (!walk) return fail(walk.error());
        return walk->last() && walk->key().size() == 8 ? get_u64(walk->key()) : 0;
    };
    auto change = last_of(Table::changes);
    if (!change) return fail(change.error());
    auto usage = last_of(Table::usage_log);
    if (!usage) return fail(usage.error());
    last_change = *change;
    last_usage = *usage;
    auto ulid = find_json(*env, txn->handle(), Table::meta, "ulid");
    if (!ulid) return fail(ulid.error());
    if (*ulid) {
        if (auto id = Ulid::parse(std::string_view(**ulid).substr(1, 26))) ids->raise_to(*id);
    }
    return {};
}

// Keys whose end was committed, and perhaps not done. A slot is never used again: twice is fine.
Result<void> Writer::Impl::shred_rest() {
    std::vector<uint32_t> slots;
    {
        auto txn = ReadTxn::begin(*env);
        if (!txn) return fail(txn.error());
        auto walk = Cursor::open(*env, txn->handle(), Table::meta);
        if (!walk) return fail(walk.error());
        for (bool on = walk->seek(keys::kShred); on && walk->key().starts_with(keys::kShred);
             on = walk->next())
            if (walk->key().size() == keys::kShred.size() + 4)
                slots.push_back(get_u32(walk->key().substr(keys::kShred.size())));
        if (walk->failure()) return fail(*walk->failure());
    }
    for (const uint32_t slot : slots)
        if (auto done = env->user_keys().erase(slot); !done) return done;
    return {};
}

Result<Boot> Writer::Impl::boot(Batch& batch, std::map<std::string, Boot>& touched,
                                const std::string& name) {
    if (const auto it = touched.find(name); it != touched.end()) return it->second;
    if (const auto it = boots.find(name); it != boots.end()) return Boot{it->second, false};
    auto json = batch.find_text(Table::meta, keys::boot(name));
    if (!json) return fail(json.error());
    Boot boot;
    if (*json) {
        simdjson::dom::parser own;  // ours holds the command
        if (own.parse(**json)["high"].get(boot.high) != simdjson::SUCCESS)
            return fail(Errc::corrupt, "table 'meta': the row of an asker has no 'high'");
    }
    return boot;
}

Step Writer::Impl::dispatch(Batch& batch, const Command& command) {
    if (command.json.size() > options.command_bytes_max)
        return refuse(Errc::too_large, fmt::format("a command of {} bytes, {} at most",
                                                   command.json.size(), options.command_bytes_max));
    simdjson::dom::object object;
    if (const auto error = parser.parse(command.json.data(), command.json.size()).get(object))
        return refuse(Errc::invalid, std::string("the command is not a JSON object: ") +
                                         simdjson::error_message(error));
    Fields fields(object);
    std::string name;
    fields.text("command", name, true);
    if (!fields.ok()) return refuse(Errc::invalid, fields.error());
    const Handler handler = find_handler(name);
    if (!handler)
        return refuse(Errc::unsupported, fmt::format("no command '{}'", name.substr(0, 64)));
    return handler(batch, fields);
}

// `spoiled` is set when the command failed after it had written: the transaction is to be undone.
Result<Outcome> Writer::Impl::run(Batch& batch, const Command& command,
                                  std::map<std::string, Boot>& touched,
                                  std::optional<Refusal>& spoiled) {
    const bool safe = !command.boot.empty();
    Boot asker;
    if (safe) {
        if (command.boot.size() > 64 || command.boot.find('\0') != std::string::npos ||
            command.seq == 0)
            return refused({Errc::invalid,
                            "boot should have 1 to 64 bytes, seq should be 1 at least", "", ""});
        auto known = boot(batch, touched, command.boot);
        if (!known) return refused({known.error().code, known.error().what, "", ""});
        asker = *known;
        auto first = batch.find_text(Table::reply, keys::reply(command.boot, command.seq));
        if (!first) return refused({first.error().code, first.error().what, "", ""});
        if (*first) {
            Outcome outcome;
            outcome.json = std::move(**first);
            outcome.resent = true;
            if (outcome.json.starts_with(R"({"error":{"code":")")) {
                outcome.refused = true;
                outcome.code = Errc::conflict;
                const std::string_view rest = std::string_view(outcome.json).substr(18);
                for (int code = 0; code <= static_cast<int>(Errc::cancelled); ++code) {
                    const char* name = base::name(static_cast<Errc>(code));
                    if (rest.substr(0, rest.find('"')) == name)
                        outcome.code = static_cast<Errc>(code);
                }
            }
            return outcome;
        }
        if (asker.high >= kReplyWindow && command.seq <= asker.high - kReplyWindow)
            return refused({Errc::conflict,
                            "this number is behind the window of 1024: its reply is forgotten",
                            "window", ""});
    }

    batch.subject.reset();
    const uint64_t writes = batch.writes;
    const uint64_t first_change = batch.next_change;
    const Step step = dispatch(batch, command);
    Outcome outcome;
    std::string stored;
    if (step) {
        const uint64_t change = batch.next_change > first_change ? batch.next_change - 1 : 0;
        const std::string head = R"({"change":)" + std::to_string(change);
        outcome.json = head + step->members + "}";
        stored = step->stored ? head + *step->stored + "}" : outcome.json;
    } else {
        if (batch.writes != writes || step.error().transient()) {
            spoiled = step.error();
            return outcome;
        }
        outcome = refused(step.error());
        stored = outcome.json;
    }
    if (safe) {
        auto done = batch.put(Table::reply, keys::reply(command.boot, command.seq), stored);
        if (done && command.seq > kReplyWindow)
            done = batch.erase(Table::reply, keys::reply(command.boot, command.seq - kReplyWindow));
        if (!done) {
            spoiled = Refusal{done.error().code, done.error().what, "", ""};
            return outcome;
        }
        asker.high = std::max(asker.high, command.seq);
        asker.touched = true;
        touched[command.boot] = asker;
    }
    return outcome;
}

Result<std::vector<Outcome>> Writer::Impl::apply(std::span<const Command> commands) {
    // A command that failed after a write, or for want of room, is answered from here in the next round.
    std::map<size_t, Refusal> out_of_it;
    for (;;) {
        if (broken) return fail(Errc::io, "the store must be opened again after a failed commit");
        MDB_txn* raw = nullptr;
        if (const int rc = mdb_txn_begin(env->handle(), nullptr, 0, &raw)) {
            broken = rc == MDB_PANIC;
            return fail(lmdb_error(rc, "cannot begin a write"));
        }
        Txn txn(raw);
        Batch batch(*env, raw, options, *ids, clock->wall_ms());
        batch.next_change = last_change + 1;
        batch.next_usage = last_usage + 1;
        std::map<std::string, Boot> touched;
        std::vector<Outcome> outcomes;
        std::optional<Refusal> spoiled;
        for (size_t i = 0; i < commands.size() && !spoiled; ++i) {
            if (const auto it = out_of_it.find(i); it != out_of_it.end()) {
                outcomes.push_back(refused(it->second));
                continue;
            }
            auto outcome = run(batch, commands[i], touched, spoiled);
            if (!outcome) return fail(outcome.error());
            if (spoiled) {
                if (spoiled->transient() && commands.size() > 1) break;
                out_of_it[i] = *spoiled;
                break;
            }
            outcomes.push_back(std::move(*outcome));
        }
        Result<void> tail;
        batch.subject.reset();
        if (!spoiled && batch.writes > 0) {
            if (batch.drew_id) {
                // next() is what every later id is above; one id is spent on knowing it.
                tail = batch.put(Table::meta, "ulid", base::json_string(ids->next().text()));
            }
            for (const auto& [name, asker] : touched) {
                if (!tail) break;
                tail =
                    batch.put(Table::meta, keys::boot(name),
                              fmt::format(R"({{"high":{},"ms":{}}})", asker.high, batch.now_ms()));
            }
            if (!tail) spoiled = Refusal{tail.error().code, tail.error().what, "", ""};
        }
        if (spoiled) {
            txn.reset();
            if (spoiled->transient() && commands.size() > 1) return apply_singly(commands);
            if (!tail) out_of_it[0] = *spoiled;
            continue;
        }
        if (batch.writes > 0) {
            const int rc = mdb_txn_commit(txn.release());  // frees the handle even when it fails
            if (rc != MDB_SUCCESS) {
                // LMDB calls a short write EIO, which is how a disk that fills up begins. Going on is safe
                // for any failure before the meta page: the group's pages are reachable from nowhere, and
                // the next commit writes and syncs its own. A failure of the meta page itself shows as
                // MDB_PANIC at the next begin.
                const Error error =
                    rc == EIO
                        ? Error{Errc::again,
                                "cannot commit: the disk did not take it all: it is full, or fails"}
                        : lmdb_error(rc, "cannot commit");
                broken = rc == MDB_PANIC;
                if (broken) return fail(error);
                if (commands.size() > 1) return apply_singly(commands);
                out_of_it[0] = Refusal{error.code, error.what, "", ""};
                continue;
            }
        }
        last_change = batch.next_change - 1;
        last_usage = batch.next_usage - 1;
        for (const uint32_t slot : batch.shred) {
            // The commit stands and says so: the next writer destroys it.
            if (auto done = env->user_keys().erase(slot); !done) {
                broken = true;
                return fail(done.error());
            }
        }
        if (boots.size() > 4096) boots.clear();
        for (const auto& [name, asker] : touched) boots[name] = asker.high;
        for (auto& outcome : outcomes) outcome.change_seq = last_change;
        published.insert(published.end(), std::make_move_iterator(batch.changes.begin()),
                         std::make_move_iterator(batch.changes.end()));
        return outcomes;
    }
}

Result<std::vector<Outcome>> Writer::Impl::apply_singly(std::span<const Command> commands) {
    std::vector<Outcome> outcomes;
    for (size_t i = 0; i < commands.size(); ++i) {
        auto one = apply(commands.subspan(i, 1));
        if (!one) return fail(one.error());
        outcomes.push_back(std::move(one->front()));
    }
    return outcomes;
}

Writer::Writer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Writer::~Writer() = default;

Result<std::unique_ptr<Writer>> Writer::open(const WriterOptions& options,
                                             const base::Clock& clock) {
    auto impl = std::make_unique<Impl>();
    impl->options = options;
    impl->options.env.writable = true;
    impl->clock = &clock;
    if (auto made = base::make_dirs(options.env.dir); !made) return fail(made.error());
    auto lock = base::LockFile::take(options.env.dir + "/writer.lock");
    if (!lock) return fail("a store has one writer", lock.error());
    impl->lock.emplace(std::move(*lock));
    auto env = Env::open(impl->options.env);
    if (!env) return fail(env.error());
    impl->env = std::move(*env);
    impl->ids.emplace(clock);
    if (auto loaded = impl->load(); !loaded) return fail(loaded.error());
    if (auto done = impl->shred_rest(); !done) return fail(done.error());
    return std::unique_ptr<Writer>(new Writer(std::move(impl)));
}

Result<std::vector<Outcome>> Writer::apply(std::span<const Command> commands) {
    impl_->published.clear();
    if (commands.empty()) return std::vector<Outcome>{};
    return impl_->apply(commands);
}

Result<Outcome> Writer::apply_one(std::string_view json) {
    const Command command{{}, 0, json};
    auto outcomes = apply({&command, 1});
    if (!outcomes) return fail(outcomes.error());
    return std::move(outcomes->front());
}

const std::vector<Change>& Writer::published() const { return impl_->published; }
uint64_t Writer::last_change() const { return impl_->last_change; }
const std::shared_ptr<Env>& Writer::env() const { return impl_->env; }

}  // namespace parley::store
