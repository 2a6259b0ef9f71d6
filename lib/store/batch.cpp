#include "store/batch.hpp"

namespace parley::store {

namespace {

// Tables with what a user wrote, was told, or is called. The others hold ids and numbers.
bool holds_text(Table table) {
    switch (table) {
        case Table::conv:
        case Table::msg:
        case Table::idem:
        case Table::stream:
        case Table::sdelta:
        case Table::user:
        case Table::session:
        case Table::reply:
        case Table::batch_item:
            return true;
        default:
            return false;
    }
}

}  // namespace

Result<bool> Batch::has(Table table, std::string_view key) {
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v{};
    const int rc = mdb_get(txn_, env_.dbi(table), &k, &v);
    if (rc && rc != MDB_NOTFOUND)
        return fail(lmdb_error(rc, fmt::format("cannot read table '{}'", table_name(table))));
    return rc == MDB_SUCCESS;
}

Result<void> Batch::put(Table table, std::string_view key, std::string_view json, unsigned flags) {
    Result<std::string> record;
    if (subject && holds_text(table)) {
        auto slot = env_.user_keys().slot_of(*subject);
        if (!slot) return fail(slot.error());
        record = encode_sealed(table, key, json, env_.user_keys(), *slot);
    } else {
        record = encode_record(table, key, json);
    }
    if (!record) return fail(record.error());
    ++writes;
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v{record->size(), record->data()};
    if (const int rc = mdb_put(txn_, env_.dbi(table), &k, &v, flags))
        return fail(lmdb_error(rc, fmt::format("cannot write table '{}'", table_name(table))));
    return {};
}

Result<void> Batch::put_child(std::string_view key, const Ulid& child) {
    ++writes;
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v{child.bytes.size(), const_cast<uint8_t*>(child.bytes.data())};
    if (const int rc = mdb_put(txn_, env_.dbi(Table::child), &k, &v, 0))
        return fail(lmdb_error(rc, "cannot write table 'child'"));
    return {};
}

Result<void> Batch::erase(Table table, std::string_view key) {
    ++writes;
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    const int rc = mdb_del(txn_, env_.dbi(table), &k, nullptr);
    if (rc && rc != MDB_NOTFOUND)
        return fail(lmdb_error(rc, fmt::format("cannot erase from table '{}'", table_name(table))));
    return {};
}

Result<void> Batch::change(std::string_view type, const std::optional<Ulid>& org,
                           const std::optional<Ulid>& user, std::string_view members) {
    const uint64_t seq = next_change;
    std::string json = fmt::format(R"({{"seq":{},"ms":{},"type":"{}")", seq, now_ms_, type);
    if (org) json += member("org", show_id(kOrg, *org));
    if (user) json += member("user", show_id(kUser, *user));
    json += members;
    json += '}';
    if (auto done = put(Table::changes, keys::seq(seq), json, MDB_APPEND); !done) return done;
    if (user) {
        if (auto done = put(Table::feed, keys::feed(*user, seq), json); !done) return done;
    }
    ++next_change;
    changes.push_back({seq, std::move(json)});
    return {};
}

Handler find_handler(std::string_view command) {
    static constexpr std::pair<std::string_view, Handler> kHandlers[] = {
        {"append", do_append},
        {"send", do_send},
        {"finish", do_finish},
        {"take_over", do_take_over},
        {"charge", do_charge},
        {"charge_all", do_charge_all},
        {"conversation_create", do_conversation_create},
        {"conversation_update", do_conversation_update},
        {"conversation_delete", do_conversation_delete},
        {"read_mark", do_read_mark},
        {"cancel_ask", do_cancel_ask},
        {"idem_take", do_idem_take},
        {"idem_done", do_idem_done},
        {"idem_free", do_idem_free},
        {"org_create", do_org_create},
        {"org_update", do_org_update},
        {"key_create", do_key_create},
        {"key_update", do_key_update},
        {"key_rotate", do_key_rotate},
        {"key_revoke", do_key_revoke},
        {"user_create", do_user_create},
        {"session_create", do_session_create},
        {"session_renew", do_session_renew},
        {"session_end", do_session_end},
        {"session_end_all", do_session_end_all},
        {"notifications_set", do_notifications_set},
        {"model_put", do_model_put},
        {"alias_set", do_alias_set},
        {"batch_create", do_batch_create},
        {"batch_add", do_batch_add},
        {"batch_claim", do_batch_claim},
        {"batch_result", do_batch_result},
        {"batch_sweep", do_batch_sweep},
        {"batch_cancel", do_batch_cancel},
        {"batch_delete", do_batch_delete},
        {"user_erase", do_user_erase},
        {"conversation_import", do_conversation_import},
        {"router_flows_put", do_router_flows_put},
        {"router_flows_get", do_router_flows_get},
        {"gc", do_gc},
    };
    for (const auto& [name, handler] : kHandlers) {
        if (name == command) return handler;
    }
    return nullptr;
}

}  // namespace parley::store
