// infer-worker serve: one thread that owns the socket and the engine. It takes what has come without
// waiting, runs one iteration, sends what came out, and waits only when there is nothing to run.
#include <algorithm>
#include <csignal>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "control.hpp"
#include "load.hpp"
#include "metrics.hpp"
#include "model_list.hpp"
#include "pipe/answerer.hpp"
#include "pipe/key_files.hpp"
#include "pipe/loop.hpp"
#include "roster.hpp"
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

// Between the answerer and the models: each is the other's handler.
class Front final : public pipe::AnswererHandler, public engine::Outlet {
  public:
    // A fault for tests: every n-th request ends with api_error. 0: none.
    void fail_every(uint32_t n) { fail_every_ = n; }
    void connect(engine::Models& models, pipe::Answerer& answerer) {
        models_ = &models;
        answerer_ = &answerer;
    }
    bool answered() const { return answered_; }

    void on_ask(pipe::Ask ask) override {
        if (fail_every_ > 0 && ++asked_ % fail_every_ == 0) {
            pipe::EndMeta end;
            end.status = "api_error";
            end.reason = "simulated_fault";
            end.message = "a simulated fault (--simulate-fail-every)";
            return answerer_->end(ask.id, end);
        }
        models_->ask(ask.id, std::move(ask.envelope), std::move(ask.body));
    }
    void on_cancel(const std::string& id, uint32_t, pipe::Cancel why) override {
        models_->cancel(id, why == pipe::Cancel::asked || why == pipe::Cancel::refused ? "asked"
                            : why == pipe::Cancel::gone                                ? "peer_gone"
                                                        : "replaced");
    }
    void on_credit(const std::string& id, uint32_t available) override {
        models_->credit(id, available);
    }
    void on_tag(const std::string& id, double tag) override { models_->tag(id, tag); }
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
            const engine::Model* model = models_->find(hash);
            if (model == nullptr) continue;
            pipe::HelloMeta own = answerer_->link().self();
            own.tok = hash;
            answerer_->link().say_hello(peer, own, model->artifact->serialise());
            base::log(Level::info, "tokenizer.sent", {{"peer", hello.name}});
        }
    }

    uint32_t fail_every_ = 0;
    uint64_t asked_ = 0;
    engine::Models* models_ = nullptr;
    pipe::Answerer* answerer_ = nullptr;
    bool answered_ = false;
};

std::vector<pipe::ModelInfo> hello_models(const engine::Models& models) {
    std::vector<pipe::ModelInfo> out;
    for (const engine::Model* model : models.serving())
        out.push_back({model->artifact->hash(), model->name, model->artifact->architecture(),
                       model->artifact->limits().context_tokens,
                       model->artifact->limits().output_tokens_max});
    return out;
}

pipe::AnswererOptions answerer_options(const Options& o, const engine::Models& models,
                                       const pipe::CurveOptions& keys) {
    pipe::AnswererOptions out;
    out.link.bind = !o.bind.empty();
    out.link.endpoint = out.link.bind      ? o.bind
                        : o.router.empty() ? o.daemon.places().router_worker_endpoint()
                                           : o.router;
    out.link.curve = keys;
    out.link.hello.name = o.name;
    out.link.hello.zone = o.zone;
    // Of all models together: the cores are the same.
    for (const engine::Model* model : models.serving()) {
        out.link.hello.slots = std::max(out.link.hello.slots, model->options.engine.slots_max);
        out.link.hello.queue = std::max(out.link.hello.queue, model->options.engine.queue_max);
    }
    out.link.hello.models = hello_models(models);
    out.requests_max = out.link.hello.slots + out.link.hello.queue;
    return out;
}

}  // namespace

