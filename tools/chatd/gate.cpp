#include "gate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "app.hpp"
#include "base/log.hpp"
#include "exchange.hpp"

namespace parley::chatd {

using base::Errc;
using base::fail;
using base::Result;
using limits::Kind;
using limits::Refusal;
using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr int64_t kRefillMs = 3'600'000;
constexpr size_t kRefillRowsMax = 200'000;
constexpr size_t kMeansMax = 1000;
constexpr double kMeanWeight = 0.05;    // of the newest answer
constexpr double kMeanMargin = 1.25;    // of what is reserved over the mean
constexpr int kRetryAfterMax = 60;      // the wire contract's bound
constexpr int64_t kEntryWaitMs = 1000;  // an entry of a batch is tried again no sooner

limits::SubjectId id_of(std::string_view scope, const store::Ulid& id) {
    return limits::subject_id(scope, id.view());
}

}  // namespace

limits::Demand Ticket::rest(uint64_t prompt_tokens, uint64_t output_tokens) const {
    limits::Demand demand;
    demand.input_tokens = prompt_tokens - std::min(prompt_tokens, input_used_);
    demand.output_tokens = output_tokens - std::min(output_tokens, output_used_);
    const uint64_t spend = gate_.spend_of(model_, std::max(prompt_tokens, input_used_),
                                          std::max(output_tokens, output_used_));
    demand.spend_micro = spend - std::min(spend, spend_used_);
    return demand;
}

void Ticket::use(uint64_t prompt_tokens, uint64_t output_tokens) {
    if (hold_.place == 0) return;
    const limits::Demand demand = rest(prompt_tokens, output_tokens);
    const auto overshoot = gate_.limiter_->consume(hold_, demand);
    if (!overshoot) return;  // again at the next step, or at the end
    input_used_ += demand.input_tokens;
    output_used_ += demand.output_tokens;
    spend_used_ += demand.spend_micro;
    gate_.overshot(*overshoot);
}

void Ticket::begun(uint64_t prompt_tokens) { use(prompt_tokens, output_used_); }

void Ticket::produced(uint64_t output_tokens) {
    if (hold_.place == 0 || output_tokens <= output_used_) return;
    const int64_t now = gate_.app_.clock.mono_ms();
    if (now < step_ms_) return;
    step_ms_ = now + kStepMs;
    use(input_used_, output_tokens);
}

void Ticket::end(uint64_t prompt_tokens, uint64_t output_tokens) {
    if (output_tokens > 0) gate_.learn(model_, output_tokens);
    settle(rest(prompt_tokens, output_tokens), false);
}

void Ticket::undo() { settle({}, true); }

void Ticket::settle(const limits::Demand& used, bool undo) {
    if (hold_.place == 0) return;
    gate_.possible_ -= output_max_ - std::min(output_max_, output_reserved_);
    gate_.overshot(gate_.limiter_->settle(hold_, used, undo));
}

bool Ticket::at_cap() const {
    if (hold_.place == 0) return false;
    for (size_t i = 0; i < hold_.count; ++i) {
        const uint64_t most = hold_.subjects[i].limits.concurrent;
        if (most > 0 && gate_.limiter_->concurrent(hold_.subjects[i]) >= most) return true;
    }
    return false;
}

Result<std::unique_ptr<Gate>> Gate::open(App& app, const Options& options) {
    std::unique_ptr<Gate> gate(new Gate(app));
    if (auto set = gate->set(options); !set) return fail(set.error());
    limits::Options table;
    table.path = app.places.run() + "/limits";
    table.subjects_max = options.limits_subjects;
    table.reservations_max = options.limits_reservations;
    auto limiter = limits::Limiter::open(table, app.clock);
    if (!limiter) return fail(limiter.error());
    gate->limiter_ = std::move(*limiter);
    return gate;
}

Result<void> Gate::set(const Options& options) {
    auto all = limits::parse_limits(options.limits);
    if (!all) return fail(Errc::config, "--limits: " + all.error().what);
    std::map<std::string, Prices> prices;
    for (const std::string& text : options.prices) {
        Prices price;
        const size_t equals = text.rfind('='), comma = text.find(',', equals + 1);
        const char* const end = text.data() + text.size();
        bool good = equals != std::string::npos && equals > 0 && comma != std::string::npos;
        if (good) {
            const auto in =
                std::from_chars(text.data() + equals + 1, text.data() + comma, price.input);
            const auto out = std::from_chars(text.data() + comma + 1, end, price.output);
            good = in.ec == std::errc() && in.ptr == text.data() + comma && out.ec == std::errc() &&
                   out.ptr == end && price.input >= 0 && price.output >= 0;
        }
        if (!good)
            return fail(Errc::config,
                        fmt::format("--price: '{}' should be MODEL=INPUT,OUTPUT", text));
        prices[text.substr(0, equals)] = price;
    }
    all_ = *all;
    prices_ = std::move(prices);
    price_ = {options.price_input, options.price_output};
    expected_ = options.reserve == "expected";
    return {};
}

