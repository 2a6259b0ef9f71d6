// infer-worker serve: one thread that owns the socket and the engine. It takes what has come without
// waiting, runs one iteration, sends what came out, and waits only when there is nothing to run.
#include <csignal>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "load.hpp"
#include "metrics.hpp"
#include "model/served_name.hpp"
#include "pipe/answerer.hpp"
#include "pipe/key_files.hpp"
#include "pipe/loop.hpp"
#include "simulated/vocabulary.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::infer_worker {
namespace {

using base::Level;

constexpr int64_t kCloseMs = 200;

base::Result<pipe::CurveOptions> curve(const Options& o) {
    pipe::CurveOptions out;
    if (o.curve_key.empty()) return out;
    auto pair = pipe::read_curve_pair(o.curve_key);
    if (!pair) return base::fail(pair.error());
    out.secret_key = pair->secret_key;
    out.public_key = pair->public_key;
    out.server_key = o.curve_server;
    if (o.bind.empty()) {
        if (out.server_key.empty())
            return base::fail(base::Errc::config,
                              "--curve-key needs --curve-server: the router's public key");
        return out;
    }
    if (o.curve_allow.empty())
        return base::fail(
            base::Errc::config,
            "--curve-key with --bind needs --curve-allow: the public keys that get in");
    auto allowed = pipe::read_allowed_keys(o.curve_allow);
    if (!allowed) return base::fail(allowed.error());
    out.allowed = std::move(*allowed);
    return out;
}

// Between the answerer and the service: each is the other's handler.
class Front final : public pipe::AnswererHandler, public engine::Outlet {
  public:
    void connect(engine::Service& service, pipe::Answerer& answerer,
                 const model::Artifact& artifact) {
        service_ = &service;
        answerer_ = &answerer;
        artifact_ = &artifact;
    }
    bool answered() const { return answered_; }

    void on_ask(pipe::Ask ask) override {
        service_->ask(ask.id, std::move(ask.envelope), std::move(ask.body));
    }
    void on_cancel(const std::string& id, uint32_t, pipe::Cancel why) override {
        service_->cancel(id, why == pipe::Cancel::asked  ? "asked"
                             : why == pipe::Cancel::gone ? "peer_gone"
                                                         : "replaced");
    }
    void on_credit(const std::string& id, uint32_t available) override {
        service_->credit(id, available);
    }
    void on_peer_up(pipe::Peer peer, const pipe::HelloMeta& hello) override {
        answered_ = true;
        base::log(Level::info, "peer.up", {{"peer", hello.name}, {"boot", hello.boot}});
        send_tokenizer(peer, hello);
    }
    void on_peer_hello(pipe::Peer peer, const pipe::HelloMeta& hello, std::string) override {
        send_tokenizer(peer, hello);
    }
    void on_peer_down(pipe::Peer, const std::string& why) override {
        base::log(Level::warn, "peer.down", {{"why", why}});
    }

    bool event(const std::string& id, uint32_t, const engine::OutEvent& event) override {
        pipe::EventMeta meta;
        meta.ids.assign(event.ids.begin(), event.ids.end());
        meta.stamp_ns = event.stamp_ns;
        const auto sent = answerer_->event(id, std::move(meta), event.body);
        // Of a peer that is gone we shall hear by on_cancel: until then its events go nowhere.
        return sent || sent.error().code != base::Errc::again;
    }
    void end(const std::string& id, pipe::EndMeta meta) override {
        answerer_->end(id, std::move(meta));
    }

  private:
    // The tokenizer's file goes to who lacks it, on request: it is megabytes.
    void send_tokenizer(pipe::Peer peer, const pipe::HelloMeta& hello) {
        for (const std::string& hash : hello.need) {
            if (hash != artifact_->hash()) continue;
            pipe::HelloMeta own = answerer_->link().self();
            own.tok = hash;
            answerer_->link().say_hello(peer, own, artifact_->serialise());
            base::log(Level::info, "tokenizer.sent", {{"peer", hello.name}});
        }
    }

    engine::Service* service_ = nullptr;
    pipe::Answerer* answerer_ = nullptr;
    const model::Artifact* artifact_ = nullptr;
    bool answered_ = false;
};

std::string name_of(const Options& o) {
    if (!o.model_name.empty()) return o.model_name;
    return o.simulate ? std::string(simulated::kName) : model::served_name(o.model);
}

pipe::AnswererOptions answerer_options(const Options& o, const model::Artifact& artifact,
                                       const pipe::CurveOptions& keys) {
    pipe::AnswererOptions out;
    out.link.bind = !o.bind.empty();
    out.link.endpoint = out.link.bind      ? o.bind
                        : o.router.empty() ? o.daemon.places().router_worker_endpoint()
                                           : o.router;
    out.link.curve = keys;
    out.link.hello.name = o.name;
    out.link.hello.zone = o.zone;
    out.link.hello.slots = o.service.engine.slots_max;
    out.link.hello.queue = o.service.engine.queue_max;
    out.link.hello.models = {{artifact.hash(), name_of(o), artifact.architecture(),
                              artifact.limits().context_tokens,
                              artifact.limits().output_tokens_max}};
    out.requests_max = o.service.engine.slots_max + o.service.engine.queue_max;
    return out;
}

}  // namespace

