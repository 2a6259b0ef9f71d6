#include <sodium.h>

#include <algorithm>

#include "store/access.hpp"
#include "store/lmdb_batches.hpp"
#include "store/reader.hpp"
#include "store/secret.hpp"

namespace parley::store {
namespace {

constexpr size_t kCursorBody = 1 + 8 + 16 + 1;  // version, ~updated_ms, conv, direction
constexpr size_t kCursorMac = 16;

class LmdbReader final : public Reader {
  public:
    explicit LmdbReader(std::shared_ptr<Env> env) : env_(std::move(env)) {}

    Result<ApiKeyRow> api_key(std::string_view secret, int64_t now_ms) override {
        const std::string key = api_key_hash(secret, env_->pepper());
        return with([&](MDB_txn* txn) -> Result<ApiKeyRow> {
            auto row = need_row<ApiKeyRow>(*env_, txn, Table::apikey, key, "no such api key");
            if (!row) return row;
            if (row->revoked_ms) return fail(Errc::denied, "the api key is revoked");
            if (row->expires_ms && row->expires_ms <= now_ms)
                return fail(Errc::denied, "the api key has expired");
            auto owner =
                need_row<OrgRow>(*env_, txn, Table::org, keys::of(row->org), "no such org");
            if (!owner) return fail(owner.error());
            if (owner->disabled) return fail(Errc::denied, "the org is disabled");
            return row;
        });
    }

    Result<std::vector<ApiKeyRow>> api_keys(std::optional<Ulid> org) override {
        auto rows = all<ApiKeyRow>(Table::apikey);
        if (rows && org) std::erase_if(*rows, [&](const auto& row) { return row.org != *org; });
        if (rows) std::ranges::sort(*rows, {}, &ApiKeyRow::id);
        return rows;
    }
    Result<OrgRow> org(const Ulid& id) override {
        return one<OrgRow>(Table::org, keys::of(id), "no such org");
    }
    Result<OrgRow> org_by_name(std::string_view name) override {
        return with([&](MDB_txn* txn) -> Result<OrgRow> {
            auto id = find_json(*env_, txn, Table::meta, keys::org_name(name));
            if (!id) return fail(id.error());
            if (*id) {
                if (auto parsed =
                        parse_id(kOrg, std::string_view(**id).substr(1, kOrg.size() + 26)))
                    return need_row<OrgRow>(*env_, txn, Table::org, keys::of(*parsed),
                                            "no such org");
            }
            return fail(Errc::not_found, fmt::format("no org '{}'", name));
        });
    }
    Result<std::vector<OrgRow>> orgs() override { return all<OrgRow>(Table::org); }
    Result<UserRow> user(const Ulid& id) override {
        return one<UserRow>(Table::user, keys::of(id), "no such user");
    }

    const std::string& pepper() const override { return env_->pepper(); }
    Result<SessionRow> session(std::string_view token, int64_t now_ms) override {
        const std::string key = api_key_hash(token, env_->pepper());
        return with([&](MDB_txn* txn) -> Result<SessionRow> {
            auto row = need_row<SessionRow>(*env_, txn, Table::session, key, "no such session");
            if (!row) return row;
            if (row->expires_ms <= now_ms) return fail(Errc::denied, "the session has expired");
            auto user =
                need_row<UserRow>(*env_, txn, Table::user, keys::of(row->user), "no such user");
            if (!user) return fail(user.error());
            if (user->session_floor && row->id < *user->session_floor)
                return fail(Errc::denied, "the session was ended");
            auto owner =
                need_row<OrgRow>(*env_, txn, Table::org, keys::of(row->org), "no such org");
            if (!owner) return fail(owner.error());
            if (owner->disabled) return fail(Errc::denied, "the org is disabled");
            return row;
        });
    }

    Result<ConvRow> conversation(const Ulid& org, const Ulid& user, const Ulid& conv,
                                 Consistency) override {
        auto row = one<ConvRow>(Table::conv, keys::of(conv), "no such conversation");
        if (row && (row->org != org || row->user != user))
            return fail(Errc::not_found, "no such conversation");
        return row;
    }

