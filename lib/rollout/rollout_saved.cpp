// What of a rollout outlives the process, and what status shows of it.
#include <simdjson.h>

#include "base/json.hpp"
#include "rollout/rollout.hpp"

namespace parley::rollout {

using base::JsonWriter;

namespace {

constexpr size_t kBytesMax = 1u << 20;

void put(JsonWriter& w, const char* key, const Evidence& evidence) {
    const Evidence::Saved s = evidence.save();
    w.key(key).array().number(s.theta0).number(s.closed_up).number(s.closed_down);
    w.number(s.n).number(s.k).number(s.events).number(s.canary).end();
}

// Reads what must be there; the first thing that is not spoils the whole.
struct From {
    simdjson::dom::element at;
    bool ok = true;
    std::string text(const char* key) {
        std::string_view value;
        ok = at[key].get(value) == simdjson::SUCCESS && ok;
        return std::string(value);
    }
    double real(const char* key) {
        double value = 0;
        ok = at[key].get(value) == simdjson::SUCCESS && ok;
        return value;
    }
    int64_t whole(const char* key) {
        int64_t value = 0;
        ok = at[key].get(value) == simdjson::SUCCESS && ok;
        return value;
    }
    uint64_t natural(const char* key) {
        const int64_t value = whole(key);
        ok = ok && value >= 0;
        return ok ? static_cast<uint64_t>(value) : 0;
    }
    bool flag(const char* key) {
        bool value = false;
        ok = at[key].get(value) == simdjson::SUCCESS && ok;
        return value;
    }
    std::vector<double> numbers(const char* key, size_t count) {
        std::vector<double> out;
        simdjson::dom::array values;
        if (at[key].get(values) == simdjson::SUCCESS)
            for (const auto value : values) {
                double number = 0;
                ok = value.get(number) == simdjson::SUCCESS && ok;
                out.push_back(number);
            }
        ok = ok && out.size() == count;
        out.resize(count);
        return out;
    }
    void evidence(const char* key, Evidence& into) {
        const auto v = numbers(key, 7);
        into.restore({v[0], v[1], v[2], static_cast<uint64_t>(v[3]), static_cast<uint64_t>(v[4]),
                      static_cast<uint64_t>(v[5]), static_cast<uint64_t>(v[6])});
    }
    std::vector<simdjson::dom::element> list(const char* key) {
        std::vector<simdjson::dom::element> out;
        simdjson::dom::array values;
        if (at[key].get(values) != simdjson::SUCCESS)
            ok = false;
        else
            for (const auto value : values) out.push_back(value);
        return out;
    }
};

void put_steps(JsonWriter& w, const std::vector<Step>& steps) {
    w.key("steps").array();
    for (const Step& step : steps)
        w.object()
            .field("at_ms", step.at_ms)
            .field("what", step.what)
            .field("who", step.who)
            .field("why", step.why)
            .field("share", step.share)
            .end();
    w.end();
}

}  // namespace

std::string Rollout::save() const {
    std::string out;
    JsonWriter w(out);
    w.object().field("id", spec_.id).field("alias", spec_.alias).field("stable", spec_.stable);
    w.field("canary", spec_.canary).field("who", spec_.who).field("why", spec_.why);
    w.field("started_ms", spec_.started_ms).field("state", name(state_)).field("stage", stage_);
    w.field("entered_ms", entered_ms_).field("crashes", crashes_).field("total", total_);
    w.key("stages").array();
    for (const Stage& stage : spec_.stages)
        w.object().field("share", stage.share).field("person", stage.person).end();
    w.end();
    const Gates& g = spec_.gates;
    w.key("gates").array().number(g.act).number(g.requests_min).number(g.min_ms);
    w.number(g.error_points).number(g.ttft_ratio).number(g.itl_ratio).number(g.filter_high);
    w.number(g.filter_low).number(g.first_errors).number(g.first_requests).number(g.crashes_max);
    w.number(g.shadow_share).number(g.baseline).end();
    w.key("seen").array();
    for (const bool canary : {false, true})
        w.number(seen_[canary].requests).number(seen_[canary].errors).number(
            seen_[canary].filtered);
    for (const bool canary : {false, true})
        w.number(all_requests_[canary]).number(all_errors_[canary]).number(all_filtered_[canary]);
    w.end();
    put(w, "errors", errors_);
    put(w, "ttft", ttft_);
    put(w, "itl", itl_);
    put(w, "filter", filter_);
    put(w, "ratio", ratio_);
    w.key("p95").array();
    for (const double p95 : ttft_p95_) w.number(p95);
    w.number(itl_p95_).end();
    put_steps(w, steps_);
    w.end();
    return out;
}

base::Result<Rollout> Rollout::restore(std::string_view json) {
    const auto bad = [] {
        return base::fail(base::Errc::corrupt, "what was saved of a rollout is not one");
    };
    simdjson::dom::parser parser(kBytesMax);
    From from;
    if (parser.parse(simdjson::padded_string(json)).get(from.at) != simdjson::SUCCESS) return bad();
    Spec spec;
    spec.id = from.text("id");
    spec.alias = from.text("alias");
    spec.stable = from.text("stable");
    spec.canary = from.text("canary");
    spec.who = from.text("who");
    spec.why = from.text("why");
    for (const auto each : from.list("stages")) {
        From stage{each};
        spec.stages.push_back({stage.real("share"), stage.flag("person")});
        from.ok = from.ok && stage.ok;
    }
    const auto g = from.numbers("gates", 13);
    Gates& gates = spec.gates;
    gates.act = g[0];
    gates.requests_min = static_cast<uint64_t>(g[1]);
    gates.min_ms = static_cast<int64_t>(g[2]);
    gates.error_points = g[3];
    gates.ttft_ratio = g[4];
    gates.itl_ratio = g[5];
    gates.filter_high = g[6];
    gates.filter_low = g[7];
    gates.first_errors = static_cast<uint64_t>(g[8]);
    gates.first_requests = static_cast<uint64_t>(g[9]);
    gates.crashes_max = static_cast<uint32_t>(g[10]);
    gates.shadow_share = g[11];
    gates.baseline = static_cast<uint64_t>(g[12]);
    const uint64_t stage = from.natural("stage");
    if (!from.ok || spec.stages.size() < 2 || stage + 1 >= spec.stages.size()) return bad();
    Rollout out(spec, 0);
    out.spec_.started_ms = from.whole("started_ms");
    const std::string state = from.text("state");
    bool known = false;
    for (const State each :
         {State::running, State::done, State::rolled_back, State::aborted})
        if (state == name(each)) {
            out.state_ = each;
            known = true;
        }
    out.stage_ = static_cast<uint32_t>(stage);
    out.entered_ms_ = from.whole("entered_ms");
    out.crashes_ = static_cast<uint32_t>(from.natural("crashes"));
    out.total_ = from.natural("total");
    const auto seen = from.numbers("seen", 12);
    for (size_t i = 0; i < 2; ++i) {
        const auto at = [&](size_t j) { return static_cast<uint64_t>(seen[j]); };
        out.seen_[i] = {at(3 * i), at(3 * i + 1), at(3 * i + 2)};
        out.all_requests_[i] = at(6 + 3 * i);
        out.all_errors_[i] = at(7 + 3 * i);
        out.all_filtered_[i] = at(8 + 3 * i);
    }
    from.evidence("errors", out.errors_);
    from.evidence("ttft", out.ttft_);
    from.evidence("itl", out.itl_);
    from.evidence("filter", out.filter_);
    from.evidence("ratio", out.ratio_);
    const auto p95 = from.numbers("p95", kSizes + 1);
    for (size_t i = 0; i < kSizes; ++i) out.ttft_p95_[i] = p95[i];
    out.itl_p95_ = p95[kSizes];
    out.steps_.clear();
    for (const auto each : from.list("steps")) {
        From step{each};
        out.steps_.push_back({step.whole("at_ms"), step.text("what"), step.text("who"),
                              step.text("why"), step.real("share")});
        from.ok = from.ok && step.ok;
    }
    if (!from.ok || !known) return bad();
    return out;
}

std::string Rollout::report_json() const {
    std::string out;
    JsonWriter w(out);
    w.object().field("id", spec_.id).field("alias", spec_.alias).field("stable", spec_.stable);
    w.field("canary", spec_.canary).field("state", name(state_)).field("stage", stage_);
    w.field("share", share()).field("shadow", shadow()).field("holds", holds_);
    w.field("crashes", crashes_);
    for (const bool canary : {false, true}) {
        w.key(canary ? "of_canary" : "of_stable").object();
        w.field("requests", all_requests_[canary]).field("errors", all_errors_[canary]);
        w.field("filtered", all_filtered_[canary]).field("stage_requests", seen_[canary].requests);
        w.field("ttft_p95_ratio", ttft_over_[canary].quantile(0.95));
        w.field("itl_p95_ratio", itl_over_[canary].quantile(0.95)).end();
    }
    w.key("log_e").object().field("errors", errors_.up()).field("ttft", ttft_.up());
    w.field("itl", itl_.up()).field("filter_up", filter_.up());
    w.field("filter_down", filter_.down()).end();
    put_steps(w, steps_);
    w.end();
    return out;
}

}  // namespace parley::rollout
