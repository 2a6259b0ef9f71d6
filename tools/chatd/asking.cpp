#include "asking.hpp"

#include <algorithm>
#include <charconv>
#include <random>

#include "base/ulid.hpp"
#include "chat/context.hpp"
#include "grammar/answer.hpp"
#include "telemetry/trace.hpp"

namespace parley::chatd {

using messages::ApiError;

namespace {
// Together some 5 ms of the loop at most.
constexpr uint64_t kSchemaWorkOnLoopMax = 50'000;
constexpr uint32_t kSchemaPartsOnLoopMax = 20'000;
}  // namespace

uint64_t draw_seed() {
    // Of the loop alone; what a device says costs as much as the rest of a request.
    static std::mt19937_64 source = [] {
        std::random_device device;
        std::seed_seq seed{device(), device(), device(), device(), device(), device()};
        return std::mt19937_64(seed);
    }();
    return source();
}

std::string new_message_id() { return base::random_id("msg_"); }

chat::AnswerOptions answer_options(const App& app, const Caller& caller, Ask ask) {
    const Options& o = app.options;
    chat::AnswerOptions options;
    options.id = std::move(ask.id);
    options.model = std::move(ask.model);
    options.body = std::move(ask.body);
    options.key = app.stamp_key;
    options.stream.bytes_max = o.stream_bytes_max;
    options.credit = o.credit;
    options.stall_ms = o.stall_ms;
    options.patience_ms = o.patience_ms;
    options.jitter_seed = ask.seed;

    const double prefill_ms =
        1000.0 * static_cast<double>(ask.prompt_tokens) / o.prefill_tokens_per_s;
    const double decode_ms = 1000.0 * static_cast<double>(ask.max_tokens) / o.decode_tokens_per_s;
    options.ttft_ms = o.ttft_ms + static_cast<int64_t>(3 * prefill_ms);
    options.total_ms = o.total_base_ms + static_cast<int64_t>(3 * (prefill_ms + decode_ms));

    pipe::Envelope& envelope = options.envelope;
    envelope.org = caller.org_text();
    envelope.user = caller.user_text();
    envelope.key = caller.key_id;
    envelope.cls = ask.stream ? pipe::Class::streaming : pipe::Class::interactive;
    if (caller.service_class == "batch") envelope.cls = pipe::Class::batch;
    if (caller.service_class == "streaming") envelope.cls = pipe::Class::streaming;
    envelope.flow = envelope.org;
    envelope.weight = caller.weight;
    envelope.message = options.id;
    envelope.seed = ask.seed;
    envelope.sampling = std::move(ask.sampling);
    return options;
}

chat::AnswerOptions answer_options(const Exchange& exchange, Ask ask) {
    chat::AnswerOptions options = answer_options(exchange.app, exchange.caller, std::move(ask));
    if (const std::string_view slo = exchange.request.headers.get("x-slo-ttft-ms"); !slo.empty()) {
        int64_t ms = 0;
        const auto [end, error] = std::from_chars(slo.data(), slo.data() + slo.size(), ms);
        if (error == std::errc() && end == slo.data() + slo.size() && ms > 0)
            options.ttft_ms = std::min(options.ttft_ms, ms);
    }
    const auto parent = telemetry::TraceContext::parse(exchange.request.headers.get("traceparent"));
    if (parent) options.envelope.trace = parent->child().text();
    return options;
}

uint64_t text_bytes(const messages::Request& request) {
    uint64_t bytes = 0;
    for (const messages::Turn& turn : request.turns) bytes += turn.text.size();
    return bytes;
}

store::Ulid end_user_of(const Caller& caller, const messages::Request& request) {
    if (request.user_id.empty()) return caller.user;
    // Not the user of that name: who calls may write into metadata what it likes.
    return store::user_id(caller.org, "metadata\n" + request.user_id);
}

std::optional<ApiError> check_version(const Exchange& exchange, bool& newest) {
    const std::string_view version = exchange.request.headers.get("anthropic-version");
    if (version.empty()) return ApiError::invalid("anthropic-version", "header is required");
    const auto digit = [&](size_t at) { return version[at] >= '0' && version[at] <= '9'; };
    bool date = version.size() == 10 && version[4] == '-' && version[7] == '-';
    for (const size_t at : {0, 1, 2, 3, 5, 6, 8, 9}) date = date && digit(at);
    const std::string_view month = date ? version.substr(5, 2) : "";
    const std::string_view day = date ? version.substr(8) : "";
    if (!date || month < "01" || month > "12" || day < "01" || day > "31")
        return ApiError::invalid("anthropic-version", "Input should be a date such as 2023-06-01");
    newest = version != "2023-06-01" && version != "2023-01-01";
    return std::nullopt;
}

messages::ParseOptions parse_options(const App& app, const Caller& caller, bool newest_version) {
    messages::ParseOptions options;
    options.strict_fields = app.options.strict_fields;
    options.strict_sampling = app.options.strict_version && newest_version;
    options.check_model = [&app, &caller](const std::string& model) -> std::optional<ApiError> {
        if (app.catalog->empty()) return ApiError::unavailable("no model has joined yet", 2);
        if (!app.catalog->find(model)) return ApiError::unknown_model(model);
        if (!caller.may_ask(model))
            return ApiError::of(messages::ErrorType::permission_error,
                                "this key may not use this model");
        return std::nullopt;
    };
    return options;
}

std::optional<ApiError> check_schema(const messages::Request& request) {
    if (grammar::answer_key(request).empty()) return std::nullopt;
    grammar::Limits limits;
    limits.work_max = kSchemaWorkOnLoopMax;
    limits.parts_max = kSchemaPartsOnLoopMax;
    const auto compiled = grammar::compile_answer(request, limits);
    if (compiled || compiled.error().code == base::Errc::too_large) return std::nullopt;
    return ApiError::invalid(compiled.error().what);
}

bool wants_count(const App& app, const messages::Request& request) {
    const auto rule = app.catalog->rule(request.model);
    return rule && request.max_tokens <= rule->max_tokens;
}

Routed route_by_size(const App& app, const messages::Request& request, uint64_t counted) {
    Routed out{app.catalog->find(request.model), app.catalog->below(request.model), request.model,
               counted};
    const auto rule = app.catalog->rule(request.model);
    if (!rule) return out;
    if (wants_count(app, request) && counted > 0 && counted <= rule->prompt_tokens) {
        const auto small = app.catalog->find(rule->small);
        const uint64_t tokens =
            small && small->artifact ? chat::count_prompt(request, *small->artifact) : 0;
        // Its tokenizer may need more of them, and its window may be the smaller one.
        const bool fits = tokens > 0 && (small->context_tokens() == 0 ||
                                         tokens + request.max_tokens <= small->context_tokens());
        if (fits) out = {small, rule->small, request.model, tokens};
    }
    if (rule->say_model && out.model) out.said = out.model->row.name;
    return out;
}

bool count_then(App& app, std::shared_ptr<const messages::Request> request,
                std::shared_ptr<const model::Artifact> artifact,
                std::function<void(uint64_t)> then) {
    if (!artifact) {
        then(0);
        return true;
    }
    if (text_bytes(*request) <= kCountOnLoopMax) {
        then(chat::count_prompt(*request, *artifact));
        return true;
    }
    auto count = std::make_shared<uint64_t>(0);
    return app.counter->run(
        [request, artifact, count] { *count = chat::count_prompt(*request, *artifact); },
        [count, then = std::move(then)] { then(*count); });
}

}  // namespace parley::chatd