int serve(Options o, int argc, const char* const* argv) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    auto keys = curve(o);
    if (!keys) return base::report("infer-worker", keys.error());
    if (o.bind.empty() && o.router.empty())
        if (auto made = base::make_dirs(o.daemon.places().run()); !made)
            return base::report("infer-worker", made.error());
    // Nobody may take it for a model by its name.
    if (o.simulate && name_of(o).compare(0, simulated::kName.size(), simulated::kName) != 0)
        return base::report("infer-worker",
                            {base::Errc::usage, "--model-name with --simulate: '" + o.model_name +
                                                    "' does not begin with 'simulated'"});
    Metrics metrics;
    if (o.simulate)
        metrics.registry.gauge("infer_worker_simulated", "1: answers and times are simulated")
            .set(1);
    auto server = telemetry::MetricsServer::start({o.daemon.metrics}, metrics.registry);
    if (!server) return base::report("infer-worker", server.error());

    pipe::Context context;
    auto loaded = load(o);
    if (!loaded) return base::report("infer-worker", loaded.error());
    Front front;
    engine::Service service(*loaded->forward, *loaded->artifact, o.service, front);
    auto answerer =
        pipe::Answerer::open(context, answerer_options(o, *loaded->artifact, *keys), front);
    if (!answerer) return base::report("infer-worker", answerer.error());
    front.connect(service, **answerer, *loaded->artifact);
    be_nice(o.nice);  // not earlier: the thread that sends must not wait for those that compute

    pipe::Loop loop;
    int64_t drain_until_ms = 0;
    bool ready = false;
    loop.add((*answerer)->link());
    (*answerer)->set_status([&] {
        pipe::StatusMeta status = service.status();
        status.draining = drain_until_ms != 0;
        metrics.set(service, status);
        return status;
    });
    loop.watch(signals.fd(), [&] {
        while (const auto number = signals.next()) {
            if (*number == SIGHUP) {
                base::notify_reloading();
                const auto fresh = parse_options(argc, argv);
                if (fresh) {
                    base::log_level(*base::parse_level(fresh->daemon.log_level));
                    base::log(Level::info, "worker.reloaded");
                } else {
                    base::log(Level::error, "worker.reload_failed",
                              {{"what", fresh.error().what}, {"kept", "the old settings"}});
                }
                base::notify_ready();
                continue;
            }
            if (drain_until_ms != 0) {  // a second one ends now
                loop.stop();
                continue;
            }
            base::notify_stopping();
            base::log(Level::info, "worker.draining", {{"live", service.live()}});
            drain_until_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
            (*answerer)->drain();
        }
    });
    base::log(Level::info, "worker.loaded",
              {{"model", loaded->artifact->name()},
               {"hash", loaded->artifact->hash()},
               {"kernel", loaded->forward->kernel()},
               {"threads", loaded->forward->threads()},
               {"kv_blocks", loaded->forward->kv_blocks()},
               {"kv_type", o.forward.kv_type},
               {"kv_bytes", loaded->forward->kv_bytes()},
               {"context", service.engine().context_tokens()},
               {"load_ms", loaded->load_ms}});

    while (!loop.stopped()) {
        loop.run_once(0);
        if (!ready && (front.answered() || !o.bind.empty())) {
            ready = true;
            base::log(Level::info, "worker.ready",
                      {{"name", o.name},
                       {"endpoint", (*answerer)->link().endpoint()},
                       {"metrics", *server ? (*server)->address() : "none"}});
            base::notify_ready();
        }
        const int64_t started_ns = base::system_clock().mono_ns();
        const bool worked = service.step();
        if (worked) metrics.iteration.record(base::system_clock().mono_ns() - started_ns);
        if (drain_until_ms != 0 &&
            (service.empty() || base::system_clock().mono_ms() >= drain_until_ms))
            break;
        if (!worked) loop.run_once(pipe::kTickMs);
    }
    const size_t cut = service.live();
    service.abandon("draining");
    // A connecting peer drops what it has not read when the connection breaks: give it
    // the time to read its ENDs.
    const int64_t close_ms = base::system_clock().mono_ms() + kCloseMs;
    while ((*answerer)->link().up() && base::system_clock().mono_ms() < close_ms) loop.run_once(5);
    base::log(Level::info, "worker.stopped",
              {{"finished", service.counters().finished}, {"cut", cut}});
    return 0;
}

}  // namespace parley::infer_worker
