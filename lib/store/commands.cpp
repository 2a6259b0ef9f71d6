#include "store/commands.hpp"

#include "base/json.hpp"

namespace parley::store {
namespace {

// The object of one command; what stands at its default is left out where the writer has the same.
class Body {
  public:
    explicit Body(std::string_view command) : w_(out_) { w_.object().field("command", command); }
    Body& text(std::string_view name, const std::string& value) {
        if (!value.empty()) w_.field(name, value);
        return *this;
    }
    Body& need(std::string_view name, const std::string& value) {
        w_.field(name, value);
        return *this;
    }
    Body& text(std::string_view name, const std::optional<std::string>& value) {
        if (value) w_.field(name, *value);
        return *this;
    }
    Body& id(std::string_view name, std::string_view prefix, const Ulid& id) {
        w_.field(name, show_id(prefix, id));
        return *this;
    }
    Body& raw(std::string_view name, const std::string& json) {
        if (!json.empty() && json != "null") w_.key(name).raw(json);
        return *this;
    }
    Body& raw(std::string_view name, const std::optional<std::string>& json) {
        return json ? raw(name, *json) : *this;
    }
    template <class T>
    Body& number(std::string_view name, T value) {
        w_.field(name, value);
        return *this;
    }
    template <class T>
    Body& number(std::string_view name, const std::optional<T>& value) {
        if (value) w_.field(name, *value);
        return *this;
    }
    Body& list(std::string_view name, const std::vector<std::string>& values) {
        w_.key(name).array();
        for (const auto& value : values) w_.string(value);
        w_.end();
        return *this;
    }
    base::JsonWriter& writer() { return w_; }
    std::string done() {
        w_.end();
        return std::move(out_);
    }

