// Conversations, sending, and read marks.
#include "store/batch.hpp"

namespace parley::store {
namespace {

constexpr size_t kTextMax = 1024;      // title, model, sender
constexpr size_t kRawMax = 64u << 10;  // metadata, params

// Another user's conversation and none look the same.
tl::expected<ConvRow, Refusal> need_conv(Batch& batch, const Ulid& org, const Ulid& user,
                                         const Ulid& conv) {
    auto row = batch.find<ConvRow>(Table::conv, keys::of(conv));
    if (!row) return refuse(row.error());
    if (!*row || (*row)->org != org || (*row)->user != user)
        return refuse(Errc::not_found, "no such conversation");
    batch.subject = user;
    return std::move(**row);
}

std::string shown(const char* name, const std::string& json) { return member_raw(name, json); }

// The message that runs on the branch which ends at `parent`: itself, or an answer that hangs under it.
Result<std::optional<Ulid>> running_at(Batch& batch, const MessageRow& parent) {
    if (parent.status == "streaming") return std::optional<Ulid>(parent.id);
    if (parent.role != "user") return std::optional<Ulid>{};
    const std::string key = keys::child(parent.conv, parent.id);
    auto walk = Cursor::open(batch.env(), batch.txn(), Table::child);
    if (!walk) return fail(walk.error());
    for (bool on = walk->seek(key); on && walk->key() == key; on = walk->next()) {
        const auto id = Ulid::from_bytes(walk->value());
        if (!id) return fail(Errc::corrupt, "table 'child' holds a value that is no id");
        auto row = batch.find<MessageRow>(Table::msg, keys::msg(parent.conv, *id));
        if (!row) return fail(row.error());
        if (*row && (*row)->status == "streaming") return std::optional<Ulid>(*id);
    }
    return std::optional<Ulid>{};
}

Step replay_send(Batch& batch, const ConvRow& conv, const IdemRow& idem) {
    if (!idem.message || !idem.user_message || idem.conv != conv.id)
        return refuse(Errc::conflict, "the idempotency key was used with another request",
                      "idempotency");
    auto message =
        batch.need<MessageRow>(Table::msg, keys::msg(conv.id, *idem.message), "no such message");
    if (!message) return refuse(message.error());
    auto user = batch.need<MessageRow>(Table::msg, keys::msg(conv.id, *idem.user_message),
                                       "no such message");
    if (!user) return refuse(user.error());
    auto stream = batch.find<StreamRow>(Table::stream, keys::of(*idem.message));
    if (!stream) return refuse(stream.error());
    if (*stream) {
        if (auto done = fill_position(batch.env(), batch.txn(), **stream); !done)
            return refuse(done.error());
    }
    return Said{member_raw("replayed", "true") +
                    member("conversation_id", show_id(kConv, conv.id)) +
                    shown("user_message", to_json(*user)) + shown("message", to_json(*message)) +
                    shown("stream", *stream ? show_stream(**stream) : "null"),
                {}};
}

}  // namespace

Result<void> put_conv(Batch& batch, const ConvRow& row, std::optional<int64_t> old_updated_ms) {
    if (old_updated_ms && *old_updated_ms != row.updated_ms) {
        if (auto done =
                batch.erase(Table::conv_user, keys::conv_user(row.user, *old_updated_ms, row.id));
            !done)
            return done;
    }
    if (!old_updated_ms || *old_updated_ms != row.updated_ms) {
        if (auto done = batch.put(Table::conv_user,
                                  keys::conv_user(row.user, row.updated_ms, row.id), "{}");
            !done)
            return done;
    }
    return batch.put(Table::conv, keys::of(row.id), to_json(row));
}

Result<void> erase_conv(Batch& batch, const Ulid& org, const Ulid& user, const Ulid& conv,
                        int64_t updated_ms) {
    for (auto done : {batch.erase(Table::conv_user, keys::conv_user(user, updated_ms, conv)),
                      batch.erase(Table::conv, keys::of(conv)),
                      batch.erase(Table::read, keys::pair(user, conv)),
                      batch.put(Table::trash, keys::of(conv), "{}")})
        if (!done) return done;
    return batch.change("conversation.deleted", org, user,
                        member("conversation", show_id(kConv, conv)));
}

Step do_conversation_create(Batch& batch, Fields& f) {
    ConvRow row;
    std::string user_name;
    f.id("org", kOrg, row.org).id("user", kUser, row.user).text("user_name", user_name, true);
    f.text("title", row.title).text("model", row.model).raw("system", row.system, RawKind::system);
    f.raw("metadata", row.metadata, RawKind::object);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (row.title.size() > kTextMax || row.model.size() > kTextMax || row.metadata.size() > kRawMax)
        return refuse(Errc::too_large, "title and model are at most 1 KiB, metadata 64 KiB");
    if (user_name.size() > 128 || row.user != user_id(row.org, user_name))
        return refuse(Errc::invalid, "user is not the id of user_name in this org");
    auto org = batch.has(Table::org, keys::of(row.org));
    if (!org) return refuse(org.error());
    if (!*org) return refuse(Errc::not_found, "no such org");
    auto user = batch.has(Table::user, keys::of(row.user));
    if (!user) return refuse(user.error());

    batch.subject = row.user;
    row.id = batch.new_id();
    row.created_ms = row.updated_ms = batch.now_ms();
    row.first_bucket = row.last_bucket = bucket_of(row.id);
    if (!*user) {
        const UserRow made{row.user, row.org, user_name, {}, batch.now_ms(), {}};
        if (auto done = batch.put(Table::user, keys::of(row.user), to_json(made)); !done)
            return refuse(done.error());
    }
    if (auto done = put_conv(batch, row, {}); !done) return refuse(done.error());
    if (auto done = batch.change("conversation.created", row.org, row.user,
                                 member("conversation", show_id(kConv, row.id)));
        !done)
        return refuse(done.error());
    return Said{shown("conversation", to_json(row)), {}};
}

Step do_conversation_update(Batch& batch, Fields& f) {
    Ulid org, user, conv;
    std::optional<uint64_t> rev;
    std::optional<std::string> title, model, system, metadata;
    std::optional<bool> archived, pinned;
    f.id("org", kOrg, org)
        .id("user", kUser, user)
        .id("conversation", kConv, conv)
        .number("rev", rev);
    f.text("title", title).text("model", model).raw("system", system, RawKind::system);
    f.raw("metadata", metadata, RawKind::object).flag("archived", archived).flag("pinned", pinned);
    bool clear_system = false;  // null cannot say it: null is "absent"
    f.flag("clear_system", clear_system);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if ((title && title->size() > kTextMax) || (model && model->size() > kTextMax) ||
        (metadata && metadata->size() > kRawMax))
        return refuse(Errc::too_large, "title and model are at most 1 KiB, metadata 64 KiB");
    auto row = need_conv(batch, org, user, conv);
    if (!row) return tl::unexpected(row.error());
    if (rev && *rev != row->rev)
        return refuse(Errc::conflict, "the conversation was changed by another", "rev",
                      member("rev", row->rev));
    const int64_t before = row->updated_ms;
    if (title) row->title = *title;
    if (model) row->model = *model;
    if (system) row->system = *system;
    if (clear_system) row->system = "null";
    if (metadata) row->metadata = *metadata;
    if (archived) row->archived = *archived;
    if (pinned) row->pinned = *pinned;
    ++row->rev;
    row->updated_ms = std::max(before, batch.now_ms());
    if (auto done = put_conv(batch, *row, before); !done) return refuse(done.error());
    if (auto done =
            batch.change("conversation.updated", org, user,
                         member("conversation", show_id(kConv, conv)) + member("rev", row->rev));
        !done)
        return refuse(done.error());
    return Said{shown("conversation", to_json(*row)), {}};
}

Step do_conversation_delete(Batch& batch, Fields& f) {
    Ulid org, user, conv;
    f.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto row = need_conv(batch, org, user, conv);
    if (!row) return tl::unexpected(row.error());
    if (auto done = erase_conv(batch, org, user, conv, row->updated_ms); !done)
        return refuse(done.error());
    return Said{};
}

Step do_send(Batch& batch, Fields& f) {
    Ulid org, user, conv_id;
    std::optional<std::string> parent_text, content;
    std::string sender, model, owner, params = "{}", idem_key, fingerprint;
    f.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv_id);
    f.text("parent", parent_text).raw("content", content, RawKind::array).text("sender", sender);
    f.text("model", model).text("owner", owner, true).raw("params", params, RawKind::object);
    f.text("idem_key", idem_key).text("fingerprint", fingerprint);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (sender.size() > kTextMax || model.size() > kTextMax || owner.size() > kTextMax ||
        params.size() > kRawMax || idem_key.size() > kTextMax || fingerprint.size() > 128)
        return refuse(Errc::too_large,
                      "sender, model, owner and idem_key are at most 1 KiB, params 64 KiB, "
                      "fingerprint 128 bytes");
    auto conv = need_conv(batch, org, user, conv_id);
    if (!conv) return tl::unexpected(conv.error());