Gate::Subjects Gate::subjects(const CallerLimits& caller, const store::Ulid& org,
                              const store::Ulid& end_user) const {
    Subjects out;
    const auto add = [&](const limits::Limits& limits, std::string_view scope,
                         std::string_view whose, const store::Ulid& id) {
        if (!limits.any()) return;
        out.list[out.count].id = id_of(scope, id);
        out.list[out.count].limits = limits;
        out.whose[out.count] = whose;
        out.sums[out.count] = id;
        ++out.count;
    };
    add(all_.own, "all", "this server's", {});
    add(caller.org.own, "org", "your organization's", org);
    if (caller.has_key) add(caller.key.own, "key", "this API key's", caller.key_root);
    const limits::Limits& user = caller.key.user.any()   ? caller.key.user
                                 : caller.org.user.any() ? caller.org.user
                                                         : all_.user;
    add(user, "user", "this end user's", end_user);
    return out;
}

bool Gate::counts_input(const Exchange& exchange) const {
    return counts_input(*exchange.caller.limits);
}

bool Gate::counts_input(const CallerLimits& caller) const {
    const auto counts = [](const limits::Limits& limits) {
        return limits.input_tokens.per_minute > 0 || limits.spend_micro > 0;
    };
    return counts(all_.own) || counts(all_.user) || counts(caller.org.own) ||
           counts(caller.org.user) || counts(caller.key.own) || counts(caller.key.user);
}

Gate::Prices Gate::price_of(const std::string& model) const {
    if (prices_.empty()) return price_;
    if (const auto named = prices_.find(model); named != prices_.end()) return named->second;
    // Aliases and the hashes of the usage log mean a model by another name.
    std::string name;
    if (const auto found = app_.catalog->find(model)) name = found->row.name;
    if (name.empty()) name = app_.catalog->name_of_version(model);
    const auto known = prices_.find(name);
    return known == prices_.end() ? price_ : known->second;
}

uint64_t Gate::spend_of(const std::string& model, uint64_t input, uint64_t output) const {
    const Prices price = price_of(model);
    const double micro =
        price.input * static_cast<double>(input) + price.output * static_cast<double>(output);
    return static_cast<uint64_t>(std::ceil(std::min(micro, 1e18)));
}

uint64_t Gate::spent(const store::Ulid& who, limits::Period period, store::Reader& reader) const {
    const int64_t now = app_.clock.wall_ms();
    const uint32_t from = limits::period_first_day(period, now);
    const uint32_t to = limits::period_first_day(limits::Period::day, now);
    uint64_t sum = 0;
    const auto add = [&](const store::Ulid& id) {
        if (const auto totals = reader.usage(id, from, to))
            for (const store::UsageTotal& total : *totals)
                sum += spend_of(total.model, total.input_tokens, total.output_tokens);
    };
    if (who != store::Ulid{}) {
        add(who);
    } else if (const auto orgs = reader.orgs()) {
        for (const store::OrgRow& org : *orgs) add(org.id);
    }
    return sum;
}

uint64_t Gate::reserve_of(const std::string& model, uint64_t output_max) const {
    const auto mean = means_.find(model);
    if (!expected_ || mean == means_.end()) return output_max;
    const double want = std::ceil(mean->second * kMeanMargin) + 1;
    return std::min(output_max, static_cast<uint64_t>(want));
}

void Gate::learn(const std::string& model, uint64_t output_tokens) {
    if (!expected_) return;
    if (means_.size() >= kMeansMax) means_.clear();
    const auto [mean, fresh] = means_.emplace(model, static_cast<double>(output_tokens));
    if (!fresh) mean->second += kMeanWeight * (static_cast<double>(output_tokens) - mean->second);
}

void Gate::overshot(uint64_t tokens) {
    if (tokens > 0)
        app_.metrics
            .counter("chatd_limits_overshoot_tokens_total",
                     "tokens that went past a limit because less was reserved")
            .add(tokens);
}

