// Usage rows and totals, and idempotency keys.
#include "store/batch.hpp"

namespace parley::store {
namespace {

constexpr std::string_view kChargeScope = "charge";

Result<uint32_t> model_number(Batch& batch, std::string_view model) {
    const std::string key = keys::model_number(model);
    auto known = batch.find_text(Table::meta, key);
    if (!known) return fail(known.error());
    if (*known) return static_cast<uint32_t>(std::strtoul((*known)->c_str(), nullptr, 10));
    auto last = batch.find_text(Table::meta, "models");
    if (!last) return fail(last.error());
    const uint32_t number =
        *last ? static_cast<uint32_t>(std::strtoul((*last)->c_str(), nullptr, 10)) + 1 : 1;
    if (auto done = batch.put(Table::meta, "models", std::to_string(number)); !done)
        return fail(done.error());
    if (auto done = batch.put(Table::meta, key, std::to_string(number)); !done)
        return fail(done.error());
    return number;
}

}  // namespace

std::vector<Ulid> usage_sums(const Ulid& org, const Ulid& user, const std::optional<Ulid>& end_user,
                             std::string_view key_id) {
    std::vector<Ulid> sums{org, user};
    if (end_user && *end_user != user) sums.push_back(*end_user);
    if (const auto key = parse_id(kKey, key_id)) sums.push_back(*key);
    return sums;
}

Result<void> add_usage(Batch& batch, const UsageEntry& entry) {
    std::string json;
    base::JsonWriter w(json);
    w.object().field("ms", batch.now_ms()).field("org", show_id(kOrg, entry.org));
    w.field("user", show_id(kUser, entry.user));
    w.field("end_user", show_id(kUser, entry.end_user.value_or(entry.user)));
    if (entry.conv) w.field("conv", show_id(kConv, *entry.conv));
    if (entry.message) w.field("message", show_id(kMsg, *entry.message));
    w.field("final", entry.final)
        .field("key_id", entry.key_id)
        .field("request_id", entry.request_id);
    w.field("model", entry.model).field("class", entry.service_class).field("status", entry.status);
    w.field("input_tokens", entry.input_tokens).field("output_tokens", entry.output_tokens);
    w.field("cached_tokens", entry.cached_tokens).field("compute_us", entry.compute_us).end();
    if (auto done = batch.put(Table::usage_log, keys::seq(batch.next_usage), json, MDB_APPEND);
        !done)
        return done;
    ++batch.next_usage;

    auto number = model_number(batch, entry.model);
    if (!number) return fail(number.error());
    const auto day = static_cast<uint32_t>(batch.now_ms() / 86'400'000);
    for (const Ulid& who : usage_sums(entry.org, entry.user, entry.end_user, entry.key_id)) {
        const std::string key = keys::usage(who, day, *number);
        auto total = batch.find<UsageTotal>(Table::usage, key);
        if (!total) return fail(total.error());
        UsageTotal row = total->value_or(UsageTotal{day, entry.model, 0, 0, 0, 0});
        row.requests += entry.final ? 1 : 0;
        row.input_tokens += entry.input_tokens;
        row.output_tokens += entry.output_tokens;
        row.compute_us += entry.compute_us;
        if (auto done = batch.put(Table::usage, key, to_json(row)); !done) return done;
    }
    return {};
}

Result<std::optional<IdemRow>> find_idem(Batch& batch, std::string_view key) {
    auto row = batch.find<IdemRow>(Table::idem, key);
    if (!row) return fail(row.error());
    if (*row && (*row)->expires_ms <= batch.now_ms()) return std::optional<IdemRow>{};
    return row;
}

Result<void> put_idem(Batch& batch, std::string_view key, IdemRow row, bool is_new) {
    if (is_new) {
        // An expired row that gc has not met yet leaves its mark in idem_exp: take both.
        if (auto done = erase_idem(batch, key); !done) return done;
        row.expires_ms = batch.now_ms() + batch.options().idem_ttl_ms;
        if (auto done = batch.put(Table::idem_exp, keys::idem_exp(row.expires_ms, key), "{}");
            !done)
            return done;
    }
    return batch.put(Table::idem, key, to_json(row));
}

Result<void> erase_idem(Batch& batch, std::string_view key) {
    auto row = batch.find<IdemRow>(Table::idem, key);
    if (!row) return fail(row.error());
    if (!*row) return {};
    if (auto done = batch.erase(Table::idem_exp, keys::idem_exp((*row)->expires_ms, key)); !done)
        return done;
    return batch.erase(Table::idem, key);
}

namespace {

// True: entered now; false: it was before.
tl::expected<bool, Refusal> charge_one(Batch& batch, Fields& f) {
    UsageEntry entry;
    f.id("org", kOrg, entry.org).id("user", kUser, entry.user).text("key_id", entry.key_id);
    f.id("end_user", kUser, entry.end_user);
    f.text("request_id", entry.request_id, true).text("model", entry.model);
    f.text("service_class", entry.service_class).text("status", entry.status);
    f.number("input_tokens", entry.input_tokens).number("output_tokens", entry.output_tokens);
    f.number("cached_tokens", entry.cached_tokens).number("compute_us", entry.compute_us);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (entry.request_id.empty() || entry.request_id.size() > 256)
        return refuse(Errc::invalid, "request_id should have 1 to 256 bytes");
    const std::string key = keys::idem(entry.user, kChargeScope, entry.request_id);
    auto known = find_idem(batch, key);
    if (!known) return refuse(known.error());
    if (*known) return false;
    if (auto done = put_idem(batch, key, IdemRow{}, true); !done) return refuse(done.error());
    if (auto done = add_usage(batch, entry); !done) return refuse(done.error());
    if (auto done =
            batch.change("usage.charged", entry.org, {},
                         member("request", entry.request_id) + member("model", entry.model) +
                             member("input_tokens", entry.input_tokens) +
                             member("output_tokens", entry.output_tokens));
        !done)
        return refuse(done.error());
    return true;
}

}  // namespace

Step do_charge(Batch& batch, Fields& f) {
    const auto fresh = charge_one(batch, f);
    if (!fresh) return tl::unexpected(fresh.error());
    return Said{member_raw("replayed", *fresh ? "false" : "true"), {}};
}

Step do_charge_all(Batch& batch, Fields& f) {
    std::string json;
    f.raw("charges", json, RawKind::array);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    simdjson::dom::parser parser;
    simdjson::dom::array charges;
    if (parser.parse(json).get(charges)) return refuse(Errc::invalid, "charges should be an array");
    uint64_t charged = 0;
    for (const simdjson::dom::element one : charges) {
        simdjson::dom::object object;
        if (one.get(object)) return refuse(Errc::invalid, "a charge should be an object");
        Fields fields(object);
        const auto fresh = charge_one(batch, fields);
        if (!fresh) return tl::unexpected(fresh.error());
        charged += *fresh;
    }
    return Said{member("charged", charged), {}};
}

namespace {

struct IdemArgs {
    Ulid user;
    std::string scope, key;
};
bool read_idem(Fields& f, IdemArgs& args) {
    f.id("user", kUser, args.user).text("scope", args.scope, true).text("key", args.key, true);
    if (f.ok() && (args.scope.empty() || args.scope.size() > 64 || args.scope == kChargeScope))
        f.fault("scope", "should have 1 to 64 bytes and not be 'charge'");
    if (f.ok() && (args.key.empty() || args.key.size() > 1024))
        f.fault("key", "should have 1 to 1024 bytes");
    return f.ok();
}
constexpr size_t kResultMax = 6u << 20;
// In a reply, which is kept for a resend; a larger one is read from the table.
constexpr size_t kResultSaidMax = 64u << 10;

}  // namespace

Step do_idem_take(Batch& batch, Fields& f) {
    IdemArgs args;
    IdemRow row;
    read_idem(f, args);
    f.text("fingerprint", row.fingerprint, true).raw("result", row.result);
    f.text("owner", row.owner);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    batch.subject = args.user;
    if (row.fingerprint.size() > 128 || row.owner.size() > 128 || row.result.size() > kResultMax)
        return refuse(Errc::too_large, "fingerprint over 128 bytes or result over 6 MiB");
    const std::string key = keys::idem(args.user, args.scope, args.key);
    auto known = find_idem(batch, key);
    if (!known) return refuse(known.error());
    if (*known) {
        if ((*known)->fingerprint != row.fingerprint)
            return refuse(Errc::conflict, "the idempotency key was used with another request",
                          "idempotency");
        std::string said =
            member_raw("replayed", "true") + member_raw("done", (*known)->done ? "true" : "false");
        if ((*known)->result.size() <= kResultSaidMax)
            said += member_raw("result", (*known)->result);
        return Said{std::move(said), {}};
    }
    if (auto done = put_idem(batch, key, row, true); !done) return refuse(done.error());
    return Said{member_raw("replayed", "false"), {}};
}

Step do_idem_done(Batch& batch, Fields& f) {
    IdemArgs args;
    std::string result = "null", owner;
    read_idem(f, args);
    f.raw("result", result).text("owner", owner);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    batch.subject = args.user;
    if (result.size() > kResultMax) return refuse(Errc::too_large, "a result is at most 6 MiB");
    const std::string key = keys::idem(args.user, args.scope, args.key);
    auto known = find_idem(batch, key);
    if (!known) return refuse(known.error());
    if (!*known) return refuse(Errc::not_found, "no such idempotency key");
    if (!owner.empty() && (*known)->owner != owner)
        return refuse(Errc::conflict, "the idempotency key has another owner", "fenced");
    IdemRow row = **known;
    row.done = true;
    row.result = std::move(result);
    if (auto done = put_idem(batch, key, row, false); !done) return refuse(done.error());
    return Said{};
}

Step do_idem_free(Batch& batch, Fields& f) {
    IdemArgs args;
    std::string owner;
    read_idem(f, args);
    f.text("owner", owner);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    batch.subject = args.user;
    const std::string key = keys::idem(args.user, args.scope, args.key);
    auto known = find_idem(batch, key);
    if (!known) return refuse(known.error());
    // Whoever takes a dead owner's key may find that another has taken it already.
    if (*known && !owner.empty() && (*known)->owner != owner)
        return refuse(Errc::conflict, "the idempotency key has another owner", "fenced");
    if (*known && (*known)->done)
        return refuse(Errc::conflict, "the request of this idempotency key has its result",
                      "ended");
    if (auto done = erase_idem(batch, key); !done) return refuse(done.error());
    return Said{};
}

}  // namespace parley::store