  private:
    std::string out_;
    base::JsonWriter w_;
};

}  // namespace

std::string OrgCreate::json() const {
    return Body("org_create")
        .need("name", name)
        .number("weight", weight)
        .raw("limits", limits)
        .number("retention_ms", retention_ms)
        .done();
}
std::string KeyCreate::json() const {
    Body body("key_create");
    body.need("org", org)
        .need("user", user)
        .text("name", name)
        .text("hash", hash)
        .text("prefix", prefix);
    body.list("scopes", scopes).list("models", models).text("service_class", service_class);
    return body.raw("limits", limits).number("expires_ms", expires_ms).done();
}
std::string OrgUpdate::json() const {
    Body body("org_update");
    body.need("org", org).number("weight", weight).number("disabled", disabled);
    body.number("retention_ms", retention_ms);
    if (limits) body.writer().key("limits").raw(*limits);
    return body.done();
}
std::string KeyUpdate::json() const {
    Body body("key_update");
    body.need("key_id", key_id).number("expires_ms", expires_ms);
    if (limits) body.writer().key("limits").raw(*limits);
    if (scopes) body.list("scopes", *scopes);
    if (models) body.list("models", *models);
    return body.done();
}
std::string KeyRotate::json() const {
    return Body("key_rotate")
        .need("key_id", key_id)
        .text("hash", hash)
        .text("prefix", prefix)
        .number("grace_ms", grace_ms)
        .done();
}
std::string KeyRevoke::json() const { return Body("key_revoke").need("key_id", key_id).done(); }
std::string UserCreate::json() const {
    Body body("user_create");
    return body.need("org", org)
        .need("name", name)
        .text("password_hash", password_hash)
        .number("replace", replace)
        .done();
}
std::string SessionCreate::json() const {
    Body body("session_create");
    body.id("org", kOrg, org).id("user", kUser, user).need("user_name", user_name);
    return body.need("hash", hash).number("ttl_ms", ttl_ms).done();
}
std::string SessionRenew::json() const {
    Body body("session_renew");
    return body.need("hash", hash).need("new_hash", new_hash).number("grace_ms", grace_ms).done();
}
std::string SessionEnd::json() const { return Body("session_end").need("hash", hash).done(); }
std::string SessionEndAll::json() const {
    return Body("session_end_all").id("org", kOrg, org).id("user", kUser, user).done();
}
std::string ConversationCreate::json() const {
    Body body("conversation_create");
    body.id("org", kOrg, org)
        .id("user", kUser, user)
        .need("user_name", user_name)
        .text("title", title);
    return body.text("model", model).raw("system", system).raw("metadata", metadata).done();
}
std::string ConversationUpdate::json() const {
    Body body("conversation_update");
    body.id("org", kOrg, org)
        .id("user", kUser, user)
        .id("conversation", kConv, conv)
        .number("rev", rev);
    body.text("title", title).text("model", model).raw("system", system).raw("metadata", metadata);
    if (system && (system->empty() || *system == "null")) body.number("clear_system", true);
    return body.number("archived", archived).number("pinned", pinned).done();
}
std::string ConversationDelete::json() const {
    Body body("conversation_delete");
    return body.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv).done();
}
std::string Send::json() const {
    Body body("send");
    body.id("org", kOrg, org)
        .id("user", kUser, user)
        .id("conversation", kConv, conv)
        .text("parent", parent);
    body.raw("content", content).text("sender", sender).text("model", model).need("owner", owner);
    return body.raw("params", params)
        .text("idem_key", idem_key)
        .text("fingerprint", fingerprint)
        .done();
}
std::string CancelAsk::json() const {
    Body body("cancel_ask");
    body.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv);
    return body.id("message", kMsg, message).done();
}
std::string Append::json() const {
    Body body("append");
    body.id("message", kMsg, message).need("owner", owner).number("epoch", delta.epoch);
    body.number("first_seq", delta.first_seq)
        .number("last_seq", delta.last_seq)
        .number("block", delta.block);
    body.need("block_type", delta.block_type)
        .number("offset", delta.offset)
        .need("text", delta.text);
    auto& w = body.writer().key("ids").array();
    for (const int32_t id : delta.ids) w.number(id);
    w.end();
    return body.raw("data", delta.data).done();
}
std::string Finish::json() const {
    Body body("finish");
    body.id("message", kMsg, message)
        .need("owner", owner)
        .number("epoch", epoch)
        .need("status", status);
    body.text("stop_reason", stop_reason)
        .raw("content", content)
        .text("model", model)
        .raw("usage", usage);
    body.raw("error", error)
        .number("input_tokens", input_tokens)
        .number("output_tokens", output_tokens);
    return body.number("compute_us", compute_us)
        .text("key_id", key_id)
        .text("request_id", request_id)
        .done();
}
std::string TakeOver::json() const {
    Body body("take_over");
    return body.id("message", kMsg, message)
        .number("epoch", epoch)
        .need("owner", owner)
        .number("resume", resume)
        .done();
}
namespace {
void write_charge(Body& body, const Charge& c) {
    body.id("org", kOrg, c.org)
        .id("user", kUser, c.user)
        .text("key_id", c.key_id)
        .need("request_id", c.request_id);
    if (c.end_user) body.id("end_user", kUser, *c.end_user);
    body.text("model", c.model).text("service_class", c.service_class).need("status", c.status);
    body.number("input_tokens", c.input_tokens).number("output_tokens", c.output_tokens);
    body.number("cached_tokens", c.cached_tokens).number("compute_us", c.compute_us);
}
}  // namespace
std::string Charge::json() const {
    Body body("charge");
    write_charge(body, *this);
    return body.done();
}
std::string charges_json(const std::vector<Charge>& charges) {
    Body body("charge_all");
    body.writer().key("charges").array();
    for (const Charge& charge : charges) {
        body.writer().object();
        write_charge(body, charge);
        body.writer().end();
    }
    body.writer().end();
    return body.done();
}
std::string IdemTake::json() const {
    Body body("idem_take");
    body.id("user", kUser, user)
        .need("scope", scope)
        .need("key", key)
        .need("fingerprint", fingerprint);
    return body.raw("result", result).text("owner", owner).done();
}
std::string IdemDone::json() const {
    return Body("idem_done")
        .id("user", kUser, user)
        .need("scope", scope)
        .need("key", key)
        .raw("result", result)
        .text("owner", owner)
        .done();
}
std::string IdemFree::json() const {
    return Body("idem_free")
        .id("user", kUser, user)
        .need("scope", scope)
        .need("key", key)
        .text("owner", owner)
        .done();
}
std::string ConversationImport::json() const {
    Body body("conversation_import");
    body.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv);
    body.need("user_name", user_name).text("title", title).text("model", model);
    body.raw("system", system).raw("metadata", metadata);
    body.number("created_ms", created_ms).number("updated_ms", updated_ms);
    body.number("archived", archived).number("pinned", pinned).number("last", last);
    if (head) body.id("head", kMsg, *head);
    base::JsonWriter& w = body.writer();
    w.key("messages").array();
    for (const Message& message : messages) {
        w.object().field("id", show_id(kMsg, message.id));
        if (message.parent) w.field("parent", show_id(kMsg, *message.parent));
        w.field("role", message.role).field("status", message.status);
        w.field("stop_reason", message.stop_reason).field("model", message.model);
        w.key("content").raw(message.content);
        if (message.usage != "null") w.key("usage").raw(message.usage);
        w.field("token_count", message.token_count).field("created_ms", message.created_ms).end();
    }
    w.end();
    return body.done();
}
std::string UserErase::json() const {
    return Body("user_erase").id("org", kOrg, org).id("user", kUser, user).done();
}
std::string ModelPut::json() const {
    Body body("model_put");
    body.need("hash", hash)
        .need("name", name)
        .text("tokenizer", tokenizer)
        .number("context", context);
    return body.number("output_max", output_max).raw("info", info).done();
}
std::string AliasSet::json() const {
    Body body("alias_set");
    body.need("name", name).need("target", target).text("who", who).text("why", why);
    if (!rule.empty()) body.raw("rule", rule);
    if (!rollout.empty()) body.raw("rollout", rollout);
    return body.done();
}
std::string RouterFlowsPut::json() const {
    return Body("router_flows_put").raw("flows", flows).done();
}
std::string RouterFlowsGet::json() const { return Body("router_flows_get").done(); }
std::string NotificationsSet::json() const {
    Body body("notifications_set");
    body.id("org", kOrg, org).id("user", kUser, user).need("user_name", user_name);
    return body.raw("notifications", notifications).text("was", was).done();
}
std::string ReadMark::json() const {
    Body body("read_mark");
    body.id("org", kOrg, org).id("user", kUser, user).id("conversation", kConv, conv);
    return body.id("message", kMsg, message).done();
}

}  // namespace parley::store
