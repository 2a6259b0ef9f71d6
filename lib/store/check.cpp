#include "store/check.hpp"

#include <simdjson.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "store/access.hpp"
#include "store/batch.hpp"
#include "store/fields.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

struct UlidHash {
    size_t operator()(const Ulid& id) const { return std::hash<std::string_view>()(id.view()); }
};

class Scrub {
  public:
    Scrub(Env& env, MDB_txn* txn, size_t findings_max) : env_(env), txn_(txn), max_(findings_max) {}

    Result<CheckReport> run() {
        if (!env_.user_keys().present()) {
            scan_checksums();
            if (failure_) return fail(*failure_);
            if (report_.unread > 0) return std::move(report_);
            report_ = {};
        }
        // Logs first: messages are held against them.
        scan_changes();
        scan_usage_log();
        scan<UsageTotal>(Table::usage, [&](std::string_view key, const UsageTotal& row) {
            const auto it = sums_.find(std::string(key));
            if (key.size() != 24 || it == sums_.end())
                return bad(Table::usage, key, "total without any usage row");
            const UsageTotal& sum = it->second;
            if (sum.requests != row.requests || sum.input_tokens != row.input_tokens ||
                sum.output_tokens != row.output_tokens || sum.compute_us != row.compute_us)
                bad(Table::usage, key, "total is not the sum of the usage rows");
            sums_.erase(it);
        });
        for (const auto& [key, sum] : sums_)
            bad(Table::usage, key, "usage rows without their total");

        scan<ConvRow>(Table::conv, [&](std::string_view key, const ConvRow& row) {
            if (key != row.id.view()) return bad(Table::conv, key, "row under another key");
            if (!has(Table::conv_user, keys::conv_user(row.user, row.updated_ms, row.id)))
                bad(Table::conv, key, "not in its user's list");
            if (!has(Table::user, keys::of(row.user))) bad(Table::conv, key, "user is missing");
            if (row.head && !has(Table::msg, keys::msg(row.id, *row.head)))
                bad(Table::conv, key, "head message is missing");
            if (has(Table::trash, key)) bad(Table::conv, key, "deleted, and still here");
        });
        scan_raw(Table::conv_user, [&](std::string_view key, std::string_view) {
            if (key.size() != 40) return bad(Table::conv_user, key, "key of another size");
            auto row = find<ConvRow>(Table::conv, key.substr(24));
            if (!row || keys::conv_user(row->user, row->updated_ms, row->id) != key)
                bad(Table::conv_user, key, "list entry without its conversation");
        });
        scan<MessageRow>(Table::msg,
                         [&](std::string_view key, const MessageRow& row) { message(key, row); });
        for (const auto& [conv, count] : counts_) {
            auto row = find<ConvRow>(Table::conv, conv.view());
            if (row && row->message_count != count)
                bad(Table::conv, conv.view(),
                    fmt::format("says {} messages, has {}", row->message_count, count));
        }
        scan_child();
        scan<StreamRow>(Table::stream, [&](std::string_view key, const StreamRow& row) {
            if (key != row.id.view()) return bad(Table::stream, key, "row under another key");
            if (!has(Table::conv, keys::of(row.conv))) return;  // deleted under it: gc's to take
            auto message = find<MessageRow>(Table::msg, keys::msg(row.conv, row.id));
            if (!message) return bad(Table::stream, key, "message is missing");
            if ((row.state == "running") != (message->status == "streaming"))
                bad(Table::stream, key,
                    fmt::format("is {}, its message {}", row.state, message->status));
        });
        scan<DeltaRow>(Table::sdelta, [&](std::string_view key, const DeltaRow& row) {
            if (key.size() != 24 ||
                key.substr(16, 4) != keys::sdelta({}, row.epoch, 0).substr(16, 4))
                return bad(Table::sdelta, key, "row under another key");
            if (!has(Table::stream, key.substr(0, 16)))
                bad(Table::sdelta, key, "journal without its stream");
        });
        scan<IdemRow>(Table::idem, [&](std::string_view key, const IdemRow& row) {
            if (!has(Table::idem_exp, keys::idem_exp(row.expires_ms, key)))
                bad(Table::idem, key, "idempotency key without its expiry");
        });
        scan_raw(Table::idem_exp, [&](std::string_view key, std::string_view) {
            if (key.size() != 40 || !has(Table::idem, key.substr(8)))
                bad(Table::idem_exp, key, "expiry without its idempotency key");
        });
        scan<OrgRow>(Table::org, [&](std::string_view key, const OrgRow& row) {
            if (key != row.id.view()) bad(Table::org, key, "row under another key");
            if (!has(Table::meta, keys::org_name(row.name)))
                bad(Table::org, key, "name is not registered");
        });
        scan<UserRow>(Table::user, [&](std::string_view key, const UserRow& row) {
            if (key != row.id.view()) bad(Table::user, key, "row under another key");
            if (!has(Table::org, keys::of(row.org))) bad(Table::user, key, "org is missing");
        });
        scan<ApiKeyRow>(Table::apikey, [&](std::string_view key, const ApiKeyRow& row) {
            if (!has(Table::org, keys::of(row.org))) bad(Table::apikey, key, "org is missing");
        });
        scan<SessionRow>(Table::session, [&](std::string_view key, const SessionRow& row) {
            if (key.size() != 32 || !has(Table::user, keys::of(row.user)))
                bad(Table::session, key, "user is missing");
        });
        scan<ModelRow>(Table::model, [&](std::string_view key, const ModelRow& row) {
            if (key != row.hash) bad(Table::model, key, "row under another key");
        });
        scan<AliasRow>(Table::alias, [](std::string_view, const AliasRow&) {});
        scan<ReadRow>(Table::read, [&](std::string_view key, const ReadRow&) {
            if (key.size() != 32 || !has(Table::conv, key.substr(16)))
                bad(Table::read, key, "read mark without its conversation");
        });
        scan_batches();
        for (const Table table : {Table::feed, Table::reply, Table::trash, Table::meta})
            scan_raw(table, [](std::string_view, std::string_view) {});
        if (failure_) return fail(*failure_);
        return std::move(report_);
    }

