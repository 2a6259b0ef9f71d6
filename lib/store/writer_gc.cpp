// What time takes away: idempotency keys, journals, feeds, replies of dead askers, deleted conversations,
// and what an org keeps for a time only.
//
// One command looks at gc_rows_max rows in all and says where it stopped ("next"); the next one is given
// that back. Tables without an index by time are walked round and round, a piece at a time: an expired
// row lives at most one round longer, and no commit is ever long.
#include "store/batch.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

struct Budget {
    size_t left;
    bool take() { return left > 0 && left-- > 0; }
};

// Expired idempotency keys, oldest first.
Result<void> collect_idem(Batch& batch, Budget& budget) {
    auto walk = Cursor::open(batch.env(), batch.txn(), Table::idem_exp);
    if (!walk) return fail(walk.error());
    std::vector<std::string> expired;
    for (bool on = walk->first(); on && budget.take(); on = walk->next()) {
        if (walk->key().size() != 40)
            return fail(Errc::corrupt, "table 'idem_exp' has a key of another size");
        if (get_u64(walk->key()) > static_cast<uint64_t>(batch.now_ms())) break;
        expired.emplace_back(walk->key());
    }
    if (walk->failure()) return fail(*walk->failure());
    for (const auto& key : expired) {
        if (auto done = batch.erase(Table::idem_exp, key); !done) return done;
        if (auto done = batch.erase(Table::idem, std::string_view(key).substr(8)); !done)
            return done;
    }
    return {};
}

// Rows of `table` under a prefix; true when none is left.
Result<bool> erase_prefix(Batch& batch, Table table, std::string_view prefix, Budget& budget) {
    for (;;) {
        // A write moves the pages: each row is looked up anew.
        auto walk = Cursor::open(batch.env(), batch.txn(), table);
        if (!walk) return fail(walk.error());
        const bool on = walk->seek(prefix) && walk->key().starts_with(prefix);
        if (walk->failure()) return fail(*walk->failure());
        if (!on) return true;
        if (!budget.take()) return false;
        const std::string key(walk->key());
        if (auto done = batch.erase(table, key); !done) return fail(done.error());
    }
}

Result<void> collect_trash(Batch& batch, Budget& budget) {
    while (budget.left > 0) {
        auto walk = Cursor::open(batch.env(), batch.txn(), Table::trash);
        if (!walk) return fail(walk.error());
        if (!walk->first()) return {};
        const std::string conv(walk->key());
        for (const Table table : {Table::msg, Table::child, Table::batch_item}) {
            auto empty = erase_prefix(batch, table, conv, budget);
            if (!empty) return fail(empty.error());
            if (!*empty) return {};
        }
        if (auto done = batch.erase(Table::trash, conv); !done) return done;
    }
    return {};
}

// Batches past their keeping, oldest first: ids rise with time. One that never ended is no longer of use.
Result<void> collect_batches(Batch& batch, Budget& budget) {
    const int64_t before = batch.now_ms() - batch.options().batch_ttl_ms;
    while (budget.take()) {
        MessageBatchRow row;
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::batch);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek("b") && walk->key().starts_with("b");
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return {};
            auto read = row_of_record<MessageBatchRow>(batch.env(), Table::batch, walk->key(),
                                                       walk->value());
            if (!read) return fail(read.error());
            row = std::move(*read);
        }
        if (row.created_ms > before) return {};
        if (auto done = erase_batch(batch, row); !done) return done;
    }
    return {};
}

// Streams that ended long ago, with their journals; and those of deleted conversations that nobody ended.
Result<std::string> collect_streams(Batch& batch, std::string from, Budget& budget) {
    const int64_t before = batch.now_ms() - batch.options().journal_ttl_ms;
    while (budget.take()) {
        StreamRow row;
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::stream);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek(from);
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return std::string{};
            auto read =
                row_of_record<StreamRow>(batch.env(), Table::stream, walk->key(), walk->value());
            if (read) {
                row = std::move(*read);
            } else if (read.error().code == Errc::not_found && walk->key().size() == 16) {
                // Of an erased user: over, and long ago.
                row.id = *Ulid::from_bytes(walk->key());
                row.state = "ended";
            } else {
                return fail(read.error());
            }
        }
        bool old = row.state == "ended" && row.ended_ms <= before;
        if (!old && row.state != "ended" && row.created_ms <= before) {
            auto conv = batch.has(Table::conv, keys::of(row.conv));
            if (!conv) return fail(conv.error());
            old = !*conv;
        }
        if (old) {
            auto empty = erase_prefix(batch, Table::sdelta, row.id.view(), budget);
            if (!empty) return fail(empty.error());
            if (!*empty) return keys::of(row.id);
            if (auto done = batch.erase(Table::stream, row.id.view()); !done)
                return fail(done.error());
        }
        from = keys::of(row.id) + '\0';
    }
    return from;
}

