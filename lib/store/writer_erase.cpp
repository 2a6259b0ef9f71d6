// Erasure of a user: what tables hold is taken away in slices, then the key is destroyed.
//
// The rows go first and the key last, so that no live row is ever sealed under a key that is gone, but for
// what gc has not met yet (messages of deleted conversations, their streams) and the replies kept for
// resends: readers, gc and the scrub pass over those.
#include "store/batch.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

// Rows of `table` under `prefix`, `left` of them at most; true when none is left. `each` sees a key and a
// value before the row goes.
template <class Each>
Result<bool> take_rows(Batch& batch, Table table, std::string_view prefix, size_t& left,
                       Each each) {
    for (;;) {
        auto walk = Cursor::open(batch.env(), batch.txn(), table);
        if (!walk) return fail(walk.error());
        const bool on = walk->seek(prefix) && walk->key().starts_with(prefix);
        if (walk->failure()) return fail(*walk->failure());
        if (!on) return true;
        if (left == 0) return false;
        --left;
        const std::string key(walk->key()), value(walk->value());
        if (auto done = each(key, value); !done) return fail(done.error());
        if (auto done = batch.erase(table, key); !done) return fail(done.error());
    }
}

}  // namespace

Step do_user_erase(Batch& batch, Fields& f) {
    Ulid org, user;
    f.id("org", kOrg, org).id("user", kUser, user);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    const auto slot = batch.env().user_keys().known_slot(user);
    auto there = batch.has(Table::user, keys::of(user));
    if (!there) return refuse(there.error());
    if (!*there && !slot) return refuse(Errc::not_found, "no such user");
    // After an old backup was put back the row is there, and opens no more: erased again.
    auto row = batch.find<UserRow>(Table::user, keys::of(user));
    if (!row && row.error().code != Errc::not_found) return refuse(row.error());
    if (row && *row && (*row)->org != org) return refuse(Errc::not_found, "no such user");

    size_t left = batch.options().gc_rows_max;
    uint64_t conversations = 0, plain = 0;
    const auto fine = [](const std::string&, const std::string&) { return Result<void>{}; };
    auto empty = take_rows(
        batch, Table::conv_user, user.view(), left,
        [&](const std::string& key, const std::string&) -> Result<void> {
            const std::string conv = key.substr(24);
            MDB_val k{conv.size(), const_cast<char*>(conv.data())}, v{};
            if (mdb_get(batch.txn(), batch.env().dbi(Table::conv), &k, &v) == MDB_SUCCESS &&
                !is_sealed({static_cast<const char*>(v.mv_data), v.mv_size}))
                ++plain;
            ++conversations;
            for (auto done : {batch.erase(Table::conv, conv),
                              batch.erase(Table::read, std::string(user.view()) + conv),
                              batch.put(Table::trash, conv, "{}")})
                if (!done) return done;
            return {};
        });
    if (empty && *empty)
        empty = take_rows(
            batch, Table::idem, user.view(), left,
            [&](const std::string& key, const std::string& value) -> Result<void> {
                auto idem = row_of_record<IdemRow>(batch.env(), Table::idem, key, value);
                if (!idem && idem.error().code == Errc::not_found) return {};
                if (!idem) return fail(idem.error());
                return batch.erase(Table::idem_exp, keys::idem_exp(idem->expires_ms, key));
            });
    if (empty && *empty) empty = take_rows(batch, Table::feed, user.view(), left, fine);
    if (empty && *empty)
        empty = take_rows(batch, Table::batch, "u" + keys::of(user), left,
                          [&](const std::string& key, const std::string&) -> Result<void> {
                              const auto id = Ulid::from_bytes(std::string_view(key).substr(17));
                              if (!id)
                                  return fail(Errc::corrupt, "table 'batch': key of another size");
                              MessageBatchRow gone;
                              gone.id = *id;
                              gone.user = user;
                              return erase_batch(batch, gone);
                          });
    if (!empty) return refuse(empty.error());
    const std::string counts = member("conversations", conversations) + member("plain_rows", plain);
    if (!*empty) return Said{member_raw("done", "false") + counts, {}};

    if (auto done = batch.erase(Table::user, keys::of(user)); !done) return refuse(done.error());
    if (slot) {
        // A crash between this commit and the key's end: the next writer ends it.
        if (auto done = batch.put(Table::meta, keys::shred(*slot), "{}"); !done)
            return refuse(done.error());
        batch.shred.push_back(*slot);
    }
    if (auto done = batch.change("user.erased", org, {}, member("user", show_id(kUser, user)));
        !done)
        return refuse(done.error());
    return Said{member_raw("done", "true") + counts, {}};
}

}  // namespace parley::store
