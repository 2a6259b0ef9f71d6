// router serve: sockets, signals and time around dispatch::Router.
#include <fmt/format.h>
#include <poll.h>
#include <simdjson.h>
#include <unistd.h>

#include <csignal>

#include "base/json.hpp"
#include "base/log.hpp"
#include "base/signals.hpp"
#include "kept.hpp"
#include "options.hpp"
#include "pipe/key_files.hpp"
#include "pipe/loop.hpp"
#include "registrar.hpp"
#include "telemetry/metrics_server.hpp"
#include "turn.hpp"

namespace parley::router {
namespace {

using base::Level;

constexpr int64_t kLastSaveMs = 1000;  // for what flows have used, at the end

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
    telemetry::Counter& moved =
        registry.counter("router_requests_moved_total", "streams that went on with another worker");
    telemetry::Counter& retried = registry.counter(
        "router_requests_retried_total", "requests started again before their first event");
    telemetry::Gauge& level =
        registry.gauge("router_admission_level", "0: all is taken; from 1 on load is shed");
    telemetry::Gauge& brownout = registry.gauge(
        "router_brownout", "1: answers of class batch are cut, before anything is refused");
    telemetry::Gauge& retries = registry.gauge(
        "router_retries_left", "requests that may start again unseen after their worker was lost");
    telemetry::Counter& shortened = registry.counter("router_requests_shortened_total",
                                                     "requests of class batch cut by the brownout");
    telemetry::Gauge& error = registry.gauge(
        "router_ttft_error_ms", "moving average of |predicted - actual| time to first event");
    telemetry::Gauge& bias = registry.gauge(
        "router_ttft_bias_ms", "moving average of predicted - actual time to first event");
    telemetry::Gauge& cost_error = registry.gauge(
        "router_cost_error", "moving average of |predicted - actual| / actual compute-seconds");
    telemetry::Gauge& serves =
        registry.gauge("router_serves", "1: this router serves; 0: it stands by");
    telemetry::Gauge& wanted =
        registry.gauge("router_workers_wanted", "workers for what waits and runs now");
    telemetry::Gauge& breakers = registry.gauge(
        "router_breakers_open", "workers that get no requests of a version, or only probes");
    telemetry::Counter& breakers_opened =
        registry.counter("router_breakers_opened_total", "times that a breaker opened");
    void set(const dispatch::Router& router) {
        breakers.set(
            static_cast<double>(router.breakers().count(dispatch::Breakers::State::open) +
                                router.breakers().count(dispatch::Breakers::State::half_open)));
        raise(breakers_opened, router.breakers().opened());
        waiting.set(static_cast<double>(router.waiting()));
        running.set(static_cast<double>(router.running()));
        workers.set(static_cast<double>(router.workers().all().size()));
        raise(asked, router.counters().asked);
        raise(refused, router.counters().refused);
        raise(expired, router.counters().expired);
        raise(lost, router.counters().lost);
        raise(moved, router.counters().moved);
        raise(retried, router.counters().retried);
        level.set(router.scheduler().admission().level());
        brownout.set(router.scheduler().admission().brownout() ? 1 : 0);
        retries.set(router.scheduler().admission().retries_left());
        raise(shortened, router.counters().shortened);
        error.set(router.scheduler().admission().error_ms());
        bias.set(router.scheduler().admission().bias_ms());
        cost_error.set(router.scheduler().predictor().error());
        wanted.set(router.workers_wanted());
    }
    static void raise(telemetry::Counter& counter, uint64_t to) {
        counter.add(to - counter.value());
    }
};

// Until this router's turn has come; an exit status where it is not to serve at all.
std::optional<int> wait_turn(const Options& o, Turn& turn, const base::SignalFd& signals) {
    bool said = false;
    while (!turn.try_take()) {
        if (turn.killed() != 0) base::log(Level::warn, "router.hung", {{"killed", turn.killed()}});
        if (!o.standby)
            return base::report(
                "router", {base::Errc::again,
                           fmt::format("process {} serves on this state: stop it, or wait for its "
                                       "end with --standby",
                                       turn.holder())});
        if (!said) {
            base::log(Level::info, "router.standby", {{"serves", turn.holder()}});
            base::notify_ready();
            said = true;
        }
        pollfd wait{signals.fd(), POLLIN, 0};
        if (::poll(&wait, 1, Turn::kTickMs) > 0)
            while (const auto number = signals.next())
                if (*number != SIGHUP) return 0;
    }
    if (said) base::log(Level::info, "router.takes_over");
    return std::nullopt;
}

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
    if (auto stages = rollout::parse_stages(o.router.stages); !stages)
        return base::report("router",
                            {base::Errc::config, "--rollout-stages: " + stages.error().what});
    auto keys = curve(o);
    if (!keys) return base::report("router", keys.error());

    auto turn = Turn::open(places.run() + "/router.turn", o.hung_ms);
    if (!turn) return base::report("router", turn.error());
    if (const auto ended = wait_turn(o, *turn, signals)) return *ended;
    numbers.serves.set(1);

    pipe::Context context;
    dispatch::Router router(o.router, **registrar);
    pipe::AnswererOptions asker_side;
    asker_side.link.endpoint = o.bind.empty() ? places.router_asker_endpoint() : o.bind;
    asker_side.link.bind = true;
    asker_side.link.hello.name = "router";
    asker_side.link.hello.queue = o.router.scheduler.waiting_max;
    asker_side.link.curve = *keys;
    asker_side.requests_max =
        o.router.scheduler.waiting_max + 4096;  // those that wait, and those that run
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
    loop.every(Turn::kTickMs, [&] { turn->beat(); });
    store::Client& client = (*registrar)->client();
    Kept kept(router, client, places.state + "/router/rollouts.jsonl");
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
            // What runs need not be finished here: chatd goes on with the one that waits.
            if (turn->successor())
                router.hand_over();
            else
                router.drain();
        }
    });
    if (auto made = base::make_dirs(places.state + "/router"); !made)
        return base::report("router", made.error());
    kept.restore();
    (*registrar)->refresh();
    loop.every(1000, [&] { kept.save(); });
    base::log(Level::info, "router.ready",
              {{"askers", (*askers)->link().endpoint()},
               {"workers", (*workers)->link().endpoint()},
               {"metrics", *metrics ? (*metrics)->address() : "none"}});
    base::notify_ready();
    loop.run();
    kept.save();
    base::log(Level::info, "router.stopped",
              {{"ended", router.counters().ended}, {"cut", router.running()}});
    const int64_t until_ms = base::system_clock().mono_ms() + kLastSaveMs;
    while (kept.pending() && base::system_clock().mono_ms() < until_ms) {
        client.step();
        ::usleep(1000);
    }
    return 0;
}

}  // namespace parley::router
