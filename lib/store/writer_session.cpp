// Sessions of people: made at login, renewed, ended one by one or all of a user.
#include "store/batch.hpp"

namespace parley::store {
namespace {

constexpr int kLookedAt = 16;  // rows beside a new one, for what has expired

tl::expected<std::string, Refusal> key_of(const std::string& hash, std::string_view name) {
    auto bytes = base::unhex(hash);
    if (!bytes || bytes->size() != 32)
        return refuse(Errc::invalid, fmt::format("{} should be 64 hex digits", name));
    return std::move(*bytes);
}

// The keys are hashes, so a new one stands anywhere: over time every row is met.
Result<void> sweep(Batch& batch, const std::string& from) {
    std::vector<std::string> over;
    {
        auto walk = Cursor::open(batch.env(), batch.txn(), Table::session);
        if (!walk) return fail(walk.error());
        int looked = 0;
        for (bool on = walk->seek(from); on && looked < kLookedAt; on = walk->next(), ++looked) {
            auto row =
                row_of_record<SessionRow>(batch.env(), Table::session, walk->key(), walk->value());
            if (!row && row.error().code == Errc::not_found) {
                over.emplace_back(walk->key());  // of an erased user
                continue;
            }
            if (!row) return fail(row.error());
            if (row->expires_ms <= batch.now_ms()) over.emplace_back(walk->key());
        }
        if (walk->failure()) return fail(*walk->failure());
    }
    for (const std::string& key : over)
        if (auto done = batch.erase(Table::session, key); !done) return done;
    return {};
}

Said said(const SessionRow& row) {
    return {member("session", show_id(kSession, row.id)) +
                member_raw("expires_ms", std::to_string(row.expires_ms)),
            {}};
}

}  // namespace

Step do_session_create(Batch& batch, Fields& f) {
    SessionRow row;
    std::string hash;
    int64_t ttl_ms = 0;
    f.id("org", kOrg, row.org).id("user", kUser, row.user).text("user_name", row.user_name, true);
    f.text("hash", hash, true).number("ttl_ms", ttl_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto key = key_of(hash, "hash");
    if (!key) return tl::unexpected(key.error());
    if (ttl_ms < 1 || ttl_ms > 10ll * 366 * 24 * 3600 * 1000)
        return refuse(Errc::invalid, "ttl_ms should be above 0 and at most ten years");
    if (row.user_name.size() > 128 || row.user != user_id(row.org, row.user_name))
        return refuse(Errc::invalid, "user is not the id of user_name in this org");
    auto org = batch.has(Table::org, keys::of(row.org));
    if (!org) return refuse(org.error());
    if (!*org) return refuse(Errc::not_found, "no such org");
    auto known = batch.has(Table::session, *key);
    if (!known) return refuse(known.error());
    if (*known) return refuse(Errc::conflict, "this session exists", "exists");
    auto user = batch.has(Table::user, keys::of(row.user));
    if (!user) return refuse(user.error());

    batch.subject = row.user;
    row.id = batch.new_id();
    row.created_ms = row.renewed_ms = batch.now_ms();
    row.expires_ms = batch.now_ms() + ttl_ms;
    if (!*user) {
        const UserRow made{row.user, row.org, row.user_name, {}, batch.now_ms(), {}};
        if (auto done = batch.put(Table::user, keys::of(row.user), to_json(made)); !done)
            return refuse(done.error());
    }
    if (auto done = sweep(batch, *key); !done) return refuse(done.error());
    if (auto done = batch.put(Table::session, *key, to_json(row)); !done)
        return refuse(done.error());
    if (auto done = batch.change("session.created", row.org, {},
                                 member("user", show_id(kUser, row.user)) +
                                     member("session", show_id(kSession, row.id)));
        !done)
        return refuse(done.error());
    return said(row);
}

Step do_session_renew(Batch& batch, Fields& f) {
    std::string hash, new_hash;
    int64_t grace_ms = 60'000;
    f.text("hash", hash, true).text("new_hash", new_hash, true).number("grace_ms", grace_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto key = key_of(hash, "hash");
    if (!key) return tl::unexpected(key.error());
    auto new_key = key_of(new_hash, "new_hash");
    if (!new_key) return tl::unexpected(new_key.error());
    if (grace_ms < 0 || grace_ms > 3600'000)
        return refuse(Errc::invalid, "grace_ms should be from 0 to one hour");
    auto old = batch.need<SessionRow>(Table::session, *key, "no such session");
    if (!old) return refuse(old.error());
    if (old->replaced) return refuse(Errc::conflict, "this token was replaced already", "replaced");
    if (old->expires_ms <= batch.now_ms()) return refuse(Errc::not_found, "no such session");
    auto known = batch.has(Table::session, *new_key);
    if (!known) return refuse(known.error());
    if (*known) return refuse(Errc::conflict, "this session exists", "exists");

    batch.subject = old->user;
    SessionRow fresh = *old;
    fresh.renewed_ms = batch.now_ms();
    // The one before the old one is past its grace long since, or ends with it.
    if (!old->other.empty())
        if (auto done = batch.erase(Table::session, base::unhex(old->other).value_or("")); !done)
            return refuse(done.error());
    fresh.other = hash;
    old->replaced = true;
    old->other = new_hash;
    old->expires_ms = std::min(old->expires_ms, batch.now_ms() + grace_ms);
    if (auto done = batch.put(Table::session, *key, to_json(*old)); !done)
        return refuse(done.error());
    if (auto done = batch.put(Table::session, *new_key, to_json(fresh)); !done)
        return refuse(done.error());
    return said(fresh);
}

Step do_session_end(Batch& batch, Fields& f) {
    std::string hash;
    f.text("hash", hash, true);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto key = key_of(hash, "hash");
    if (!key) return tl::unexpected(key.error());
    auto row = batch.find<SessionRow>(Table::session, *key);
    if (!row) return refuse(row.error());
    if (!*row) return Said{};
    if (auto done = batch.erase(Table::session, *key); !done) return refuse(done.error());
    // At most two tokens stand for a session at a time.
    if (!(*row)->other.empty())
        if (auto done = batch.erase(Table::session, base::unhex((*row)->other).value_or("")); !done)
            return refuse(done.error());
    if (auto done = batch.change("session.ended", (*row)->org, {},
                                 member("user", show_id(kUser, (*row)->user)) +
                                     member("session", show_id(kSession, (*row)->id)));
        !done)
        return refuse(done.error());
    return Said{};
}

Step do_session_end_all(Batch& batch, Fields& f) {
    Ulid org, user;
    f.id("org", kOrg, org).id("user", kUser, user);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto row = batch.need<UserRow>(Table::user, keys::of(user), "no such user");
    if (!row) return refuse(row.error());
    if (row->org != org) return refuse(Errc::not_found, "no such user");
    batch.subject = user;
    row->session_floor = batch.new_id();
    if (auto done = batch.put(Table::user, keys::of(user), to_json(*row)); !done)
        return refuse(done.error());
    if (auto done =
            batch.change("session.ended_all", org, {}, member("user", show_id(kUser, user)));
        !done)
        return refuse(done.error());
    return Said{};
}

}  // namespace parley::store
