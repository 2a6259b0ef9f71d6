// Rollouts: which version an alias gives to whom while one rolls out, and what is kept of it.
//
// One      rollout an alias; the last one stays, ended, until the next begins. A version that was
//          rolled back is not rolled out again behind the same alias (latched): make a new version.
// Order    where an alias points at another, the first with a running rollout on the way decides.
// Kept     take_changes(): aliases whose rollout took a step, to be written down now. save() and
//          restore(): everything, for a restart.
// Threads  one. No clock.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dispatch/catalogue.hpp"
#include "rollout/rollout.hpp"

namespace parley::dispatch {

class Rollouts {
  public:
    struct Route {
        std::string hash;
        std::string alias;  // with a rollout; empty: none
        rollout::Assigned assigned;
    };
    // nullopt: no such name. `unit`: whom a rollout treats alike; of no matter where none runs.
    std::optional<Route> route(const Catalogue& catalogue, std::string_view name,
                               std::string_view unit) const;
    // Errc::conflict: one runs; Errc::invalid: latched, the same version, unknown names.
    base::Result<void> may_start(const rollout::Spec& spec) const;
    rollout::Rollout& start(rollout::Spec spec, int64_t now_ms);
    rollout::Rollout* find(const std::string& alias);
    bool running() const;  // any: route() asks for a unit
    // A worker of this version was lost without a word.
    void crashed(const std::string& hash, const std::string& how, int64_t now_ms);
    void look(int64_t now_ms);
    // The alias was pointed elsewhere by hand: a running rollout of another stable version ends.
    void pointed(const std::string& alias, const std::string& hash, int64_t now_ms);
    // Puts what was kept in the place of what is here, if that is older or not there.
    // in_store: from the alias's row, whose target is the rollout's from then on.
    base::Result<void> restore(std::string_view json, bool in_store);
    void note(const std::string& alias) { changed_.insert(alias); }
    std::set<std::string> take_changes() { return std::exchange(changed_, {}); }
    const std::map<std::string, rollout::Rollout>& all() const { return all_; }

  private:
    std::map<std::string, rollout::Rollout> all_;
    std::map<std::string, std::string> written_;  // alias → the rollout whose end is in its row
    std::set<std::pair<std::string, std::string>> latched_;  // alias, hash
    std::set<std::string> changed_;
};

}  // namespace parley::dispatch
