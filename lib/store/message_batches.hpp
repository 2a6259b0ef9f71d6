// Message batches: rows and commands of tables `batch` and `batch_item`. parley-store(5) is the page.
//
// Life     create (creating) → add … (running, once all are there) → result … → ended. cancel makes it
//          canceling; what is pending then is swept. Every change of the numbers is one commit with what
//          it counts, a result with its usage row, so that an entry is run to its end and charged once.
// Owner    the chatd (boot id) that runs it; everything but cancel and delete is fenced by it. claim is
//          granted only from the owner that is named.
// Refusals conflict/fenced (+"owner"), conflict/ended, conflict/running, not_found.
// Keys     batch: 'b' id · 'u' user id · 'o' id while not ended. batch_item: id · 0 pending or 1 result ·
//          index 4.
// Bounds   items of one add: by the command's size. Reads by limit and bytes.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/ids.hpp"
#include "store/keys.hpp"
#include "store/rows.hpp"

namespace parley::store {

inline constexpr std::string_view kBatch = "msgbatch_";

struct MessageBatchRow {
    Ulid id, org, user;
    std::string key_id;
    std::string params = "{}";  // raw JSON object: what running it must know of its caller
    std::string state;          // creating running canceling ended
    std::string owner;
    uint64_t total = 0, added = 0;
    uint64_t succeeded = 0, errored = 0, canceled = 0, expired = 0;
    int64_t created_ms = 0, expires_ms = 0, ended_ms = 0, cancel_ms = 0;
    uint64_t finished() const { return succeeded + errored + canceled + expired; }
};
std::string to_json(const MessageBatchRow&);

struct BatchItemRow {
    uint32_t index = 0;
    std::string custom_id;
    std::string params;  // pending: raw JSON object
    std::string result;  // done: raw JSON object, {"type":"succeeded",…}
};
std::string to_json(const BatchItemRow&);

enum class BatchOutcome : uint8_t { succeeded, errored, canceled, expired };
std::string_view name(BatchOutcome outcome);

// → {"batch":{row}}, state creating.
struct MessageBatchCreate {
    Ulid org, user;
    std::string key_id, owner;
    std::string params = "{}";
    uint64_t total = 0;
    int64_t ttl_ms = 0;  // until it expires
    std::string json() const;
};
// The next items, in order; one with a result is errored already. → {"batch":{row}}
struct MessageBatchAdd {
    Ulid batch;
    std::string owner;
    std::vector<BatchItemRow> items;  // index is given by the writer
    std::string json() const;
};
// → {"batch":{row}}. conflict/fenced unless `from` owns it.
struct MessageBatchClaim {
    Ulid batch;
    std::string owner, from;
    std::string json() const;
};
// → {"replayed":bool,"ended":bool}. An entry that has its result keeps it.
struct MessageBatchResult {
    Ulid batch;
    std::string owner;
    uint32_t index = 0;
    BatchOutcome outcome = BatchOutcome::succeeded;
    std::string result;  // raw JSON object
    std::string model;
    uint64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0, compute_us = 0;
    std::string json() const;
};
// The first pending entries, rows_max at most, get this outcome. → {"left":bool,"ended":bool}
struct MessageBatchSweep {
    Ulid batch;
    std::string owner;
    BatchOutcome outcome = BatchOutcome::canceled;  // or expired
    uint64_t rows_max = 500;
    std::string json() const;
};
// → {"batch":{row}}. One that has ended stays as it is.
struct MessageBatchCancel {
    Ulid org, user, batch;
    std::string json() const;
};
// → {}. conflict/running while it is not ended, unless it is being created by `owner`.
struct MessageBatchDelete {
    Ulid org, user, batch;
    std::string owner;
    std::string json() const;
};

namespace keys {
inline std::string batch(const Ulid& id) { return "b" + of(id); }
inline std::string batch_of_user(const Ulid& user, const Ulid& id) { return "u" + pair(user, id); }
inline std::string batch_open(const Ulid& id) { return "o" + of(id); }
inline std::string batch_items(const Ulid& id, bool done) {
    return of(id) + (done ? '\x01' : '\x00');
}
inline std::string batch_item(const Ulid& id, bool done, uint32_t index) {
    std::string key = batch_items(id, done);
    put_u32(key, index);
    return key;
}
}  // namespace keys

}  // namespace parley::store
