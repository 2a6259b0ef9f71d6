// App: everything that chatd serves with, made once, on one loop.
//
// Threads  the loop's, but for Worker (one helper thread for counting large prompts).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "auth.hpp"
#include "base/file.hpp"
#include "catalog.hpp"
#include "chat/answers.hpp"
#include "chat/filter_hop.hpp"
#include "counter_thread.hpp"
#include "gate.hpp"
#include "handover.hpp"
#include "http/loop.hpp"
#include "http/server.hpp"
#include "options.hpp"
#include "stamp/stamp.hpp"
#include "store_link.hpp"
#include "telemetry/metrics_server.hpp"
#include "telemetry/registry.hpp"

namespace parley::chatd {

class BatchRunner;
class Charging;
class Turns;
class Idempotency;
class Login;
class Live;
class Peers;
class SearchDesk;
class Presence;
class OperatorView;
class Titler;

// Something that lives until its exchange, its answer and its timers are done with.
class Call {
  public:
    virtual ~Call() = default;
    virtual void tick(int64_t now_ms) = 0;
};

class App {
  public:
    App(http::Loop& loop, Options options);
    ~App();

    // Opens store, filters and sockets. The url that clients can use.
    base::Result<std::string> start();
    // Calls back once clients are answered: at once, or when a predecessor has given way.
    void when_serving(std::function<void()> callback);
    // Nothing new; stops the loop when all is answered, or interrupts what is left after the timeout.
    void drain();
    // A successor accepts in our place: what was accepted here is answered to its end.
    void hand_over();
    // Whether requests are turned away: some that came before a hand-over are still on their way.
    bool refuses() const;
    void reload();
    // What may change while it runs: times, bounds of new requests, the log level. Addresses may not.
    void take_settings(const Options& fresh);
    std::string metrics_address() const;
    // A new one-time login link, for people on this machine; the one before is void.
    void renew_login_link();
    // nullptr when ready; else what is missing.
    const char* not_ready() const;

    // Null, and an error is the answer, while models cannot be asked.
    std::optional<messages::ApiError> cannot_ask();
    std::shared_ptr<Call> keep(std::shared_ptr<Call> call) {
        calls_.insert(call);
        return call;
    }
    // Steps the link whenever it has something to do, until the result is dropped; before the link is.
    std::shared_ptr<void> watch(pipe::Link& link);
    void let_go(const std::shared_ptr<Call>& call) { calls_.erase(call); }

    http::Loop& loop;
    Options options;
    base::Places places;
    const base::Clock& clock;
    const std::string boot;
    std::string owner;  // of streams in the store: boot id
    telemetry::Registry metrics;
    telemetry::Histogram& ttft;
    // Of an answered request; looking a series up costs more than counting in it.
    telemetry::Counter& answered(const std::string& route, int status);
    std::unique_ptr<StoreLink> store;
    std::unique_ptr<chat::FilterHop> hop;
    chat::Answers answers;
    std::unique_ptr<Catalog> catalog;
    std::unique_ptr<Auth> auth;
    std::unique_ptr<CounterThread> counter;
    std::unique_ptr<Gate> gate;
    std::unique_ptr<Charging> charging;
    std::unique_ptr<Turns> turns;
    std::unique_ptr<Idempotency> idempotency;
    std::unique_ptr<Login> login;
    std::unique_ptr<Live> live;
    std::unique_ptr<Peers> peers;
    std::unique_ptr<SearchDesk> search;
    std::unique_ptr<Presence> presence;
    std::unique_ptr<OperatorView> operator_view;
    std::unique_ptr<BatchRunner> batches;
    std::unique_ptr<Titler> titler;
    std::optional<stamp::Key> stamp_key;
    bool draining = false;

  private:
    base::Result<void> open_hop();
    base::Result<std::string> listen();
    base::Result<uint16_t> adopt_sockets();
    void take_over();
    base::Result<void> start_metrics();
    void begin_drain(int64_t timeout_ms, int64_t grace_ms);
    void tick();
    void each_second();
    void drained();

    std::unordered_set<std::shared_ptr<Call>> calls_;
    // Routes are the table's, statuses ours: both few.
    std::unordered_map<std::string, std::unordered_map<int, telemetry::Counter*>> answered_;
    pipe::Context context_;
    std::vector<std::shared_ptr<void>> link_watches_;
    std::shared_ptr<http::TlsContext> tls_;
    std::unique_ptr<http::Server> server_;
    std::unique_ptr<telemetry::MetricsServer> metrics_server_;
    std::optional<base::LockFile> alive_;
    std::string url_;
    std::unique_ptr<Handover> handover_;
    std::vector<int> inherited_;
    std::optional<Handover::Taken> taken_;  // until the predecessor is told to go
    int64_t take_over_by_ms_ = 0;
    std::function<void()> on_serving_;
    int64_t handed_over_ms_ = 0;  // when; 0: not
    bool asked_to_stop_ = false;
    http::Timer tick_;
    http::Timer second_;
    http::Timer drain_timer_;
    bool connections_done_ = false;
};

}  // namespace parley::chatd
