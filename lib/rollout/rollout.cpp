#include "rollout/rollout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace parley::rollout {
namespace {

constexpr double kFirstBin = 0.01, kBinLog = 0.04879016416943205;  // log 1.05
constexpr double kRatioAct = 6.907755278982137;                    // log 1000: a person looks

constexpr double kSettled = -1;  // log E below it: what is seen speaks for no difference

double unit_of(std::string_view salt, std::string_view unit) {  // [0, 1): FNV-1a, SplitMix64's end
    uint64_t hash = 0xCBF29CE484222325ull;
    for (const std::string_view part : {salt, std::string_view("/"), unit})
        for (const char c : part) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
    hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9ull;
    hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBull;
    hash ^= hash >> 31;
    return static_cast<double>(hash >> 11) * 0x1p-53;
}

size_t size_of(uint64_t bytes) {
    size_t size = 0;
    while (size + 1 < Rollout::kSizes && bytes >= 1024ull << (2 * size)) ++size;
    return size;
}

double percent(double share) { return share * 100; }

double rate(uint64_t some, uint64_t all) {
    return all == 0 ? 0 : static_cast<double>(some) / static_cast<double>(all);
}

}  // namespace

base::Result<std::vector<Stage>> parse_stages(std::string_view text) {
    std::vector<Stage> stages;
    const auto bad = [](std::string_view part, const char* why) {
        return base::fail(base::Errc::invalid, fmt::format("stage '{}': {}", part, why));
    };
    while (!text.empty()) {
        const size_t comma = std::min(text.find(','), text.size());
        const std::string_view part = text.substr(0, comma);
        text.remove_prefix(std::min(comma + 1, text.size()));
        Stage stage;
        std::string_view number = part;
        if (part == "shadow") {
            if (!stages.empty()) return bad(part, "comes before all others");
            stages.push_back(stage);
            continue;
        }
        if (number.substr(0, 7) == "person:") {
            stage.person = true;
            number.remove_prefix(7);
        }
        double value = 0;
        const auto [end, error] =
            std::from_chars(number.data(), number.data() + number.size(), value);
        if (error != std::errc() || end != number.data() + number.size() || !(value > 0) ||
            value > 100)
            return bad(part, "a percentage above 0, at most 100, is wanted");
        stage.share = value / 100;
        if (!stages.empty() && stage.share <= stages.back().share)
            return bad(part, "shares rise from stage to stage");
        stages.push_back(stage);
    }
    if (stages.size() < 2 || stages.size() > 32 || stages.back().share != 1)
        return base::fail(base::Errc::invalid, "stages: 2 to 32, the last of them 100");
    return stages;
}

const char* name(State state) {
    switch (state) {
        case State::running: return "running";
        case State::done: return "done";
        case State::rolled_back: return "rolled_back";
        case State::aborted: return "aborted";
    }
    return "?";
}

void Spread::add(double value) {
    const double bin = value <= kFirstBin ? 0 : std::ceil(std::log(value / kFirstBin) / kBinLog);
    ++bins_[static_cast<size_t>(std::min(bin, static_cast<double>(kBins - 1)))];
    ++count_;
}

double Spread::quantile(double q) const {
    if (count_ == 0) return 0;
    const double wanted = q * static_cast<double>(count_);
    uint64_t below = 0;
    for (size_t i = 0; i < kBins; ++i) {
        below += bins_[i];
        if (static_cast<double>(below) >= wanted)
            return kFirstBin * std::exp(kBinLog * static_cast<double>(i));
    }
    return kFirstBin * std::exp(kBinLog * static_cast<double>(kBins - 1));
}

Rollout::Rollout(Spec spec, int64_t now_ms) : spec_(std::move(spec)) {
    spec_.started_ms = now_ms;
    enter(0, "started", spec_.who, spec_.why, now_ms);
}

double Rollout::share() const {
    if (state_ == State::done) return 1;
    return running() ? spec_.stages[stage_].share : 0;
}

// Of an event, that it is the canary's: in the shadow stage each copied request makes two.
double Rollout::theta0() const {
    return shadow() ? spec_.gates.shadow_share / (1 + spec_.gates.shadow_share) : share();
}

void Rollout::enter(uint32_t stage, const std::string& what, const std::string& who,
                    const std::string& why, int64_t now_ms) {
    stage_ = stage;
    entered_ms_ = now_ms;
    holds_.clear();
    seen_[0] = seen_[1] = {};
    for (Evidence* each : {&errors_, &ttft_, &itl_, &filter_, &ratio_}) each->share(theta0());
    steps_.push_back({now_ms, what, who, why, share()});
}