    Result<ConversationPage> conversations(const Ulid& user, size_t limit, std::string_view cursor,
                                           Consistency) override {
        std::string from = keys::of(user);
        bool skip_equal = false;
        if (!cursor.empty()) {
            auto key = open_cursor(user, cursor);
            if (!key) return fail(key.error());
            from = std::move(*key);
            skip_equal = true;
        }
        limit = std::clamp<size_t>(limit, 1, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<ConversationPage> {
            ConversationPage page;
            auto walk = Cursor::open(*env_, txn, Table::conv_user);
            if (!walk) return fail(walk.error());
            bool on = walk->seek(from);
            if (on && skip_equal && walk->key() == from) on = walk->next();
            std::string last;
            for (; on && walk->key().starts_with(user.view()); on = walk->next()) {
                if (page.rows.size() == limit) {
                    page.has_more = true;
                    page.next_cursor = seal_cursor(user, last);
                    break;
                }
                last = walk->key();
                auto row = need_row<ConvRow>(*env_, txn, Table::conv, last.substr(24),
                                             "conversation list without its conversation");
                if (!row) return fail(row.error());
                page.rows.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return page;
        });
    }

    Result<uint64_t> unread(const Ulid& user, const ConvRow& conv) override {
        return with([&](MDB_txn* txn) -> Result<uint64_t> {
            auto mark = find_row<ReadRow>(*env_, txn, Table::read, keys::pair(user, conv.id));
            if (!mark) return fail(mark.error());
            const uint64_t read = *mark ? (*mark)->count_read : 0;
            return conv.message_count > read ? conv.message_count - read : 0;
        });
    }

    Result<MessagePage> messages(const MessagesQuery& query, Consistency) override {
        const size_t limit = std::clamp<size_t>(query.limit, 1, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<MessagePage> {
            MessagePage page;
            auto walk = Cursor::open(*env_, txn, Table::msg);
            if (!walk) return fail(walk.error());
            const std::string low =
                query.after ? keys::msg(query.conv, *query.after) : keys::of(query.conv);
            const std::string high = query.before ? keys::msg(query.conv, *query.before)
                                                  : keys::of(query.conv) + std::string(21, '\xff');
            bool on = query.ascending ? walk->seek(low) : walk->seek_before(high);
            if (on && query.ascending && walk->key() == low) on = walk->next();
            const auto inside = [&] {
                return walk->key().starts_with(query.conv.view()) && walk->key() < high &&
                       (walk->key() > low);
            };
            for (; on && inside(); on = query.ascending ? walk->next() : walk->prev()) {
                if (page.rows.size() == limit) {
                    page.has_more = true;
                    break;
                }
                auto row = row_of_record<MessageRow>(*env_, Table::msg, walk->key(), walk->value());
                if (!row) return fail(row.error());
                page.rows.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return page;
        });
    }

    Result<MessageRow> message(const Ulid& conv, const Ulid& message, Consistency) override {
        return one<MessageRow>(Table::msg, keys::msg(conv, message), "no such message");
    }

    Result<Path> path(const Ulid& conv, const Ulid& message, size_t messages_max) override {
        messages_max = std::clamp<size_t>(messages_max, 1, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<Path> {
            Path path;
            std::optional<Ulid> at = message;
            while (at) {
                if (path.rows.size() == messages_max) {
                    path.cut = true;
                    break;
                }
                auto row = need_row<MessageRow>(*env_, txn, Table::msg, keys::msg(conv, *at),
                                                "no such message");
                if (!row) return fail(row.error());
                // A parent is older than its child: a damaged chain cannot run in a circle.
                if (row->parent && *row->parent >= *at)
                    return fail(Errc::corrupt,
                                fmt::format("message {} has a parent that is not older",
                                            show_id(kMsg, *at)));
                at = row->parent;
                path.rows.push_back(std::move(*row));
            }
            std::ranges::reverse(path.rows);
            return path;
        });
    }

    Result<std::vector<Ulid>> children(const Ulid& conv,
                                       const std::optional<Ulid>& parent) override {
        return with([&](MDB_txn* txn) -> Result<std::vector<Ulid>> {
            std::vector<Ulid> out;
            auto walk = Cursor::open(*env_, txn, Table::child);
            if (!walk) return fail(walk.error());
            const std::string key = keys::child(conv, parent);
            for (bool on = walk->seek(key); on && walk->key() == key && out.size() < kRowsMax;
                 on = walk->next()) {
                if (auto id = Ulid::from_bytes(walk->value())) out.push_back(*id);
            }
            return out;
        });
    }

    Result<StreamRow> stream(const Ulid& message) override {
        return with([&](MDB_txn* txn) -> Result<StreamRow> {
            auto row =
                need_row<StreamRow>(*env_, txn, Table::stream, keys::of(message), "no such stream");
            if (!row) return row;
            if (auto done = fill_position(*env_, txn, *row); !done) return fail(done.error());
            return row;
        });
    }

    Result<std::vector<StreamRow>> running_streams(std::string_view not_owner,
                                                   size_t limit) override {
        limit = std::min(limit, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<std::vector<StreamRow>> {
            std::vector<StreamRow> out;
            auto walk = Cursor::open(*env_, txn, Table::stream);
            if (!walk) return fail(walk.error());
            for (bool on = walk->first(); on && out.size() < limit; on = walk->next()) {
                auto row =
                    row_of_record<StreamRow>(*env_, Table::stream, walk->key(), walk->value());
                if (!row && row.error().code == Errc::not_found) continue;  // of an erased user
                if (!row) return fail(row.error());
                if (row->state != "running" || (!not_owner.empty() && row->owner == not_owner))
                    continue;
                if (auto done = fill_position(*env_, txn, *row); !done) return fail(done.error());
                out.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<std::vector<DeltaRow>> journal(const Ulid& message, uint32_t after_epoch,
                                          uint32_t after_seq, size_t limit) override {
        limit = std::min(limit, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<std::vector<DeltaRow>> {
            std::vector<DeltaRow> out;
            auto walk = Cursor::open(*env_, txn, Table::sdelta);
            if (!walk) return fail(walk.error());
            const std::string from = keys::sdelta(message, after_epoch, after_seq);
            bool on = walk->seek(from);
            if (on && walk->key() == from) on = walk->next();
            for (; on && out.size() < limit && walk->key().starts_with(message.view());
                 on = walk->next()) {
                auto row =
                    row_of_record<DeltaRow>(*env_, Table::sdelta, walk->key(), walk->value());
                if (!row) return fail(row.error());
                out.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<std::vector<ModelRow>> models() override { return all<ModelRow>(Table::model); }
    Result<std::vector<AliasRow>> aliases() override { return all<AliasRow>(Table::alias); }

    Result<std::vector<UsageTotal>> usage(const Ulid& who, uint32_t day_from,
                                          uint32_t day_to) override {
        return with([&](MDB_txn* txn) -> Result<std::vector<UsageTotal>> {
            std::vector<UsageTotal> out;
            auto walk = Cursor::open(*env_, txn, Table::usage);
            if (!walk) return fail(walk.error());
            for (bool on = walk->seek(keys::usage(who, day_to, 0));
                 on && walk->key().starts_with(who.view()) && out.size() < kRowsMax;
                 on = walk->next()) {
                auto row =
                    row_of_record<UsageTotal>(*env_, Table::usage, walk->key(), walk->value());
                if (!row) return fail(row.error());
                if (row->day < day_from) break;
                out.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<std::vector<UsageRow>> usage_since(int64_t since_ms, size_t limit) override {
        return with([&](MDB_txn* txn) -> Result<std::vector<UsageRow>> {
            std::vector<UsageRow> out;
            auto walk = Cursor::open(*env_, txn, Table::usage_log);
            if (!walk) return fail(walk.error());
            for (bool on = walk->last(); on && out.size() < limit; on = walk->prev()) {
                auto row =
                    row_of_record<UsageRow>(*env_, Table::usage_log, walk->key(), walk->value());
                if (!row) return fail(row.error());
                if (row->ms < since_ms) break;
                out.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<std::vector<Change>> changes(uint64_t after, size_t limit) override {
        limit = std::min(limit, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<std::vector<Change>> {
            std::vector<Change> out;
            auto walk = Cursor::open(*env_, txn, Table::changes);
            if (!walk) return fail(walk.error());
            if (after == UINT64_MAX) return out;
            for (bool on = walk->seek(keys::seq(after + 1)); on && out.size() < limit;
                 on = walk->next()) {
                auto json = decode_record(Table::changes, walk->key(), walk->value());
                if (!json) return fail(json.error());
                out.push_back({get_u64(walk->key()), std::move(*json)});
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<std::vector<Change>> feed(const Ulid& user, uint64_t after, size_t limit) override {
        limit = std::min(limit, kRowsMax);
        return with([&](MDB_txn* txn) -> Result<std::vector<Change>> {
            std::vector<Change> out;
            auto walk = Cursor::open(*env_, txn, Table::feed);
            if (!walk) return fail(walk.error());
            if (after == UINT64_MAX) return out;
            for (bool on = walk->seek(keys::feed(user, after + 1));
                 on && out.size() < limit && walk->key().starts_with(user.view());
                 on = walk->next()) {
                auto json = decode_record(Table::feed, walk->key(), walk->value());
                if (!json) return fail(json.error());
                out.push_back({get_u64(walk->key().substr(16)), std::move(*json)});
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    Result<uint64_t> last_change() override {
        return with([&](MDB_txn* txn) -> Result<uint64_t> {
            auto walk = Cursor::open(*env_, txn, Table::changes);
            if (!walk) return fail(walk.error());
            return walk->last() ? get_u64(walk->key()) : 0;
        });
    }

    Result<MessageBatchRow> message_batch(const Ulid& org, const Ulid& user,
                                          const Ulid& batch) override {
        auto row = one<MessageBatchRow>(Table::batch, keys::batch(batch), "no such batch");
        if (row && (row->org != org || row->user != user || row->state == "creating"))
            return fail(Errc::not_found, "no such batch");
        return row;
    }
    Result<BatchList> message_batches(const BatchesQuery& query) override {
        return with([&](MDB_txn* txn) { return read_batches(*env_, txn, query); });
    }
    Result<std::vector<MessageBatchRow>> open_batches(size_t limit) override {
        return with([&](MDB_txn* txn) { return read_open_batches(*env_, txn, limit); });
    }
    Result<std::vector<BatchItemRow>> batch_items(const Ulid& batch, bool done, uint32_t from,
                                                  size_t limit, size_t bytes) override {
        return with([&](MDB_txn* txn) {
            return read_batch_items(*env_, txn, batch, done, from, limit, bytes);
        });
    }

    Result<IdemRow> idempotency(const Ulid& user, std::string_view scope, std::string_view key,
                                int64_t now_ms) override {
        auto row =
            one<IdemRow>(Table::idem, keys::idem(user, scope, key), "no such idempotency key");
        if (row && row->expires_ms <= now_ms)
            return fail(Errc::not_found, "the idempotency key has expired");
        return row;
    }

  private:
    template <class Call>
    auto with(Call call) -> decltype(call(nullptr)) {
        auto txn = ReadTxn::begin(*env_);
        if (!txn) return fail(txn.error());
        return call(txn->handle());
    }
    template <class Row>
    Result<Row> one(Table table, std::string_view key, const char* missing) {
        return with([&](MDB_txn* txn) { return need_row<Row>(*env_, txn, table, key, missing); });
    }
    template <class Row>
    Result<std::vector<Row>> all(Table table) {
        return with([&](MDB_txn* txn) -> Result<std::vector<Row>> {
            std::vector<Row> out;
            auto walk = Cursor::open(*env_, txn, table);
            if (!walk) return fail(walk.error());
            for (bool on = walk->first(); on && out.size() < kRowsMax; on = walk->next()) {
                auto row = row_of_record<Row>(*env_, table, walk->key(), walk->value());
                if (!row) return fail(row.error());
                out.push_back(std::move(*row));
            }
            if (walk->failure()) return fail(*walk->failure());
            return out;
        });
    }

    // The user is inside the MAC and not in the cursor: another user's cursor does not open.
    std::string mac(const Ulid& user, std::string_view body) const {
        std::string text = "list cursor";
        text += user.view();
        text += body;
        std::string out(kCursorMac, '\0');
        crypto_generichash(reinterpret_cast<uint8_t*>(out.data()), out.size(),
                           reinterpret_cast<const uint8_t*>(text.data()), text.size(),
                           reinterpret_cast<const uint8_t*>(env_->pepper().data()),
                           env_->pepper().size());
        return out;
    }
    std::string seal_cursor(const Ulid& user, std::string_view conv_user_key) const {
        std::string body("\x01", 1);
        body += conv_user_key.substr(16);
        body += '\0';  // direction: newest first, the only one there is
        return base::base64url(body + mac(user, body));
    }
    Result<std::string> open_cursor(const Ulid& user, std::string_view text) const {
        auto bytes = base::unbase64url(text);
        if (!bytes || bytes->size() != kCursorBody + kCursorMac ||
            !base::equal_constant_time(
                std::string_view(*bytes).substr(kCursorBody),
                mac(user, std::string_view(*bytes).substr(0, kCursorBody))) ||
            (*bytes)[0] != 1)
            return fail(Errc::invalid, "the cursor is not one of ours");
        return keys::of(user) + bytes->substr(1, 24);
    }

    std::shared_ptr<Env> env_;
};

}  // namespace

Result<std::unique_ptr<Reader>> make_reader(std::shared_ptr<Env> env) {
    return std::unique_ptr<Reader>(new LmdbReader(std::move(env)));
}

Result<std::unique_ptr<Reader>> open_reader(const std::string& store_dir) {
    EnvOptions options;
    options.dir = store_dir;
    auto env = Env::open(options);
    if (!env) return fail(env.error());
    return make_reader(std::move(*env));
}

}  // namespace parley::store