  private:
    // Numbers of each batch against its entries; entries of no batch wait for gc.
    void scan_batches() {
        std::map<std::string, std::pair<uint64_t, uint64_t>> found;  // pending, finished
        scan_raw(Table::batch_item, [&](std::string_view key, std::string_view) {
            const std::string id(key.substr(0, 16));
            if (key.size() != 21 || static_cast<unsigned char>(key[16]) > 1)
                return bad(Table::batch_item, key, "key of another form");
            if (!has(Table::batch, "b" + id) && !has(Table::trash, id))
                return bad(Table::batch_item, key, "entry without its batch");
            auto& numbers = found[id];
            ++(key[16] == 0 ? numbers.first : numbers.second);
        });
        scan_raw(Table::batch, [&](std::string_view key, std::string_view) {
            if (key.substr(0, 1) == "u") {
                if (key.size() != 33 || !has(Table::batch, "b" + std::string(key.substr(17))))
                    bad(Table::batch, key, "list entry without its batch");
                return;
            }
            if (key.substr(0, 1) == "o") return;
            auto row = find<MessageBatchRow>(Table::batch, key);
            if (key.size() != 17 || !row || keys::batch(row->id) != key)
                return bad(Table::batch, key, "row under another key");
            const auto& [pending, finished] = found[std::string(key.substr(1))];
            if (finished != row->finished() || pending + finished != row->added)
                bad(Table::batch, key,
                    fmt::format("says {} entries, {} finished; has {} and {}", row->added,
                                row->finished(), pending + finished, finished));
            if (has(Table::batch, keys::batch_open(row->id)) != (row->state != "ended"))
                bad(Table::batch, key, "is " + row->state + ", and its mark says otherwise");
        });
    }

    void bad(Table table, std::string_view key, std::string what) {
        ++report_.findings;
        if (report_.first.size() < max_)
            report_.first.push_back(
                {std::string(table_name(table)), base::hex(key), std::move(what)});
    }
    bool has(Table table, std::string_view key) {
        MDB_val k{key.size(), const_cast<char*>(key.data())};
        MDB_val v{};
        return !key.empty() && mdb_get(txn_, env_.dbi(table), &k, &v) == MDB_SUCCESS;
    }
    // A row that does not decode is named where its own table is scanned.
    template <class Row>
    std::optional<Row> find(Table table, std::string_view key) {
        auto row = find_row<Row>(env_, txn_, table, key);
        return row ? std::move(*row) : std::nullopt;
    }