Result<std::string> collect_feed(Batch& batch, std::string from, Budget& budget) {
    const int64_t before = batch.now_ms() - batch.options().feed_ttl_ms;
    simdjson::dom::parser parser;
    while (budget.take()) {
        std::string key, json;
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::feed);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek(from);
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return std::string{};
            key = walk->key();
            auto body = decode_record(Table::feed, key, walk->value());
            if (!body) return fail(body.error());
            json = std::move(*body);
        }
        int64_t ms = 0;
        if (parser.parse(json)["ms"].get(ms) == simdjson::SUCCESS && ms <= before) {
            if (auto done = batch.erase(Table::feed, key); !done) return fail(done.error());
        }
        from = key + '\0';
    }
    return from;
}

// Replies kept for askers that have said nothing for as long as an idempotency key lives.
Result<std::string> collect_boots(Batch& batch, std::string from, Budget& budget) {
    const int64_t before = batch.now_ms() - batch.options().idem_ttl_ms;
    simdjson::dom::parser parser;
    constexpr std::string_view kPrefix = "boot.";
    if (from.empty()) from = kPrefix;
    while (budget.take()) {
        std::string key, json;
        {
            auto walk = Cursor::open(batch.env(), batch.txn(), Table::meta);
            if (!walk) return fail(walk.error());
            const bool on = walk->seek(from) && walk->key().starts_with(kPrefix);
            if (walk->failure()) return fail(*walk->failure());
            if (!on) return std::string{};
            key = walk->key();
            auto body = decode_record(Table::meta, key, walk->value());
            if (!body) return fail(body.error());
            json = std::move(*body);
        }
        int64_t ms = 0;
        if (parser.parse(json)["ms"].get(ms) == simdjson::SUCCESS && ms <= before) {
            auto empty =
                erase_prefix(batch, Table::reply, key.substr(kPrefix.size()) + '\0', budget);
            if (!empty) return fail(empty.error());
            if (!*empty) return key;
            if (auto done = batch.erase(Table::meta, key); !done) return fail(done.error());
        }
        from = key + '\0';
    }
    return from;
}

}  // namespace

Step do_gc(Batch& batch, Fields& f) {
    std::string streams, feed, boots, idle, batches;
    f.text("streams", streams).text("feed", feed).text("boots", boots);
    f.text("idle", idle).text("batches", batches);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    const auto unhex = [](const std::string& text) {
        return base::unhex(text).value_or(std::string{});
    };
    // A share each, so that a flood in one table does not starve the others.
    const size_t share = std::max<size_t>(1, batch.options().gc_rows_max / 6);
    Budget budget{share};
    if (auto done = collect_idem(batch, budget); !done) return refuse(done.error());
    budget.left = share;
    if (auto done = collect_batches(batch, budget); !done) return refuse(done.error());
    if (auto done = collect_trash(batch, budget); !done) return refuse(done.error());
    budget.left = share;
    auto next_streams = collect_streams(batch, unhex(streams), budget);
    if (!next_streams) return refuse(next_streams.error());
    budget.left = share;
    auto next_feed = collect_feed(batch, unhex(feed), budget);
    if (!next_feed) return refuse(next_feed.error());
    budget.left = share;
    auto next_boots = collect_boots(batch, unhex(boots), budget);
    if (!next_boots) return refuse(next_boots.error());
    auto next_idle = collect_idle(batch, unhex(idle), share);
    if (!next_idle) return refuse(next_idle.error());
    auto next_batches = collect_old_batches(batch, unhex(batches), share / 8 + 1);
    if (!next_batches) return refuse(next_batches.error());
    return Said{member("idle", base::hex(*next_idle)) +
                    member("batches", base::hex(*next_batches)) +
                    member("streams", base::hex(*next_streams)) +
                    member("feed", base::hex(*next_feed)) + member("boots", base::hex(*next_boots)),
                {}};
}

}  // namespace parley::store
