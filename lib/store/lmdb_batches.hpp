// What the LMDB reader reads of message batches. For lib/store's own files.
#pragma once

#include "store/access.hpp"
#include "store/reader.hpp"

namespace parley::store {

Result<BatchList> read_batches(const Env& env, MDB_txn* txn, const BatchesQuery& query);
Result<std::vector<MessageBatchRow>> read_open_batches(const Env& env, MDB_txn* txn, size_t limit);
Result<std::vector<BatchItemRow>> read_batch_items(const Env& env, MDB_txn* txn, const Ulid& batch,
                                                   bool done, uint32_t from, size_t limit,
                                                   size_t bytes);

}  // namespace parley::store
