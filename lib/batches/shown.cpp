#include "batches/shown.hpp"

#include "base/clock.hpp"
#include "base/json.hpp"

namespace parley::batches {

namespace {

void time_or_null(base::JsonWriter& w, std::string_view key, int64_t ms) {
    w.key(key);
    if (ms > 0)
        w.string(base::rfc3339(ms));
    else
        w.null();
}

}  // namespace

std::string batch_json(const store::MessageBatchRow& row, std::string_view base_url) {
    const bool ended = row.state == "ended";
    const std::string id = store::show_id(store::kBatch, row.id);
    std::string out;
    base::JsonWriter w(out);
    w.object().field("id", id).field("type", "message_batch");
    w.field("processing_status", ended                      ? "ended"
                                 : row.state == "canceling" ? "canceling"
                                                            : "in_progress");
    w.key("request_counts").object().field("processing", ended ? 0 : row.total);
    w.field("succeeded", ended ? row.succeeded : 0).field("errored", ended ? row.errored : 0);
    w.field("canceled", ended ? row.canceled : 0).field("expired", ended ? row.expired : 0).end();
    time_or_null(w, "created_at", row.created_ms);
    time_or_null(w, "expires_at", row.expires_ms);
    time_or_null(w, "ended_at", row.ended_ms);
    time_or_null(w, "cancel_initiated_at", row.cancel_ms);
    w.key("archived_at").null().key("results_url");
    if (ended)
        w.string(std::string(base_url) + "/v1/messages/batches/" + id + "/results");
    else
        w.null();
    w.end();
    return out;
}

std::string succeeded_json(std::string_view message_json) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "succeeded").key("message").raw(message_json).end();
    return out;
}

std::string errored_json(const messages::ApiError& error) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "errored").key("error").object().field("type", "error");
    w.key("error").object().field("type", messages::name(error.type));
    w.field("message", error.message).end().key("request_id").null().end().end();
    return out;
}

std::string result_line(const store::BatchItemRow& row) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("custom_id", row.custom_id).key("result").raw(row.result).end();
    out += '\n';
    return out;
}

}  // namespace parley::batches