void Rollout::finish(State state, const std::string& who, const std::string& why, int64_t now_ms) {
    state_ = state;
    holds_.clear();
    steps_.push_back({now_ms, name(state), who, why, share()});
}

Assigned Rollout::assign(std::string_view unit) const {
    return {unit_of(spec_.id, unit) < share(), stage_};
}

bool Rollout::copies(std::string_view request) const {
    return shadow() && unit_of(spec_.id, request) < spec_.gates.shadow_share;
}

void Rollout::assigned(const Assigned& assigned) {
    // Copies are of the stable version's requests: there is no share to keep.
    if (running() && !shadow() && assigned.stage == stage_) ratio_.add(assigned.canary);
}

void Rollout::outcome(const Assigned& assigned, const Outcome& outcome) {
    if (!running() || assigned.stage != stage_) return;
    const bool canary = assigned.canary;
    ++total_;
    ++seen_[canary].requests;
    ++all_requests_[canary];
    if (outcome.error) {
        ++seen_[canary].errors;
        ++all_errors_[canary];
        errors_.add(canary);
    }
    if (shadow() && canary) return;
    if (outcome.filtered) filtered(assigned);
    const auto late = [this, canary](double value, double& p95, Spread& baseline, Spread over[2],
                               Evidence& evidence) {
        if (value < 0) return;
        if (p95 == 0) {
            if (canary) return;
            baseline.add(value);
            if (baseline.count() >= spec_.gates.baseline) p95 = baseline.quantile(0.95);
            return;
        }
        if (shadow()) return;
        over[canary].add(value / p95);
        if (value > p95) evidence.add(canary);
    };
    const size_t size = size_of(outcome.prompt_bytes);
    late(outcome.ttft_ms, ttft_p95_[size], baseline_ttft_[size], ttft_over_, ttft_);
    late(outcome.itl_ms, itl_p95_, baseline_itl_, itl_over_, itl_);
}

void Rollout::filtered(const Assigned& assigned) {
    if (!running() || shadow() || assigned.stage != stage_) return;
    ++seen_[assigned.canary].filtered;
    ++all_filtered_[assigned.canary];
    filter_.add(assigned.canary);
}

void Rollout::golden(uint32_t wrong, uint32_t of, int64_t now_ms, const std::string& first) {
    if (!running() || wrong == 0) return;
    finish(State::rolled_back, "router",
           fmt::format("{} of {} golden prompts were answered otherwise; first: {}", wrong, of,
                       first),
           now_ms);
}

void Rollout::crashed(const std::string& how, int64_t now_ms) {
    if (!running()) return;
    if (++crashes_ >= spec_.gates.crashes_max)
        finish(State::rolled_back, "router",
               fmt::format("its workers were lost {} times; last: {}", crashes_, how), now_ms);
}

double Rollout::error_rate(bool canary) const {
    return rate(all_errors_[canary], all_requests_[canary]);
}

std::string Rollout::against() const {
    const Gates& gates = spec_.gates;
    const Seen& own = seen_[1];
    if (own.requests <= gates.first_requests && own.errors >= gates.first_errors)
        return fmt::format("{} of the first {} requests of the stage failed", own.errors,
                           own.requests);
    if (seen_[0].requests + own.requests < gates.requests_min) return {};
    const double act = std::log(gates.act);
    if (errors_.up() >= act && error_rate(true) - error_rate(false) >= gates.error_points)
        return fmt::format("{:.1f} % of its requests fail, {:.1f} % of the stable version's "
                           "(E = {:.3g})",
                           percent(error_rate(true)), percent(error_rate(false)),
                           std::exp(errors_.up()));
    const auto late = [&](const char* what, const Evidence& evidence, const Spread over[2],
                          double gate) -> std::string {
        const double stable = over[0].quantile(0.95);
        const double ratio = stable == 0 ? 0 : over[1].quantile(0.95) / stable;
        if (evidence.up() < act || ratio < gate) return {};
        return fmt::format("the p95 of {} is {:.2f} times the stable version's (E = {:.3g})", what,
                           ratio, std::exp(evidence.up()));
    };
    if (auto said = late("the time to the first token", ttft_, ttft_over_, gates.ttft_ratio);
        !said.empty())
        return said;
    if (auto said = late("the time between tokens", itl_, itl_over_, gates.itl_ratio);
        !said.empty())
        return said;
    const double stable = rate(all_filtered_[0], all_requests_[0]);
    const double canary = rate(all_filtered_[1], all_requests_[1]);
    if (stable > 0 && filter_.up() >= act && canary >= std::sqrt(gates.filter_high) * stable)
        return fmt::format("filters stop {:.2f} times as many of its answers (E = {:.3g})",
                           canary / stable, std::exp(filter_.up()));
    if (stable > 0 && filter_.down() >= act && canary <= std::sqrt(gates.filter_low) * stable)
        return fmt::format("filters stop only {:.2f} times as many of its answers: one may be "
                           "failing open (E = {:.3g})",
                           canary / stable, std::exp(filter_.down()));
    return {};
}

