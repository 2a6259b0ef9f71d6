// Client and server over real sockets, with the server killed under way.
#include "store/server.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/check.hpp"
#include "store/client.hpp"
#include "store/fixture.hpp"
#include "store/follower.hpp"

using namespace parley;
using namespace parley::store;

namespace {

struct Place {
    TempDir dir;
    std::string endpoint() const { return "ipc://" + dir.path() + "/commands.sock"; }
    std::string changes() const { return "ipc://" + dir.path() + "/changes.sock"; }
    std::string store() const { return dir.path() + "/store"; }
    Place() { ::chmod(dir.path().c_str(), 0700); }
};

// A server in a process of its own, until killed.
pid_t start(const Place& place) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    pipe::Context context;
    pipe::Loop loop;
    telemetry::Registry metrics;
    ServerOptions options;
    options.writer.env.dir = place.store();
    options.writer.env.map_bytes = 64u << 20;
    options.endpoint = place.endpoint();
    options.changes_endpoint = place.changes();
    auto server = Server::open(context, loop, options, metrics);
    if (!server) {
        ::write(2, server.error().what.data(), server.error().what.size());
        ::_exit(1);
    }
    while ((*server)->run_once(25)) {
    }
    ::_exit(2);
}
void stop(pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
}
void wait_and_step(Client& client) {
    pollfd fd{client.fd(), POLLIN, 0};
    ::poll(&fd, 1, 2);
    client.step();
}

}  // namespace

TEST_CASE("each command is answered once and in order, though the server is killed three times",
          "[store]") {
    Place place;
    pid_t server = start(place);
    auto client = Client::connect({.endpoint = place.endpoint(), .name = "test"});
    REQUIRE(client);
    constexpr int kCommands = 3000;
    int submitted = 0, kills = 0;
    std::vector<int> answered;
    std::vector<std::string> orgs(kCommands);
    const int64_t until = base::system_clock().mono_ms() + 60'000;
    while (static_cast<int>(answered.size()) < kCommands &&
           base::system_clock().mono_ms() < until) {
        while (submitted < kCommands && (*client)->pending() < 200) {
            const int n = submitted++;
            auto queued = (*client)->submit(OrgCreate{.name = "org-" + std::to_string(n)}.json(),
                                            [&, n](const CommandReply& reply) {
                                                // "exists" would be a command that ran twice.
                                                if (reply.ok())
                                                    orgs[static_cast<size_t>(n)] =
                                                        text_at(reply.json, "/org");
                                                answered.push_back(n);
                                            });
            if (!queued) break;
        }
        wait_and_step(**client);
        if (kills < 3 && static_cast<int>(answered.size()) > (kills + 1) * 700) {
            ++kills;
            stop(server);
            server = start(place);
        }
    }
    REQUIRE(kills == 3);
    REQUIRE(answered.size() == kCommands);
    for (int n = 0; n < kCommands; ++n) {
        REQUIRE(answered[static_cast<size_t>(n)] == n);
        REQUIRE_FALSE(orgs[static_cast<size_t>(n)].empty());
    }
    // A read begun after the reply sees the write.
    auto reader = open_reader(place.store());
    REQUIRE((*reader)->orgs()->size() == kCommands);
    REQUIRE(*(*reader)->last_change() == kCommands);
    stop(server);
}

TEST_CASE("a refusal arrives with its code, reason and words", "[store]") {
    Place place;
    const pid_t server = start(place);
    auto client = Client::connect({.endpoint = place.endpoint(), .name = "test"});
    auto made = (*client)->call(OrgCreate{.name = "a"}.json(), 5000);
    REQUIRE(made);
    REQUIRE(made->ok());
    REQUIRE(made->change_seq == 1);
    auto again = (*client)->call(OrgCreate{.name = "a"}.json(), 5000);
    REQUIRE(again);
    REQUIRE(again->error->code == Errc::conflict);
    REQUIRE(again->reason == "exists");
    REQUIRE(again->error->what.find("'a'") != std::string::npos);
    REQUIRE((*client)->call("nonsense", 5000)->error->code == Errc::invalid);
    stop(server);
}

