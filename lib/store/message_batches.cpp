#include "store/message_batches.hpp"

#include "base/json.hpp"
#include "store/fields.hpp"

namespace parley::store {

using base::JsonWriter;

std::string_view name(BatchOutcome outcome) {
    constexpr std::string_view kNames[] = {"succeeded", "errored", "canceled", "expired"};
    return kNames[static_cast<size_t>(outcome)];
}

std::string to_json(const MessageBatchRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("id", show_id(kBatch, row.id)).field("org", show_id(kOrg, row.org));
    w.field("user", show_id(kUser, row.user)).field("key_id", row.key_id);
    w.key("params").raw(row.params).field("state", row.state).field("owner", row.owner);
    w.field("total", row.total).field("added", row.added).field("succeeded", row.succeeded);
    w.field("errored", row.errored).field("canceled", row.canceled).field("expired", row.expired);
    w.field("created_ms", row.created_ms).field("expires_ms", row.expires_ms);
    w.field("ended_ms", row.ended_ms).field("cancel_ms", row.cancel_ms).end();
    return out;
}

std::string to_json(const BatchItemRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("index", row.index).field("custom_id", row.custom_id);
    if (!row.params.empty()) w.key("params").raw(row.params);
    if (!row.result.empty()) w.key("result").raw(row.result);
    w.end();
    return out;
}

namespace {

Result<simdjson::dom::object> parse(std::string_view json) {
    thread_local simdjson::dom::parser parser;
    simdjson::dom::object object;
    if (parser.parse(json.data(), json.size()).get(object))
        return fail(Errc::corrupt, "not a JSON object");
    return object;
}

}  // namespace

template <>
Result<MessageBatchRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    MessageBatchRow row;
    Fields f(*object);
    f.id("id", kBatch, row.id).id("org", kOrg, row.org).id("user", kUser, row.user);
    f.text("key_id", row.key_id).raw("params", row.params, RawKind::object);
    f.text("state", row.state, true).text("owner", row.owner);
    f.number("total", row.total).number("added", row.added).number("succeeded", row.succeeded);
    f.number("errored", row.errored).number("canceled", row.canceled);
    f.number("expired", row.expired).number("created_ms", row.created_ms);
    f.number("expires_ms", row.expires_ms).number("ended_ms", row.ended_ms);
    f.number("cancel_ms", row.cancel_ms);
    if (!f.ok()) return fail(Errc::corrupt, f.error());
    return row;
}

template <>
Result<BatchItemRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    BatchItemRow row;
    Fields f(*object);
    f.number("index", row.index).text("custom_id", row.custom_id, true);
    f.raw("params", row.params, RawKind::object).raw("result", row.result, RawKind::object);
    if (!f.ok()) return fail(Errc::corrupt, f.error());
    return row;
}

namespace {

// The object of a command; each json() ends it.
struct Body {
    std::string out;
    JsonWriter w{out};
    explicit Body(std::string_view command) { w.object().field("command", command); }
    std::string done() {
        w.end();
        return std::move(out);
    }
};

}  // namespace

std::string MessageBatchCreate::json() const {
    Body b("batch_create");
    b.w.field("org", show_id(kOrg, org)).field("user", show_id(kUser, user));
    b.w.field("key_id", key_id).field("owner", owner).key("params").raw(params);
    b.w.field("total", total).field("ttl_ms", ttl_ms);
    return b.done();
}
std::string MessageBatchAdd::json() const {
    Body b("batch_add");
    b.w.field("batch", show_id(kBatch, batch)).field("owner", owner).key("items").array();
    for (const BatchItemRow& item : items) b.w.raw(to_json(item));
    b.w.end();
    return b.done();
}
std::string MessageBatchClaim::json() const {
    Body b("batch_claim");
    b.w.field("batch", show_id(kBatch, batch)).field("owner", owner).field("from", from);
    return b.done();
}
std::string MessageBatchResult::json() const {
    Body b("batch_result");
    b.w.field("batch", show_id(kBatch, batch)).field("owner", owner).field("index", index);
    b.w.field("outcome", name(outcome)).key("result").raw(result).field("model", model);
    b.w.field("input_tokens", input_tokens).field("output_tokens", output_tokens);
    b.w.field("cached_tokens", cached_tokens).field("compute_us", compute_us);
    return b.done();
}
std::string MessageBatchSweep::json() const {
    Body b("batch_sweep");
    b.w.field("batch", show_id(kBatch, batch)).field("owner", owner);
    b.w.field("outcome", name(outcome)).field("rows_max", rows_max);
    return b.done();
}
std::string MessageBatchCancel::json() const {
    Body b("batch_cancel");
    b.w.field("org", show_id(kOrg, org)).field("user", show_id(kUser, user));
    b.w.field("batch", show_id(kBatch, batch));
    return b.done();
}
std::string MessageBatchDelete::json() const {
    Body b("batch_delete");
    b.w.field("org", show_id(kOrg, org)).field("user", show_id(kUser, user));
    b.w.field("batch", show_id(kBatch, batch));
    if (!owner.empty()) b.w.field("owner", owner);
    return b.done();
}

}  // namespace parley::store