tl::expected<std::shared_ptr<Ticket>, ApiError> Gate::admit(Exchange& exchange,
                                                            const store::Ulid& end_user,
                                                            const std::string& model,
                                                            uint64_t input_tokens,
                                                            uint64_t output_max) {
    const Caller& caller = exchange.caller;
    Subjects who = subjects(*caller.limits, caller.org, end_user);
    auto ticket = reserve(who, model, input_tokens, output_max, true);
    headers(exchange, who);
    if (!ticket) return tl::make_unexpected(error_of(ticket.error(), who));
    return std::move(*ticket);
}

tl::expected<std::shared_ptr<Ticket>, Gate::Unready> Gate::admit_entry(const Caller& caller,
                                                                       const store::Ulid& end_user,
                                                                       const std::string& model,
                                                                       uint64_t input_tokens,
                                                                       uint64_t output_max) {
    Subjects who = subjects(*caller.limits, caller.org, end_user);
    auto ticket = reserve(who, model, input_tokens, output_max, false);
    if (ticket) return std::move(*ticket);
    const Refusal& refusal = ticket.error();
    Unready unready;
    unready.waits = refusal.why != Refusal::Why::limit || !refusal.never;
    unready.wait_ms = refusal.why == Refusal::Why::limit
                          ? std::clamp<int64_t>(refusal.wait_ns / 1'000'000, kEntryWaitMs,
                                                1000 * int64_t{kRetryAfterMax})
                          : kEntryWaitMs;
    unready.error = error_of(refusal, who);
    return tl::make_unexpected(std::move(unready));
}

tl::expected<std::shared_ptr<Ticket>, Refusal> Gate::reserve(Subjects& who,
                                                             const std::string& model,
                                                             uint64_t input_tokens,
                                                             uint64_t output_max, bool at_once) {
    limits::Demand demand;
    demand.at_once = at_once;
    demand.input_tokens = input_tokens;
    demand.output_tokens = reserve_of(model, output_max);
    if (who.count > 0) {
        demand.spend_micro = spend_of(model, input_tokens, demand.output_tokens);
        refill();
    }
    auto hold = limiter_->admit(who.list.data(), who.count, demand);
    for (size_t tries = 0; !hold && hold.error().why == Refusal::Why::unknown_spend; ++tries) {
        store::Reader* reader = app_.store->reader();
        if (!reader || tries > who.count) break;
        const size_t at = hold.error().subject;
        who.list[at].spent_micro = spent(who.sums[at], who.list[at].limits.period, *reader);
        hold = limiter_->admit(who.list.data(), who.count, demand);
    }
    if (!hold) return tl::make_unexpected(hold.error());
    if (hold->place != 0) possible_ += output_max - std::min(output_max, demand.output_tokens);
    return std::make_shared<Ticket>(*this, *hold, model, output_max, demand.output_tokens);
}

ApiError Gate::error_of(const Refusal& refusal, const Subjects& who) {
    const bool of_limit = refusal.why == Refusal::Why::limit;
    app_.metrics
        .counter("chatd_limits_refused_total", "requests that a limit refused",
                 {{"kind", of_limit ? std::string(limits::name(refusal.kind)) : "none"},
                  {"why", of_limit                            ? "limit"
                          : refusal.why == Refusal::Why::cold ? "cold"
                          : refusal.why == Refusal::Why::full ? "full"
                                                              : "busy"}})
        .add();
    if (refusal.why == Refusal::Why::unknown_spend)
        return ApiError::unavailable("the store is not ready", 1);
    if (refusal.why == Refusal::Why::cold)
        return ApiError::unavailable("the limits are being read from the store", 1);
    if (!of_limit) return ApiError::overloaded(1);
    const limits::Limits& limits = who.list[refusal.subject].limits;
    const std::string_view whose = who.whose[refusal.subject];
    if (refusal.kind == Kind::spend)
        return ApiError::of(ErrorType::billing_error,
                            fmt::format("This request would exceed {} spend limit of {:g} per {}.",
                                        whose, static_cast<double>(limits.spend_micro) / 1e6,
                                        limits.period == limits::Period::day ? "day" : "month"));
    std::string what;
    switch (refusal.kind) {
        case Kind::requests:
            what = fmt::format("{} requests per minute", limits.requests.per_minute);
            break;
        case Kind::input_tokens:
            what = fmt::format("{} input tokens per minute", limits.input_tokens.per_minute);
            break;
        case Kind::output_tokens:
            what = fmt::format("{} output tokens per minute", limits.output_tokens.per_minute);
            break;
        default:
            what = fmt::format("{} concurrent requests", limits.concurrent);
    }
    const int64_t seconds = (refusal.wait_ns + 999'999'999) / 1'000'000'000;
    ApiError error = ApiError::of(
        ErrorType::rate_limit_error,
        fmt::format("This request would exceed {} rate limit of {}. {}", whose, what,
                    refusal.never ? "Reduce the prompt length or the maximum tokens requested."
                                  : "Please try again later."),
        static_cast<int>(std::clamp<int64_t>(seconds, 1, kRetryAfterMax)));
    // It asks for more than the bucket ever holds: the same request would never pass.
    if (refusal.never) error.retryable = false;
    return error;
}