TEST_CASE("while the server is away commands queue to a bound, and their deadline holds",
          "[store]") {
    Place place;
    auto client = Client::connect({.endpoint = place.endpoint(), .name = "test", .queue_max = 3});
    int timeouts = 0, answered = 0;
    const auto count = [&](const CommandReply& reply) {
        if (reply.ok())
            ++answered;
        else if (reply.error->code == Errc::timeout)
            ++timeouts;
    };
    REQUIRE((*client)->submit(OrgCreate{.name = "late"}.json(), count, 50));
    REQUIRE((*client)->submit(OrgCreate{.name = "a"}.json(), count));
    REQUIRE((*client)->submit(OrgCreate{.name = "b"}.json(), count));
    REQUIRE((*client)->submit(OrgCreate{.name = "c"}.json(), count).error().code == Errc::again);
    REQUIRE((*client)->submit(std::string(9u << 20, ' '), count).error().code == Errc::too_large);
    REQUIRE_FALSE((*client)->connected());
    const int64_t until = base::system_clock().mono_ms() + 10'000;
    while (timeouts == 0 && base::system_clock().mono_ms() < until) wait_and_step(**client);
    REQUIRE(timeouts == 1);
    REQUIRE((*client)->pending() == 2);
    const pid_t server = start(place);
    while (answered < 2 && base::system_clock().mono_ms() < until) wait_and_step(**client);
    REQUIRE(answered == 2);
    auto reader = open_reader(place.store());
    REQUIRE((*reader)->orgs()->size() == 2);
    stop(server);
    REQUIRE((*client)->call(OrgCreate{.name = "d"}.json(), 100).error().code == Errc::unavailable);
}

TEST_CASE("a follower sees every change once, in order, over restarts of both sides", "[store]") {
    Place place;
    pid_t server = start(place);
    auto client = Client::connect({.endpoint = place.endpoint(), .name = "test"});
    REQUIRE((*client)->call(OrgCreate{.name = "first"}.json(), 5000));
    const std::string cursor = place.dir.path() + "/cursor";
    std::vector<uint64_t> seen;
    int made = 1;
    const int64_t until = base::system_clock().mono_ms() + 30'000;
    for (int life = 0; life < 4; ++life) {
        auto reader = open_reader(place.store());
        REQUIRE(reader);
        auto follower = Follower::open(
            **reader, {.changes_endpoint = place.changes(), .after = *load_cursor(cursor)});
        REQUIRE(follower);
        // Half of it is committed while nobody follows.
        for (int i = 0; i < 20; ++i, ++made)
            REQUIRE((*client)->call(OrgCreate{.name = "org" + std::to_string(made)}.json(), 5000));
        if (life == 2) {
            stop(server);
            server = start(place);
        }
        while ((*follower)->position() < static_cast<uint64_t>(made) &&
               base::system_clock().mono_ms() < until) {
            auto changes = (*follower)->next();
            REQUIRE(changes);
            for (const auto& change : *changes) seen.push_back(change.seq);
            if (changes->empty()) (*follower)->wait(-1);
        }
        REQUIRE(save_cursor(cursor, (*follower)->position()));
    }
    REQUIRE(seen.size() == static_cast<size_t>(made));
    for (size_t i = 0; i < seen.size(); ++i) REQUIRE(seen[i] == i + 1);
    stop(server);
}

TEST_CASE("a published change reaches a follower without waiting for its poll", "[store]") {
    Place place;
    const pid_t server = start(place);
    auto client = Client::connect({.endpoint = place.endpoint(), .name = "test"});
    REQUIRE((*client)->call(OrgCreate{.name = "first"}.json(), 5000));
    auto reader = open_reader(place.store());
    auto follower = Follower::open(
        **reader, {.changes_endpoint = place.changes(), .after = 0, .poll_ms = 20'000});
    const int64_t until = base::system_clock().mono_ms() + 5000;
    // A subscription takes a moment to arrive: changes are made until one is announced.
    int woken = 0;
    for (int n = 0; woken == 0 && base::system_clock().mono_ms() < until; ++n) {
        while (!(*follower)->next()->empty()) {
        }
        REQUIRE((*client)->call(OrgCreate{.name = "n" + std::to_string(n)}.json(), 5000));
        pollfd fd{(*follower)->fd(), POLLIN, 0};
        if (::poll(&fd, 1, 200) == 1) woken = !(*follower)->next()->empty();
    }
    REQUIRE(woken == 1);
    stop(server);
}