    const std::string idem = idem_key.empty() ? std::string{} : keys::idem(user, "send", idem_key);
    if (!idem.empty()) {
        auto known = find_idem(batch, idem);
        if (!known) return refuse(known.error());
        if (*known) {
            if ((*known)->fingerprint != fingerprint)
                return refuse(Errc::conflict, "the idempotency key was used with another request",
                              "idempotency");
            return replay_send(batch, *conv, **known);
        }
    }

    std::optional<Ulid> parent_id = conv->head;
    if (parent_text && *parent_text == "root") {
        parent_id.reset();
    } else if (parent_text) {
        parent_id = parse_id(kMsg, *parent_text);
        if (!parent_id) return refuse(Errc::not_found, "no such parent message");
    }
    std::optional<MessageRow> parent;
    if (parent_id) {
        auto row = batch.need<MessageRow>(Table::msg, keys::msg(conv_id, *parent_id),
                                          "no such parent message");
        if (!row) return refuse(row.error());
        parent = std::move(*row);
        auto running = running_at(batch, *parent);
        if (!running) return refuse(running.error());
        if (*running)
            return refuse(Errc::conflict, "an answer is running on this branch", "running",
                          member("running", show_id(kMsg, **running)));
    }
    if (!content && (!parent || parent->role != "user"))
        return refuse(Errc::invalid, "without content, parent should be a message of the user");