void Gate::headers(Exchange& exchange, const Subjects& who) {
    const auto least = [&](Kind kind) {
        std::optional<limits::State> found;
        for (size_t i = 0; i < who.count; ++i)
            if (const auto state = limiter_->state(who.list[i], kind);
                state && (!found || state->remaining < found->remaining))
                found = state;
        return found;
    };
    exchange.more_headers.clear();
    const auto say = [&](std::string_view name, const std::optional<limits::State>& state) {
        if (!state) return;
        const auto add = [&](std::string_view what, std::string value) {
            exchange.more_headers.emplace_back(fmt::format("anthropic-ratelimit-{}-{}", name, what),
                                               std::move(value));
        };
        add("limit", std::to_string(state->limit));
        add("remaining", std::to_string(state->remaining));
        // A whole second that is not too early.
        add("reset", base::rfc3339(app_.clock.wall_ms() + state->reset_ns / 1'000'000 + 999));
    };
    if (who.count == 0) return;
    const auto input = least(Kind::input_tokens);
    const auto output = least(Kind::output_tokens);
    say("requests", least(Kind::requests));
    say("tokens", !output || (input && input->remaining < output->remaining) ? input : output);
    say("input-tokens", input);
    say("output-tokens", output);
}

void Gate::each_second() {
    limiter_->reclaim();
    refill();
    app_.metrics
        .gauge("chatd_limits_reservations", "requests that limits count as running, all processes")
        .set(static_cast<double>(limiter_->reservations()));
    app_.metrics
        .gauge("chatd_limits_overshoot_possible_tokens",
               "max_tokens of what runs here, less what is reserved for it")
        .set(static_cast<double>(possible_));
}

void Gate::refill() {
    if (!limiter_->cold()) return;
    store::Reader* reader = app_.store->reader();
    if (!reader) return;
    const int64_t wall = app_.clock.wall_ms(), mono = app_.clock.mono_ns();
    std::map<store::Ulid, limits::Written> orgs;
    std::map<std::string, CallerLimits> keys;
    bool any = all_.own.any() || all_.user.any();
    if (const auto rows = reader->orgs())
        for (const store::OrgRow& row : *rows)
            if (const auto read = limits::parse_limits(row.limits)) {
                orgs[row.id] = *read;
                any = any || read->own.any() || read->user.any();
            }
    if (const auto rows = reader->api_keys(std::nullopt))
        for (const store::ApiKeyRow& row : *rows)
            if (const auto read = limits::parse_limits(row.limits)) {
                CallerLimits& caller = keys[store::show_id(store::kKey, row.id)];
                caller.key = *read;
                caller.key_root = row.first.value_or(row.id);
                caller.has_key = true;
                any = any || read->own.any() || read->user.any();
            }
    if (!limiter_->begin_refill()) return;  // another is at it, or has done it
    size_t count = 0;
    if (any) {
        auto rows = reader->usage_since(wall - kRefillMs, kRefillRowsMax);
        for (auto row = rows ? rows->rbegin() : decltype(rows->rbegin()){};
             rows && row != rows->rend(); ++row) {
            CallerLimits caller;
            if (const auto known = keys.find(row->key_id); known != keys.end())
                caller = known->second;
            if (const auto known = orgs.find(row->org); known != orgs.end())
                caller.org = known->second;
            const Subjects who = subjects(caller, row->org, row->end_user);
            limits::Demand used;
            used.input_tokens = row->input_tokens;
            used.output_tokens = row->output_tokens;
            limiter_->replay(who.list.data(), who.count, used, mono - (wall - row->ms) * 1'000'000);
            ++count;
        }
        if (!rows)
            base::log(base::Level::error, "chatd.limits_refill", {{"error", rows.error().what}});
    }
    limiter_->end_refill();
    base::log(base::Level::info, "chatd.limits_refill", {{"rows", count}});
}

}  // namespace parley::chatd
