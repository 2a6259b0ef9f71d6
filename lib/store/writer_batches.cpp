// Message batches: create, add, claim, result, sweep, cancel, delete.
#include "store/batch.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

constexpr uint64_t kEntriesMax = 100'000;
constexpr size_t kParamsMax = 64u << 10;
constexpr uint64_t kSweepMax = 10'000;

std::string shown(const MessageBatchRow& row) { return member_raw("batch", to_json(row)); }

Result<MessageBatchRow> load(Batch& batch, const Ulid& id) {
    return batch.need<MessageBatchRow>(Table::batch, keys::batch(id), "no such batch");
}

tl::expected<MessageBatchRow, Refusal> owned(Batch& batch, const Ulid& id,
                                             const std::string& owner) {
    auto row = load(batch, id);
    if (!row) return refuse(row.error());
    if (row->owner != owner)
        return refuse(Errc::conflict, "the batch has another owner", "fenced",
                      member("owner", row->owner));
    batch.subject = row->user;
    return std::move(*row);
}

Result<void> save(Batch& batch, const MessageBatchRow& row) {
    return batch.put(Table::batch, keys::batch(row.id), to_json(row));
}

Result<void> told(Batch& batch, std::string_view what, const MessageBatchRow& row) {
    return batch.change(what, row.org, row.user, member("batch", show_id(kBatch, row.id)));
}

// After the numbers have moved: whether nothing is left to do, and what follows from it.
Result<void> settle(Batch& batch, MessageBatchRow& row) {
    if (row.added == row.total && row.finished() == row.total && row.state != "ended") {
        row.state = "ended";
        row.ended_ms = batch.now_ms();
        if (auto done = batch.erase(Table::batch, keys::batch_open(row.id)); !done) return done;
        if (auto done = told(batch, "batch.ended", row); !done) return done;
    }
    return save(batch, row);
}

void count(MessageBatchRow& row, BatchOutcome outcome) {
    switch (outcome) {
        case BatchOutcome::succeeded:
            ++row.succeeded;
            break;
        case BatchOutcome::errored:
            ++row.errored;
            break;
        case BatchOutcome::canceled:
            ++row.canceled;
            break;
        case BatchOutcome::expired:
            ++row.expired;
            break;
    }
}

std::optional<BatchOutcome> outcome_of(std::string_view word) {
    for (const BatchOutcome each : {BatchOutcome::succeeded, BatchOutcome::errored,
                                    BatchOutcome::canceled, BatchOutcome::expired})
        if (name(each) == word) return each;
    return std::nullopt;
}

}  // namespace

Step do_batch_create(Batch& batch, Fields& f) {
    MessageBatchRow row;
    int64_t ttl_ms = 0;
    f.id("org", kOrg, row.org).id("user", kUser, row.user).text("key_id", row.key_id);
    f.text("owner", row.owner, true).raw("params", row.params, RawKind::object);
    f.number("total", row.total).number("ttl_ms", ttl_ms);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (row.total == 0 || row.total > kEntriesMax || ttl_ms <= 0 || row.owner.empty() ||
        row.owner.size() > 128 || row.params.size() > kParamsMax)
        return refuse(Errc::invalid, "total 1 to 100000, ttl_ms above 0, owner and params bounded");
    row.id = batch.new_id();
    row.state = "creating";
    row.created_ms = batch.now_ms();
    row.expires_ms = row.created_ms + ttl_ms;
    for (const auto& key : {keys::batch_of_user(row.user, row.id), keys::batch_open(row.id)})
        if (auto done = batch.put(Table::batch, key, "{}"); !done) return refuse(done.error());
    if (auto done = save(batch, row); !done) return refuse(done.error());
    return Said{shown(row), {}};
}