    // Nothing was written so far; from here on nothing is refused.
    MessageRow said;
    if (content) {
        said.id = batch.new_id();
        said.conv = conv_id;
        said.parent = parent_id;
        said.role = "user";
        said.sender = sender.empty() ? show_id(kUser, user) : sender;
        said.status = "done";
        said.content = *content;
        said.created_ms = said.finished_ms = batch.now_ms();
        if (auto done = batch.put(Table::msg, keys::msg(conv_id, said.id), to_json(said)); !done)
            return refuse(done.error());
        if (auto done = batch.put_child(keys::child(conv_id, parent_id), said.id); !done)
            return refuse(done.error());
    } else {
        said = *parent;
    }
    MessageRow answer;
    answer.id = batch.new_id();
    answer.conv = conv_id;
    answer.parent = said.id;
    answer.role = "assistant";
    answer.sender = answer.model = model;
    answer.status = "streaming";
    answer.created_ms = batch.now_ms();
    StreamRow stream;
    stream.id = answer.id;
    stream.conv = conv_id;
    stream.org = org;
    stream.user = user;
    stream.user_message = said.id;
    stream.state = "running";
    stream.owner = owner;
    stream.model = model;
    stream.params = params;
    stream.created_ms = batch.now_ms();

    const int64_t before = conv->updated_ms;
    if (conv->message_count == 0) conv->first_bucket = bucket_of(said.id);
    conv->message_count += content ? 2 : 1;
    conv->last_bucket = bucket_of(answer.id);
    conv->head = answer.id;
    conv->updated_ms = std::max(before, batch.now_ms());
    // Who writes has read what stands above.
    const ReadRow read{said.id, conv->message_count - 1, batch.now_ms()};

