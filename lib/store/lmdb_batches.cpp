#include "store/lmdb_batches.hpp"

#include <algorithm>

namespace parley::store {

namespace {

Result<MessageBatchRow> whole(const Env& env, MDB_txn* txn, const Ulid& id) {
    return need_row<MessageBatchRow>(env, txn, Table::batch, keys::batch(id), "no such batch");
}

Ulid id_at(std::string_view bytes) {
    Ulid id;
    std::copy_n(bytes.begin(), id.bytes.size(), id.bytes.begin());
    return id;
}

}  // namespace

Result<BatchList> read_batches(const Env& env, MDB_txn* txn, const BatchesQuery& query) {
    BatchList out;
    auto walk = Cursor::open(env, txn, Table::batch);
    if (!walk) return fail(walk.error());
    const std::string prefix = "u" + keys::of(query.user);
    const size_t limit = std::clamp<size_t>(query.limit, 1, kRowsMax);
    // Newest first is backwards; towards the newer ones forwards, and turned round.
    const bool forwards = query.newer_than.has_value();
    bool on = false;
    if (forwards) {
        const std::string from = keys::batch_of_user(query.user, *query.newer_than);
        on = walk->seek(from);
        if (on && walk->key() == from) on = walk->next();
    } else {
        on = walk->seek_before(query.older_than ? keys::batch_of_user(query.user, *query.older_than)
                                                : prefix + std::string(17, '\xff'));
    }
    for (; on && walk->key().starts_with(prefix); on = forwards ? walk->next() : walk->prev()) {
        auto row = whole(env, txn, id_at(walk->key().substr(prefix.size())));
        if (!row) return fail(row.error());
        if (row->org != query.org || row->state == "creating") continue;
        if (out.rows.size() == limit) {
            out.has_more = true;
            break;
        }
        out.rows.push_back(std::move(*row));
    }
    if (walk->failure()) return fail(*walk->failure());
    if (forwards) std::reverse(out.rows.begin(), out.rows.end());
    return out;
}

Result<std::vector<MessageBatchRow>> read_open_batches(const Env& env, MDB_txn* txn, size_t limit) {
    std::vector<MessageBatchRow> out;
    auto walk = Cursor::open(env, txn, Table::batch);
    if (!walk) return fail(walk.error());
    for (bool on = walk->seek("o"); on && walk->key().starts_with("o") && out.size() < limit;
         on = walk->next()) {
        auto row = whole(env, txn, id_at(walk->key().substr(1)));
        if (!row) return fail(row.error());
        out.push_back(std::move(*row));
    }
    if (walk->failure()) return fail(*walk->failure());
    return out;
}

Result<std::vector<BatchItemRow>> read_batch_items(const Env& env, MDB_txn* txn, const Ulid& batch,
                                                   bool done, uint32_t from, size_t limit,
                                                   size_t bytes) {
    std::vector<BatchItemRow> out;
    auto walk = Cursor::open(env, txn, Table::batch_item);
    if (!walk) return fail(walk.error());
    const std::string prefix = keys::batch_items(batch, done);
    size_t held = 0;
    for (bool on = walk->seek(keys::batch_item(batch, done, from));
         on && walk->key().starts_with(prefix) && out.size() < limit && held < bytes;
         on = walk->next()) {
        auto row = row_of_record<BatchItemRow>(env, Table::batch_item, walk->key(), walk->value());
        if (!row) return fail(row.error());
        held += row->params.size() + row->result.size();
        out.push_back(std::move(*row));
    }
    if (walk->failure()) return fail(*walk->failure());
    return out;
}

}  // namespace parley::store
