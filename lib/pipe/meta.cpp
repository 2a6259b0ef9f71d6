// The meta of each verb, written and read. Member names: man/parley-protocol.7.
#include <fmt/format.h>
#include <simdjson.h>

#include "base/json.hpp"
#include "pipe/message.hpp"

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::JsonWriter;
using base::Result;

namespace {

namespace dom = simdjson::dom;

// Reads known members; the first that has the wrong type is remembered, and makes the meta
// malformed.
class Members {
  public:
    static Result<Members> parse(std::string_view meta) {
        thread_local dom::parser parser(64u << 20);
        Members members;
        dom::element document;
        const simdjson::padded_string padded(meta);
        if (const auto error = parser.parse(padded).get(document); error)
            return fail(Errc::invalid, fmt::format("meta: {}", simdjson::error_message(error)));
        if (document.get(members.object_) != simdjson::SUCCESS)
            return fail(Errc::invalid, "meta: Input should be an object");
        return members;
    }
    explicit Members(dom::object object) : object_(object) {}

    template <class T>
    void integer(const char* key, T& value) {
        dom::element element;
        if (!present(key, element)) return;
        if constexpr (std::is_signed_v<T>) {
            int64_t number = 0;
            if (element.get(number) != simdjson::SUCCESS ||
                number < std::numeric_limits<T>::min() || number > std::numeric_limits<T>::max())
                return wrong(key, "an integer in range");
            value = static_cast<T>(number);
        } else {
            uint64_t number = 0;
            if (element.get(number) != simdjson::SUCCESS || number > std::numeric_limits<T>::max())
                return wrong(key, "a non-negative integer in range");
            value = static_cast<T>(number);
        }
    }
    void real(const char* key, double& value) {
        dom::element element;
        if (!present(key, element)) return;
        if (element.get(value) != simdjson::SUCCESS) wrong(key, "a number");
    }
    void boolean(const char* key, bool& value) {
        dom::element element;
        if (!present(key, element)) return;
        if (element.get(value) != simdjson::SUCCESS) wrong(key, "a boolean");
    }
    bool text(const char* key, std::string& value) {
        dom::element element;
        if (!present(key, element)) return false;
        std::string_view view;
        if (element.get(view) != simdjson::SUCCESS) {
            wrong(key, "a string");
            return false;
        }
        value = std::string(view);
        return true;
    }
    void texts(const char* key, std::vector<std::string>& values) {
        dom::element element;
        if (!present(key, element)) return;
        dom::array list;
        if (element.get(list) != simdjson::SUCCESS) return wrong(key, "an array of strings");
        for (const dom::element item : list) {
            std::string_view view;
            if (item.get(view) != simdjson::SUCCESS) return wrong(key, "an array of strings");
            values.emplace_back(view);
        }
    }
    bool ids(const char* key, std::vector<int32_t>& values) {
        dom::element element;
        if (!present(key, element)) return false;
        dom::array list;
        if (element.get(list) != simdjson::SUCCESS) {
            wrong(key, "an array of token ids");
            return false;
        }
        values.reserve(list.size());
        for (const dom::element item : list) {
            int64_t number = 0;
            if (item.get(number) != simdjson::SUCCESS || number < 0 || number > INT32_MAX) {
                wrong(key, "an array of token ids");
                return false;
            }
            values.push_back(static_cast<int32_t>(number));
        }
        return true;
    }
    std::optional<Members> object(const char* key) {
        dom::element element;
        if (!present(key, element)) return std::nullopt;
        dom::object inner;
        if (element.get(inner) != simdjson::SUCCESS) {
            wrong(key, "an object");
            return std::nullopt;
        }
        return Members(inner);
    }
    template <class Each>
    void objects(const char* key, Each each) {
        dom::element element;
        if (!present(key, element)) return;
        dom::array list;
        if (element.get(list) != simdjson::SUCCESS) return wrong(key, "an array of objects");
        for (const dom::element item : list) {
            dom::object inner;
            if (item.get(inner) != simdjson::SUCCESS) return wrong(key, "an array of objects");
            Members members(inner);
            each(members);
            adopt(members);
        }
    }
    void adopt(const Members& inner) {
        if (error_.empty()) error_ = inner.error_;
    }
    template <class T>
    Result<T> done(T value) {
        if (!error_.empty()) return fail(Errc::invalid, "meta." + error_);
        return value;
    }
    void wrong(const char* key, const char* expected) {
        if (error_.empty()) error_ = fmt::format("{}: Input should be {}", key, expected);
    }

