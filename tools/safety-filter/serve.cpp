// safety-filter serve: sockets, signals and time around filter::Filter.
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "filter/filter.hpp"
#include "options.hpp"
#include "pipe/key_files.hpp"
#include "pipe/loop.hpp"
#include "policy_source.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::safety_filter {
namespace {

using base::Level;
constexpr const char* kTool = "safety-filter";

base::Result<pipe::CurveOptions> curve(const Options& o, bool binds) {
    pipe::CurveOptions out;
    if (o.curve_key.empty()) return out;
    auto pair = pipe::read_curve_pair(o.curve_key);
    if (!pair) return base::fail(pair.error());
    if (!binds && o.router_curve_key.empty()) return out;
    out.secret_key = pair->secret_key;
    out.public_key = pair->public_key;
    out.server_key = o.router_curve_key;
    if (!binds) return out;
    if (o.curve_allow.empty())
        return base::fail(base::Errc::config,
                          "--curve-key needs --curve-allow: the public keys that get in");
    auto allowed = pipe::read_allowed_keys(o.curve_allow);
    if (!allowed) return base::fail(allowed.error());
    out.allowed = std::move(*allowed);
    return out;
}

// A judge that has passed its self-test, or why there is none.
base::Result<std::shared_ptr<const safety::Judge>> ready_judge(const Options& o) {
    auto policy = load_policy(o.policy);
    if (!policy) return base::fail(policy.error());
    auto judge = std::make_shared<safety::Judge>(std::move(*policy), o.cache_max);
    if (auto passed = judge->self_test(); !passed) return base::fail(passed.error());
    return std::shared_ptr<const safety::Judge>(std::move(judge));
}

// The descriptor by which judging threads wake the loop.
class Wake {
  public:
    Wake() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~Wake() {
        if (fd_ >= 0) ::close(fd_);
    }
    Wake(const Wake&) = delete;
    Wake& operator=(const Wake&) = delete;
    int fd() const { return fd_; }
    void ring() const {
        const uint64_t one = 1;
        (void)!::write(fd_, &one, sizeof one);
    }
    void clear() const {
        uint64_t count = 0;
        (void)!::read(fd_, &count, sizeof count);
    }

  private:
    int fd_;
};

struct Metrics {
    telemetry::Registry registry;
    telemetry::Gauge& live =
        registry.gauge("safety_filter_requests_live", "requests in the filter");
    telemetry::Gauge& judging =
        registry.gauge("safety_filter_requests_judging", "requests that wait for a verdict");
    telemetry::Histogram& took =
        registry.histogram("safety_filter_judge_seconds", "time to judge a request");
    telemetry::Counter& late = registry.counter("safety_filter_late_total", "no verdict in time");
    telemetry::Counter& malformed =
        registry.counter("safety_filter_malformed_total", "answers that broke the protocol");

    void count(std::string_view side, std::string_view verdict) {
        registry
            .counter("safety_filter_verdicts_total", "verdicts given",
                     {{"side", std::string(side)}, {"verdict", std::string(verdict)}})
            .add();
    }
};

void tell(Metrics& metrics, const filter::Notice& n) {
    using Kind = filter::Notice::Kind;
    switch (n.kind) {
        case Kind::judged:
        case Kind::blocked_input:
            metrics.took.record(n.took_ns);
            metrics.count("input", safety::name(n.action));
            break;
        case Kind::blocked_output:
            metrics.count("output", "block");
            break;
        case Kind::late:
            metrics.late.add();
            base::log(Level::warn, "filter.late",
                      {{"id", n.id}, {"policy", n.policy}, {"what", n.what}});
            return;
        case Kind::malformed:
            metrics.malformed.add();
            base::log(Level::warn, "filter.malformed", {{"id", n.id}, {"what", n.what}});
            return;
        case Kind::router_up:
            base::log(Level::info, "filter.router_up", {{"name", n.what}});
            return;
        case Kind::router_down:
            base::log(Level::warn, "filter.router_down", {{"what", n.what}});
            return;
    }
    const bool allowed = n.kind == Kind::judged && n.action == safety::Action::allow;
    base::log(allowed ? Level::debug : Level::info,
              n.kind == Kind::judged ? "filter.judged" : "filter.blocked",
              {{"id", n.id},
               {"side", n.kind == Kind::blocked_output ? "output" : "input"},
               {"verdict", safety::name(n.action)},
               {"score", n.score},
               {"by", n.what},
               {"rules", n.rules},
               {"policy", n.policy}});
}

}  // namespace

