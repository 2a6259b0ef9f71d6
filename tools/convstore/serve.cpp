// convstore serve: signals and time around store::Server.
#include <csignal>
#include <thread>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "options.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::convstore {

using base::Level;

int serve(Options o, int argc, const char* const* argv) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    const base::Places places = o.places();
    if (auto made = base::make_dirs(places.run()); !made)
        return base::report("convstore", made.error());
    if (o.server.endpoint.empty()) o.server.endpoint = places.store_endpoint();
    if (o.server.changes_endpoint.empty()) o.server.changes_endpoint = places.changes_endpoint();
    o.server.writer.env.dir = places.store();

    telemetry::Registry registry;
    auto metrics = telemetry::MetricsServer::start({o.daemon.metrics}, registry);
    if (!metrics) return base::report("convstore", metrics.error());

    pipe::Context context;
    pipe::Loop loop;
    // An admin verb may hold the lock for a moment, and a predecessor until it has drained.
    const int64_t until_ms = base::system_clock().mono_ms() + o.lock_wait_ms;
    auto server = store::Server::open(context, loop, o.server, registry);
    while (!server && server.error().code == base::Errc::conflict &&
           base::system_clock().mono_ms() < until_ms) {
        if (const auto number = signals.next(); number && *number != SIGHUP) return 0;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        server = store::Server::open(context, loop, o.server, registry);
    }
    if (!server) return base::report("convstore", server.error());

    int64_t drain_until_ms = 0;
    bool now = false;
    loop.watch(signals.fd(), [&] {
        while (const auto number = signals.next()) {
            if (*number == SIGHUP) {
                base::notify_reloading();
                auto fresh = parse_options(argc, argv);
                if (fresh) {
                    base::log_level(*base::parse_level(fresh->daemon.log_level));
                    base::log(Level::info, "convstore.reloaded");
                } else {
                    base::log(Level::error, "convstore.reload_failed",
                              {{"what", fresh.error().what}, {"kept", "the old settings"}});
                }
                base::notify_ready();
            } else if (drain_until_ms != 0) {
                now = true;  // a second one ends now
            } else {
                base::notify_stopping();
                base::log(Level::info, "convstore.draining");
                drain_until_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
                (*server)->drain();
            }
        }
    });
    base::log(Level::info, "convstore.ready",
              {{"commands", o.server.endpoint},
               {"changes", o.server.changes_endpoint},
               {"store", o.server.writer.env.dir},
               {"last_change", (*server)->writer().last_change()},
               {"metrics", *metrics ? (*metrics)->address() : "none"}});
    base::notify_ready();
    while (!now) {
        if (auto done = (*server)->run_once(pipe::kTickMs); !done)
            return base::report("convstore", done.error());
        if (drain_until_ms != 0 &&
            ((*server)->drained() || base::system_clock().mono_ms() >= drain_until_ms))
            break;
    }
    base::log(Level::info, "convstore.stopped",
              {{"last_change", (*server)->writer().last_change()}});
    return 0;
}

}  // namespace parley::convstore