  private:
    Members() = default;
    bool present(const char* key, dom::element& element) {
        return object_.at_key(key).get(element) == simdjson::SUCCESS && !element.is_null();
    }
    dom::object object_;
    std::string error_;
};

void ids(JsonWriter& w, std::string_view key, const std::vector<int32_t>& values) {
    w.key(key).array();
    for (int32_t id : values) w.number(id);
    w.end();
}
void texts(JsonWriter& w, std::string_view key, const std::vector<std::string>& values) {
    w.key(key).array();
    for (const auto& text : values) w.string(text);
    w.end();
}
void text(JsonWriter& w, std::string_view key, const std::string& value) {
    if (!value.empty()) w.field(key, value);
}
template <class T>
void number(JsonWriter& w, std::string_view key, T value, T absent = {}) {
    if (value != absent) w.field(key, value);
}

}  // namespace

std::string to_meta(const Envelope& e) {
    std::string out;
    JsonWriter w(out);
    w.object().field("attempt", e.attempt).field("credit", e.credit);
    text(w, "org", e.org);
    text(w, "user", e.user);
    text(w, "key", e.key);
    w.field("class", name(e.cls));
    text(w, "flow", e.flow);
    number(w, "weight", e.weight, 1.0);
    number(w, "tag", e.tag);
    text(w, "conversation", e.conversation);
    text(w, "message", e.message);
    if (e.seed) w.field("seed", *e.seed);
    const Sampling& s = e.sampling;
    if (s.min_p != 0 || s.repetition_penalty != 1 || s.presence_penalty != 0 ||
        s.frequency_penalty != 0 || s.temperature || !s.stops.empty()) {
        w.key("sampling").object();
        number(w, "min_p", s.min_p);
        number(w, "repetition_penalty", s.repetition_penalty, 1.0);
        number(w, "presence_penalty", s.presence_penalty);
        number(w, "frequency_penalty", s.frequency_penalty);
        if (s.temperature) w.field("temperature", *s.temperature);
        if (!s.stops.empty()) texts(w, "stops", s.stops);
        w.end();
    }
    number(w, "ttft_ms", e.ttft_ms);
    number(w, "stall_ms", e.stall_ms);
    number(w, "total_ms", e.total_ms);
    text(w, "trace", e.trace);
    if (!e.blocks.empty()) texts(w, "blocks", e.blocks);
    number(w, "risk", e.risk);
    text(w, "version", e.version);
    if (e.continuation) {
        ids(w, "produced", e.continuation->produced);
        w.field("block", e.continuation->block).field("released", e.continuation->released);
        w.field("text", e.continuation->text);
    }
    if (e.unfiltered) w.field("unfiltered", true);
    w.end();
    return out;
}

