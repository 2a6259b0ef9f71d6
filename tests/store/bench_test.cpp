// Hidden: `store_test "[bench]"`. Commands a second and their latency through real sockets, on a real
// disk ($PARLEY_BENCH_DIR, default the working folder). Says numbers, asserts only that all were answered.
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "store/client.hpp"
#include "store/fixture.hpp"
#include "store/server.hpp"

using namespace parley;
using namespace parley::store;

namespace {

struct BenchPlace {
    std::string dir;
    BenchPlace() {
        const char* base = ::getenv("PARLEY_BENCH_DIR");
        std::string name = std::string(base ? base : ".") + "/store-bench-XXXXXX";
        dir = ::realpath(::mkdtemp(name.data()), nullptr);
    }
    ~BenchPlace() {
        std::error_code ignored;
        std::filesystem::remove_all(dir, ignored);
    }
};

double percentile(std::vector<double> values, double share) {
    std::ranges::sort(values);
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace

TEST_CASE("bench: commands a second and their latency", "[.][bench]") {
    BenchPlace place;
    const std::string endpoint = "ipc://" + place.dir + "/c.sock";
    const pid_t child = ::fork();
    if (child == 0) {
        pipe::Context context;
        pipe::Loop loop;
        telemetry::Registry metrics;
        ServerOptions options;
        options.writer.env.dir = place.dir + "/store";
        options.endpoint = endpoint;
        options.changes_endpoint = "ipc://" + place.dir + "/p.sock";
        auto server = Server::open(context, loop, options, metrics);
        while (server && (*server)->run_once(25)) {
        }
        ::_exit(1);
    }
    auto client = Client::connect({.endpoint = endpoint, .name = "bench"});
    const auto call = [&](const std::string& body) {
        auto reply = (*client)->call(body, 10'000);
        REQUIRE(reply);
        REQUIRE(reply->ok());
        return reply->json;
    };
    const Ulid org = *parse_id(kOrg, text_at(call(OrgCreate{.name = "bench"}.json()), "/org"));
    const Ulid user = user_id(org, "u");
    const auto now_ms = [] { return static_cast<double>(base::system_clock().mono_ns()) / 1e6; };

    // One at a time: a send, as a person waits for it.
    std::vector<Ulid> answers;
    std::vector<double> latency;
    for (int i = 0; i < 64; ++i) {
        const auto made =
            call(ConversationCreate{.org = org, .user = user, .user_name = "u"}.json());
        Send send;
        send.org = org;
        send.user = user;
        send.conv = *parse_id(kConv, text_at(made, "/conversation/id"));
        send.content = R"([{"type":"text","text":"How do I boil an egg?"}])";
        send.owner = "bench";
        const double begun = now_ms();
        answers.push_back(*parse_id(kMsg, text_at(call(send.json()), "/message/id")));
        latency.push_back(now_ms() - begun);
    }
    std::printf("send, one at a time: p50 %.2f ms, p90 %.2f ms, p99 %.2f ms\n",
                percentile(latency, 0.5), percentile(latency, 0.9), percentile(latency, 0.99));

    // Many: the journals of 64 answers.
    constexpr int kAppends = 20'000;
    int answered = 0, submitted = 0, refused = 0;
    latency.clear();
    const double begun = now_ms();
    while (answered < kAppends && now_ms() - begun < 120'000) {
        while (submitted < kAppends && (*client)->pending() < 1000) {
            const auto turn = static_cast<uint32_t>(submitted / 64);
            const Append append = Fixture::piece(answers[static_cast<size_t>(submitted % 64)],
                                                 turn + 1, turn * 12, "twelve bytes", 1, "bench");
            ++submitted;
            const double sent = now_ms();
            REQUIRE((*client)->submit(append.json(), [&, sent](const CommandReply& reply) {
                ++answered;
                refused += reply.ok() ? 0 : 1;
                latency.push_back(now_ms() - sent);
            }));
        }
        pollfd fd{(*client)->fd(), POLLIN, 0};
        ::poll(&fd, 1, 1);
        (*client)->step();
    }
    const double spent = now_ms() - begun;
    std::printf("append, 1,000 under way: %.0f a second, p50 %.1f ms, p99 %.1f ms\n",
                kAppends / spent * 1000, percentile(latency, 0.5), percentile(latency, 0.99));
    REQUIRE(answered == kAppends);
    REQUIRE(refused == 0);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
}
