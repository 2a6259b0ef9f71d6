#include "store/rows.hpp"

#include "base/json.hpp"
#include "store/fields.hpp"

namespace parley::store {
namespace {

using base::JsonWriter;

// One open document per thread: from_json copies all it needs before it returns.
Result<simdjson::dom::object> parse(std::string_view json) {
    thread_local simdjson::dom::parser parser;
    simdjson::dom::object object;
    if (const auto error = parser.parse(json.data(), json.size()).get(object))
        return fail(Errc::corrupt,
                    std::string("not a JSON object: ") + simdjson::error_message(error));
    return object;
}

template <class Row>
Result<Row> finish(const Fields& fields, Row&& row) {
    if (!fields.ok()) return fail(Errc::corrupt, fields.error());
    return std::forward<Row>(row);
}

void put_list(JsonWriter& w, std::string_view name, const std::vector<std::string>& list) {
    w.key(name).array();
    for (const auto& item : list) w.string(item);
    w.end();
}

void put_id(JsonWriter& w, std::string_view name, std::string_view prefix, const Ulid& id) {
    w.field(name, show_id(prefix, id));
}
void put_id(JsonWriter& w, std::string_view name, std::string_view prefix,
            const std::optional<Ulid>& id) {
    if (id) put_id(w, name, prefix, *id);
}

}  // namespace

std::string to_json(const OrgRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kOrg, row.id);
    w.field("name", row.name).field("weight", row.weight).key("limits").raw(row.limits);
    w.field("created_ms", row.created_ms).field("disabled", row.disabled);
    w.field("retention_ms", row.retention_ms).end();
    return out;
}
template <>
Result<OrgRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    OrgRow row;
    Fields f(*object);
    f.id("id", kOrg, row.id).text("name", row.name, true).real("weight", row.weight);
    f.raw("limits", row.limits, RawKind::object).number("created_ms", row.created_ms);
    f.flag("disabled", row.disabled).number("retention_ms", row.retention_ms);
    return finish(f, std::move(row));
}

std::string to_json(const UserRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kUser, row.id);
    put_id(w, "org", kOrg, row.org);
    w.field("name", row.name).field("password_hash", row.password_hash);
    w.field("created_ms", row.created_ms);
    put_id(w, "session_floor", kSession, row.session_floor);
    if (row.notifications != "null") w.key("notifications").raw(row.notifications);
    w.end();
    return out;
}
template <>
Result<UserRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    UserRow row;
    Fields f(*object);
    f.id("id", kUser, row.id).id("org", kOrg, row.org).text("name", row.name, true);
    f.text("password_hash", row.password_hash).number("created_ms", row.created_ms);
    f.id("session_floor", kSession, row.session_floor);
    f.raw("notifications", row.notifications, RawKind::object);
    return finish(f, std::move(row));
}

std::string to_json(const SessionRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kSession, row.id);
    put_id(w, "org", kOrg, row.org);
    put_id(w, "user", kUser, row.user);
    w.field("user_name", row.user_name).field("created_ms", row.created_ms);
    w.field("renewed_ms", row.renewed_ms).field("expires_ms", row.expires_ms);
    w.field("replaced", row.replaced).field("other", row.other).end();
    return out;
}
template <>
Result<SessionRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    SessionRow row;
    Fields f(*object);
    f.id("id", kSession, row.id).id("org", kOrg, row.org).id("user", kUser, row.user);
    f.text("user_name", row.user_name).number("created_ms", row.created_ms);
    f.number("renewed_ms", row.renewed_ms).number("expires_ms", row.expires_ms);
    f.flag("replaced", row.replaced).text("other", row.other);
    return finish(f, std::move(row));
}

std::string to_json(const ApiKeyRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kKey, row.id);
    put_id(w, "org", kOrg, row.org);
    put_id(w, "user", kUser, row.user);
    w.field("user_name", row.user_name).field("name", row.name).field("prefix", row.prefix);
    put_list(w, "scopes", row.scopes);
    put_list(w, "models", row.models);
    put_id(w, "first", kKey, row.first);
    w.field("service_class", row.service_class).key("limits").raw(row.limits);
    w.field("created_ms", row.created_ms).field("expires_ms", row.expires_ms);
    w.field("revoked_ms", row.revoked_ms).end();
    return out;
}
template <>
Result<ApiKeyRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    ApiKeyRow row;
    Fields f(*object);
    f.id("id", kKey, row.id).id("org", kOrg, row.org).id("user", kUser, row.user);
    f.text("user_name", row.user_name).text("name", row.name).text("prefix", row.prefix);
    f.list("scopes", row.scopes)
        .list("models", row.models)
        .text("service_class", row.service_class);
    f.raw("limits", row.limits, RawKind::object).number("created_ms", row.created_ms);
    f.number("expires_ms", row.expires_ms).number("revoked_ms", row.revoked_ms);
    f.id("first", kKey, row.first);
    return finish(f, std::move(row));
}

