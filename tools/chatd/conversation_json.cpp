#include "conversation_json.hpp"

#include "base/clock.hpp"

namespace parley::chatd {

namespace {

void text_or_null(base::JsonWriter& w, std::string_view name, const std::string& text) {
    w.key(name);
    if (text.empty())
        w.null();
    else
        w.string(text);
}

void time_or_null(base::JsonWriter& w, std::string_view name, int64_t ms) {
    w.key(name);
    if (ms == 0)
        w.null();
    else
        w.string(base::rfc3339_ms(ms));
}

}  // namespace

void write_message(base::JsonWriter& w, const store::MessageRow& row) {
    w.object()
        .field("id", store::show_id(store::kMsg, row.id))
        .field("type", "conversation_message");
    w.field("conversation_id", store::show_id(store::kConv, row.conv)).key("parent_id");
    if (row.parent)
        w.string(store::show_id(store::kMsg, *row.parent));
    else
        w.null();
    w.field("role", row.role).field("sender", row.sender);
    w.key("content").raw(row.content.empty() ? "[]" : row.content).field("status", row.status);
    text_or_null(w, "stop_reason", row.stop_reason);
    // The name that it was asked by, as while it was streamed; the row's model is the version.
    text_or_null(w, "model", row.role == "assistant" ? row.sender : row.model);
    w.key("usage").raw(row.usage.empty() ? "null" : row.usage);
    if (!row.error.empty() && row.error != "null") w.key("error").raw(row.error);
    time_or_null(w, "created_at", row.created_ms);
    time_or_null(w, "finished_at", row.finished_ms);
    w.end();
}

std::string message_json(const store::MessageRow& row) {
    std::string out;
    base::JsonWriter w(out);
    write_message(w, row);
    return out;
}

void write_conversation(base::JsonWriter& w, const store::ConvRow& row, store::Reader& reader) {
    w.object().field("id", store::show_id(store::kConv, row.id)).field("type", "conversation");
    text_or_null(w, "title", row.title);
    text_or_null(w, "model", row.model);
    w.key("system").raw(row.system.empty() ? "null" : row.system);
    w.key("metadata").raw(row.metadata.empty() ? "{}" : row.metadata);
    time_or_null(w, "created_at", row.created_ms);
    time_or_null(w, "updated_at", row.updated_ms);
    w.field("message_count", row.message_count);
    const auto unread = reader.unread(row.user, row);
    w.field("unread_count", unread ? *unread : uint64_t{0}).key("last_message");
    auto last = row.head ? reader.message(row.id, *row.head)
                         : store::Result<store::MessageRow>(base::fail(base::Errc::not_found, ""));
    if (last)
        write_message(w, *last);
    else
        w.null();
    w.field("archived", row.archived).field("pinned", row.pinned).field("rev", row.rev);
    w.end();
}

}  // namespace parley::chatd