int serve(Options o, int argc, const char* const* argv) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    const base::Places places = o.daemon.places();
    if (auto made = base::make_dirs(places.run()); !made) return base::report(kTool, made.error());

    auto judge = ready_judge(o);
    if (!judge) return base::report(kTool, judge.error());
    auto key = stamp::Key::open_or_make(o.stamp_key.empty() ? places.stamp_key() : o.stamp_key);
    if (!key) return base::report(kTool, key.error());
    auto asker_keys = curve(o, true);
    if (!asker_keys) return base::report(kTool, asker_keys.error());
    auto router_keys = curve(o, false);
    if (!router_keys) return base::report(kTool, router_keys.error());

    Metrics metrics;
    auto server = telemetry::MetricsServer::start({o.daemon.metrics}, metrics.registry);
    if (!server) return base::report(kTool, server.error());

    const Wake wake;
    filter::FilterOptions filter_options;
    filter_options.threads = o.workers;
    filter_options.judging_max = o.requests_max;
    filter::Filter filter(
        *judge, *key, filter_options, [&wake] { wake.ring(); },
        [&metrics](const filter::Notice& notice) { tell(metrics, notice); });

    pipe::Context context;
    pipe::AskerOptions router_side;
    router_side.link.endpoint = o.router.empty() ? places.router_asker_endpoint() : o.router;
    router_side.link.hello.name = o.name;
    router_side.link.hello.policy = (*judge)->policy().name();
    router_side.link.curve = *router_keys;
    router_side.requests_max = o.requests_max;
    auto router = pipe::Asker::open(context, router_side, filter.router_side());
    if (!router) return base::report(kTool, router.error());
    pipe::AnswererOptions asker_side;
    asker_side.link.endpoint = o.bind.empty() ? places.filter_endpoint() : o.bind;
    asker_side.link.bind = true;
    asker_side.link.hello.name = o.name;
    asker_side.link.hello.slots = o.requests_max;
    asker_side.link.hello.policy = (*judge)->policy().name();
    asker_side.link.curve = *asker_keys;
    asker_side.requests_max = o.requests_max;
    auto askers = pipe::Answerer::open(context, asker_side, filter.asker_side());
    if (!askers) return base::report(kTool, askers.error());
    filter.connect(**askers, **router);

    pipe::Loop loop;
    double longest_ms = 0;
    int64_t drain_until_ms = 0;
    (*askers)->set_status([&] {
        pipe::StatusMeta status;
        status.running = static_cast<uint32_t>(filter.live());
        status.waiting = static_cast<uint32_t>(filter.judging());
        status.slots = o.requests_max;
        status.longest_ms = longest_ms;
        status.draining = drain_until_ms != 0;
        return status;
    });
    loop.add((*askers)->link());
    loop.add((*router)->link());
    loop.watch(wake.fd(), [&] {
        wake.clear();
        filter.work();
    });
    loop.every(20, [&] {
        filter.tick();
        const bool late = drain_until_ms != 0 && base::system_clock().mono_ms() >= drain_until_ms;
        if (drain_until_ms != 0 && (filter.idle() || late)) loop.stop();
    });
    loop.every(250, [&] {
        metrics.live.set(static_cast<double>(filter.live()));
        metrics.judging.set(static_cast<double>(filter.judging()));
    });
    auto reload = [&] {
        base::notify_reloading();
        Options fresh;
        base::Cli cli(kTool, "");
        auto parsed = parse(cli, fresh, argc, argv);
        base::Result<std::shared_ptr<const safety::Judge>> next =
            parsed ? ready_judge(fresh)
                   : base::Result<std::shared_ptr<const safety::Judge>>(base::fail(parsed.error()));
        if (!next) {
            base::log(Level::error, "filter.reload_failed",
                      {{"what", next.error().what}, {"kept", filter.judge()->policy().name()}});
        } else {
            base::log_level(*base::parse_level(fresh.daemon.log_level));
            filter.set_judge(*next);
            for (pipe::Link* link : {&(*askers)->link(), &(*router)->link()}) {
                pipe::HelloMeta hello = link->self();
                hello.policy = (*next)->policy().name();
                link->say_hello(hello);
            }
            base::log(Level::info, "filter.reloaded", {{"policy", (*next)->policy().name()}});
        }
        base::notify_ready();
    };
    loop.watch(signals.fd(), [&] {
        while (const auto number = signals.next()) {
            if (*number == SIGHUP) {
                reload();
                continue;
            }
            if (drain_until_ms != 0) {  // a second one ends now
                loop.stop();
                continue;
            }
            base::notify_stopping();
            base::log(Level::info, "filter.draining", {{"live", filter.live()}});
            drain_until_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
            filter.drain();
        }
    });
    base::log(Level::info, "filter.ready",
              {{"askers", (*askers)->link().endpoint()},
               {"router", (*router)->link().endpoint()},
               {"policy", (*judge)->policy().name()},
               {"metrics", *server ? (*server)->address() : "none"}});
    base::notify_ready();
    // Longest busy stretch of the last second or two, by CPU time: what others may wait for us.
    double recent_ms = 0;
    int64_t recent_from_ms = base::system_clock().mono_ms();
    while (!loop.stopped()) {
        const int64_t before = base::thread_cpu_ns();
        loop.run_once(pipe::kTickMs);
        recent_ms = std::max(recent_ms, static_cast<double>(base::thread_cpu_ns() - before) / 1e6);
        longest_ms = std::max(longest_ms, recent_ms);
        const int64_t now = base::system_clock().mono_ms();
        if (now - recent_from_ms >= 1000) {
            longest_ms = recent_ms;
            recent_ms = 0;
            recent_from_ms = now;
        }
    }
    base::log(Level::info, "filter.stopped", {{"cut", filter.live()}});
    return 0;
}

}  // namespace parley::safety_filter
