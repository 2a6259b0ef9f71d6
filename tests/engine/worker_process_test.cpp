// infer-worker serve from outside: real sockets, real signals, the real model.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>

#include "messages/events.hpp"
#include "model/artifact.hpp"
#include "pipe/asker.hpp"
#include "pipe/loop.hpp"
#include "support/model_file.hpp"

extern char** environ;

using namespace parley;

namespace {

const std::string kBinary = PARLEY_BINARY_DIR "/bin/infer-worker";

// A folder of its own, and a worker that says when it is ready.
struct Process {
    std::string dir;
    int notify = -1;
    pid_t pid = -1;

    Process() {
        char name[] = "/tmp/parley-worker-XXXXXX";
        dir = mkdtemp(name);
    }
    ~Process() {
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
        }
        if (notify >= 0) close(notify);
        std::filesystem::remove_all(dir);
    }
    void start(const std::string& model, std::vector<std::string> arguments) {
        notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const std::string path = dir + "/notify";
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(bind(notify, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        std::vector<std::string> all = {kBinary, "serve", "--model", model, "--kv-blocks", "512"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        std::vector<char*> argv;
        for (std::string& a : all) argv.push_back(a.data());
        argv.push_back(nullptr);
        std::vector<std::string> env = {"NOTIFY_SOCKET=" + path, "PARLEY_STATE=" + dir};
        std::vector<char*> envp;
        for (std::string& e : env) envp.push_back(e.data());
        envp.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 2, (dir + "/log").c_str(),
                                         O_WRONLY | O_CREAT | O_TRUNC, 0600);
        REQUIRE(posix_spawn(&pid, kBinary.c_str(), &actions, nullptr, argv.data(), envp.data()) ==
                0);
        posix_spawn_file_actions_destroy(&actions);
    }
    bool said(const std::string& word) {
        char buffer[256];
        const ssize_t n = recv(notify, buffer, sizeof buffer, MSG_DONTWAIT);
        return n > 0 && std::string(buffer, static_cast<size_t>(n)).find(word) != std::string::npos;
    }
    // The exit status; -1 when it did not end in time or by a signal.
    int wait_ms(int most_ms) {
        for (int waited = 0; waited < most_ms; waited += 10) {
            int status = 0;
            if (waitpid(pid, &status, WNOHANG) == pid) {
                pid = -1;
                return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
            }
            usleep(10'000);
        }
        return -1;
    }
};

struct Client final : pipe::AskerHandler {
    struct Case {
        messages::EventOrder order;
        std::string text;
        int deltas = 0;
        std::optional<pipe::EndMeta> end;
        std::vector<int64_t> lag_ns;  // from the worker's stamp to our receipt
    };
    pipe::Context context;  // outlives its sockets
    std::map<std::string, Case> cases;
    std::unique_ptr<pipe::Asker> asker;
    pipe::Loop loop;
    bool grants = true;
    std::string tok, tok_hash;
    pipe::HelloMeta peer;
    int statuses = 0;
    bool bye = false;

    void open(const std::string& endpoint, bool bind) {
        pipe::AskerOptions options;
        options.link.endpoint = endpoint;
        options.link.bind = bind;
        options.link.hello.name = "test";
        auto opened = pipe::Asker::open(context, options, *this);
        REQUIRE(opened);
        asker = std::move(*opened);
        loop.add(asker->link());
    }
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override {
        Case& c = cases[id];
        const auto event = messages::parse_event(body);
        if (!event || !c.order.next(*event)) return asker->cancel(id, "grammar");
        if (event->type == messages::EventType::content_block_delta) {
            c.text += event->text;
            ++c.deltas;
            c.lag_ns.push_back(base::system_clock().mono_ns() - meta.stamp_ns);
        }
        if (grants) asker->grant(id, 1);
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override { cases[id].end = meta; }
    void on_peer_up(pipe::Peer, const pipe::HelloMeta& hello) override { peer = hello; }
    void on_peer_hello(pipe::Peer, const pipe::HelloMeta& hello, std::string body) override {
        tok_hash = hello.tok;
        tok = std::move(body);
    }
    void on_peer_status(pipe::Peer, const pipe::StatusMeta&) override { ++statuses; }
    void on_peer_bye(pipe::Peer, const pipe::ByeMeta&) override { bye = true; }

    void ask(const std::string& id, uint32_t max_tokens, pipe::Envelope envelope = {}) {
        if (!envelope.seed) envelope.seed = 1;
        REQUIRE(asker->ask(
            id, envelope,
            R"({"model":"m","temperature":0,"max_tokens":)" + std::to_string(max_tokens) +
                R"(,"messages":[{"role":"user","content":"Write a long story."}]})"));
    }
    template <class Done>
    bool until(Done done, int most_ms = 10'000) {
        const int64_t end = base::system_clock().mono_ms() + most_ms;
        while (!done()) {
            if (base::system_clock().mono_ms() > end) return false;
            loop.run_once(20);
            asker->tick();
        }
        return true;
    }
};

// Empty after a SKIPPED line, if something that this needs is missing.
std::string needed() {
    if (access(kBinary.c_str(), X_OK) != 0) {
        WARN("SKIPPED: " << kBinary << " is not built");
        return "";
    }
    return test::model_file();
}

}  // namespace

TEST_CASE("a worker with its own front answers, cancels, holds and drains", "[process]") {
    const std::string model = needed();
    if (model.empty()) return;
    Process worker;
    const std::string endpoint = "ipc://" + worker.dir + "/front.sock";
    const int64_t started_ms = base::system_clock().mono_ms();
    worker.start(model, {"--bind", endpoint, "--drain-timeout", "300ms"});
    Client client;
    while (!worker.said("READY=1")) {
        REQUIRE(base::system_clock().mono_ms() - started_ms < 10'000);
        usleep(5'000);
    }
    // Alone it takes 0.3 s; other tests may share the cores.
    CHECK(base::system_clock().mono_ms() - started_ms < 4'000);
    client.open(endpoint, false);
    REQUIRE(client.until([&] { return client.asker->up(); }));

    client.ask("req_a", 20);
    REQUIRE(client.until([&] { return client.cases["req_a"].end.has_value(); }));
    const auto a = client.cases["req_a"];
    CHECK(a.end->ok());
    CHECK(a.order.finished());
    CHECK(a.deltas > 10);
    CHECK(a.end->usage->output_tokens == 20);
    // An answer of 20 tokens may be over before the first heartbeat is due.
    CHECK(client.until([&] { return client.statuses > 0; }, 1000));

    // The same question again, cancelled in the middle: what came is the beginning.
    client.ask("req_b", 2000);
    REQUIRE(client.until([&] { return client.cases["req_b"].deltas >= 5; }));
    client.asker->cancel("req_b", "test");
    REQUIRE(client.until([&] { return client.cases["req_b"].end.has_value(); }, 1000));
    const auto& b = client.cases["req_b"];
    CHECK(b.end->status == "cancelled");
    CHECK(b.text.substr(0, a.text.size()) == a.text.substr(0, b.text.size()));
    CHECK(b.end->usage->output_tokens < 500);

    // Without credit it stands still; another goes on beside it.
    client.grants = false;
    pipe::Envelope four;
    four.credit = 4;
    client.ask("req_c", 30, four);
    client.ask("req_d", 20);
    REQUIRE(client.until([&] { return client.cases["req_d"].end.has_value(); }));
    CHECK(client.cases["req_d"].end->ok());
    CHECK(client.cases["req_d"].text == a.text);
    CHECK(client.cases["req_c"].deltas == 2);
    client.asker->grant("req_c", 100);
    REQUIRE(client.until([&] { return client.cases["req_c"].end.has_value(); }));
    CHECK(client.cases["req_c"].end->ok());
    client.grants = true;

    // SIGTERM: what runs may go on for the drain time, then ends retryable; the exit status is 0.
    client.ask("req_e", 4000);
    REQUIRE(client.until([&] { return client.cases["req_e"].deltas >= 2; }));
    kill(worker.pid, SIGTERM);
    REQUIRE(client.until([&] { return client.cases["req_e"].end.has_value(); }, 3000));
    CHECK(client.bye);
    CHECK(client.cases["req_e"].end->retryable);
    CHECK(client.cases["req_e"].end->reason == "draining");
    CHECK(worker.wait_ms(3000) == 0);
}

TEST_CASE(
    "a worker joins a router, sends its tokenizer on request, and goes on where another stopped",
    "[process]") {
    const std::string model = needed();
    if (model.empty()) return;
    Process worker;
    std::filesystem::create_directories(worker.dir + "/run");
    chmod((worker.dir + "/run").c_str(), 0700);
    Client router;
    router.open("ipc://" + worker.dir + "/run/workers.sock", true);
    worker.start(model, {"--name", "w7"});
    REQUIRE(router.until([&] { return router.asker->up(); }));
    REQUIRE(router.until([&] { return worker.said("READY=1"); }));
    CHECK(router.peer.name == "w7");
    CHECK(router.peer.slots == 16);
    REQUIRE(router.peer.models.size() == 1);
    CHECK(router.peer.models[0].context_tokens == 8192);

    pipe::HelloMeta hello = router.asker->link().self();
    hello.need = {router.peer.models[0].hash};
    router.asker->link().say_hello(hello);
    REQUIRE(router.until([&] { return !router.tok.empty(); }));
    CHECK(router.tok_hash == router.peer.models[0].hash);
    const auto artifact = model::Artifact::parse(router.tok);
    REQUIRE(artifact);
    CHECK(artifact->hash() == router.peer.models[0].hash);

    // asker->ask() needs the peer where the link binds: there is one.
    const pipe::Peer peer = router.asker->link().peers().at(0);
    const std::string body =
        R"({"model":"m","max_tokens":30,"messages":[{"role":"user","content":"Hello there"}]})";
    pipe::Envelope envelope;
    envelope.seed = 5;
    REQUIRE(router.asker->ask(peer, "req_a", envelope, body));
    REQUIRE(router.until([&] { return router.cases["req_a"].end.has_value(); }));
    REQUIRE(router.cases["req_a"].end->ok());
    std::vector<int64_t> lag = router.cases["req_a"].lag_ns;
    std::sort(lag.begin(), lag.end());
    INFO("median from the worker's stamp to receipt: " << lag[lag.size() / 2] / 1000 << " us");
    CHECK(lag[lag.size() / 2] < 20'000'000);

    kill(worker.pid, SIGTERM);
    CHECK(worker.wait_ms(5000) == 0);
}
