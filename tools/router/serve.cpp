// router serve: sockets, signals and time around dispatch::Router.
#include <fmt/format.h>

#include <csignal>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "options.hpp"
#include "pipe/key_files.hpp"
#include "pipe/loop.hpp"
#include "registrar.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::router {
namespace {

using base::Level;

base::Result<pipe::CurveOptions> curve(const Options& o) {
    pipe::CurveOptions out;
    if (o.curve_key.empty()) return out;
    auto pair = pipe::read_curve_pair(o.curve_key);
    if (!pair) return base::fail(pair.error());
    out.secret_key = pair->secret_key;
    out.public_key = pair->public_key;
    if (o.curve_allow.empty())
        return base::fail(base::Errc::config,
                          "--curve-key needs --curve-allow: the public keys that get in");
    auto allowed = pipe::read_allowed_keys(o.curve_allow);
    if (!allowed) return base::fail(allowed.error());
    out.allowed = std::move(*allowed);
    return out;
}

// Numbers for /metrics, set from the loop some times a second.
struct Metrics {
    telemetry::Registry registry;
    telemetry::Gauge& waiting =
        registry.gauge("router_requests_waiting", "requests that wait for a worker");
    telemetry::Gauge& running =
        registry.gauge("router_requests_running", "requests that a worker answers");
    telemetry::Gauge& workers = registry.gauge("router_workers", "workers that are connected");
    telemetry::Counter& asked = registry.counter("router_requests_asked_total", "requests taken");
    telemetry::Counter& refused =
        registry.counter("router_requests_refused_total", "requests refused");
    telemetry::Counter& expired = registry.counter("router_requests_expired_total",
                                                   "requests that waited past their deadline");
    telemetry::Counter& lost =
        registry.counter("router_requests_lost_total", "requests whose worker went away");
    void set(const dispatch::Router& router) {
        waiting.set(static_cast<double>(router.waiting()));
        running.set(static_cast<double>(router.running()));
        workers.set(static_cast<double>(router.workers().all().size()));
        raise(asked, router.counters().asked);
        raise(refused, router.counters().refused);
        raise(expired, router.counters().expired);
        raise(lost, router.counters().lost);
    }
    static void raise(telemetry::Counter& counter, uint64_t to) {
        counter.add(to - counter.value());
    }
};

}  // namespace

int serve(Options o, int argc, const char* const* argv) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    const base::Places places = o.daemon.places();
    if (auto made = base::make_dirs(places.run()); !made)
        return base::report("router", made.error());

    Metrics numbers;
    auto metrics = telemetry::MetricsServer::start({o.daemon.metrics}, numbers.registry);
    if (!metrics) return base::report("router", metrics.error());
    auto registrar = Registrar::open(places);
    if (!registrar) return base::report("router", registrar.error());
    auto keys = curve(o);
    if (!keys) return base::report("router", keys.error());

    pipe::Context context;
    dispatch::Router router(o.router, **registrar);
    pipe::AnswererOptions asker_side;
    asker_side.link.endpoint = o.bind.empty() ? places.router_asker_endpoint() : o.bind;
    asker_side.link.bind = true;
    asker_side.link.hello.name = "router";
    asker_side.link.hello.queue = o.router.queue.requests_max;
    asker_side.link.curve = *keys;
    asker_side.requests_max =
        o.router.queue.requests_max + 4096;  // those that wait, and those that run
    auto askers = pipe::Answerer::open(context, asker_side, router.asker_side());
    if (!askers) return base::report("router", askers.error());
    pipe::AskerOptions worker_side;
    worker_side.link.endpoint =
        o.workers_bind.empty() ? places.router_worker_endpoint() : o.workers_bind;
    worker_side.link.bind = true;
    worker_side.link.hello.name = "router";
    worker_side.link.curve = *keys;
    auto workers = pipe::Asker::open(context, worker_side, router.worker_side());
    if (!workers) return base::report("router", workers.error());
    router.connect(**askers, **workers);
    (*registrar)->connect(router, **workers);

    pipe::Loop loop;
    int64_t drain_until_ms = 0;
    loop.add((*askers)->link());
    loop.add((*workers)->link());
    store::Client& client = (*registrar)->client();
    loop.watch(client.fd(), [&] { client.step(); });
    loop.every(20, [&] { client.step(); });
    loop.every(20, [&] {
        (*workers)->tick();
        router.tick();
        const bool late = drain_until_ms != 0 && base::system_clock().mono_ms() >= drain_until_ms;
        if (drain_until_ms != 0 && (router.idle() || late)) loop.stop();
    });
    loop.every(250, [&] {
        (*registrar)->refresh();
        numbers.set(router);
    });
    loop.watch(signals.fd(), [&] {
        while (const auto number = signals.next()) {
            if (*number == SIGHUP) {
                base::notify_reloading();
                auto fresh = parse_options(argc, argv);
                if (fresh) base::log_level(*base::parse_level(fresh->daemon.log_level));
                if (fresh)
                    base::log(Level::info, "router.reloaded");
                else
                    base::log(Level::error, "router.reload_failed",
                              {{"what", fresh.error().what}, {"kept", "the old settings"}});
                base::notify_ready();
                continue;
            }
            if (drain_until_ms != 0) {  // a second one ends now
                loop.stop();
                continue;
            }
            base::notify_stopping();
            base::log(Level::info, "router.draining",
                      {{"running", router.running()}, {"waiting", router.waiting()}});
            drain_until_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
            router.drain();
        }
    });
    (*registrar)->refresh();
    base::log(Level::info, "router.ready",
              {{"askers", (*askers)->link().endpoint()},
               {"workers", (*workers)->link().endpoint()},
               {"metrics", *metrics ? (*metrics)->address() : "none"}});
    base::notify_ready();
    loop.run();
    base::log(Level::info, "router.stopped",
              {{"ended", router.counters().ended}, {"cut", router.running()}});
    return 0;
}

}  // namespace parley::router