    template <class Visit>
    void scan_raw(Table table, Visit visit) {
        auto walk = Cursor::open(env_, txn_, table);
        if (!walk) {
            failure_ = walk.error();
            return;
        }
        for (bool on = walk->first(); on; on = walk->next()) {
            ++report_.values;
            auto json = decode_record(table, walk->key(), walk->value(), &env_.user_keys());
            if (json)
                visit(walk->key(), *json);
            else if (json.error().code == Errc::not_found)
                ++report_.erased;
            else if (json.error().code == Errc::unsupported && !env_.user_keys().present())
                ++report_.unread;
            else
                bad(table, walk->key(), after_key(json.error().what));
        }
        if (walk->failure()) bad(table, "", walk->failure()->what);
    }
    void scan_checksums() {
        for (size_t i = 0; i < kTables; ++i)
            if (static_cast<Table>(i) != Table::child)  // whose values are bare ids
                scan_raw(static_cast<Table>(i), [](std::string_view, std::string_view) {});
    }
    template <class Row, class Visit>
    void scan(Table table, Visit visit) {
        scan_raw(table, [&](std::string_view key, std::string_view json) {
            auto row = from_json<Row>(json);
            if (row)
                visit(key, *row);
            else
                bad(table, key, row.error().what);
        });
    }
    // "table 'x' key 00: what" → "what": table and key stand beside it already.
    static std::string after_key(const std::string& what) {
        const size_t colon = what.find(": ");
        return colon == std::string::npos ? what : what.substr(colon + 2);
    }

    void scan_changes() {
        uint64_t expected = 1;
        simdjson::dom::parser parser;
        scan_raw(Table::changes, [&](std::string_view key, std::string_view json) {
            if (key.size() != 8) return bad(Table::changes, key, "key of another size");
            const uint64_t seq = get_u64(key);
            if (seq != expected)
                bad(Table::changes, key,
                    fmt::format("the log jumps from {} to {}", expected - 1, seq));
            expected = seq + 1;
            simdjson::dom::element change;
            uint64_t inside = 0;
            if (parser.parse(json.data(), json.size()).get(change) != simdjson::SUCCESS ||
                change["seq"].get(inside) != simdjson::SUCCESS || inside != seq)
                return bad(Table::changes, key, "change of another number");
            std::string_view type, status, message;
            if (change["type"].get(type) == simdjson::SUCCESS && type == "message.finished" &&
                change["status"].get(status) == simdjson::SUCCESS && status == "done" &&
                change["message"].get(message) == simdjson::SUCCESS) {
                if (auto id = parse_id(kMsg, message)) ++done_changes_[*id];
            }
        });
    }

    void scan_usage_log() {
        simdjson::dom::parser parser;
        std::map<std::string, uint32_t> numbers;
        scan_raw(Table::usage_log, [&](std::string_view key, std::string_view json) {
            simdjson::dom::object row;
            if (key.size() != 8 ||
                parser.parse(json.data(), json.size()).get(row) != simdjson::SUCCESS)
                return bad(Table::usage_log, key, "not a usage row");
            Fields f(row);
            Ulid org, user;
            std::optional<Ulid> message, end_user;
            std::string model, status, key_id;
            UsageTotal one;
            int64_t ms = 0;
            bool final = true;
            f.id("org", kOrg, org)
                .id("user", kUser, user)
                .id("message", kMsg, message)
                .id("end_user", kUser, end_user)
                .text("key_id", key_id)
                .text("model", model);
            f.text("status", status)
                .number("ms", ms)
                .flag("final", final)
                .number("input_tokens", one.input_tokens);
            f.number("output_tokens", one.output_tokens).number("compute_us", one.compute_us);
            if (!f.ok()) return bad(Table::usage_log, key, f.error());
            if (message && final) ++final_rows_[*message];
            auto number = numbers.find(model);
            if (number == numbers.end()) {
                auto text = find_json(env_, txn_, Table::meta, keys::model_number(model));
                if (!text || !*text) return bad(Table::usage_log, key, "model has no number");
                number = numbers.emplace(model, std::strtoul((*text)->c_str(), nullptr, 10)).first;
            }
            // Rows from before there were sums of keys name no end user.
            for (const Ulid& who :
                 usage_sums(org, user, end_user, end_user ? std::string_view(key_id) : "")) {
                UsageTotal& sum =
                    sums_[keys::usage(who, static_cast<uint32_t>(ms / 86'400'000), number->second)];
                sum.requests += final ? 1 : 0;
                sum.input_tokens += one.input_tokens;
                sum.output_tokens += one.output_tokens;
                sum.compute_us += one.compute_us;
            }
        });
    }

