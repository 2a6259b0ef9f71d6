#include "store/access.hpp"

#include <sodium.h>

#include <map>

#include "base/json.hpp"

namespace parley::store {

std::string keys::idem(const Ulid& user, std::string_view scope, std::string_view key) {
    // H128 over (scope, key), the scope's length first, so that no two pairs run together.
    std::string text;
    put_u32(text, static_cast<uint32_t>(scope.size()));
    text += scope;
    text += key;
    uint8_t hash[16];
    crypto_generichash(hash, sizeof hash, reinterpret_cast<const uint8_t*>(text.data()),
                       text.size(), nullptr, 0);
    std::string out(user.view());
    out.append(reinterpret_cast<const char*>(hash), sizeof hash);
    return out;
}

Result<std::optional<std::string>> find_json(const Env& env, MDB_txn* txn, Table table,
                                             std::string_view key) {
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v{};
    const int rc = mdb_get(txn, env.dbi(table), &k, &v);
    if (rc == MDB_NOTFOUND) return std::optional<std::string>{};
    if (rc) return fail(lmdb_error(rc, fmt::format("cannot read table '{}'", table_name(table))));
    auto json = decode_record(table, key, {static_cast<const char*>(v.mv_data), v.mv_size},
                              &env.user_keys());
    if (!json) return fail(json.error());
    return std::optional<std::string>(std::move(*json));
}

Result<void> fill_position(const Env& env, MDB_txn* txn, StreamRow& row) {
    auto cursor = Cursor::open(env, txn, Table::sdelta);
    if (!cursor) return fail(cursor.error());
    const std::string end = keys::sdelta(row.id, UINT32_MAX, UINT32_MAX);
    const bool on = cursor->seek_before(end);
    if (cursor->failure()) return fail(*cursor->failure());
    if (!on || !cursor->key().starts_with(row.id.view())) return {};
    auto delta = row_of_record<DeltaRow>(env, Table::sdelta, cursor->key(), cursor->value());
    if (!delta) return fail(delta.error());
    row.last_seq = delta->epoch == row.epoch ? delta->last_seq : 0;
    row.block = delta->block;
    row.block_bytes = delta->offset + delta->text.size();
    row.tokens = delta->tokens;
    return {};
}

std::string show_stream(const StreamRow& row) {
    std::string json = to_json(row);
    json.pop_back();
    return json + fmt::format(R"(,"last_seq":{},"block":{},"block_bytes":{},"tokens":{}}})",
                              row.last_seq, row.block, row.block_bytes, row.tokens);
}

Result<std::string> fold_journal(const Env& env, MDB_txn* txn, const Ulid& stream) {
    struct Block {
        std::string type;
        std::string text;
    };
    std::map<int64_t, Block> blocks;
    auto cursor = Cursor::open(env, txn, Table::sdelta);
    if (!cursor) return fail(cursor.error());
    for (bool on = cursor->seek(stream.view()); on && cursor->key().starts_with(stream.view());
         on = cursor->next()) {
        auto row = row_of_record<DeltaRow>(env, Table::sdelta, cursor->key(), cursor->value());
        if (!row) return fail(row.error());
        Block& block = blocks[row->block];
        block.type = row->block_type;
        // A piece stands at its offset, so that the same one twice, or an overlap, changes nothing.
        if (row->offset > block.text.size())
            return fail(Errc::corrupt, fmt::format("journal of {} has a hole at byte {}",
                                                   show_id(kMsg, stream), block.text.size()));
        block.text.resize(row->offset);
        block.text += row->text;
    }
    if (cursor->failure()) return fail(*cursor->failure());
    std::string out;
    base::JsonWriter w(out);
    w.array();
    for (const auto& [index, block] : blocks)
        w.object().field("type", block.type).field("text", block.text).end();
    w.end();
    return out;
}

}  // namespace parley::store
