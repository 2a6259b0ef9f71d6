// What an org keeps for a time only: conversations in which nothing was said or changed for as long, and
// batches that ended and are as old.
//
// No index by time is kept for it: a user's list is in the order of time already, so the oldest of each user
// is one look away, and users are walked round and round, a piece at a time.
#include <map>

#include "store/batch.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

// What was asked of an org; 0 also for one that is not there.
class Retentions {
  public:
    explicit Retentions(Batch& batch) : batch_(batch) {}
    Result<int64_t> of(const Ulid& org) {
        if (const auto it = known_.find(org); it != known_.end()) return it->second;
        auto row = batch_.find<OrgRow>(Table::org, keys::of(org));
        if (!row) return fail(row.error());
        return known_[org] = *row ? (*row)->retention_ms : 0;
    }
    // Whether any org asked for it: a store without goes without the walk.
    Result<bool> any() {
        auto walk = Cursor::open(batch_.env(), batch_.txn(), Table::org);
        if (!walk) return fail(walk.error());
        for (bool on = walk->first(); on; on = walk->next()) {
            auto row = row_of_record<OrgRow>(batch_.env(), Table::org, walk->key(), walk->value());
            if (!row) return fail(row.error());
            known_[row->id] = row->retention_ms;
            if (row->retention_ms > 0) return true;
        }
        if (walk->failure()) return fail(*walk->failure());
        return false;
    }

  private:
    Batch& batch_;
    std::map<Ulid, int64_t> known_;
};

}  // namespace

Result<std::string> collect_idle(Batch& batch, std::string from, size_t rows) {
    Retentions retentions(batch);
    auto any = retentions.any();
    if (!any) return fail(any.error());
    if (!*any) return std::string{};
    while (rows > 0) {
        --rows;
        std::string user_key;
        std::string oldest;  // of this user: the last key, as the newest comes first
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::conv_user);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek(from);
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return std::string{};
            if (walk->key().size() != 40)
                return fail(Errc::corrupt, "table 'conv_user' has a key of another size");
            user_key = walk->key().substr(0, 16);
            if (!walk->seek_before(user_key + std::string(25, '\xff')))
                return fail(Errc::corrupt, "table 'conv_user' changes while it is read");
            oldest = walk->key();
        }
        const std::string after = user_key + std::string(25, '\xff');
        auto user = batch.find<UserRow>(Table::user, user_key);
        if (!user && user.error().code != Errc::not_found) return fail(user.error());
        if (!user || !*user || oldest.size() != 40) {  // an erasure is on its way
            from = after;
            continue;
        }
        auto retention = retentions.of((*user)->org);
        if (!retention) return fail(retention.error());
        const auto updated_ms = static_cast<int64_t>(~get_u64(oldest.substr(16, 8)));
        if (*retention == 0 || updated_ms > batch.now_ms() - *retention) {
            from = after;
            continue;
        }
        if (auto done = erase_conv(batch, (*user)->org, (*user)->id,
                                   *Ulid::from_bytes(oldest.substr(24)), updated_ms);
            !done)
            return fail(done.error());
        from = user_key;  // its next oldest
    }
    return from;
}

Result<std::string> collect_old_batches(Batch& batch, std::string from, size_t rows) {
    Retentions retentions(batch);
    auto any = retentions.any();
    if (!any) return fail(any.error());
    if (!*any) return std::string{};
    if (from.empty()) from = "b";
    while (rows > 0) {
        --rows;
        MessageBatchRow row;
        std::string key;
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::batch);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek(from) && walk->key().starts_with("b");
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return std::string{};
            key = walk->key();
            auto read =
                row_of_record<MessageBatchRow>(batch.env(), Table::batch, key, walk->value());
            if (!read) return fail(read.error());
            row = std::move(*read);
        }
        from = key + '\0';
        auto retention = retentions.of(row.org);
        if (!retention) return fail(retention.error());
        if (*retention == 0 || row.state != "ended" || row.created_ms > batch.now_ms() - *retention)
            continue;
        if (auto done = erase_batch(batch, row); !done) return fail(done.error());
    }
    return from;
}

}  // namespace parley::store
