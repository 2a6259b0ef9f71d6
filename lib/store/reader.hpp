// Reader: all reads of the store, from any process, while the one writer writes.
//
// Snapshot     every call sees one committed state, whole. A call begun after a command's reply
// sees it. Consistency  `latest` is what was just said. `snapshot` permits an older committed state
// (a bounded
//              moment behind); the LMDB reader serves both from the newest, another engine need
//              not.
// Owns         results are copies; nothing points into the store. No call waits on anything but a
// page
//              fault, and no read transaction outlives its call.
// Threads      one thread per Reader; any number of Readers per process, over one Env.
// Errors       Errc::not_found   no such row, or not the caller's (another user's id looks the
// same)
//              Errc::corrupt     a value fails its check; names table and key
//              Errc::unavailable the reader slots are full, or the store is gone
//              Errc::invalid     a cursor that is not ours
// Bounds       every list takes a limit and is cut at kRowsMax.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/message_batches.hpp"
#include "store/rows.hpp"

namespace parley::store {

class Env;

inline constexpr size_t kRowsMax = 10'000;

enum class Consistency { latest, snapshot };

struct ConversationPage {
    std::vector<ConvRow> rows;
    bool has_more = false;
    std::string next_cursor;  // "" when there is no more
};

struct MessagesQuery {
    Ulid conv;
    size_t limit = 50;
    std::optional<Ulid> before;  // exclusive bounds
    std::optional<Ulid> after;
    bool ascending = false;
};
struct MessagePage {
    std::vector<MessageRow> rows;
    bool has_more = false;  // in the direction read
};

struct Path {
    std::vector<MessageRow> rows;  // root (or the oldest that fits) first, the asked message last
    bool cut = false;              // older ones were left out because of messages_max
};

// Batches of one user (of this org), newest first; one bound at most.
struct BatchesQuery {
    Ulid org, user;
    size_t limit = 20;
    std::optional<Ulid> older_than, newer_than;  // exclusive
};
struct BatchList {
    std::vector<MessageBatchRow> rows;
    bool has_more = false;  // in the direction read
};

class Reader {
  public:
    virtual ~Reader() = default;

    // The row of a secret. Constant shape: one hash, one lookup. Errc::not_found when unknown,
    // Errc::denied when revoked, expired at now_ms, or its org is disabled: a client sees 401 for
    // all.
    virtual Result<ApiKeyRow> api_key(std::string_view secret, int64_t now_ms) = 0;
    virtual Result<std::vector<ApiKeyRow>> api_keys(std::optional<Ulid> org) = 0;
    virtual Result<OrgRow> org(const Ulid& id) = 0;
    virtual Result<OrgRow> org_by_name(std::string_view name) = 0;
    virtual Result<std::vector<OrgRow>> orgs() = 0;
    virtual Result<UserRow> user(const Ulid& id) = 0;
    // What secrets are hashed with.
    virtual const std::string& pepper() const = 0;
    // The row of a session's token. Errc::not_found when unknown, Errc::denied when it is over: expired
    // at now_ms, logged out everywhere, or its org is disabled.
    virtual Result<SessionRow> session(std::string_view token, int64_t now_ms) = 0;

    // Only the owner's (org, user) own: anything else is not_found.
    virtual Result<ConvRow> conversation(const Ulid& org, const Ulid& user, const Ulid& conv,
                                         Consistency = Consistency::latest) = 0;
    // Newest updated_at first. `cursor` is a next_cursor of the same user, "" = from the start;
    // exact on ties, survives deletions, refused (invalid) when forged or another user's.
    virtual Result<ConversationPage> conversations(const Ulid& user, size_t limit,
                                                   std::string_view cursor,
                                                   Consistency = Consistency::latest) = 0;
    virtual Result<uint64_t> unread(const Ulid& user, const ConvRow& conv) = 0;

    virtual Result<MessagePage> messages(const MessagesQuery& query,
                                         Consistency = Consistency::latest) = 0;
    virtual Result<MessageRow> message(const Ulid& conv, const Ulid& message,
                                       Consistency = Consistency::latest) = 0;
    // The way from the root to a message, for building a context: the newest messages_max of it.
    virtual Result<Path> path(const Ulid& conv, const Ulid& message, size_t messages_max) = 0;
    virtual Result<std::vector<Ulid>> children(const Ulid& conv,
                                               const std::optional<Ulid>& parent) = 0;

    virtual Result<StreamRow> stream(const Ulid& message) = 0;
    // Streams in state running whose owner differs from `owner` ("" = all running), oldest first:
    // what a starting chatd takes over once it knows that the owner is dead.
    virtual Result<std::vector<StreamRow>> running_streams(std::string_view not_owner,
                                                           size_t limit) = 0;
    // Journal rows with (epoch, last_seq) > (epoch, seq), in order.
    virtual Result<std::vector<DeltaRow>> journal(const Ulid& message, uint32_t after_epoch,
                                                  uint32_t after_seq, size_t limit) = 0;

    virtual Result<std::vector<ModelRow>> models() = 0;
    virtual Result<std::vector<AliasRow>> aliases() = 0;

    // Totals of an org or of a user, day_from…day_to inclusive, newest day first.
    virtual Result<std::vector<UsageTotal>> usage(const Ulid& org_or_user, uint32_t day_from,
                                                  uint32_t day_to) = 0;

    // Rows of the usage log that are not older than since_ms, newest first, at most `limit`.
    virtual Result<std::vector<UsageRow>> usage_since(int64_t since_ms, size_t limit) = 0;

    // Rows of the change log with seq > after, in order.
    virtual Result<std::vector<Change>> changes(uint64_t after, size_t limit) = 0;
    virtual Result<uint64_t> last_change() = 0;
    // A user's part of the log with seq > after, in order; what is older than the feed's ttl is gone.
    virtual Result<std::vector<Change>> feed(const Ulid& user, uint64_t after, size_t limit) = 0;

    // Only the owner's: anything else, and one still being created, is not_found.
    virtual Result<MessageBatchRow> message_batch(const Ulid& org, const Ulid& user,
                                                  const Ulid& batch) = 0;
    virtual Result<BatchList> message_batches(const BatchesQuery& query) = 0;
    // Of all users, not ended, oldest first.
    virtual Result<std::vector<MessageBatchRow>> open_batches(size_t limit) = 0;
    // Pending or finished entries from index `from` on, in order; ends with the one that passes `bytes`.
    virtual Result<std::vector<BatchItemRow>> batch_items(const Ulid& batch, bool done,
                                                          uint32_t from, size_t limit,
                                                          size_t bytes) = 0;

    // `scope` separates the uses of one header: "send", "messages". Expired rows are not_found.
    virtual Result<IdemRow> idempotency(const Ulid& user, std::string_view scope,
                                        std::string_view key, int64_t now_ms) = 0;
};

// The store in `store_dir`, read-only. Errc::unavailable while there is none yet (convstore has
// never started here): try again later, the path is in the message.
Result<std::unique_ptr<Reader>> open_reader(const std::string& store_dir);
// Another Reader over an environment that this process has open already.
Result<std::unique_ptr<Reader>> make_reader(std::shared_ptr<Env> env);

}  // namespace parley::store
