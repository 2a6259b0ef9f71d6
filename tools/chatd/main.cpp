// chatd: the HTTP front of parley. See chatd(8).
#include <malloc.h>

#include <csignal>

#include "app.hpp"
#include "base/cli.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "options.hpp"

using namespace parley;

namespace {

base::Result<chatd::Options> parse(int argc, char** argv, std::optional<int>& exit) {
    chatd::Options options;
    base::Cli cli("chatd", "HTTP front of parley: Messages API and conversations");
    chatd::declare(cli, options);
    auto parsed = cli.parse(argc, argv);
    if (!parsed) return base::fail(parsed.error());
    exit = parsed->exit;
    if (!exit)
        if (auto checked = chatd::check(options); !checked) return base::fail(checked.error());
    if (options.state.empty()) options.state = base::state_dir_from_env();
    return options;
}

}  // namespace

int main(int argc, char** argv) {
    // One loop does the work: arenas of other threads would only keep pages apart, and what is freed is
    // wanted again at once.
    ::mallopt(M_ARENA_MAX, 2);
    ::mallopt(M_TRIM_THRESHOLD, 16 << 20);
    ::mallopt(M_TOP_PAD, 1 << 20);
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP, SIGPIPE});
    std::optional<int> exit;
    auto options = parse(argc, argv, exit);
    if (!options) return base::report("chatd", options.error());
    if (exit) return *exit;
    base::log_level(*base::parse_level(options->log_level));

    http::Loop loop;
    chatd::App app(loop, *options);
    auto url = app.start();
    if (!url) return base::report("chatd", url.error());
    http::FdWatch watch(loop, signals.fd(), [&] {
        while (const auto signal = signals.next()) {
            if (*signal == SIGTERM || *signal == SIGINT) app.drain();
            if (*signal != SIGHUP) continue;
            // A bad file keeps the old settings: they are read whole before any is taken.
            std::optional<int> ignored;
            if (auto fresh = parse(argc, argv, ignored); !fresh) {
                base::log(base::Level::error, "chatd.reload_failed",
                          {{"error", fresh.error().what}});
            } else {
                app.take_settings(*fresh);
                app.reload();
            }
        }
    });
    if (options->allow_unfiltered) base::log(base::Level::warn, "chatd.unfiltered");
    app.when_serving([&] {
        base::log(base::Level::info, "chatd.ready",
                  {{"url", *url},
                   {"state", options->state},
                   {"boot", app.boot},
                   {"metrics", app.metrics_address()}});
        base::notify_ready();
    });
    loop.run();
    base::log(base::Level::info, "chatd.stopped");
    return 0;
}