    const std::string answer_id = show_id(kMsg, answer.id);
    if (auto done = batch.put(Table::msg, keys::msg(conv_id, answer.id), to_json(answer)); !done)
        return refuse(done.error());
    if (auto done = batch.put_child(keys::child(conv_id, said.id), answer.id); !done)
        return refuse(done.error());
    if (auto done = batch.put(Table::stream, keys::of(stream.id), to_json(stream)); !done)
        return refuse(done.error());
    if (auto done = put_conv(batch, *conv, before); !done) return refuse(done.error());
    if (auto done = batch.put(Table::read, keys::pair(user, conv_id), to_json(read)); !done)
        return refuse(done.error());
    if (!idem.empty()) {
        IdemRow row;
        row.fingerprint = fingerprint;
        row.conv = conv_id;
        row.user_message = said.id;
        row.message = answer.id;
        if (auto done = put_idem(batch, idem, row, true); !done) return refuse(done.error());
    }
    if (auto done = batch.change(content ? "message.sent" : "message.regenerated", org, user,
                                 member("conversation", show_id(kConv, conv_id)) +
                                     member("user_message", show_id(kMsg, said.id)) +
                                     member("message", answer_id));
        !done)
        return refuse(done.error());
    return Said{member_raw("replayed", "false") +
                    member("conversation_id", show_id(kConv, conv_id)) +
                    shown("user_message", to_json(said)) + shown("message", to_json(answer)) +
                    shown("stream", show_stream(stream)),
                {}};
}

Step do_read_mark(Batch& batch, Fields& f) {
    Ulid org, user, conv_id, message;
    f.id("org", kOrg, org)
        .id("user", kUser, user)
        .id("conversation", kConv, conv_id)
        .id("message", kMsg, message);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto conv = need_conv(batch, org, user, conv_id);
    if (!conv) return tl::unexpected(conv.error());
    auto there = batch.has(Table::msg, keys::msg(conv_id, message));
    if (!there) return refuse(there.error());
    if (!*there) return refuse(Errc::not_found, "no such message");
    auto old = batch.find<ReadRow>(Table::read, keys::pair(user, conv_id));
    if (!old) return refuse(old.error());
    const auto unread = [&](uint64_t read) {
        return Said{member("unread", conv->message_count > read ? conv->message_count - read : 0),
                    {}};
    };
    if (*old && (*old)->message >= message) return unread((*old)->count_read);

    // Counts what lies above the mark: the end of a conversation, nearly always.
    uint64_t above = 0;
    auto walk = Cursor::open(batch.env(), batch.txn(), Table::msg);
    if (!walk) return refuse(walk.error());
    const std::string mark = keys::msg(conv_id, message);
    for (bool on = walk->seek(mark); on && walk->key().starts_with(conv_id.view());
         on = walk->next())
        above += walk->key() > mark ? 1 : 0;
    if (walk->failure()) return refuse(*walk->failure());
    const ReadRow row{message, conv->message_count - std::min(above, conv->message_count),
                      batch.now_ms()};
    if (auto done = batch.put(Table::read, keys::pair(user, conv_id), to_json(row)); !done)
        return refuse(done.error());
    if (auto done = batch.change("conversation.read", org, user,
                                 member("conversation", show_id(kConv, conv_id)) +
                                     member("message", show_id(kMsg, message)));
        !done)
        return refuse(done.error());
    return unread(row.count_read);
}

Step do_cancel_ask(Batch& batch, Fields& f) {
    Ulid org, user, conv_id, message;
    f.id("org", kOrg, org)
        .id("user", kUser, user)
        .id("conversation", kConv, conv_id)
        .id("message", kMsg, message);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto conv = need_conv(batch, org, user, conv_id);
    if (!conv) return tl::unexpected(conv.error());
    auto row = batch.need<MessageRow>(Table::msg, keys::msg(conv_id, message), "no such message");
    if (!row) return refuse(row.error());
    if (row->status == "streaming")
        if (auto done = batch.change("message.cancel_asked", org, {},
                                     member("conversation", show_id(kConv, conv_id)) +
                                         member("message", show_id(kMsg, message)));
            !done)
            return refuse(done.error());
    return Said{member("status", row->status), {}};
}

}  // namespace parley::store
