// Conversations that were had elsewhere: the rows of a file, each once however often it is said.
#include <algorithm>

#include "store/batch.hpp"

namespace parley::store {

Step do_conversation_import(Batch& batch, Fields& f) {
    constexpr size_t kTextMax = 1024, kRawMax = 64u << 10;
    ConvRow head;
    std::string user_name, messages_json;
    bool last = true;
    f.id("org", kOrg, head.org).id("user", kUser, head.user).text("user_name", user_name, true);
    f.id("conversation", kConv, head.id).text("title", head.title).text("model", head.model);
    f.raw("system", head.system, RawKind::system).raw("metadata", head.metadata, RawKind::object);
    f.number("created_ms", head.created_ms).number("updated_ms", head.updated_ms);
    f.flag("archived", head.archived).flag("pinned", head.pinned).id("head", kMsg, head.head);
    f.raw("messages", messages_json, RawKind::array).flag("last", last);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (user_name.size() > 128 || head.user != user_id(head.org, user_name))
        return refuse(Errc::invalid, "user is not the id of user_name in this org");
    if (head.title.size() > kTextMax || head.model.size() > kTextMax ||
        head.metadata.size() > kRawMax)
        return refuse(Errc::too_large, "title and model are at most 1 KiB, metadata 64 KiB");
    if (head.created_ms <= 0 || head.updated_ms < head.created_ms ||
        head.updated_ms > batch.now_ms())
        return refuse(Errc::invalid, "created_ms and updated_ms should rise, up to now");
    auto org = batch.has(Table::org, keys::of(head.org));
    if (!org) return refuse(org.error());
    if (!*org) return refuse(Errc::not_found, "no such org");
    auto trash = batch.has(Table::trash, keys::of(head.id));
    if (!trash) return refuse(trash.error());
    if (*trash)
        return refuse(Errc::conflict,
                      "this conversation was deleted just now: try again in a minute", "trash");
    auto there = batch.find<ConvRow>(Table::conv, keys::of(head.id));
    if (!there) return refuse(there.error());
    if (*there && ((*there)->org != head.org || (*there)->user != head.user))
        return refuse(Errc::conflict, "this id is taken", "exists");

    std::vector<MessageRow> fresh;
    simdjson::dom::parser parser;
    simdjson::dom::array said;
    if (messages_json.empty() || parser.parse(messages_json).get(said))
        return refuse(Errc::invalid, "messages should be an array");
    std::vector<Ulid> among;
    for (const simdjson::dom::element one : said) {
        simdjson::dom::object object;
        if (one.get(object)) return refuse(Errc::invalid, "a message should be an object");
        MessageRow row;
        Fields m(object);
        m.id("id", kMsg, row.id).id("parent", kMsg, row.parent).text("role", row.role, true);
        m.text("status", row.status, true)
            .text("stop_reason", row.stop_reason)
            .text("model", row.model);
        m.raw("content", row.content, RawKind::array).raw("usage", row.usage, RawKind::object);
        m.number("token_count", row.token_count).number("created_ms", row.created_ms);
        if (!m.ok()) return refuse(Errc::invalid, m.error());
        if ((row.role != "user" && row.role != "assistant") ||
            (row.status != "done" && row.status != "cancelled" && row.status != "blocked" &&
             row.status != "failed"))
            return refuse(Errc::invalid, "role should be user or assistant, status a final one");
        if (static_cast<int64_t>(row.id.ms()) > batch.now_ms() + 1000)
            return refuse(Errc::invalid, "a message of the future", "future");
        if (row.model.size() > kTextMax || row.stop_reason.size() > kTextMax)
            return refuse(Errc::too_large, "model and stop_reason are at most 1 KiB");
        if (row.parent) {
            if (*row.parent >= row.id) return refuse(Errc::invalid, "a parent should be older");
            auto known = batch.has(Table::msg, keys::msg(head.id, *row.parent));
            if (!known) return refuse(known.error());
            if (!*known && std::ranges::find(among, *row.parent) == among.end())
                return refuse(Errc::invalid, "a message whose parent has not come before it");
        }
        among.push_back(row.id);
        auto known = batch.has(Table::msg, keys::msg(head.id, row.id));
        if (!known) return refuse(known.error());
        const bool twice =
            std::ranges::any_of(fresh, [&](const MessageRow& other) { return other.id == row.id; });
        if (*known || twice) continue;
        row.conv = head.id;
        row.sender = row.role == "user" ? show_id(kUser, head.user) : row.model;
        row.finished_ms = row.created_ms;
        row.imported = true;
        fresh.push_back(std::move(row));
    }

    // Nothing was written so far; from here on nothing is refused.
    batch.subject = head.user;
    auto user = batch.has(Table::user, keys::of(head.user));
    if (!user) return refuse(user.error());
    if (!*user) {
        const UserRow made{head.user, head.org, user_name, {}, batch.now_ms(), {}};
        if (auto done = batch.put(Table::user, keys::of(head.user), to_json(made)); !done)
            return refuse(done.error());
    }
    const bool created = !*there;
    ConvRow conv = created ? head : **there;
    const auto before = created ? std::optional<int64_t>{} : conv.updated_ms;
    if (created) {
        conv.head.reset();
        conv.message_count = 0;
        conv.first_bucket = conv.last_bucket = bucket_of(head.id);
    }
    for (const MessageRow& row : fresh) {
        if (auto done = batch.put(Table::msg, keys::msg(row.conv, row.id), to_json(row)); !done)
            return refuse(done.error());
        if (auto done = batch.put_child(keys::child(row.conv, row.parent), row.id); !done)
            return refuse(done.error());
        batch.raise_ids(row.id);
        const uint32_t bucket = bucket_of(row.id);
        conv.first_bucket = conv.message_count == 0 ? bucket : std::min(conv.first_bucket, bucket);
        conv.last_bucket = conv.message_count == 0 ? bucket : std::max(conv.last_bucket, bucket);
        ++conv.message_count;
        if (created || !conv.head || *conv.head < row.id) conv.head = row.id;
    }
    if (last && head.head) {
        // Whoever went on with it here keeps the place.
        auto known = batch.has(Table::msg, keys::msg(head.id, *head.head));
        if (!known) return refuse(known.error());
        if (*known && !fresh.empty()) conv.head = head.head;
    }
    if (created || !fresh.empty()) {
        if (auto done = put_conv(batch, conv, before); !done) return refuse(done.error());
        if (conv.head) {
            const ReadRow read{*conv.head, conv.message_count, batch.now_ms()};
            if (auto done = batch.put(Table::read, keys::pair(head.user, head.id), to_json(read));
                !done)
                return refuse(done.error());
        }
    }
    // Said by the last piece, also where an earlier run had brought the rows and not come so far.
    if (last)
        if (auto done = batch.change("conversation.imported", head.org, head.user,
                                     member("conversation", show_id(kConv, head.id)));
            !done)
            return refuse(done.error());
    return Said{
        member_raw("created", created ? "true" : "false") + member("messages", fresh.size()), {}};
}

}  // namespace parley::store