Step do_batch_add(Batch& batch, Fields& f) {
    Ulid id;
    std::string owner, items_json;
    f.id("batch", kBatch, id).text("owner", owner, true).raw("items", items_json, RawKind::array);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto row = owned(batch, id, owner);
    if (!row) return tl::unexpected(row.error());
    if (row->state != "creating") return refuse(Errc::conflict, "the batch is whole", "ended");
    simdjson::dom::parser parser;
    simdjson::dom::array items;
    if (parser.parse(items_json).get(items))
        return refuse(Errc::invalid, "items should be an array");
    std::vector<BatchItemRow> rows;
    for (const simdjson::dom::element item : items) {
        simdjson::dom::object object;
        if (item.get(object)) return refuse(Errc::invalid, "an item should be an object");
        BatchItemRow& one = rows.emplace_back();
        Fields inner(object);
        inner.text("custom_id", one.custom_id, true).raw("params", one.params, RawKind::object);
        inner.raw("result", one.result, RawKind::object);
        if (!inner.ok()) return refuse(Errc::invalid, inner.error());
        if (one.custom_id.empty() || one.params.empty() == one.result.empty())
            return refuse(Errc::invalid, "an item has a custom_id and either params or a result");
    }
    if (rows.empty() || row->added + rows.size() > row->total)
        return refuse(Errc::invalid, "no items, or more than the batch was made for");
    for (BatchItemRow& one : rows) {
        one.index = static_cast<uint32_t>(row->added++);
        const bool done = !one.result.empty();
        if (done) ++row->errored;
        if (auto put =
                batch.put(Table::batch_item, keys::batch_item(id, done, one.index), to_json(one));
            !put)
            return refuse(put.error());
    }
    if (row->added == row->total) {
        row->state = "running";
        if (auto done = told(batch, "batch.created", *row); !done) return refuse(done.error());
    }
    if (auto done = settle(batch, *row); !done) return refuse(done.error());
    return Said{shown(*row), {}};
}

Step do_batch_claim(Batch& batch, Fields& f) {
    Ulid id;
    std::string owner, from;
    f.id("batch", kBatch, id).text("owner", owner, true).text("from", from, true);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto row = owned(batch, id, from);
    if (!row) return tl::unexpected(row.error());
    if (row->state == "ended") return refuse(Errc::conflict, "the batch has ended", "ended");
    row->owner = owner;
    if (auto done = save(batch, *row); !done) return refuse(done.error());
    return Said{shown(*row), {}};
}

Step do_batch_result(Batch& batch, Fields& f) {
    MessageBatchResult in;
    std::string word;
    f.id("batch", kBatch, in.batch).text("owner", in.owner, true).number("index", in.index);
    f.text("outcome", word, true).raw("result", in.result, RawKind::object);
    f.text("model", in.model).number("input_tokens", in.input_tokens);
    f.number("output_tokens", in.output_tokens).number("cached_tokens", in.cached_tokens);
    f.number("compute_us", in.compute_us);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    const auto outcome = outcome_of(word);
    if (!outcome || in.result.empty())
        return refuse(Errc::invalid,
                      "outcome succeeded, errored, canceled or expired, and a result");
    auto row = owned(batch, in.batch, in.owner);
    if (!row) return tl::unexpected(row.error());
    const std::string pending = keys::batch_item(in.batch, false, in.index);
    auto item = batch.find<BatchItemRow>(Table::batch_item, pending);
    if (!item) return refuse(item.error());
    const auto reply = [&](bool replayed) {
        return Said{member_raw("replayed", replayed ? "true" : "false") +
                        member_raw("ended", row->state == "ended" ? "true" : "false"),
                    {}};
    };
    if (!*item) return reply(true);
    BatchItemRow done{in.index, (*item)->custom_id, "", std::move(in.result)};
    if (auto gone = batch.erase(Table::batch_item, pending); !gone) return refuse(gone.error());
    if (auto put =
            batch.put(Table::batch_item, keys::batch_item(in.batch, true, in.index), to_json(done));
        !put)
        return refuse(put.error());
    if (in.input_tokens + in.output_tokens > 0) {
        UsageEntry usage;
        usage.org = row->org;
        usage.user = row->user;
        usage.key_id = row->key_id;
        usage.request_id = show_id(kBatch, in.batch) + "-" + std::to_string(in.index);
        usage.model = in.model;
        usage.service_class = "batch";
        usage.status = word == "succeeded" ? "done" : word;
        usage.input_tokens = in.input_tokens;
        usage.output_tokens = in.output_tokens;
        usage.cached_tokens = in.cached_tokens;
        usage.compute_us = in.compute_us;
        if (auto added = add_usage(batch, usage); !added) return refuse(added.error());
    }
    count(*row, *outcome);
    if (auto settled = settle(batch, *row); !settled) return refuse(settled.error());
    return reply(false);
}

