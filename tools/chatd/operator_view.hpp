// OperatorView: what the operator of the box sees: usage and cost of every org, the router's queue and
// workers, this server's own indicators.
//
// Who      members (keys and sessions) of the orgs that --operator-org names; without one, nobody.
// Fresh    the router is asked when somebody looks, at most every kRouterMs; usage is summed from the
//          store's totals at most every kUsageMs for one span of days. Looking costs others nothing more.
// Bounds   kOrgsMax orgs, the dearest first; `orgs_more` says that there are others.
// Threads  the loop's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "exchange.hpp"
#include "pipe/asker.hpp"

namespace parley::chatd {

class App;

class OperatorView final : private pipe::AskerHandler {
  public:
    static constexpr int64_t kRouterMs = 1000;
    static constexpr int64_t kRouterWaitMs = 1500;
    static constexpr int64_t kUsageMs = 5000;
    static constexpr int64_t kDaysMax = 92;
    static constexpr size_t kOrgsMax = 1000;

    OperatorView(App& app, pipe::Context& context) : app_(app), context_(context) {}
    ~OperatorView() override;

    // Of the caller's org by its name.
    bool may_look(const Caller& caller) const;
    void answer(const ExchangePtr& exchange, int64_t days);
    void tick();

  private:
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override;
    void on_end(const std::string& id, const pipe::EndMeta& meta) override;

    struct Waiting {
        ExchangePtr exchange;
        int64_t days = 1;
    };
    void ask_router();
    void router_done(std::string error);
    void say(const Waiting& one);
    std::string usage(int64_t days);

    App& app_;
    pipe::Context& context_;
    std::unique_ptr<pipe::Asker> asker_;
    std::shared_ptr<void> watch_;
    std::vector<Waiting> waiting_;
    std::string asked_;  // id of the question under way; "" is none
    uint64_t asks_ = 0;
    int64_t asking_since_ms_ = 0;
    std::string router_;        // its last answer, JSON
    std::string router_error_;  // why there is none
    int64_t router_ms_ = -1;    // when the last answer or error came
    std::string usage_;
    int64_t usage_days_ = 0, usage_ms_ = 0;
};

}  // namespace parley::chatd
