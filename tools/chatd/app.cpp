#include "app.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.hpp"
#include "base/signals.hpp"
#include "batch_runner.hpp"
#include "charging.hpp"
#include "cors.hpp"
#include "exchange.hpp"
#include "idempotency.hpp"
#include "live.hpp"
#include "login.hpp"
#include "operator_view.hpp"
#include "peers.hpp"
#include "presence.hpp"
#include "routes.hpp"
#include "search_desk.hpp"
#include "titler.hpp"
#include "turns.hpp"

namespace parley::chatd {

using base::fail;
using base::Result;
using messages::ApiError;
using messages::ErrorType;

namespace {

// What has been accepted before a hand-over may still ask, and is served, for so long.
constexpr int64_t kHandoverGraceMs = 1500;
// A successor lets its predecessor serve until it is ready itself; where nothing becomes ready, so long.
constexpr int64_t kTakeOverWaitMs = 10'000;
constexpr int64_t kLastWordsMs =
    3000;  // for the ends of what the drain interrupted to become durable

// What the server itself refuses, in the wire contract's words.
http::Response refused(int status, std::string_view why, const http::Request* head) {
    ApiError error = ApiError::invalid(std::string(why));
    if (status == 413)
        error = ApiError::of(ErrorType::request_too_large, "the request body is too large");
    if (status >= 500) error = ApiError::unavailable(std::string(why), 1);
    if (status == 500) error = ApiError::of(ErrorType::api_error, "internal error");
    error.status = status;
    const Dialect dialect = head ? dialect_of(find_route(*head)) : Dialect::messages;
    return error_response(error, new_request_id(), dialect);
}

}  // namespace

App::App(http::Loop& loop_in, Options options_in)
    : loop(loop_in),
      options(std::move(options_in)),
      places{options.state},
      clock(base::system_clock()),
      boot(base::UlidSource().next().text()),
      owner(boot),
      ttft(metrics.histogram("chatd_ttft_seconds", "request received to the first delta")),
      answers(options.answers_max, clock),
      tick_(loop),
      second_(loop),
      drain_timer_(loop) {}

telemetry::Counter& App::answered(const std::string& route, int status) {
    telemetry::Counter*& known = answered_[route][status];
    if (!known)
        known = &metrics.counter("chatd_requests_total", "requests answered",
                                 {{"route", route}, {"status", std::to_string(status)}});
    return *known;
}

App::~App() {
    // Descriptors are watched no longer before their sockets close; sockets close before their context;
    // whoever may still grant or cancel goes before the hop.
    link_watches_.clear();
    handover_.reset();
    server_.reset();
    turns.reset();
    login.reset();
    batches.reset();
    calls_.clear();
    operator_view.reset();
    peers.reset();
    presence.reset();
    answers.clear();
    titler.reset();
    charging.reset();
    gate.reset();
    hop.reset();
    live.reset();  // it follows by the store's reader
    store.reset();
    if (alive_) ::unlink((places.run() + "/chatd-" + owner + ".lock").c_str());
}

Result<std::string> App::start() {
    for (const std::string& folder : {places.run(), places.batches()})
        if (auto made = base::make_dirs(folder); !made) return fail(made.error());
    auto alive = base::LockFile::take(places.run() + "/chatd-" + owner + ".lock");
    if (!alive) return fail(alive.error());
    alive_.emplace(std::move(*alive));

    catalog = std::make_unique<Catalog>(places.tokenizers(), options.model_wildcard);
    auth = std::make_unique<Auth>(options.no_auth, clock);
    counter = std::make_unique<CounterThread>(loop);
    search = std::make_unique<SearchDesk>(loop, places.state + "/search");
    turns = std::make_unique<Turns>(*this);
    titler = std::make_unique<Titler>(*this);
    idempotency = std::make_unique<Idempotency>(*this);
    login = std::make_unique<Login>(*this);
    live = std::make_unique<Live>(*this);
    auth->set_origins(options.origins);
    batches = std::make_unique<BatchRunner>(*this);

    store::ClientOptions client;
    client.endpoint =
        options.store_endpoint.empty() ? places.store_endpoint() : options.store_endpoint;
    client.name = "chatd";
    client.queue_max = options.store_queue_max;
    auto link = StoreLink::open(loop, places.store(), client);
    if (!link) return fail(link.error());
    store = std::move(*link);
    auto gate_opened = Gate::open(*this, options);
    if (!gate_opened) return fail(gate_opened.error());
    gate = std::move(*gate_opened);
    charging = std::make_unique<Charging>(*this);
    if (auto opened = open_hop(); !opened) return fail(opened.error());
    auto peers_opened = Peers::open(*this, context_);
    if (!peers_opened) return fail(peers_opened.error());
    peers = std::move(*peers_opened);
    presence = std::make_unique<Presence>(*this);
    operator_view = std::make_unique<OperatorView>(*this, context_);

    inherited_ = Handover::from_manager();
    if (inherited_.empty() && options.take_over) {
        taken_ = Handover::take(places, options.bind);
        if (taken_) inherited_ = taken_->sockets;
    }
    // A predecessor's metrics have the same address: ours begin when it has given it up.
    if (!taken_)
        if (auto started = start_metrics(); !started) return fail(started.error());
    auto url = listen();
    if (!url) return url;
    url_ = *url;
    renew_login_link();
    each_second();
    tick_.every(chat::kAnswerTickMs, [this] { tick(); });
    second_.every(1000, [this] { each_second(); });
    take_over_by_ms_ = clock.mono_ms() + kTakeOverWaitMs;
    auto offered = Handover::offer(
        loop, Handover::path_of(places, owner), options.bind,
        [this] { return draining ? std::vector<int>() : server_->listening(); },
        [this] { hand_over(); });
    if (!offered) return fail(offered.error());
    handover_ = std::move(*offered);
    return url;
}

void App::when_serving(std::function<void()> callback) {
    if (!taken_) return callback();
    on_serving_ = std::move(callback);
}

// The socket is shared until the predecessor has gone: nothing is refused, and nothing waits.
void App::take_over() {
    if (not_ready() && clock.mono_ms() < take_over_by_ms_) return;
    if (auto adopted = adopt_sockets(); !adopted) {
        base::log(base::Level::error, "chatd.take_over_failed", {{"error", adopted.error().what}});
        return loop.stop();
    }
    const bool gone = Handover::go(*taken_);
    taken_.reset();
    base::log(base::Level::info, "chatd.took_over", {{"predecessor", gone ? "drains" : "silent"}});
    if (auto started = start_metrics(); !started)
        base::log(base::Level::error, "chatd.no_metrics", {{"error", started.error().what}});
    if (on_serving_) std::exchange(on_serving_, nullptr)();
}

Result<void> App::start_metrics() {
    telemetry::MetricsServerOptions metrics_options;
    metrics_options.address = options.metrics;
    auto server = telemetry::MetricsServer::start(metrics_options, metrics);
    if (!server) return fail(server.error());
    metrics_server_ = std::move(*server);
    return {};
}

Result<void> App::open_hop() {
    chat::FilterHopOptions hop_options;
    hop_options.endpoints = options.filters;
    if (hop_options.endpoints.empty()) hop_options.endpoints = {places.filter_endpoint()};
    hop_options.asker.link.hello.role = pipe::Role::asker;
    hop_options.asker.link.hello.name = "chatd";
    hop_options.asker.link.hello.boot = boot;
    auto opened = chat::FilterHop::open(context_, hop_options, answers);
    if (!opened) return fail(opened.error());
    hop = std::move(*opened);
    hop->on_change([](const std::string& endpoint, bool up, const std::string& why) {
        base::log(up ? base::Level::info : base::Level::warn,
                  up ? "chatd.filter_up" : "chatd.filter_down",
                  {{"endpoint", endpoint}, {"why", why}});
    });
    for (size_t i = 0; i < hop->count(); ++i) link_watches_.push_back(watch(hop->link(i)));
    return {};
}

std::shared_ptr<void> App::watch(pipe::Link& link) {
    // A bounded turn; what is left comes after whatever else waits on the loop.
    const auto step = std::make_shared<std::function<void()>>();
    const auto posted = std::make_shared<bool>(false);
    *step = [this, &link, posted, weak = std::weak_ptr(step)] {
        if (!link.step()) return;
        if (*posted) return;
        *posted = true;
        loop.post([posted, weak] {
            *posted = false;
            if (const auto again = weak.lock()) (*again)();
        });
    };
    link.set_wake([this, posted, weak = std::weak_ptr(step)] {
        if (*posted) return;
        *posted = true;
        loop.post([posted, weak] {
            *posted = false;
            if (const auto again = weak.lock()) (*again)();
        });
    });
    auto watch = std::make_shared<http::FdWatch>(loop, link.fd(), [step] { (*step)(); });
    (*step)();
    return watch;
}

Result<std::string> App::listen() {
    if (!options.tls_cert.empty()) {
        auto tls = http::TlsContext::load(options.tls_cert, options.tls_key);
        if (!tls) return fail(tls.error());
        tls_ = std::move(*tls);
    }
    http::Options o;
    o.connections_max = options.connections_max;
    o.connections_per_address_max = options.connections_per_address_max;
    o.idle_ms = options.idle_ms;
    o.error_response = [this](int status, std::string_view why, const http::Request* head) {
        http::Response response = refused(status, why, head);
        if (head) add_cors(options.cors_origins, *head, response);
        return response;
    };
    server_ = std::make_unique<http::Server>(
        loop, o, [this](const http::Request& head) { return decide(*this, head); },
        [this](http::Request request, http::Writer writer) {
            dispatch(*this, std::move(request), std::move(writer));
        });
    for (const int fd : inherited_)
        if (options.no_auth && !socket_is_loopback(fd))
            return fail(base::Errc::config,
                        "--no-auth is for loopback only, not for the socket that was passed");
    auto port = taken_               ? Result<uint16_t>(port_of(inherited_.front()))
                : inherited_.empty() ? server_->listen(options.bind, tls_, options.reuse_port)
                                     : adopt_sockets();
    if (!port) return fail(port.error());
    if (options.bind.rfind("unix:", 0) == 0) return options.bind;
    const std::string host = options.bind.substr(0, options.bind.rfind(':'));
    return fmt::format("{}://{}:{}", tls_ ? "https" : "http", host, *port);
}

Result<uint16_t> App::adopt_sockets() {
    const uint16_t first = port_of(inherited_.front());
    for (const int fd : std::exchange(inherited_, {}))
        if (auto port = server_->listen_fd(fd, tls_); !port) return port;
    return first;
}

void App::tick() {
    for (size_t i = 0; i < hop->count(); ++i) hop->link(i).step();
    hop->tick();
    peers->tick();
    operator_view->tick();
    answers.tick();
    const int64_t now = clock.mono_ms();
    if (taken_) take_over();
    presence->tick(now);
    const auto calls = calls_;
    for (const auto& call : calls) call->tick(now);
    batches->tick(now);
    if (draining) drained();
}

void App::each_second() {
    store->retry();
    if (store::Reader* reader = store->reader()) catalog->refresh(*reader);
    if (!stamp_key && !options.allow_unfiltered)
        if (auto key = stamp::Key::open(places.stamp_key())) stamp_key = *key;
    turns->take_over_dead();
    live->retry();
    batches->each_second();
    gate->each_second();
    peers->each_second();
    metrics.gauge("chatd_answers_live", "answers being produced")
        .set(static_cast<double>(answers.live()));
    metrics.gauge("chatd_filters_up", "filters connected")
        .set(static_cast<double>(hop->count_up()));
    metrics.gauge("chatd_store_pending", "commands without reply")
        .set(static_cast<double>(store->pending()));
    metrics.gauge("chatd_connections", "client connections")
        .set(static_cast<double>(server_->stats().connections));
    metrics.gauge("chatd_devices", "listeners of live feeds")
        .set(static_cast<double>(live->hub().listeners()));
    metrics.gauge("chatd_ready", "1 when models can be asked").set(not_ready() ? 0 : 1);
}

const char* App::not_ready() const {
    if (draining) return "this server is draining";
    if (!stamp_key && !options.allow_unfiltered) return "no filter has made the stamp key yet";
    if (!store->reader() || !store->connected()) return "the store is not ready";
    if (catalog->empty()) return "no model has joined yet";
    if (!hop->up()) return "no filter is connected";
    return nullptr;
}

std::optional<ApiError> App::cannot_ask() {
    if (refuses()) return ApiError::unavailable("this server is draining", 1);
    if (!stamp_key && !options.allow_unfiltered) {
        if (auto key = stamp::Key::open(places.stamp_key()))
            stamp_key = *key;
        else
            return ApiError::unavailable("no filter has made the stamp key yet", 1);
    }
    return std::nullopt;
}

void App::drain() {
    // The second signal; after a hand-over the first only says what we know.
    if (draining && (handed_over_ms_ == 0 || std::exchange(asked_to_stop_, true)))
        return loop.stop();
    asked_to_stop_ = true;
    if (!draining) begin_drain(options.drain_ms, 0);
}

void App::hand_over() {
    if (draining) return;
    handed_over_ms_ = clock.mono_ms();
    metrics_server_.reset();
    begin_drain(options.handover_ms, kHandoverGraceMs);
}

bool App::refuses() const {
    return draining &&
           (handed_over_ms_ == 0 || clock.mono_ms() - handed_over_ms_ > 2 * kHandoverGraceMs);
}

void App::begin_drain(int64_t timeout_ms, int64_t grace_ms) {
    draining = true;
    base::notify_stopping();
    base::log(base::Level::info, "chatd.drain",
              {{"answers", answers.live()}, {"turns", turns->live()}});
    batches->stop();
    titler->drain();
    server_->drain([this] { connections_done_ = true; }, grace_ms);
    drain_timer_.after(timeout_ms, [this] {
        base::log(base::Level::warn, "chatd.drain_timeout", {{"answers", answers.live()}});
        answers.abandon_all(ApiError::unavailable("this server is stopping", 1));
        drain_timer_.after(kLastWordsMs, [this] { loop.stop(); });
    });
}

void App::drained() {
    // What was answered must also be stored: usage rows and ends wait in the store's client.
    charging->flush();
    const bool stored = store->pending() == 0 || !store->connected();
    if (connections_done_ && answers.live() == 0 && turns->live() == 0 && stored) loop.stop();
}

void App::take_settings(const Options& fresh) {
    Options next = fresh;
    next.bind = options.bind;
    next.state = options.state;
    next.metrics = options.metrics;
    next.no_auth = options.no_auth;
    next.allow_unfiltered = options.allow_unfiltered;
    next.tls_cert = options.tls_cert;
    next.tls_key = options.tls_key;
    next.reuse_port = options.reuse_port;
    next.take_over = options.take_over;
    next.limits_subjects = options.limits_subjects;
    next.limits_reservations = options.limits_reservations;
    if (auto set = gate->set(next); !set)
        base::log(base::Level::error, "chatd.reload_failed", {{"error", set.error().what}});
    options = std::move(next);
    catalog->set_wildcard(options.model_wildcard);
    auth->set_origins(options.origins);
}

std::string App::metrics_address() const {
    return metrics_server_ ? metrics_server_->address() : std::string();
}

void App::renew_login_link() {
    // Over the network it would be a door with a printed key.
    if (options.no_auth || !is_loopback(options.bind) || options.bind.rfind("unix:", 0) == 0)
        return;
    login->renew_link(url_);
}

void App::reload() {
    base::notify_reloading();
    renew_login_link();
    if (tls_)
        if (auto loaded = tls_->reload(); !loaded)
            base::log(base::Level::error, "chatd.reload_failed", {{"error", loaded.error().what}});
    if (auto level = base::parse_level(options.log_level)) base::log_level(*level);
    base::log(base::Level::info, "chatd.reloaded");
    base::notify_ready();
}

}  // namespace parley::chatd