std::string Rollout::not_yet(int64_t now_ms) const {
    const Gates& gates = spec_.gates;
    if (seen_[1].requests < gates.requests_min)
        return fmt::format("{} of {} requests", seen_[1].requests, gates.requests_min);
    if (now_ms - entered_ms_ < gates.min_ms)
        return fmt::format("{} of {} s in the stage", (now_ms - entered_ms_) / 1000,
                           gates.min_ms / 1000);
    if (const auto known = *std::max_element(std::begin(ttft_p95_), std::end(ttft_p95_));
        !shadow() && known == 0)
        return fmt::format("the stable version's times are not known yet: fewer than {} requests of "
                           "one size",
                           gates.baseline);
    if (!shadow() && std::max(ratio_.up(), ratio_.down()) >= kRatioAct)
        return "the canary's share of the requests is not what was set: compare by hand";
    if (error_rate(true) - error_rate(false) >= gates.error_points)
        return fmt::format("inconclusive: {:.1f} % of its requests fail, {:.1f} % of the stable "
                           "version's (E = {:.3g})",
                           percent(error_rate(true)), percent(error_rate(false)),
                           std::exp(errors_.up()));
    const auto ratio = [](const Spread over[2]) {
        const double stable = over[0].quantile(0.95);
        return stable == 0 ? 0 : over[1].quantile(0.95) / stable;
    };
    if (ratio(ttft_over_) >= gates.ttft_ratio && ttft_.up() > 0)
        return fmt::format("inconclusive: p95 of the time to the first token {:.2f} times",
                           ratio(ttft_over_));
    if (ratio(itl_over_) >= gates.itl_ratio && itl_.up() > 0)
        return fmt::format("inconclusive: p95 of the time between tokens {:.2f} times",
                           ratio(itl_over_));
    const double stable = rate(all_filtered_[0], all_requests_[0]);
    const double canary = rate(all_filtered_[1], all_requests_[1]);
    if (stable > 0 &&
        ((canary >= std::sqrt(gates.filter_high) * stable && filter_.up() > kSettled) ||
         (canary <= std::sqrt(gates.filter_low) * stable && filter_.down() > kSettled)))
        return fmt::format("inconclusive: filters stop {:.2f} times as many of its answers",
                           canary / stable);
    if (stage_ + 1 < spec_.stages.size() && spec_.stages[stage_ + 1].person)
        return fmt::format("a person decides on {:g} %: router rollout promote {}",
                           percent(spec_.stages[stage_ + 1].share), spec_.alias);
    return {};
}

bool Rollout::look(int64_t now_ms) {
    if (!running()) return false;
    if (auto why = against(); !why.empty()) {
        finish(State::rolled_back, "router", why, now_ms);
        return true;
    }
    holds_ = not_yet(now_ms);
    if (!holds_.empty()) return false;
    const std::string why =
        fmt::format("{} requests, nothing against it", seen_[1].requests);
    if (spec_.stages[stage_ + 1].share == 1)
        finish(State::done, "router", why, now_ms);
    else
        enter(stage_ + 1, "promoted", "router", why, now_ms);
    return true;
}

base::Result<void> Rollout::promote(const std::string& who, const std::string& why,
                                    int64_t now_ms) {
    if (!running())
        return base::fail(base::Errc::invalid,
                          fmt::format("the rollout of '{}' is {}", spec_.alias, name(state_)));
    if (spec_.stages[stage_ + 1].share == 1)
        finish(State::done, who, why, now_ms);
    else
        enter(stage_ + 1, "promoted", who, why, now_ms);
    return {};
}

base::Result<void> Rollout::abort(const std::string& who, const std::string& why, int64_t now_ms) {
    if (!running())
        return base::fail(base::Errc::invalid,
                          fmt::format("the rollout of '{}' is {}", spec_.alias, name(state_)));
    finish(State::aborted, who, why, now_ms);
    return {};
}

}  // namespace parley::rollout
