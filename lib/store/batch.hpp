// Batch: one write transaction while the commands of a group run in it. For lib/store's own files.
//
// Discipline  a command checks everything before it writes anything. Where one fails after a write all
//             the same (a full map, a bad row met late), `writes` has moved and Writer::apply undoes the
//             whole transaction and runs it again without that command.
// Refusal     what a command answers instead of its reply; `extra` is raw JSON members (",\"running\":…").
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "store/access.hpp"
#include "store/fields.hpp"
#include "store/writer.hpp"

namespace parley::store {

struct Refusal {
    Errc code = Errc::internal;
    std::string what;
    std::string reason;
    std::string extra;
    // The store's own trouble, not the command's: not remembered, a resend tries again.
    bool transient() const {
        return code == Errc::again || code == Errc::io || code == Errc::internal ||
               code == Errc::unavailable;
    }
};
inline tl::unexpected<Refusal> refuse(Errc code, std::string what, std::string reason = {},
                                      std::string extra = {}) {
    return tl::unexpected<Refusal>(
        Refusal{code, std::move(what), std::move(reason), std::move(extra)});
}
inline tl::unexpected<Refusal> refuse(const Error& error) { return refuse(error.code, error.what); }

// The members of a reply: raw JSON, each with a comma in front. `stored` replaces it in what a resend
// gets (a secret is said once).
struct Said {
    std::string members;
    std::optional<std::string> stored;
};
using Step = tl::expected<Said, Refusal>;

class Batch {
  public:
    Batch(Env& env, MDB_txn* txn, const WriterOptions& options, base::UlidSource& ids,
          int64_t now_ms)
        : env_(env), txn_(txn), options_(options), ids_(ids), now_ms_(now_ms) {}

    // Rows.
    template <class Row>
    Result<std::optional<Row>> find(Table table, std::string_view key) {
        return find_row<Row>(env_, txn_, table, key);
    }
    template <class Row>
    Result<Row> need(Table table, std::string_view key, std::string what) {
        return need_row<Row>(env_, txn_, table, key, std::move(what));
    }
    Result<std::optional<std::string>> find_text(Table table, std::string_view key) {
        return find_json(env_, txn_, table, key);
    }
    Result<bool> has(Table table, std::string_view key);
    Result<void> put(Table table, std::string_view key, std::string_view json, unsigned flags = 0);
    Result<void> put_child(std::string_view key, const Ulid& child);
    Result<void> erase(Table table, std::string_view key);  // fine when there is none

    Ulid new_id() {
        drew_id = true;
        return ids_.next();
    }

    // Ids drawn from now on are above this one, which came from elsewhere.
    void raise_ids(const Ulid& id) {
        drew_id = true;
        ids_.raise_to(id);
    }

    // The change log, and the feed of `user` where there is one. `members` as in Said.
    Result<void> change(std::string_view type, const std::optional<Ulid>& org,
                        const std::optional<Ulid>& user, std::string_view members);

    int64_t now_ms() const { return now_ms_; }
    const WriterOptions& options() const { return options_; }
    Env& env() { return env_; }
    MDB_txn* txn() { return txn_; }

    // Whose the command's rows are, set once it is known to be that user's: their texts, and the reply that
    // is kept, are sealed under the user's key.
    std::optional<Ulid> subject;
    std::vector<uint32_t> shred;  // keys to be destroyed once this is durable
    uint64_t writes = 0;
    bool drew_id = false;
    uint64_t next_change = 1;
    uint64_t next_usage = 1;
    std::vector<Change> changes;

