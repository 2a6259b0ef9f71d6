#include "dispatch/rollouts.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace parley::dispatch {

using rollout::Rollout;
using rollout::State;

std::optional<Rollouts::Route> Rollouts::route(const Catalogue& catalogue, std::string_view name,
                                               std::string_view unit) const {
    for (const std::string& at : catalogue.way(name)) {
        const auto found = all_.find(at);
        if (found == all_.end()) continue;
        const Rollout& rollout = found->second;
        if (rollout.running()) {
            const rollout::Assigned to = rollout.assign(unit);
            return Route{to.canary ? rollout.spec().canary : rollout.spec().stable, at, to};
        }
        // Until the row of the alias has followed; then the row is right, whoever changes it.
        const auto written = written_.find(at);
        if (rollout.state() == State::done &&
            (written == written_.end() || written->second != rollout.spec().id))
            return Route{rollout.spec().canary, {}, {}};
    }
    auto hash = catalogue.resolve(name);
    if (!hash) return std::nullopt;
    return Route{std::move(*hash), {}, {}};
}

base::Result<void> Rollouts::may_start(const rollout::Spec& spec) const {
    const auto found = all_.find(spec.alias);
    if (found != all_.end() && found->second.running())
        return base::fail(
            base::Errc::conflict,
            fmt::format("a rollout of '{}' is running: promote or abort it first", spec.alias));
    if (spec.stable == spec.canary)
        return base::fail(base::Errc::invalid,
                          fmt::format("'{}' points at that version already", spec.alias));
    if (latched_.count({spec.alias, spec.canary}) != 0)
        return base::fail(base::Errc::invalid,
                          fmt::format("version {} was rolled back from '{}': make a new version",
                                      spec.canary.substr(0, 12), spec.alias));
    return {};
}

Rollout& Rollouts::start(rollout::Spec spec, int64_t now_ms) {
    const std::string alias = spec.alias;
    changed_.insert(alias);
    return all_.insert_or_assign(alias, Rollout(std::move(spec), now_ms)).first->second;
}

Rollout* Rollouts::find(const std::string& alias) {
    const auto found = all_.find(alias);
    return found == all_.end() ? nullptr : &found->second;
}

bool Rollouts::running() const {
    return std::any_of(all_.begin(), all_.end(),
                       [](const auto& each) { return each.second.running(); });
}

void Rollouts::crashed(const std::string& hash, const std::string& how, int64_t now_ms) {
    for (auto& [alias, rollout] : all_)
        if (rollout.running() && rollout.spec().canary == hash) rollout.crashed(how, now_ms);
}

void Rollouts::look(int64_t now_ms) {
    for (auto& [alias, rollout] : all_) {
        if (rollout.running() && rollout.look(now_ms)) changed_.insert(alias);
        if (rollout.state() == State::rolled_back &&
            latched_.insert({alias, rollout.spec().canary}).second)
            changed_.insert(alias);
    }
}

void Rollouts::pointed(const std::string& alias, const std::string& hash, int64_t now_ms) {
    Rollout* const rollout = find(alias);
    if (rollout == nullptr || !rollout->running() || rollout->spec().stable == hash) return;
    (void)rollout->abort("router", "the alias was pointed elsewhere by hand", now_ms);
    changed_.insert(alias);
}

base::Result<void> Rollouts::restore(std::string_view json, bool in_store) {
    auto restored = Rollout::restore(json);
    if (!restored) return base::fail(restored.error());
    const std::string alias = restored->spec().alias;
    if (in_store && restored->state() == State::done) written_[alias] = restored->spec().id;
    const auto found = all_.find(alias);
    if (found != all_.end()) {
        const auto& here = found->second;
        const int64_t newer = restored->spec().started_ms - here.spec().started_ms;
        if (newer < 0 || (newer == 0 && (restored->steps().size() < here.steps().size() ||
                                         restored->total() <= here.total())))
            return {};
        all_.erase(found);
    }
    if (restored->state() == State::rolled_back) latched_.insert({alias, restored->spec().canary});
    all_.emplace(alias, std::move(*restored));
    return {};
}

}  // namespace parley::dispatch
