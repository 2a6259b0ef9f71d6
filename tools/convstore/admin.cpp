// Orgs, keys and users: commands to the running store, or to the store itself when none runs.
#include <fmt/format.h>
#include <simdjson.h>

#include <iostream>
#include <memory>
#include <thread>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "hand.hpp"
#include "limits/limits.hpp"
#include "options.hpp"
#include "store/client.hpp"
#include "store/commands.hpp"
#include "store/env.hpp"
#include "store/reader.hpp"
#include "store/secret.hpp"

namespace parley::convstore {
namespace {

using base::Errc;
using base::fail;
using base::Result;

int done(const Result<void>& result) {
    return result ? 0 : base::report("convstore", result.error());
}

Result<void> valid_limits(const std::string& text) {
    if (auto limits = limits::parse_limits(text); !limits)
        return fail(Errc::usage, "--limits: " + limits.error().what);
    return {};
}

Result<void> make_org(const Options& o) {
    if (auto valid = valid_limits(o.limits); !valid) return valid;
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    store::OrgCreate command;
    command.name = o.name;
    command.weight = o.weight;
    command.limits = o.limits;
    command.retention_ms = o.retention_ms;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    const std::string id = Hand::text(*reply, "/org");
    std::string out = id;
    if (o.json) {
        out.clear();
        base::JsonWriter(out).object().field("org", id).field("name", o.name).end();
    }
    return put_out(out + "\n");
}

Result<void> change_org(const Options& o) {
    store::OrgUpdate command;
    command.org = o.org;
    if (!o.new_limits.empty()) {
        if (auto valid = valid_limits(o.new_limits); !valid) return valid;
        command.limits = o.new_limits;
    }
    if (o.new_weight > 0) command.weight = o.new_weight;
    if (!o.disabled.empty()) command.disabled = o.disabled == "yes";
    if (o.no_retention && o.retention_ms > 0)
        return fail(Errc::usage, "say --retention or --no-retention, not both");
    if (o.retention_ms > 0) command.retention_ms = o.retention_ms;
    if (o.no_retention) command.retention_ms = 0;
    if (!command.limits && !command.weight && !command.disabled && !command.retention_ms)
        return fail(
            Errc::usage,
            "org update needs --limits, --weight, --retention, --no-retention or --disabled");
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    if (!o.json) return {};
    std::string out;
    base::JsonWriter(out).object().field("org", Hand::text(*reply, "/org")).end();
    return put_out(out + "\n");
}

Result<void> make_key(const Options& o) {
    if (auto valid = valid_limits(o.limits); !valid) return valid;
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto pepper = store::read_pepper(o.places().store());
    if (!pepper) return fail(pepper.error());
    const store::NewApiKey made = store::new_api_key();
    store::KeyCreate command;
    command.org = o.org;
    command.user = o.user;
    command.name = o.name;
    command.hash = base::hex(store::api_key_hash(made.secret, *pepper));
    command.prefix = made.prefix;
    command.scopes = o.scopes;
    command.models = o.models;
    command.service_class = o.service_class;
    command.limits = o.limits;
    if (o.expires_in_ms > 0) command.expires_ms = base::system_clock().wall_ms() + o.expires_in_ms;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    std::string out = made.secret;
    if (o.json) {
        out.clear();
        base::JsonWriter w(out);
        w.object().field("key", made.secret).field("org", Hand::text(*reply, "/org"));
        w.field("key_id", Hand::text(*reply, "/key_id"))
            .field("prefix", made.prefix)
            .field("user", o.user)
            .end();
    }
    return put_out(out + "\n");
}

Result<void> change_key(const Options& o) {
    store::KeyUpdate command;
    command.key_id = o.key_id;
    if (!o.new_limits.empty()) {
        if (auto valid = valid_limits(o.new_limits); !valid) return valid;
        command.limits = o.new_limits;
    }
    if ((o.all_scopes && !o.scopes.empty()) || (o.all_models && !o.models.empty()) ||
        (o.no_expiry && o.expires_in_ms > 0))
        return fail(Errc::usage, "say what is allowed, or that all is, not both");
    if (o.all_scopes || !o.scopes.empty()) command.scopes = o.scopes;
    if (o.all_models || !o.models.empty()) command.models = o.models;
    if (o.expires_in_ms > 0) command.expires_ms = base::system_clock().wall_ms() + o.expires_in_ms;
    if (o.no_expiry) command.expires_ms = 0;
    if (!command.limits && !command.scopes && !command.models && !command.expires_ms)
        return fail(Errc::usage, "key update needs something to change");
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    if (!o.json) return {};
    std::string out;
    base::JsonWriter(out).object().field("key_id", o.key_id).end();
    return put_out(out + "\n");
}

Result<void> rotate_key(const Options& o) {
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto pepper = store::read_pepper(o.places().store());
    if (!pepper) return fail(pepper.error());
    const store::NewApiKey made = store::new_api_key();
    store::KeyRotate command;
    command.key_id = o.key_id;
    command.hash = base::hex(store::api_key_hash(made.secret, *pepper));
    command.prefix = made.prefix;
    command.grace_ms = o.grace_ms;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    std::string out = made.secret;
    if (o.json) {
        out.clear();
        base::JsonWriter w(out);
        w.object().field("key", made.secret).field("org", Hand::text(*reply, "/org"));
        w.field("key_id", Hand::text(*reply, "/key_id"))
            .field("prefix", made.prefix)
            .field("old_key_id", o.key_id)
            .end();
    }
    return put_out(out + "\n");
}

Result<void> revoke_key(const Options& o) {
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reply = hand.run(store::KeyRevoke{o.key_id}.json());
    if (!reply) return fail(reply.error());
    if (!o.json) return {};
    std::string out;
    base::JsonWriter(out).object().field("key_id", o.key_id).field("revoked", true).end();
    return put_out(out + "\n");
}

Result<void> make_user(const Options& o) {
    store::UserCreate command;
    command.org = o.org;
    command.name = o.user;
    command.replace = o.replace;
    if (o.password_stdin) {
        std::string password;
        std::getline(std::cin, password);
        if (!password.empty() && password.back() == '\r') password.pop_back();
        auto hash = store::hash_password(password);
        if (!hash) return fail(hash.error());
        command.password_hash = std::move(*hash);
    }
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reply = hand.run(command.json());
    if (!reply) return fail(reply.error());
    std::string out = Hand::text(*reply, "/user");
    if (o.json) {
        const std::string id = std::move(out);
        out.clear();
        base::JsonWriter(out)
            .object()
            .field("user", o.user)
            .field("user_id", id)
            .field("org", Hand::text(*reply, "/org"))
            .end();
    }
    return put_out(out + "\n");
}

// What erasure leaves nothing of: rows under the user's id, and the id beside a key.
Result<void> verify_erased(const Options& o, const store::Ulid& user) {
    store::EnvOptions options;
    options.dir = o.places().store();
    auto env = store::Env::open(options);
    if (!env) return fail(env.error());
    auto txn = store::ReadTxn::begin(**env);
    if (!txn) return fail(txn.error());
    for (const auto table : {store::Table::conv_user, store::Table::user, store::Table::idem,
                             store::Table::feed, store::Table::read}) {
        auto walk = store::Cursor::open(**env, txn->handle(), table);
        if (!walk) return fail(walk.error());
        if (walk->seek(user.view()) && walk->key().starts_with(user.view()))
            return fail(Errc::conflict,
                        fmt::format("table '{}' has a row of this user again: somebody goes on as "
                                    "this user; erase once more",
                                    store::table_name(table)));
        if (walk->failure()) return fail(*walk->failure());
    }
    auto slots = base::read_file(options.dir + "/keys/users", 8ull << 30);
    if (!slots) return fail(slots.error());
    if (slots->find(user.view()) != std::string::npos)
        return fail(Errc::conflict, "there is a key of this user again: erase once more");
    return {};
}

Result<void> erase_user(const Options& o) {
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reader = store::open_reader(o.places().store());
    if (!reader) return fail(reader.error());
    auto org = org_id(**reader, o.org);
    if (!org) return fail(org.error());
    const store::Ulid user =
        store::parse_id(store::kUser, o.user).value_or(store::user_id(*org, o.user));
    uint64_t conversations = 0, plain = 0;
    for (bool more = true; more;) {
        auto reply = hand.run(store::UserErase{*org, user}.json());
        if (!reply) return fail(reply.error());
        simdjson::dom::parser parser;
        simdjson::dom::element said;
        uint64_t n = 0, p = 0;
        bool finished = false;
        if (parser.parse(*reply).get(said) || said["done"].get(finished) ||
            said["conversations"].get(n) || said["plain_rows"].get(p))
            return fail(Errc::internal, "the writer's reply is not one: " + *reply);
        conversations += n;
        plain += p;
        more = !finished;
    }
    if (auto verified = verify_erased(o, user); !verified) return verified;
    if (!o.json) {
        std::string out =
            fmt::format("{} conversations erased, key destroyed, verified\n", conversations);
        if (plain > 0)
            out += fmt::format(
                "{} of them are from before texts were sealed: what they said stays in freed pages "
                "of "
                "data.mdb and in backups; stop convstore and put a fresh backup's data.mdb in its "
                "place\n",
                plain);
        return put_out(out);
    }
    std::string out;
    base::JsonWriter(out)
        .object()
        .field("user", store::show_id(store::kUser, user))
        .field("conversations", conversations)
        .field("plain_rows", plain)
        .field("verified", true)
        .end();
    return put_out(out + "\n");
}

Result<void> list_orgs(const Options& o) {
    auto reader = store::open_reader(o.store_path());
    if (!reader) return fail(reader.error());
    auto rows = (*reader)->orgs();
    if (!rows) return fail(rows.error());
    std::string out;
    for (const auto& row : *rows)
        out += (o.json ? store::to_json(row)
                       : fmt::format("{}  {}", store::show_id(store::kOrg, row.id), row.name)) +
               "\n";
    return put_out(out);
}

Result<void> list_keys(const Options& o) {
    auto reader = store::open_reader(o.store_path());
    if (!reader) return fail(reader.error());
    std::optional<store::Ulid> org;
    if (!o.org.empty()) {
        org = store::parse_id(store::kOrg, o.org);
        if (!org) {
            auto row = (*reader)->org_by_name(o.org);
            if (!row) return fail(row.error());
            org = row->id;
        }
    }
    auto rows = (*reader)->api_keys(org);
    if (!rows) return fail(rows.error());
    std::string out;
    for (const auto& row : *rows) {
        if (o.json) {
            out += store::to_json(row) + "\n";
            continue;
        }
        const int64_t now = base::system_clock().wall_ms();
        const char* state = row.revoked_ms                            ? "revoked"
                            : row.expires_ms && row.expires_ms <= now ? "expired"
                                                                      : "valid";
        out += fmt::format("{}  {}…  {:7}  {}  {}  {}\n", store::show_id(store::kKey, row.id),
                           row.prefix, state, store::show_id(store::kOrg, row.org), row.user_name,
                           row.name);
    }
    return put_out(out);
}

}  // namespace

int org_create(const Options& o) { return done(make_org(o)); }
int org_update(const Options& o) { return done(change_org(o)); }
int org_list(const Options& o) { return done(list_orgs(o)); }
int key_create(const Options& o) { return done(make_key(o)); }
int key_list(const Options& o) { return done(list_keys(o)); }
int key_update(const Options& o) { return done(change_key(o)); }
int key_rotate(const Options& o) { return done(rotate_key(o)); }
int key_revoke(const Options& o) { return done(revoke_key(o)); }
int user_erase(const Options& o) { return done(erase_user(o)); }
int user_create(const Options& o) { return done(make_user(o)); }

}  // namespace parley::convstore