Result<Envelope> parse_envelope(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    Envelope e;
    members->integer("attempt", e.attempt);
    members->integer("credit", e.credit);
    members->text("org", e.org);
    members->text("user", e.user);
    members->text("key", e.key);
    if (std::string cls; members->text("class", cls)) {
        if (cls == "interactive")
            e.cls = Class::interactive;
        else if (cls == "streaming")
            e.cls = Class::streaming;
        else if (cls == "batch")
            e.cls = Class::batch;
        else
            members->wrong("class", "'interactive', 'streaming' or 'batch'");
    }
    members->text("flow", e.flow);
    members->real("weight", e.weight);
    members->real("tag", e.tag);
    members->text("conversation", e.conversation);
    members->text("message", e.message);
    uint64_t seed = UINT64_MAX;
    members->integer("seed", seed);
    if (seed != UINT64_MAX) e.seed = seed;
    if (auto inner = members->object("sampling")) {
        inner->real("min_p", e.sampling.min_p);
        inner->real("repetition_penalty", e.sampling.repetition_penalty);
        inner->real("presence_penalty", e.sampling.presence_penalty);
        inner->real("frequency_penalty", e.sampling.frequency_penalty);
        double temperature = -1;
        inner->real("temperature", temperature);
        if (temperature >= 0) e.sampling.temperature = temperature;
        inner->texts("stops", e.sampling.stops);
        members->adopt(*inner);
    }
    members->integer("ttft_ms", e.ttft_ms);
    members->integer("stall_ms", e.stall_ms);
    members->integer("total_ms", e.total_ms);
    members->text("trace", e.trace);
    members->texts("blocks", e.blocks);
    members->real("risk", e.risk);
    members->text("version", e.version);
    Continuation continuation;
    if (members->ids("produced", continuation.produced)) {
        members->integer("block", continuation.block);
        members->integer("released", continuation.released);
        members->text("text", continuation.text);
        e.continuation = std::move(continuation);
    }
    members->boolean("unfiltered", e.unfiltered);
    if (e.attempt == 0) members->wrong("attempt", "at least 1");
    if (!(e.weight > 0)) members->wrong("weight", "greater than 0");
    return members->done(std::move(e));
}

std::string to_meta(const EventMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("attempt", m.attempt).field("seq", m.seq);
    if (!m.ids.empty()) ids(w, "ids", m.ids);
    number(w, "stamp_ns", m.stamp_ns);
    text(w, "policy", m.policy);
    text(w, "stamp", m.stamp);
    w.end();
    return out;
}

Result<EventMeta> parse_event_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    EventMeta m;
    members->integer("attempt", m.attempt);
    members->integer("seq", m.seq);
    members->ids("ids", m.ids);
    members->integer("stamp_ns", m.stamp_ns);
    members->text("policy", m.policy);
    members->text("stamp", m.stamp);
    return members->done(std::move(m));
}

std::string to_meta(const EndMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("attempt", m.attempt).field("seq", m.seq).field("status", m.status);
    text(w, "message", m.message);
    if (m.retryable) w.field("retryable", true);
    number(w, "retry_after_s", m.retry_after_s);
    text(w, "reason", m.reason);
    if (m.usage) {
        w.key("usage").object().field("input_tokens", m.usage->input_tokens);
        w.field("cache_read_input_tokens", m.usage->cache_read_input_tokens);
        w.field("output_tokens", m.usage->output_tokens).end();
    }
    number(w, "cost_s", m.cost_s);
    number(w, "drafted_tokens", m.drafted_tokens);
    number(w, "accepted_tokens", m.accepted_tokens);
    text(w, "model", m.model);
    number(w, "change", m.change);
    w.end();
    return out;
}

Result<EndMeta> parse_end_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    EndMeta m;
    members->integer("attempt", m.attempt);
    members->integer("seq", m.seq);
    members->text("status", m.status);
    members->text("message", m.message);
    members->boolean("retryable", m.retryable);
    members->integer("retry_after_s", m.retry_after_s);
    members->text("reason", m.reason);
    if (auto inner = members->object("usage")) {
        Usage usage;
        inner->integer("input_tokens", usage.input_tokens);
        inner->integer("cache_read_input_tokens", usage.cache_read_input_tokens);
        inner->integer("output_tokens", usage.output_tokens);
        members->adopt(*inner);
        m.usage = usage;
    }
    members->real("cost_s", m.cost_s);
    members->integer("drafted_tokens", m.drafted_tokens);
    members->integer("accepted_tokens", m.accepted_tokens);
    members->text("model", m.model);
    members->integer("change", m.change);
    return members->done(std::move(m));
}

std::string to_meta(const CancelMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("attempt", m.attempt);
    text(w, "reason", m.reason);
    w.end();
    return out;
}

Result<CancelMeta> parse_cancel_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    CancelMeta m;
    members->integer("attempt", m.attempt);
    members->text("reason", m.reason);
    return members->done(std::move(m));
}

std::string to_meta(const CreditMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("attempt", m.attempt).field("credit", m.credit);
    if (m.tag) w.field("tag", *m.tag);
    w.end();
    return out;
}

