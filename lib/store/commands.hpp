// Commands: what an asker may say to the writer. One struct a command, json() gives the ASK's body.
// The full page, with replies and every refusal, is parley-store(5).
//
// Reply        a JSON object. After success: {"change":N, …}; N is the newest change of this
// command,
//              or 0 for one that makes none (append, gc). After refusal:
//              {"error":{"code":"conflict","what":"…","reason":"running", …}}; nothing was written.
// Reasons      running (+"running":msg id), idempotency, fenced (+"epoch","owner"), rev (+"rev"),
//              ended (+"status"), gap (+"last_seq"/"offset"), exists, window.
// Ids          text form (ids.hpp). `raw JSON` members are put in as they are and must be valid.
// Times        the writer's clock, never the asker's, except where a member ends in _ms.
// Threads      values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/rows.hpp"

namespace parley::store {

// → {"org":"org_…","name"}. conflict/exists when the name is taken.
struct OrgCreate {
    std::string name;
    double weight = 1.0;
    std::string limits = "{}";
    int64_t retention_ms = 0;  // as in OrgRow
    std::string json() const;
};

// → {"key_id","org","prefix"}. Make `hash` (hex of api_key_hash) and prefix with new_api_key():
// then the secret never travels. With an empty hash the writer makes one and its first reply, only
// that, has "key".
struct KeyCreate {
    std::string org;               // id or name
    std::string user = "default";  // name of the key's own user
    std::string name;
    std::string hash;
    std::string prefix;
    std::vector<std::string> scopes;
    std::vector<std::string> models;
    std::string service_class;
    std::string limits = "{}";
    int64_t expires_ms = 0;
    std::string json() const;
};

// → {"org"}. Absent members stay as they are.
struct OrgUpdate {
    std::string org;                         // id or name
    std::optional<std::string> limits = {};  // raw JSON
    std::optional<double> weight = {};
    std::optional<bool> disabled = {};
    std::optional<int64_t> retention_ms = {};
    std::string json() const;
};

// → {"key_id"}. Absent members stay as they are.
struct KeyUpdate {
    std::string key_id;
    std::optional<std::string> limits = {};  // raw JSON
    std::optional<std::vector<std::string>> scopes = {}, models = {};
    std::optional<int64_t> expires_ms = {};  // 0: never
    std::string json() const;
};

// A key like `key_id` with another secret, in one commit; the old one works for grace_ms more (or until
// it expires by itself, if that is sooner). Both share their limits. → as KeyCreate, +"old_expires_ms".
// Errc::denied when the old one is revoked or has expired.
struct KeyRotate {
    std::string key_id;
    std::string hash;  // as in KeyCreate
    std::string prefix;
    int64_t grace_ms = 0;
    std::string json() const;
};

// → {"key_id"}. Revoking twice is fine.
struct KeyRevoke {
    std::string key_id;
    std::string json() const;
};

// → {"user","org"}. conflict/exists when this user has a password already, unless replace.
struct UserCreate {
    std::string org;  // id or name
    std::string name;
    std::string password_hash;  // of hash_password(); "" makes a user who cannot log in
    bool replace = false;
    std::string json() const;
};

// → {"session","expires_ms"}. `hash` is hex of api_key_hash(token). Makes the user's row where there is
// none. Each one removes what has expired among some rows beside it.
struct SessionCreate {
    Ulid org, user;
    std::string user_name;  // must hash to `user`
    std::string hash;
    int64_t ttl_ms = 0;
    std::string json() const;
};
// → {"session","expires_ms"}. A new token for the session; the old one is good for grace_ms more.
// not_found when it is over; conflict/replaced when this token was replaced before.
struct SessionRenew {
    std::string hash, new_hash;
    int64_t grace_ms = 60'000;
    std::string json() const;
};
// → {}. Of this token, and those that it replaced. Twice is fine.
struct SessionEnd {
    std::string hash;
    std::string json() const;
};
// → {}. All sessions of the user so far.
struct SessionEndAll {
    Ulid org, user;
    std::string json() const;
};

// → {"conversation":{row}}. Makes the user's row where there is none.
struct ConversationCreate {
    Ulid org;
    Ulid user;
    std::string user_name;  // must hash to `user`
    std::string title = {};
    std::string model = {};
    std::string system = "null";
    std::string metadata = "{}";
    std::string json() const;
};

// → {"conversation":{row}}. not_found, conflict/rev. Absent members stay as they are.
struct ConversationUpdate {
    Ulid org, user, conv;
    std::optional<uint64_t> rev = {};  // refuse unless the row has this one
    std::optional<std::string> title = {}, model = {};
    std::optional<std::string> system = {}, metadata = {};  // raw JSON
    std::optional<bool> archived = {}, pinned = {};
    std::string json() const;
};

// → {}. Gone from every read at once; pages are freed by gc. Running answers end for their owner
// with not_found at the next append.
struct ConversationDelete {
    Ulid org, user, conv;
    std::string json() const;
};

// One transaction: idempotency row, user message, assistant placeholder (status streaming), stream,
// conversation moved to the top, feed, changes. The user's id is below the assistant's.
// → {"replayed":false,"conversation_id","user_message":{row},"message":{row},"stream":{row}}
// Same key, same fingerprint → the same members as they stand now, "replayed":true.
// Refusals: not_found (conversation or parent); conflict/idempotency; conflict/running.
struct Send {
    Ulid org, user, conv;
    // Absent: the conversation's head. kRoot: a new root. Else a message of this conversation.
    std::optional<std::string> parent = {};
    static constexpr const char* kRoot = "root";
    // Raw JSON array of blocks. Empty string = regenerate: `parent` is then the user message that
    // gets one more answer.
    std::string content;
    std::string sender;
    std::string model;
    std::string owner;          // of the stream: this chatd's boot id
    std::string params = "{}";  // kept in the stream row, ≤ 64 KiB
    std::string idem_key;       // "" = none
    std::string fingerprint;    // of the body and the conversation; hex or text, ≤ 128 bytes
    std::string json() const;
};

// Journal: a coalesced piece of checked text. Same piece twice is harmless.
// → {"last_seq","bytes"}. conflict/fenced (not the owner, or an old epoch), conflict/ended,
// conflict/gap (offset is not where the block ends, or seq not above the last). An interrupted
// stream of this owner and epoch runs again (status streaming).
struct Append {
    Ulid message;
    std::string owner;
    DeltaRow delta;  // delta.epoch is the fence
    std::string json() const;
};

// The end: content, status, usage row, totals, change and feed in one commit, once.
// → {"replayed":bool,"message":{row}}. The same status again replays; another is conflict/ended.
// conflict/fenced as in Append. status interrupted leaves the stream to take_over.
struct Finish {
    Ulid message;
    std::string owner;
    uint32_t epoch = 1;
    std::string status;  // done cancelled interrupted blocked failed
    std::string stop_reason;
    std::string content;         // raw JSON array; "" = what the journal holds
    std::string model;           // version that answered; "" = leave
    std::string usage = "null";  // raw JSON for the message row
    std::string error = "null";
    uint64_t input_tokens = 0;  // of the whole answer; what was charged before is taken off
    uint64_t output_tokens = 0;
    uint64_t compute_us = 0;
    std::string key_id;  // for the usage row
    std::string request_id;
    std::string json() const;
};

// Fenced change of owner, granted once per epoch: epoch is the one taken over, the stream has epoch
// + 1 afterwards. Puts the journal into the message (status interrupted, or streaming with resume)
// and charges its tokens. → {"epoch","stream":{row},"message":{row},"tokens"}. conflict/fenced when
// another was first; conflict/ended when it is over.
struct TakeOver {
    Ulid message;
    uint32_t epoch = 1;
    std::string owner;    // the new one
    bool resume = false;  // a continuation starts now
    std::string json() const;
};

// → {"status"}. Whoever makes this answer is asked to stop, by a change message.cancel_asked, if it still
// runs. The end comes by that one's finish. not_found.
struct CancelAsk {
    Ulid org, user, conv, message;
    std::string json() const;
};

// Usage of a request without a conversation, once per request id (within 25 h).
// → {"replayed":bool}
struct Charge {
    Ulid org, user;
    std::optional<Ulid> end_user = {};  // none: `user`
    std::string key_id;
    std::string request_id;
    std::string model;
    std::string service_class;
    std::string status = "ok";
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    uint64_t cached_tokens = 0;
    uint64_t compute_us = 0;
    std::string json() const;
};
// Several of them as one command: all are entered or none is; what was entered before is passed over.
// → {"charged":n}
std::string charges_json(const std::vector<Charge>& charges);

// Idempotency of stateless requests. take → {"replayed":false} or, same fingerprint,
// {"replayed":true,"done":bool,"result":…} (a result over 64 KiB is left out: read it);
// conflict/idempotency. done keeps a result (≤ 6 MiB); free forgets the key of an unfinished request.
// done and free with an `owner` are for the key that it has taken, else conflict/fenced.
struct IdemTake {
    Ulid user;
    std::string scope, key, fingerprint;
    std::string result = "null";  // raw JSON, e.g. where the running answer is
    std::string owner = {};
    std::string json() const;
};
struct IdemDone {
    Ulid user;
    std::string scope, key;
    std::string result;  // raw JSON
    std::string owner = {};
    std::string json() const;
};
struct IdemFree {
    Ulid user;
    std::string scope, key;
    std::string owner = {};
    std::string json() const;
};

// A conversation had elsewhere, or a piece of one: rows that are there already stay as they are, so that it
// may be said again. Messages in order, each after its parent, with ids above it; statuses are final ones.
// → {"created":bool,"messages":n}, n of them new. conflict/exists: the id is another user's; conflict/trash;
// invalid/future: a message of a later time than now.
struct ConversationImport {
    struct Message {
        Ulid id;
        std::optional<Ulid> parent = {};
        std::string role, status = "done", stop_reason = {}, model = {};
        std::string content = {};    // raw JSON array of blocks
        std::string usage = "null";  // raw JSON
        uint64_t token_count = 0;
        int64_t created_ms = 0;
        std::string source_id = {}, source_parent = {};  // of the file; not said
    };
    Ulid org, user, conv;
    std::string user_name;  // must hash to `user`
    std::string title = {}, model = {}, system = "null", metadata = "{}";
    int64_t created_ms = 0, updated_ms = 0;
    bool archived = false, pinned = false;
    std::optional<Ulid> head = {};
    std::vector<Message> messages = {};
    bool last = true;                              // the piece after which the whole is there
    std::string source_id = {}, source_head = {};  // of the file; not said
    std::string json() const;
};

// Takes away a slice of all that the user has; to be said again until "done", which destroys the user's
// key. → {"done":bool,"conversations":n,"plain_rows":n} of this slice; plain_rows counts conversations that
// were never sealed (a store from before): their text stays in freed pages until those are used again.
// not_found. What is left of it: usage rows (ids and numbers) and the change log (ids).
struct UserErase {
    Ulid org, user;
    std::string json() const;
};

// → {"created":bool}. The first model ever becomes the alias `default`.
struct ModelPut {
    std::string hash, name, tokenizer;
    uint64_t context = 0;
    uint64_t output_max = 0;
    std::string info = "{}";
    std::string json() const;
};
// → {}. `target` "" removes the alias, and its history. `rule`, `rollout` "": as they were.
struct AliasSet {
    std::string name, target;
    std::string rule = {};
    std::string who = {}, why = {};
    std::string rollout = {};
    std::string json() const;
};

// What a router leaves to its successor: what each flow has used, by organization and level. One row,
// replaced as a whole, at most 4 MiB: routers take turns, only the one that serves writes. It makes no entry
// in the change log: nobody follows it, and it changes every second. put → {}; get → {"flows":{…}}, {} where
// there was never one.
struct RouterFlowsPut {
    std::string flows = "{}";  // raw JSON object, the router's own
    std::string json() const;
};
struct RouterFlowsGet {
    std::string json() const;
};

// → {}. Makes the user's row where there is none. conflict/changed unless the row has `was`.
struct NotificationsSet {
    Ulid org, user;
    std::string user_name;      // must hash to `user`
    std::string notifications;  // raw JSON object (notify/settings.hpp), at most 64 KiB
    std::optional<std::string> was = {};
    std::string json() const;
};

// → {"unread"}. The mark never goes back.
struct ReadMark {
    Ulid org, user, conv, message;
    std::string json() const;
};

}  // namespace parley::store
