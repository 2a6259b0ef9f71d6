// Requests a second through the router on one core, sockets and all: hidden, run by
// tests/bench/router_rate.py. The router is a process of its own, bound to one core with its I/O thread;
// simulated workers (one event, one END, no work) and the asker are another, on the other cores.
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdio>

#include "dispatch/router.hpp"
#include "pipe/loop.hpp"

using namespace parley;
using namespace parley::dispatch;

namespace {

struct NoModels final : ModelSink {
    void on_models(pipe::Peer, const pipe::HelloMeta&) override {}
    void on_tokenizer(pipe::Peer, const std::string&, std::string) override {}
    void on_worker(const std::string&, bool, const std::string&) override {}
};

struct Idle final : pipe::AnswererHandler {
    std::unique_ptr<pipe::Answerer> answerer;
    void on_ask(pipe::Ask ask) override {
        (void)answerer->event(ask.id, {}, R"({"type":"message_stop"})");
        pipe::EndMeta end;
        end.cost_s = 0.001;
        answerer->end(ask.id, end);
    }
    void on_cancel(const std::string&, uint32_t, pipe::Cancel) override {}
};

struct Client final : pipe::AskerHandler {
    uint64_t good = 0, bad = 0;
    void on_event(const std::string&, const pipe::EventMeta&, std::string) override {}
    void on_end(const std::string&, const pipe::EndMeta& meta) override { ++(meta.ok() ? good : bad); }
};

void only_core(int first, int last) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int core = first; core <= last; ++core) CPU_SET(core, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

[[noreturn]] void run_router(const std::string& up, const std::string& down) {
    only_core(0, 0);
    pipe::Context context;
    NoModels models;
    RouterOptions options;
    options.scheduler.admission.predict = false;
    Router router(options, models);
    pipe::AnswererOptions askers;
    askers.link.endpoint = up;
    askers.link.bind = true;
    askers.link.hello.name = "router";
    askers.requests_max = 16'384;
    pipe::AskerOptions workers;
    workers.link.endpoint = down;
    workers.link.bind = true;
    workers.link.hello.name = "router";
    auto asker_side = pipe::Answerer::open(context, askers, router.asker_side());
    auto worker_side = pipe::Asker::open(context, workers, router.worker_side());
    if (!asker_side || !worker_side) ::_exit(1);
    router.connect(**asker_side, **worker_side);
    pipe::Loop loop;
    loop.add((*asker_side)->link());
    loop.add((*worker_side)->link());
    loop.every(20, [&] {
        (*worker_side)->tick();
        router.tick();
    });
    loop.run();  // until it is killed
    ::_exit(0);
}

}  // namespace

TEST_CASE("requests a second through the router on one core", "[.][rate]") {
    constexpr uint64_t kRequests = 200'000, kInFlight = 2048;
    constexpr int kWorkers = 8, kOrgs = 1000;
    char name[] = "/tmp/parley-rate-XXXXXX";
    const std::string folder = ::mkdtemp(name);
    const std::string up = "ipc://" + folder + "/up", down = "ipc://" + folder + "/down";
    const pid_t child = ::fork();
    if (child == 0) run_router(up, down);
    only_core(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)) - 1);
    pipe::Context context;
    std::vector<std::unique_ptr<Idle>> workers;
    pipe::Loop loop;
    for (int i = 0; i < kWorkers; ++i) {
        auto worker = std::make_unique<Idle>();
        pipe::AnswererOptions options;
        options.link.endpoint = down;
        options.link.hello.name = "w" + std::to_string(i);
        options.link.hello.slots = 128;
        options.link.hello.models = {{"hash", "model", "llama", 100, 100}};
        worker->answerer = std::move(*pipe::Answerer::open(context, options, *worker));
        loop.add(worker->answerer->link());
        workers.push_back(std::move(worker));
    }
    Client client;
    pipe::AskerOptions options;
    options.link.endpoint = up;
    options.link.hello.name = "filter";
    auto asker = std::move(*pipe::Asker::open(context, options, client));
    loop.add(asker->link());
    const auto now = [] { return base::system_clock().mono_ms(); };
    const int64_t give_up = now() + 120'000;
    const auto ready = now() + 1000;
    while (!asker->up() || now() < ready) loop.run_once(10);
    uint64_t sent = 0;
    const std::string text(300, 'x');
    int64_t start = now();
    while (client.good + client.bad < kRequests && now() < give_up) {
        while (sent < kRequests && asker->live() < kInFlight) {
            pipe::Envelope envelope;
            envelope.org = "org-" + std::to_string(sent * 7919 % kOrgs);
            envelope.credit = 64;
            REQUIRE(asker
                        ->ask("request-" + std::to_string(sent), envelope,
                              R"({"model":"model","max_tokens":16,"messages":[{"role":"user","content":")" +
                                  text + "\"}]}")
                        .has_value());
            ++sent;
        }
        loop.run_once(5);
    }
    const double wall_s = static_cast<double>(now() - start) * 1e-3;
    ::kill(child, SIGKILL);
    int status = 0;
    rusage used{};
    ::wait4(child, &status, 0, &used);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
    const double cpu_s = seconds(used.ru_utime) + seconds(used.ru_stime);
    std::printf("{\"requests\":%lu,\"failed\":%lu,\"per_s\":%.0f,\"router_cpu_us\":%.2f,\"per_core_s\":%.0f}\n",
                static_cast<unsigned long>(client.good), static_cast<unsigned long>(client.bad),
                static_cast<double>(client.good) / wall_s, cpu_s / static_cast<double>(client.good) * 1e6,
                static_cast<double>(client.good) / cpu_s);
    CHECK(client.bad == 0);
    CHECK(client.good == kRequests);
}