    void message(std::string_view key, const MessageRow& row) {
        if (key != keys::msg(row.conv, row.id))
            return bad(Table::msg, key, "row under another key");
        const bool deleted = has(Table::trash, row.conv.view());
        if (!has(Table::conv, row.conv.view()) && !deleted)
            bad(Table::msg, key, "conversation is missing");
        if (deleted) return;
        ++counts_[row.conv];
        if (row.parent && !has(Table::msg, keys::msg(row.conv, *row.parent)))
            bad(Table::msg, key, "parent is missing");
        if (row.parent && *row.parent >= row.id) bad(Table::msg, key, "parent is not older");
        MDB_val k, v{row.id.bytes.size(), const_cast<uint8_t*>(row.id.bytes.data())};
        const std::string child = keys::child(row.conv, row.parent);
        k = {child.size(), const_cast<char*>(child.data())};
        MDB_cursor* cursor = nullptr;
        if (mdb_cursor_open(txn_, env_.dbi(Table::child), &cursor) == MDB_SUCCESS) {
            if (mdb_cursor_get(cursor, &k, &v, MDB_GET_BOTH) != MDB_SUCCESS)
                bad(Table::msg, key, "not among its parent's children");
            mdb_cursor_close(cursor);
        }
        if (row.role != "assistant") return;
        if (row.status == "streaming" && !has(Table::stream, row.id.view()))
            bad(Table::msg, key, "runs without a stream");
        if (row.status != "done" || row.imported) return;
        if (const uint32_t rows = final_rows_[row.id]; rows != 1)
            bad(Table::msg, key, fmt::format("done answer with {} usage rows", rows));
        if (const uint32_t rows = done_changes_[row.id]; rows != 1)
            bad(Table::msg, key, fmt::format("done answer with {} change rows", rows));
    }

    void scan_child() {
        auto walk = Cursor::open(env_, txn_, Table::child);
        if (!walk) {
            failure_ = walk.error();
            return;
        }
        for (bool on = walk->first(); on; on = walk->next()) {
            ++report_.values;
            const auto id = Ulid::from_bytes(walk->value());
            const auto conv = walk->key().size() == 32 ? Ulid::from_bytes(walk->key().substr(0, 16))
                                                       : std::nullopt;
            if (!id || !conv) {
                bad(Table::child, walk->key(), "key or value of another size");
                continue;
            }
            if (has(Table::trash, conv->view())) continue;
            auto row = find<MessageRow>(Table::msg, keys::msg(*conv, *id));
            if (!row || keys::child(*conv, row->parent) != walk->key())
                bad(Table::child, walk->key(), "child is no message, or has another parent");
        }
    }

    Env& env_;
    MDB_txn* txn_;
    const size_t max_;
    CheckReport report_;
    std::optional<Error> failure_;
    std::unordered_map<Ulid, uint32_t, UlidHash> final_rows_, done_changes_;
    std::unordered_map<Ulid, uint64_t, UlidHash> counts_;
    std::map<std::string, UsageTotal> sums_;
};

}  // namespace

Result<CheckReport> check_store(Env& env, size_t findings_max) {
    auto txn = ReadTxn::begin(env);
    if (!txn) return fail(txn.error());
    return Scrub(env, txn->handle(), findings_max).run();
}

Result<uint64_t> each_row(
    Env& env, Table table,
    const std::function<Result<void>(std::string_view, std::string_view)>& row) {
    constexpr uint64_t kStretch = 10'000;
    uint64_t count = 0;
    std::string from;
    for (bool more = true; more;) {
        auto txn = ReadTxn::begin(env);
        if (!txn) return fail(txn.error());
        auto walk = Cursor::open(env, txn->handle(), table);
        if (!walk) return fail(walk.error());
        uint64_t stretch = 0;
        bool on = walk->seek(from);
        std::string key;
        for (; on; on = walk->next(), ++stretch, ++count) {
            // A stretch ends between two keys: the children of one parent share theirs.
            if (stretch >= kStretch && walk->key() != key) break;
            key = walk->key();
            if (table == Table::child) {
                const Ulid child = Ulid::from_bytes(walk->value()).value_or(Ulid{});
                if (auto done = row(key, '"' + show_id(kMsg, child) + '"'); !done)
                    return fail(done.error());
                continue;
            }
            auto json = decode_record(table, key, walk->value(), &env.user_keys());
            if (!json && json.error().code == Errc::not_found) continue;  // of an erased user
            if (!json) return fail(json.error());
            if (auto done = row(key, *json); !done) return fail(done.error());
        }
        if (walk->failure()) return fail(*walk->failure());
        more = on;
        if (more) from = std::string(walk->key());
    }
    return count;
}

}  // namespace parley::store