std::string to_json(const ConvRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kConv, row.id);
    put_id(w, "org", kOrg, row.org);
    put_id(w, "user", kUser, row.user);
    w.field("title", row.title).field("model", row.model).key("system").raw(row.system);
    w.key("metadata").raw(row.metadata).field("created_ms", row.created_ms);
    w.field("updated_ms", row.updated_ms);
    put_id(w, "head", kMsg, row.head);
    w.field("first_bucket", row.first_bucket).field("last_bucket", row.last_bucket);
    w.field("message_count", row.message_count).field("archived", row.archived);
    w.field("pinned", row.pinned).field("rev", row.rev).end();
    return out;
}
template <>
Result<ConvRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    ConvRow row;
    Fields f(*object);
    f.id("id", kConv, row.id).id("org", kOrg, row.org).id("user", kUser, row.user);
    f.text("title", row.title).text("model", row.model).raw("system", row.system, RawKind::system);
    f.raw("metadata", row.metadata, RawKind::object).number("created_ms", row.created_ms);
    f.number("updated_ms", row.updated_ms).id("head", kMsg, row.head);
    f.number("first_bucket", row.first_bucket).number("last_bucket", row.last_bucket);
    f.number("message_count", row.message_count).flag("archived", row.archived);
    f.flag("pinned", row.pinned).number("rev", row.rev);
    return finish(f, std::move(row));
}

std::string to_json(const MessageRow& row) {
    std::string out;
    out.reserve(row.content.size() + 512);
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kMsg, row.id);
    put_id(w, "conv", kConv, row.conv);
    put_id(w, "parent", kMsg, row.parent);
    w.field("role", row.role).field("sender", row.sender).field("status", row.status);
    w.field("stop_reason", row.stop_reason).field("model", row.model);
    w.key("content").raw(row.content).key("usage").raw(row.usage).key("error").raw(row.error);
    w.field("token_count", row.token_count).field("created_ms", row.created_ms);
    w.field("finished_ms", row.finished_ms);
    if (row.imported) w.field("imported", true);
    w.end();
    return out;
}
template <>
Result<MessageRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    MessageRow row;
    Fields f(*object);
    f.id("id", kMsg, row.id).id("conv", kConv, row.conv).id("parent", kMsg, row.parent);
    f.text("role", row.role, true).text("sender", row.sender).text("status", row.status, true);
    f.text("stop_reason", row.stop_reason).text("model", row.model);
    f.raw("content", row.content, RawKind::array).raw("usage", row.usage).raw("error", row.error);
    f.number("token_count", row.token_count).number("created_ms", row.created_ms);
    f.number("finished_ms", row.finished_ms).flag("imported", row.imported);
    return finish(f, std::move(row));
}

std::string to_json(const StreamRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "id", kMsg, row.id);
    put_id(w, "conv", kConv, row.conv);
    put_id(w, "org", kOrg, row.org);
    put_id(w, "user", kUser, row.user);
    put_id(w, "user_message", kMsg, row.user_message);
    w.field("state", row.state).field("epoch", row.epoch).field("owner", row.owner);
    w.field("model", row.model).key("params").raw(row.params);
    w.field("charged_input", row.charged_input).field("charged_output", row.charged_output);
    w.field("created_ms", row.created_ms).field("ended_ms", row.ended_ms).end();
    return out;
}
template <>
Result<StreamRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    StreamRow row;
    Fields f(*object);
    f.id("id", kMsg, row.id).id("conv", kConv, row.conv).id("org", kOrg, row.org);
    f.id("user", kUser, row.user).id("user_message", kMsg, row.user_message);
    f.text("state", row.state, true).number("epoch", row.epoch).text("owner", row.owner);
    f.text("model", row.model).raw("params", row.params, RawKind::object);
    f.number("last_seq", row.last_seq).number("block", row.block);  // in replies
    f.number("block_bytes", row.block_bytes).number("tokens", row.tokens);
    f.number("charged_input", row.charged_input).number("charged_output", row.charged_output);
    f.number("created_ms", row.created_ms).number("ended_ms", row.ended_ms);
    return finish(f, std::move(row));
}

