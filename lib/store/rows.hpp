// Rows: what the tables hold, as values. parley-store(5) is the page for humans.
//
// Units    *_ms are milliseconds since 1970 UTC, 0 = never or not yet. `raw JSON` members are
// valid,
//          compact JSON text, as the command brought it.
// Form     a row is a JSON object inside the record envelope (record.hpp). Members are only ever
// added;
//          absent ones take the default written here, unknown ones are kept by nobody.
// Threads  values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "store/ids.hpp"

namespace parley::store {

using base::Errc;
using base::Error;
using base::fail;
using base::Result;

struct OrgRow {
    Ulid id;
    std::string name;     // unique on this box, 1…128 bytes
    double weight = 1.0;  // share in the fair queue
    std::string limits =
        "{}";  // raw JSON object: requests, input_tokens, output_tokens per minute, spend
    int64_t created_ms = 0;
    bool disabled = false;  // every key answers like a revoked one
    int64_t retention_ms = 0;  // conversations idle for longer are deleted, and old batches; 0: never
};

inline constexpr int64_t kRetentionMin = 24ll * 3600 * 1000;
inline constexpr int64_t kRetentionMax = 36'500 * kRetentionMin;

struct UserRow {
    Ulid id;
    Ulid org;
    std::string name;           // private to the org
    std::string password_hash;  // empty: cannot log in
    int64_t created_ms = 0;
    std::optional<Ulid> session_floor;  // sessions with a lower id are over
    std::string notifications = "null";  // raw JSON object: where to be told of answers that wait
};

// Under SHA-256 of the token and the pepper, as API keys are.
struct SessionRow {
    Ulid id;  // stays when the token is renewed
    Ulid org;
    Ulid user;
    std::string user_name;
    int64_t created_ms = 0;
    int64_t renewed_ms = 0;  // when this token was made
    int64_t expires_ms = 0;  // of the session; of a replaced token, its last moment
    bool replaced = false;   // a newer token stands for the session
    std::string other;       // key (hex) of the token before, or after a replaced one
};

struct ApiKeyRow {
    Ulid id;
    Ulid org;
    Ulid user;  // who is meant without x-user-id
    std::string user_name;
    std::string name;                 // a label for people
    std::string prefix;               // as shown in lists
    std::vector<std::string> scopes;  // empty: all
    std::vector<std::string> models;  // names allowed; empty: all
    std::optional<Ulid> first;  // the key that this one followed by rotation: they share limits
    std::string service_class;  // "" or the class that this key is lowered to ("batch")
    std::string limits = "{}";  // raw JSON object, as in OrgRow
    int64_t created_ms = 0;
    int64_t expires_ms = 0;
    int64_t revoked_ms = 0;
};

struct ConvRow {
    Ulid id;
    Ulid org;
    Ulid user;
    std::string title;
    std::string model;            // "" : the alias `default`
    std::string system = "null";  // raw JSON: null, string or blocks
    std::string metadata = "{}";  // raw JSON object
    int64_t created_ms = 0;
    int64_t updated_ms = 0;    // of the last turn or PATCH; the list is ordered by it
    std::optional<Ulid> head;  // default parent of the next send: the newest answer
    uint32_t first_bucket = 0;
    uint32_t last_bucket = 0;
    uint64_t message_count = 0;
    bool archived = false;
    bool pinned = false;
    uint64_t rev = 1;  // raised by conversation_update only, so a send cannot fail a PATCH
};

struct MessageRow {
    Ulid id;
    Ulid conv;
    std::optional<Ulid> parent;  // none: a root
    std::string role;            // user, assistant
    std::string sender;          // user id text or model name; for display only
    std::string status;          // streaming done cancelled interrupted blocked failed
    std::string stop_reason;     // "" while it runs, and for a user's message
    std::string model;           // version that answered, else the one asked for
    std::string content = "[]";  // raw JSON array of blocks
    std::string usage = "null";  // raw JSON object once there is one
    std::string error = "null";  // raw JSON, for `failed` and `interrupted`
    uint64_t token_count = 0;    // output tokens of an answer
    int64_t created_ms = 0;
    int64_t finished_ms = 0;
    bool imported = false;  // made elsewhere: no usage row, no change of its own
};

// One answer being made; gone 24 h after its end, the message row stays.
struct StreamRow {
    Ulid id;  // = the assistant message
    Ulid conv;
    Ulid org;
    Ulid user;
    Ulid user_message;   // its parent
    std::string state;   // running, interrupted, ended
    uint32_t epoch = 1;  // raised by take_over only
    std::string owner;   // boot id (and endpoint) of the chatd that may append and finish
    std::string model;
    std::string params = "{}";  // raw JSON object: what a continuation must know (seed, sampling …)
    // The next four are not stored but read off the end of the journal, so that an append writes one
    // small row and nothing else.
    uint32_t last_seq = 0;       // newest journalled event number of this epoch, 0: none
    int64_t block = -1;          // content block being written, -1: none
    uint64_t block_bytes = 0;    // its text so far
    uint64_t tokens = 0;         // token ids in the journal, all epochs
    uint64_t charged_input = 0;  // already in usage rows (by interrupted finishes and take_overs)
    uint64_t charged_output = 0;
    int64_t created_ms = 0;
    int64_t ended_ms = 0;
};

// One coalesced piece of the journal: events first_seq…last_seq of an epoch.
struct DeltaRow {
    uint32_t epoch = 0;
    uint32_t first_seq = 0;
    uint32_t last_seq = 0;
    int64_t block = 0;
    std::string block_type = "text";
    uint64_t offset = 0;  // bytes of the block's text before this piece
    std::string text;
    std::vector<int32_t> ids;  // tokens whose text ends within it
    uint64_t tokens = 0;       // ids in the journal up to here, all epochs; the writer counts
    std::string data =
        "null";  // raw JSON, opaque: what the owner needs to cut it into events again
};

struct ModelRow {
    std::string hash;         // of the artifact; the key
    std::string name;         // "smollm2-135m-instruct"
    std::string tokenizer;    // hash of HASH.tok
    uint64_t context = 0;     // tokens
    uint64_t output_max = 0;  // tokens
    std::string info = "{}";  // raw JSON object: whatever HELLO said besides
    int64_t created_ms = 0;
};

struct AliasRow {
    std::string name;
    std::string target;       // model name
    std::string rule = "{}";  // raw JSON object: by the size of a request, resolved by chatd
    int64_t updated_ms = 0;
    std::string rollout = "{}";  // raw JSON object: the last one, resolved by the router
    std::string history = "[]";  // raw JSON: {target, who, why, at_ms}, oldest first, the last 64
};

struct UsageTotal {
    uint32_t day = 0;  // days since 1970 UTC
    std::string model;
    uint64_t requests = 0;
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    uint64_t compute_us = 0;
};

// A row of the usage log, as far as limits are filled again from it.
struct UsageRow {
    int64_t ms = 0;
    Ulid org, user, end_user;
    std::string key_id, model;
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    bool final = true;
};

struct IdemRow {
    std::string fingerprint;
    std::optional<Ulid> conv;
    std::optional<Ulid> user_message;
    std::optional<Ulid> message;
    std::string result = "null";  // raw JSON: what idem_take and idem_done brought
    std::string owner;            // who has taken it (boot id of a chatd); "": not said
    bool done = false;
    int64_t expires_ms = 0;
};

struct ReadRow {
    Ulid message;             // read up to and including it
    uint64_t count_read = 0;  // messages up to it, so that unread = message_count - count_read
    int64_t at_ms = 0;
};

struct Change {
    uint64_t seq = 0;  // dense from 1
    std::string json;  // {"seq":…,"ms":…,"type":"message.created",…}
};

// JSON object ↔ row. from_json gives Errc::corrupt when a member is missing or of a wrong type.
// The members that stand in the key (ids) are stored too: a row explains itself in an export.
std::string to_json(const OrgRow&);
std::string to_json(const UserRow&);
std::string to_json(const SessionRow&);
std::string to_json(const ApiKeyRow&);
std::string to_json(const ConvRow&);
std::string to_json(const MessageRow&);
std::string to_json(const StreamRow&);
std::string to_json(const DeltaRow&);
std::string to_json(const ModelRow&);
std::string to_json(const AliasRow&);
std::string to_json(const UsageTotal&);
std::string to_json(const IdemRow&);
std::string to_json(const ReadRow&);
template <class Row>
Result<Row> from_json(std::string_view json);  // instantiated in rows.cpp for the rows above

}  // namespace parley::store
