// router simulate: a scenario file in, a table (or JSON, or a drawing) out.
#include <cstdio>
#include <iostream>
#include <iterator>

#include "base/file.hpp"
#include "dispatch/simulation.hpp"
#include "options.hpp"
#include "rollout/trial.hpp"

namespace parley::router {

namespace {

constexpr uint64_t kFileBytesMax = 2ull << 30;

base::Result<std::string> read(const std::string& path) {
    if (path != "-") return base::read_file(path, kFileBytesMax);
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

}  // namespace

int run_simulation(const Options& o) {
    if (o.rollouts > 0) {
        std::vector<rollout::TrialRow> rows;
        for (const auto& fault : rollout::faults())
            rows.push_back(
                rollout::try_rollouts(fault, {}, o.rollouts, o.seed == 0 ? 1 : o.seed));
        const std::string out = rollout::table(rows);
        std::fwrite(out.data(), 1, out.size(), stdout);
        return 0;
    }
    if (o.scenario.empty())
        return base::report("router", {base::Errc::usage,
                                       "simulate: name a SCENARIO, or a number with --rollouts"});
    auto text = read(o.scenario);
    if (!text) return base::report("router", text.error());
    if (!o.trace.empty()) {
        auto more = read(o.trace);
        if (!more) return base::report("router", more.error());
        *text += "\n" + *more;
    }
    auto scenario = dispatch::parse_scenario(*text);
    if (!scenario)
        return base::report("router",
                            {base::Errc::invalid, o.scenario + ": " + scenario.error().what});
    if (o.seed != 0) scenario->seed = o.seed;
    if (o.seconds > 0) scenario->seconds = o.seconds;
    for (auto& kind : scenario->orgs) kind.rate *= o.load;
    dispatch::SchedulerOptions options = o.router.scheduler;
    if (o.no_predict) {
        options.admission.predict = false;
        options.admission.standing_share = 1e9;
    }
    auto result = dispatch::simulate(*scenario, options);
    if (!result)
        return base::report("router",
                            {base::Errc::invalid, o.scenario + ": " + result.error().what});
    if (!o.svg.empty())
        if (auto written = base::write_file(o.svg, result->svg(scenario->name), 0644); !written)
            return base::report("router", written.error());
    const std::string out = o.json ? result->json(scenario->name) + "\n" : result->table();
    std::fwrite(out.data(), 1, out.size(), stdout);
    return 0;
}

}  // namespace parley::router
