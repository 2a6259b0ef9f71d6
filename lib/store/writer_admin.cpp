// Orgs, keys, users, models and aliases.
#include <sodium.h>

#include "base/json.hpp"
#include "store/batch.hpp"
#include "store/secret.hpp"

namespace parley::store {
namespace {

constexpr size_t kNameMax = 128;
constexpr uint64_t kGraceMaxMs = 366ull * 86'400'000;

Result<std::optional<Ulid>> org_by_name(Batch& batch, std::string_view name) {
    if (name.empty() || name.size() > kNameMax) return std::optional<Ulid>{};
    auto text = batch.find_text(Table::meta, keys::org_name(name));
    if (!text) return fail(text.error());
    if (!*text) return std::optional<Ulid>{};
    return parse_id(kOrg, std::string_view(**text).substr(1, kOrg.size() + 26));
}

// By id or by name.
tl::expected<OrgRow, Refusal> need_org(Batch& batch, std::string_view org) {
    std::optional<Ulid> id = parse_id(kOrg, org);
    if (!id) {
        auto named = org_by_name(batch, org);
        if (!named) return refuse(named.error());
        id = *named;
    }
    if (!id) return refuse(Errc::not_found, fmt::format("no org '{}'", org));
    auto row = batch.need<OrgRow>(Table::org, keys::of(*id), fmt::format("no org '{}'", org));
    if (!row) return refuse(row.error());
    return std::move(*row);
}

std::optional<std::string> bad_name(std::string_view what, std::string_view name) {
    if (name.empty() || name.size() > kNameMax)
        return fmt::format("{} should have 1 to {} bytes", what, kNameMax);
    return std::nullopt;
}

std::optional<std::string> bad_retention(int64_t ms) {
    if (ms == 0 || (ms >= kRetentionMin && ms <= kRetentionMax)) return std::nullopt;
    return "retention should be a day at least and 36,500 at most, or 0 for no end";
}

}  // namespace

Step do_org_create(Batch& batch, Fields& f) {
    OrgRow row;
    f.text("name", row.name, true)
        .real("weight", row.weight)
        .raw("limits", row.limits, RawKind::object)
        .number("retention_ms", row.retention_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (auto bad = bad_name("the name", row.name)) return refuse(Errc::invalid, *bad);
    if (auto bad = bad_retention(row.retention_ms)) return refuse(Errc::invalid, *bad);
    if (!(row.weight > 0 && row.weight <= 1e6))
        return refuse(Errc::invalid, "weight should be above 0");
    if (parse_id(kOrg, row.name))
        return refuse(Errc::invalid, "a name may not look like an org id");
    auto taken = org_by_name(batch, row.name);
    if (!taken) return refuse(taken.error());
    if (*taken)
        return refuse(Errc::conflict, fmt::format("org '{}' exists", row.name), "exists",
                      member("org", show_id(kOrg, **taken)));
    row.id = batch.new_id();
    row.created_ms = batch.now_ms();
    const std::string id = show_id(kOrg, row.id);
    if (auto done = batch.put(Table::org, keys::of(row.id), to_json(row)); !done)
        return refuse(done.error());
    if (auto done = batch.put(Table::meta, keys::org_name(row.name), base::json_string(id)); !done)
        return refuse(done.error());
    if (auto done = batch.change("org.created", row.id, {}, member("name", row.name)); !done)
        return refuse(done.error());
    return Said{member("org", id) + member("name", row.name), {}};
}

Step do_org_update(Batch& batch, Fields& f) {
    std::string org;
    std::optional<std::string> limits;
    std::optional<bool> disabled;
    double weight = 0;
    std::optional<uint64_t> retention;
    f.text("org", org, true)
        .raw("limits", limits, RawKind::object)
        .flag("disabled", disabled)
        .real("weight", weight)
        .number("retention_ms", retention);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (retention)
        if (auto bad = bad_retention(static_cast<int64_t>(*retention)))
            return refuse(Errc::invalid, *bad);
    if (weight < 0 || weight > 1e6) return refuse(Errc::invalid, "weight should be above 0");
    auto row = need_org(batch, org);
    if (!row) return tl::unexpected(row.error());
    if (limits) row->limits = *limits;
    if (disabled) row->disabled = *disabled;
    if (weight > 0) row->weight = weight;
    if (retention) row->retention_ms = static_cast<int64_t>(*retention);
    if (auto done = batch.put(Table::org, keys::of(row->id), to_json(*row)); !done)
        return refuse(done.error());
    if (auto done = batch.change("org.updated", row->id, {}, {}); !done)
        return refuse(done.error());
    return Said{member("org", show_id(kOrg, row->id)), {}};
}

namespace {

// The key of the `apikey` table for a hash in hex, or for a fresh secret where there is none.
struct FreshKey {
    std::string table_key, secret;
};
tl::expected<FreshKey, Refusal> fresh_key(Batch& batch, const std::string& hash,
                                          std::string& prefix) {
    FreshKey fresh;
    if (hash.empty()) {
        const NewApiKey made = new_api_key();
        fresh.secret = made.secret;
        prefix = made.prefix;
        fresh.table_key = api_key_hash(made.secret, batch.env().pepper());
    } else {
        auto bytes = base::unhex(hash);
        if (!bytes || bytes->size() != 32)
            return refuse(Errc::invalid, "hash should be 64 hex digits");
        fresh.table_key = std::move(*bytes);
    }
    auto known = batch.has(Table::apikey, fresh.table_key);
    if (!known) return refuse(known.error());
    if (*known) return refuse(Errc::conflict, "this key exists", "exists");
    return fresh;
}

Said said_of(const ApiKeyRow& row, const std::string& secret) {
    Said said{member("key_id", show_id(kKey, row.id)) + member("org", show_id(kOrg, row.org)) +
                  member("prefix", row.prefix),
              {}};
    if (!secret.empty()) {
        said.stored = said.members;
        said.members += member("key", secret);
    }
    return said;
}

// The table is by hash; an org has few keys, and changing one is rare.
struct FoundKey {
    std::string table_key;
    ApiKeyRow row;
};
tl::expected<FoundKey, Refusal> find_key(Batch& batch, const Ulid& id) {
    auto walk = Cursor::open(batch.env(), batch.txn(), Table::apikey);
    if (!walk) return refuse(walk.error());
    for (bool on = walk->first(); on; on = walk->next()) {
        auto row = row_of_record<ApiKeyRow>(batch.env(), Table::apikey, walk->key(), walk->value());
        if (!row) return refuse(row.error());
        if (row->id == id) return FoundKey{std::string(walk->key()), std::move(*row)};
    }
    if (walk->failure()) return refuse(*walk->failure());
    return refuse(Errc::not_found, fmt::format("no key '{}'", show_id(kKey, id)));
}

Result<void> put_key(Batch& batch, const std::string& key, const ApiKeyRow& row,
                     std::string_view what) {
    if (auto done = batch.put(Table::apikey, key, to_json(row)); !done) return done;
    return batch.change(what, row.org, {}, member("key", show_id(kKey, row.id)));
}

}  // namespace

Step do_key_create(Batch& batch, Fields& f) {
    std::string org, hash;
    ApiKeyRow row;
    row.user_name = "default";
    f.text("org", org, true).text("user", row.user_name).text("name", row.name).text("hash", hash);
    f.text("prefix", row.prefix).list("scopes", row.scopes).list("models", row.models);
    f.text("service_class", row.service_class).raw("limits", row.limits, RawKind::object);
    f.number("expires_ms", row.expires_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (auto bad = bad_name("the user", row.user_name)) return refuse(Errc::invalid, *bad);
    if (row.name.size() > kNameMax || row.prefix.size() > 16)
        return refuse(Errc::invalid, "name or prefix is too long");
    auto owner = need_org(batch, org);
    if (!owner) return tl::unexpected(owner.error());
    auto fresh = fresh_key(batch, hash, row.prefix);
    if (!fresh) return tl::unexpected(fresh.error());

    row.id = batch.new_id();
    row.org = owner->id;
    batch.subject = user_id(row.org, row.user_name);
    row.user = user_id(row.org, row.user_name);
    row.created_ms = batch.now_ms();
    auto user = batch.has(Table::user, keys::of(row.user));
    if (!user) return refuse(user.error());
    if (!*user) {
        const UserRow made{row.user, row.org, row.user_name, {}, batch.now_ms(), {}};
        if (auto done = batch.put(Table::user, keys::of(row.user), to_json(made)); !done)
            return refuse(done.error());
    }
    if (auto done = put_key(batch, fresh->table_key, row, "key.created"); !done)
        return refuse(done.error());
    return said_of(row, fresh->secret);
}

Step do_key_update(Batch& batch, Fields& f) {
    Ulid id;
    std::optional<std::string> limits;
    std::optional<std::vector<std::string>> scopes, models;
    std::optional<uint64_t> expires_ms;
    f.id("key_id", kKey, id).raw("limits", limits, RawKind::object);
    f.list("scopes", scopes).list("models", models).number("expires_ms", expires_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto found = find_key(batch, id);
    if (!found) return tl::unexpected(found.error());
    ApiKeyRow& row = found->row;
    if (limits) row.limits = *limits;
    if (scopes) row.scopes = *scopes;
    if (models) row.models = *models;
    if (expires_ms) row.expires_ms = static_cast<int64_t>(*expires_ms);
    if (auto done = put_key(batch, found->table_key, row, "key.updated"); !done)
        return refuse(done.error());
    return Said{member("key_id", show_id(kKey, id)), {}};
}

Step do_key_rotate(Batch& batch, Fields& f) {
    Ulid id;
    std::string hash, prefix;
    uint64_t grace_ms = 0;
    f.id("key_id", kKey, id).text("hash", hash).text("prefix", prefix);
    f.number("grace_ms", grace_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (prefix.size() > 16 || grace_ms > kGraceMaxMs)
        return refuse(Errc::invalid, "prefix is too long, or grace over 366 days");
    auto old = find_key(batch, id);
    if (!old) return tl::unexpected(old.error());
    if (old->row.revoked_ms || (old->row.expires_ms && old->row.expires_ms <= batch.now_ms()))
        return refuse(Errc::denied, "this key is revoked or has expired: make a new one");
    auto fresh = fresh_key(batch, hash, prefix);
    if (!fresh) return tl::unexpected(fresh.error());

    ApiKeyRow row = old->row;  // a bound on its life stays: it is the key's, not the secret's
    row.id = batch.new_id();
    row.prefix = prefix;
    row.first = old->row.first.value_or(old->row.id);
    row.created_ms = batch.now_ms();
    const int64_t end = batch.now_ms() + static_cast<int64_t>(grace_ms);
    if (old->row.expires_ms == 0 || old->row.expires_ms > end) old->row.expires_ms = end;
    if (auto done = put_key(batch, old->table_key, old->row, "key.updated"); !done)
        return refuse(done.error());
    if (auto done = put_key(batch, fresh->table_key, row, "key.created"); !done)
        return refuse(done.error());
    Said said = said_of(row, fresh->secret);
    const std::string more = member_raw("old_expires_ms", std::to_string(old->row.expires_ms));
    said.members += more;
    if (said.stored) *said.stored += more;
    return said;
}

Step do_key_revoke(Batch& batch, Fields& f) {
    Ulid id;
    f.id("key_id", kKey, id);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto found = find_key(batch, id);
    if (!found) return tl::unexpected(found.error());
    if (found->row.revoked_ms == 0) {
        found->row.revoked_ms = batch.now_ms();
        if (auto done = put_key(batch, found->table_key, found->row, "key.revoked"); !done)
            return refuse(done.error());
    }
    return Said{member("key_id", show_id(kKey, id)), {}};
}

Step do_user_create(Batch& batch, Fields& f) {
    std::string org;
    UserRow row;
    bool replace = false;
    f.text("org", org, true).text("name", row.name, true).text("password_hash", row.password_hash);
    f.flag("replace", replace);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (auto bad = bad_name("the name", row.name)) return refuse(Errc::invalid, *bad);
    if (!row.password_hash.empty() && (!row.password_hash.starts_with("$argon2id$") ||
                                       row.password_hash.size() >= crypto_pwhash_STRBYTES))
        return refuse(Errc::invalid, "password_hash should be argon2id in text form");
    auto owner = need_org(batch, org);
    if (!owner) return tl::unexpected(owner.error());
    row.org = owner->id;
    row.id = user_id(row.org, row.name);
    row.created_ms = batch.now_ms();
    batch.subject = row.id;
    auto old = batch.find<UserRow>(Table::user, keys::of(row.id));
    if (!old) return refuse(old.error());
    if (*old) {
        if (!(*old)->password_hash.empty() && !replace)
            return refuse(Errc::conflict, fmt::format("user '{}' exists", row.name), "exists",
                          member("user", show_id(kUser, row.id)));
        row.created_ms = (*old)->created_ms;
        row.notifications = (*old)->notifications;
        // Another password: who came in with the old one is out.
        row.session_floor = batch.new_id();
    }
    if (auto done = batch.put(Table::user, keys::of(row.id), to_json(row)); !done)
        return refuse(done.error());
    if (auto done =
            batch.change("user.created", row.org, {}, member("user", show_id(kUser, row.id)));
        !done)
        return refuse(done.error());
    return Said{member("user", show_id(kUser, row.id)) + member("org", show_id(kOrg, row.org)), {}};
}

namespace {

constexpr size_t kHistoryMax = 64;

// `history` with one more, without the oldest beyond the bound.
std::string with(const std::string& history, const AliasRow& row, const std::string& who,
                 const std::string& why) {
    simdjson::dom::parser parser;
    simdjson::dom::array old;
    std::vector<std::string> kept;
    if (parser.parse(simdjson::padded_string(history)).get(old) == simdjson::SUCCESS)
        for (const auto each : old) kept.push_back(simdjson::minify(each));
    std::string out;
    base::JsonWriter w(out);
    w.array();
    const size_t from = kept.size() < kHistoryMax ? 0 : kept.size() - kHistoryMax + 1;
    for (size_t i = from; i < kept.size(); ++i) w.raw(kept[i]);
    w.object().field("target", row.target).field("who", who).field("why", why);
    w.field("at_ms", row.updated_ms).end().end();
    return out;
}

}  // namespace

Step do_model_put(Batch& batch, Fields& f) {
    ModelRow row;
    f.text("hash", row.hash, true).text("name", row.name, true).text("tokenizer", row.tokenizer);
    f.number("context", row.context).number("output_max", row.output_max);
    f.raw("info", row.info, RawKind::object);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (row.hash.empty() || row.hash.size() > 256 || row.name.empty() || row.name.size() > 256)
        return refuse(Errc::invalid, "hash and name should have 1 to 256 bytes");
    row.created_ms = batch.now_ms();
    auto old = batch.find<ModelRow>(Table::model, row.hash);
    if (!old) return refuse(old.error());
    if (*old) {
        row.created_ms = (*old)->created_ms;
        if (to_json(row) == to_json(**old)) return Said{member_raw("created", "false"), {}};
    }
    // The alias follows the first model and is never moved by a later one.
    auto standing = batch.has(Table::alias, "default");
    if (!standing) return refuse(standing.error());
    if (auto done = batch.put(Table::model, row.hash, to_json(row)); !done)
        return refuse(done.error());
    if (auto done =
            batch.change("model.put", {}, {}, member("model", row.name) + member("hash", row.hash));
        !done)
        return refuse(done.error());
    if (!*standing) {
        AliasRow alias{"default", row.name, "{}", batch.now_ms()};
        alias.history = with("[]", alias, "router", "the first model");
        if (auto done = batch.put(Table::alias, "default", to_json(alias)); !done)
            return refuse(done.error());
        if (auto done = batch.change("alias.set", {}, {},
                                     member("alias", "default") + member("target", row.name));
            !done)
            return refuse(done.error());
    }
    return Said{member_raw("created", *old ? "false" : "true"), {}};
}

Step do_alias_set(Batch& batch, Fields& f) {
    AliasRow row;
    std::string who, why;
    std::optional<std::string> rule, rollout;
    f.text("name", row.name, true)
        .text("target", row.target)
        .text("who", who)
        .text("why", why)
        .raw("rule", rule, RawKind::object)
        .raw("rollout", rollout, RawKind::object);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (row.name.empty() || row.name.size() > 256 || row.target.size() > 256)
        return refuse(Errc::invalid, "name and target should have at most 256 bytes");
    if (who.size() > 256 || why.size() > 1024)
        return refuse(Errc::invalid, "who should have at most 256 bytes, why 1 KiB");
    row.updated_ms = batch.now_ms();
    auto old = batch.find<AliasRow>(Table::alias, row.name);
    if (!old) return refuse(old.error());
    if (*old) row.rule = (*old)->rule, row.rollout = (*old)->rollout;
    if (rule) row.rule = *rule;
    if (rollout) row.rollout = *rollout;
    row.history = with(*old ? (*old)->history : "[]", row, who, why);
    const auto done = row.target.empty() ? batch.erase(Table::alias, row.name)
                                         : batch.put(Table::alias, row.name, to_json(row));
    if (!done) return refuse(done.error());
    if (auto said = batch.change("alias.set", {}, {},
                                 member("alias", row.name) + member("target", row.target) +
                                     member("who", who) + member("why", why));
        !said)
        return refuse(said.error());
    return Said{};
}

}  // namespace parley::store