Result<CreditMeta> parse_credit_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    CreditMeta m;
    members->integer("attempt", m.attempt);
    members->integer("credit", m.credit);
    constexpr double kAbsent = -1;
    double tag = kAbsent;
    members->real("tag", tag);
    if (tag != kAbsent) m.tag = tag;
    return members->done(std::move(m));
}

std::string to_meta(const StatusMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("running", m.running).field("waiting", m.waiting).field("slots", m.slots);
    number(w, "kv_free", m.kv_free);
    number(w, "kv_total", m.kv_total);
    number(w, "queue_s", m.queue_s);
    number(w, "longest_ms", m.longest_ms);
    number(w, "drafted_tokens", m.drafted_tokens);
    number(w, "accepted_tokens", m.accepted_tokens);
    if (!m.charges.empty()) {
        w.key("charges").array();
        for (const Charge& charge : m.charges)
            w.object().field("flow", charge.flow).field("cost_s", charge.cost_s).end();
        w.end();
    }
    if (m.draining) w.field("draining", true);
    w.end();
    return out;
}

Result<StatusMeta> parse_status_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    StatusMeta m;
    members->integer("running", m.running);
    members->integer("waiting", m.waiting);
    members->integer("slots", m.slots);
    members->integer("kv_free", m.kv_free);
    members->integer("kv_total", m.kv_total);
    members->real("queue_s", m.queue_s);
    members->real("longest_ms", m.longest_ms);
    members->integer("drafted_tokens", m.drafted_tokens);
    members->integer("accepted_tokens", m.accepted_tokens);
    members->objects("charges", [&m](Members& inner) {
        Charge charge;
        inner.text("flow", charge.flow);
        inner.real("cost_s", charge.cost_s);
        m.charges.push_back(std::move(charge));
    });
    members->boolean("draining", m.draining);
    return members->done(std::move(m));
}

std::string to_meta(const HelloMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("role", m.role == Role::asker ? "asker" : "answerer").field("name", m.name);
    w.field("boot", m.boot).field("version", m.version);
    number(w, "slots", m.slots);
    number(w, "queue", m.queue);
    if (!m.models.empty()) {
        w.key("models").array();
        for (const ModelInfo& model : m.models) {
            w.object().field("hash", model.hash).field("name", model.name);
            w.field("architecture", model.architecture)
                .field("context_tokens", model.context_tokens);
            w.field("output_tokens_max", model.output_tokens_max).end();
        }
        w.end();
    }
    text(w, "policy", m.policy);
    text(w, "zone", m.zone);
    if (!m.need.empty()) texts(w, "need", m.need);
    text(w, "tok", m.tok);
    w.end();
    return out;
}

Result<HelloMeta> parse_hello_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    HelloMeta m;
    std::string role;
    members->text("role", role);
    if (role == "answerer")
        m.role = Role::answerer;
    else if (role != "asker")
        members->wrong("role", "'asker' or 'answerer'");
    members->text("name", m.name);
    members->text("boot", m.boot);
    members->text("version", m.version);
    members->integer("slots", m.slots);
    members->integer("queue", m.queue);
    members->objects("models", [&m](Members& inner) {
        ModelInfo model;
        inner.text("hash", model.hash);
        inner.text("name", model.name);
        inner.text("architecture", model.architecture);
        inner.integer("context_tokens", model.context_tokens);
        inner.integer("output_tokens_max", model.output_tokens_max);
        m.models.push_back(std::move(model));
    });
    members->text("policy", m.policy);
    members->text("zone", m.zone);
    members->texts("need", m.need);
    members->text("tok", m.tok);
    if (m.boot.empty()) members->wrong("boot", "a non-empty string");
    return members->done(std::move(m));
}

std::string to_meta(const ByeMeta& m) {
    std::string out;
    JsonWriter w(out);
    w.object().field("reason", m.reason);
    text(w, "message", m.message);
    w.end();
    return out;
}

Result<ByeMeta> parse_bye_meta(std::string_view meta) {
    auto members = Members::parse(meta);
    if (!members) return fail(members.error());
    ByeMeta m;
    members->text("reason", m.reason);
    members->text("message", m.message);
    return members->done(std::move(m));
}

}  // namespace parley::pipe
