// Access: one row by key, for the reader and the writer alike. For lib/store's own files.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/text.hpp"
#include "store/env.hpp"
#include "store/keys.hpp"
#include "store/record.hpp"

namespace parley::store {

// The decoded body; nothing where there is no such row.
Result<std::optional<std::string>> find_json(const Env& env, MDB_txn* txn, Table table,
                                             std::string_view key);

// The row of a record body; a body that is no such row is corrupt, by table and key.
template <class Row>
Result<Row> row_of(Table table, std::string_view key, std::string_view json) {
    auto row = from_json<Row>(json);
    if (!row)
        return fail(fmt::format("table '{}' key {}", table_name(table), base::hex(key)),
                    row.error());
    return row;
}
template <class Row>
Result<Row> row_of_record(const Env& env, Table table, std::string_view key,
                          std::string_view value) {
    auto json = decode_record(table, key, value, &env.user_keys());
    if (!json) return fail(json.error());
    return row_of<Row>(table, key, *json);
}

template <class Row>
Result<std::optional<Row>> find_row(const Env& env, MDB_txn* txn, Table table,
                                    std::string_view key) {
    auto json = find_json(env, txn, table, key);
    if (!json) return fail(json.error());
    if (!*json) return std::optional<Row>{};
    auto row = row_of<Row>(table, key, **json);
    if (!row) return fail(row.error());
    return std::optional<Row>(std::move(*row));
}

// Errc::not_found with `what` where there is none.
template <class Row>
Result<Row> need_row(const Env& env, MDB_txn* txn, Table table, std::string_view key,
                     std::string what) {
    auto row = find_row<Row>(env, txn, table, key);
    if (!row) return fail(row.error());
    if (!*row) return fail(Errc::not_found, std::move(what));
    return std::move(**row);
}

// The stream's row with its position, which stands at the end of its journal.
Result<void> fill_position(const Env& env, MDB_txn* txn, StreamRow& row);

// A stream's row as replies and lists show it: with the position, which the table does not hold.
std::string show_stream(const StreamRow& row);

// The text of a stream's journal, block by block, as a raw JSON array of content blocks.
Result<std::string> fold_journal(const Env& env, MDB_txn* txn, const Ulid& stream);

}  // namespace parley::store
