// router: who answers what, in which order. See router(8).
#include <csignal>

#include "base/log.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
    using namespace parley;
    auto options = router::parse_options(argc, argv);
    if (!options) return base::report("router", options.error());
    if (options->parsed.exit) return *options->parsed.exit;
    if (options->parsed.is("status")) return router::show_status(*options);
    if (options->parsed.is("model", "list")) return router::list_models(*options);
    if (options->parsed.is("alias", "list")) return router::list_aliases(*options);
    if (options->parsed.is("alias", "set")) return router::set_alias(*options);
    if (options->parsed.is("alias", "rollback")) return router::rollback_alias(*options);
    if (options->parsed.is("key", "create")) return router::create_key(*options);
    if (options->parsed.is("key", "show")) return router::show_key(*options);
    for (const char* verb : {"start", "promote", "abort"})
        if (options->parsed.is("rollout", verb)) return router::rollout_command(*options, verb);
    if (options->parsed.is("rollout", "status")) return router::show_rollouts(*options, false);
    if (options->parsed.is("rollout", "history")) return router::show_rollouts(*options, true);
    if (options->parsed.is("simulate")) return router::run_simulation(*options);
    return router::serve(std::move(*options), argc, argv);
}