  private:
    Env& env_;
    MDB_txn* txn_;
    const WriterOptions& options_;
    base::UlidSource& ids_;
    int64_t now_ms_;
};

// A member of a reply or change.
inline std::string member(std::string_view name, std::string_view text) {
    return ",\"" + std::string(name) + "\":" + base::json_string(text);
}
inline std::string member_raw(std::string_view name, std::string_view json) {
    return ",\"" + std::string(name) + "\":" + std::string(json);
}
inline std::string member(std::string_view name, uint64_t number) {
    return member_raw(name, std::to_string(number));
}

// A message of the store's handlers: RETURN_IF_BAD would hide the return; each handler writes it out.
struct UsageEntry {
    Ulid org;
    Ulid user;
    std::optional<Ulid> conv;
    std::optional<Ulid> message;
    std::optional<Ulid> end_user;  // who is meant by the org's own users; none: `user`
    std::string key_id, request_id, model, service_class, status;
    uint64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0, compute_us = 0;
    bool final = true;  // of a message: the one row that its end makes
};
Result<void> add_usage(Batch& batch, const UsageEntry& entry);
// Whose totals a usage row belongs to, each once.
std::vector<Ulid> usage_sums(const Ulid& org, const Ulid& user, const std::optional<Ulid>& end_user,
                             std::string_view key_id);

// Puts a conversation, and moves it in its user's list when updated_ms changed.
Result<void> put_conv(Batch& batch, const ConvRow& row, std::optional<int64_t> old_updated_ms);

// Out of sight at once; gc takes its messages, which may be many, in small steps.
Result<void> erase_conv(Batch& batch, const Ulid& org, const Ulid& user, const Ulid& conv,
                        int64_t updated_ms);

// The handlers, by command name; nullptr for an unknown one.
using Handler = Step (*)(Batch&, Fields&);
Handler find_handler(std::string_view command);

// writer_admin.cpp
Step do_org_create(Batch&, Fields&);
Step do_org_update(Batch&, Fields&);
Step do_key_create(Batch&, Fields&);
Step do_key_update(Batch&, Fields&);
Step do_key_rotate(Batch&, Fields&);
Step do_key_revoke(Batch&, Fields&);
Step do_user_create(Batch&, Fields&);
Step do_model_put(Batch&, Fields&);
Step do_alias_set(Batch&, Fields&);
// writer_session.cpp
Step do_session_create(Batch&, Fields&);
Step do_session_renew(Batch&, Fields&);
Step do_session_end(Batch&, Fields&);
Step do_session_end_all(Batch&, Fields&);
// writer_notify.cpp
Step do_notifications_set(Batch&, Fields&);
// writer_conv.cpp
Step do_conversation_create(Batch&, Fields&);
Step do_conversation_update(Batch&, Fields&);
Step do_conversation_delete(Batch&, Fields&);
Step do_send(Batch&, Fields&);
Step do_read_mark(Batch&, Fields&);
Step do_cancel_ask(Batch&, Fields&);
// writer_stream.cpp
Step do_append(Batch&, Fields&);
Step do_finish(Batch&, Fields&);
Step do_take_over(Batch&, Fields&);
// writer_usage.cpp
Step do_charge(Batch&, Fields&);
Step do_charge_all(Batch&, Fields&);
Step do_idem_take(Batch&, Fields&);
Step do_idem_done(Batch&, Fields&);
Step do_idem_free(Batch&, Fields&);
// writer_batches.cpp
Step do_batch_create(Batch&, Fields&);
Step do_batch_add(Batch&, Fields&);
Step do_batch_claim(Batch&, Fields&);
Step do_batch_result(Batch&, Fields&);
Step do_batch_sweep(Batch&, Fields&);
Step do_batch_cancel(Batch&, Fields&);
Step do_batch_delete(Batch&, Fields&);
struct MessageBatchRow;
Result<void> erase_batch(Batch&, const MessageBatchRow&);
// writer_erase.cpp
Step do_user_erase(Batch&, Fields&);
// writer_import.cpp
Step do_conversation_import(Batch&, Fields&);
// writer_router.cpp
Step do_router_flows_put(Batch&, Fields&);
Step do_router_flows_get(Batch&, Fields&);
// writer_gc.cpp
Step do_gc(Batch&, Fields&);
// writer_retention.cpp: a piece of the walk over what orgs keep for a time only, `rows` looked at at most;
// where the next piece begins, "" after the last.
Result<std::string> collect_idle(Batch& batch, std::string from, size_t rows);
Result<std::string> collect_old_batches(Batch& batch, std::string from, size_t rows);

// Idempotency rows, shared by send, idem_* and charge.
Result<std::optional<IdemRow>> find_idem(Batch& batch, std::string_view key);  // expired = none
Result<void> put_idem(Batch& batch, std::string_view key, IdemRow row, bool is_new);
Result<void> erase_idem(Batch& batch, std::string_view key);

}  // namespace parley::store