int serve(Options o, int argc, const char* const* argv) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    auto keys = curve(o);
    if (!keys) return base::report("infer-worker", keys.error());
    const auto specs = specs_of(o);
    if (!specs) return base::report("infer-worker", specs.error());
    if (o.bind.empty() && o.router.empty())
        if (auto made = base::make_dirs(o.daemon.places().run()); !made)
            return base::report("infer-worker", made.error());
    // Nobody may take it for a model by its name.
    if (o.simulate &&
        specs->front().name.compare(0, simulated::kName.size(), simulated::kName) != 0)
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
    auto made = make_all(*specs, o);
    if (!made) return base::report("infer-worker", made.error());
    Front front;
    engine::Models models(front);
    for (engine::Model& model : *made)
        if (auto added = models.add(std::move(model)); !added)
            return base::report("infer-worker", added.error());
    made->clear();
    auto answerer = pipe::Answerer::open(context, answerer_options(o, models, *keys), front);
    if (!answerer) return base::report("infer-worker", answerer.error());
    front.connect(models, **answerer);
    front.fail_every(o.simulate ? o.simulate_fail_every : 0);
    be_nice(o.nice);  // not earlier: the thread that sends must not wait for those that compute

    pipe::Loop loop;
    int64_t drain_until_ms = 0;
    bool ready = false;
    loop.add((*answerer)->link());
    Roster roster(models, o, [&] {
        pipe::HelloMeta hello = (*answerer)->link().self();
        hello.models = hello_models(models);
        (*answerer)->link().say_hello(hello);
    });
    auto control = [&]() -> base::Result<std::unique_ptr<Control>> {
        if (auto folder = base::make_dirs(o.daemon.places().run()); !folder)
            return base::fail(folder.error());
        return Control::start(control_path(o));
    }();
    if (control)
        loop.watch((*control)->fd(), [&] {
            while (auto command = (*control)->take()) roster.command(std::move(*command));
        });
    else  // it answers all the same
        base::log(Level::warn, "worker.no_control", {{"what", control.error().what}});
    (*answerer)->set_status([&] {
        pipe::StatusMeta status = models.status();
        status.draining = drain_until_ms != 0;
        metrics.set(models, status);
        return status;
    });
    loop.watch(signals.fd(), [&] {
        while (const auto number = signals.next()) {
            if (*number == SIGHUP) {
                base::notify_reloading();
                const auto ended = [](const base::Result<void>& result) {
                    if (result)
                        base::log(Level::info, "worker.reloaded");
                    else
                        base::log(Level::error, "worker.reload_failed",
                                  {{"what", result.error().what}, {"kept", "the old settings"}});
                    base::notify_ready();
                };
                const auto fresh = parse_options(argc, argv);
                if (!fresh) {
                    ended(base::fail(fresh.error()));
                    continue;
                }
                roster.reload(*fresh, [ended, level = fresh->daemon.log_level](
                                          const base::Result<void>& result) {
                    if (result) base::log_level(*base::parse_level(level));
                    ended(result);
                });
                continue;
            }
            if (drain_until_ms != 0) {  // a second one ends now
                loop.stop();
                continue;
            }
            base::notify_stopping();
            base::log(Level::info, "worker.draining", {{"live", models.live()}});
            drain_until_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
            (*answerer)->drain();
        }
    });
    bool ran = false;
    while (!loop.stopped()) {
        loop.run_once(0);
        roster.tick();
        if (!ready && (front.answered() || !o.bind.empty())) {
            ready = true;
            base::log(Level::info, "worker.ready",
                      {{"name", o.name},
                       {"endpoint", (*answerer)->link().endpoint()},
                       {"metrics", *server ? (*server)->address() : "none"}});
            base::notify_ready();
        }
        const int64_t started_ns = base::system_clock().mono_ns();
        const bool worked = models.step();
        if (worked) metrics.iteration.record(base::system_clock().mono_ns() - started_ns);
        if (drain_until_ms != 0 &&
            (models.empty() || base::system_clock().mono_ms() >= drain_until_ms))
            break;
        // Who began to work, or came to rest, shows at once, not at the next STATUS.
        if (ran != worked) metrics.set(models, models.status());
        ran = worked;
        if (!worked) loop.run_once(pipe::kTickMs);
    }
    const size_t cut = models.live();
    models.abandon("draining");
    // A connecting peer drops what it has not read when the connection breaks: give it
    // the time to read its ENDs.
    const int64_t close_ms = base::system_clock().mono_ms() + kCloseMs;
    while ((*answerer)->link().up() && base::system_clock().mono_ms() < close_ms) loop.run_once(5);
    base::log(Level::info, "worker.stopped",
              {{"finished", models.counters().finished}, {"cut", cut}});
    return 0;
}

}  // namespace parley::infer_worker