std::string to_json(const DeltaRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    w.field("epoch", row.epoch).field("first_seq", row.first_seq).field("last_seq", row.last_seq);
    w.field("block", row.block);
    if (row.block_type != "text") w.field("block_type", row.block_type);
    w.field("offset", row.offset).field("text", row.text).key("ids").array();
    for (const int32_t id : row.ids) w.number(id);
    w.end().field("tokens", row.tokens);
    if (row.data != "null") w.key("data").raw(row.data);
    w.end();
    return out;
}
template <>
Result<DeltaRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    DeltaRow row;
    Fields f(*object);
    f.number("epoch", row.epoch)
        .number("first_seq", row.first_seq)
        .number("last_seq", row.last_seq);
    f.number("block", row.block).text("block_type", row.block_type).number("offset", row.offset);
    f.text("text", row.text)
        .list("ids", row.ids)
        .number("tokens", row.tokens)
        .raw("data", row.data);
    return finish(f, std::move(row));
}

std::string to_json(const ModelRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("hash", row.hash).field("name", row.name).field("tokenizer", row.tokenizer);
    w.field("context", row.context).field("output_max", row.output_max).key("info").raw(row.info);
    w.field("created_ms", row.created_ms).end();
    return out;
}
template <>
Result<ModelRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    ModelRow row;
    Fields f(*object);
    f.text("hash", row.hash, true).text("name", row.name, true).text("tokenizer", row.tokenizer);
    f.number("context", row.context).number("output_max", row.output_max);
    f.raw("info", row.info, RawKind::object).number("created_ms", row.created_ms);
    return finish(f, std::move(row));
}

std::string to_json(const AliasRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("name", row.name).field("target", row.target).key("rule").raw(row.rule);
    w.field("updated_ms", row.updated_ms).key("rollout").raw(row.rollout);
    w.key("history").raw(row.history).end();
    return out;
}
template <>
Result<AliasRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    AliasRow row;
    Fields f(*object);
    f.text("name", row.name, true).text("target", row.target, true);
    f.raw("rule", row.rule, RawKind::object).number("updated_ms", row.updated_ms);
    f.raw("rollout", row.rollout, RawKind::object).raw("history", row.history, RawKind::array);
    return finish(f, std::move(row));
}

template <>
Result<UsageRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    UsageRow row;
    Fields f(*object);
    f.number("ms", row.ms).id("org", kOrg, row.org).id("user", kUser, row.user);
    std::optional<Ulid> end_user;
    f.id("end_user", kUser, end_user).text("key_id", row.key_id).text("model", row.model);
    f.number("input_tokens", row.input_tokens).number("output_tokens", row.output_tokens);
    f.flag("final", row.final);
    row.end_user = end_user.value_or(row.user);
    return finish(f, std::move(row));
}

std::string to_json(const UsageTotal& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("day", row.day).field("model", row.model).field("requests", row.requests);
    w.field("input_tokens", row.input_tokens).field("output_tokens", row.output_tokens);
    w.field("compute_us", row.compute_us).end();
    return out;
}
template <>
Result<UsageTotal> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    UsageTotal row;
    Fields f(*object);
    f.number("day", row.day).text("model", row.model).number("requests", row.requests);
    f.number("input_tokens", row.input_tokens).number("output_tokens", row.output_tokens);
    f.number("compute_us", row.compute_us);
    return finish(f, std::move(row));
}

std::string to_json(const IdemRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object().field("fingerprint", row.fingerprint);
    put_id(w, "conv", kConv, row.conv);
    put_id(w, "user_message", kMsg, row.user_message);
    put_id(w, "message", kMsg, row.message);
    w.key("result").raw(row.result).field("done", row.done);
    if (!row.owner.empty()) w.field("owner", row.owner);
    w.field("expires_ms", row.expires_ms).end();
    return out;
}
template <>
Result<IdemRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    IdemRow row;
    Fields f(*object);
    f.text("fingerprint", row.fingerprint, true).id("conv", kConv, row.conv);
    f.id("user_message", kMsg, row.user_message).id("message", kMsg, row.message);
    f.raw("result", row.result).flag("done", row.done).number("expires_ms", row.expires_ms);
    f.text("owner", row.owner);
    return finish(f, std::move(row));
}

std::string to_json(const ReadRow& row) {
    std::string out;
    JsonWriter w(out);
    w.object();
    put_id(w, "message", kMsg, row.message);
    w.field("count_read", row.count_read).field("at_ms", row.at_ms).end();
    return out;
}
template <>
Result<ReadRow> from_json(std::string_view json) {
    auto object = parse(json);
    if (!object) return fail(object.error());
    ReadRow row;
    Fields f(*object);
    f.id("message", kMsg, row.message)
        .number("count_read", row.count_read)
        .number("at_ms", row.at_ms);
    return finish(f, std::move(row));
}

}  // namespace parley::store