Step do_batch_sweep(Batch& batch, Fields& f) {
    MessageBatchSweep in;
    std::string word;
    f.id("batch", kBatch, in.batch).text("owner", in.owner, true).text("outcome", word, true);
    f.number("rows_max", in.rows_max);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    const auto outcome = outcome_of(word);
    if (outcome != BatchOutcome::canceled && outcome != BatchOutcome::expired)
        return refuse(Errc::invalid, "outcome should be canceled or expired");
    if (in.rows_max == 0 || in.rows_max > kSweepMax)
        return refuse(Errc::invalid, "rows_max should be 1 to 10000");
    auto row = owned(batch, in.batch, in.owner);
    if (!row) return tl::unexpected(row.error());
    const std::string prefix = keys::batch_items(in.batch, false);
    std::vector<BatchItemRow> swept;
    {
        auto walk = Cursor::open(batch.env(), batch.txn(), Table::batch_item);
        if (!walk) return refuse(walk.error());
        for (bool on = walk->seek(prefix);
             on && walk->key().starts_with(prefix) && swept.size() < in.rows_max;
             on = walk->next()) {
            auto item = row_of_record<BatchItemRow>(batch.env(), Table::batch_item, walk->key(),
                                                    walk->value());
            if (!item) return refuse(item.error());
            swept.push_back(
                {item->index, std::move(item->custom_id), "", R"({"type":")" + word + R"("})"});
        }
        if (walk->failure()) return refuse(*walk->failure());
    }
    for (const BatchItemRow& item : swept) {
        if (auto gone =
                batch.erase(Table::batch_item, keys::batch_item(in.batch, false, item.index));
            !gone)
            return refuse(gone.error());
        if (auto put = batch.put(Table::batch_item, keys::batch_item(in.batch, true, item.index),
                                 to_json(item));
            !put)
            return refuse(put.error());
        count(*row, *outcome);
    }
    if (auto settled = settle(batch, *row); !settled) return refuse(settled.error());
    const bool ended = row->state == "ended";
    return Said{member_raw("left", row->added > row->finished() ? "true" : "false") +
                    member_raw("ended", ended ? "true" : "false"),
                {}};
}

namespace {

tl::expected<MessageBatchRow, Refusal> of_user(Batch& batch, Fields& f) {
    Ulid org, user, id;
    f.id("org", kOrg, org).id("user", kUser, user).id("batch", kBatch, id);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto row = load(batch, id);
    if (!row) return refuse(row.error());
    if (row->org != org || row->user != user) return refuse(Errc::not_found, "no such batch");
    return std::move(*row);
}

}  // namespace

Step do_batch_cancel(Batch& batch, Fields& f) {
    auto row = of_user(batch, f);
    if (!row) return tl::unexpected(row.error());
    if (row->state == "creating") return refuse(Errc::not_found, "no such batch");
    if (row->state == "running") {
        row->state = "canceling";
        row->cancel_ms = batch.now_ms();
        if (auto done = told(batch, "batch.canceling", *row); !done) return refuse(done.error());
        if (auto done = save(batch, *row); !done) return refuse(done.error());
    }
    return Said{shown(*row), {}};
}

Result<void> erase_batch(Batch& batch, const MessageBatchRow& row) {
    for (const auto& key :
         {keys::batch(row.id), keys::batch_of_user(row.user, row.id), keys::batch_open(row.id)})
        if (auto done = batch.erase(Table::batch, key); !done) return done;
    // Its entries are cleared away by gc, a piece at a time.
    return batch.put(Table::trash, keys::of(row.id), "{}");
}

Step do_batch_delete(Batch& batch, Fields& f) {
    std::string owner;
    f.text("owner", owner);
    auto row = of_user(batch, f);
    if (!row) return tl::unexpected(row.error());
    const bool unborn = row->state == "creating" && !owner.empty() && row->owner == owner;
    if (row->state != "ended" && !unborn)
        return refuse(Errc::conflict, "the batch has not ended", "running");
    if (auto done = erase_batch(batch, *row); !done) return refuse(done.error());
    if (auto done = told(batch, "batch.deleted", *row); !done) return refuse(done.error());
    return Said{};
}

}  // namespace parley::store
