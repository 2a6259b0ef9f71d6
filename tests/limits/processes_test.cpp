// Several processes on one table: at once, killed, stopped.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "limits/table.hpp"
#include "support.hpp"

using namespace parley;
using namespace parley::limits;

namespace {

// Memory that children write and the parent reads.
template <class T>
struct Shared {
    explicit Shared(size_t n) : count(n) {
        void* memory = ::mmap(nullptr, n * sizeof(T), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        data = static_cast<T*>(memory);
    }
    ~Shared() { ::munmap(data, count * sizeof(T)); }
    T* data;
    size_t count;
};

// What one child does: random admissions on one shared key for `ms`, then exit.
struct Log {
    std::atomic<uint32_t> count;
    Admitted entries[20'000];
};

void traffic(const Options& options, const Subject& key, int64_t ms, unsigned seed, Log& log,
             std::atomic<int64_t>& running, std::atomic<int64_t>& most) {
    std::mt19937 random(seed);
    auto limiter = Limiter::open(options, base::system_clock());
    if (!limiter) ::_exit(2);
    const int64_t until = base::system_clock().mono_ms() + ms;
    std::vector<std::pair<Hold, uint32_t>> live;
    while (base::system_clock().mono_ms() < until) {
        const uint64_t amount = random() % 200;
        if (auto hold = (*limiter)->admit(&key, 1, tokens(amount))) {
            const int64_t now = running.fetch_add(1) + 1;
            for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
            }
            const uint32_t at = log.count.load();
            if (at >= std::size(log.entries)) ::_exit(3);
            log.entries[at] = {hold->at_ns, amount};
            log.count = at + 1;
            live.emplace_back(*hold, at);
        }
        if (live.size() > 3 || (!live.empty() && random() % 3 == 0)) {
            auto& [hold, at] = live.front();
            const uint64_t used = random() % (log.entries[at].amount + 1);
            log.entries[at].amount = used;
            --running;  // before the place is free: never counted too low
            (*limiter)->settle(hold, tokens(used));
            live.erase(live.begin());
        }
    }
    ::_exit(0);
}

}  // namespace

TEST_CASE("four processes at once stay within burst + rate · T in every window", "[limits]") {
    Folder folder;
    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    const Options options = folder.options();
    Limits limits;
    limits.requests = {60'000, 50};
    limits.output_tokens = {3'000'000, 2000};
    limits.concurrent = 9;
    const Subject key = subject("a", limits);
    { opened(options, base::system_clock()); }
    constexpr int kChildren = 4;
    Shared<Log> logs(kChildren);
    Shared<std::atomic<int64_t>> counts(2);
    std::vector<pid_t> children;
    for (int i = 0; i < kChildren; ++i) {
        const pid_t child = ::fork();
        if (child == 0)
            traffic(options, key, 1200, seed + static_cast<unsigned>(i), logs.data[i],
                    counts.data[0], counts.data[1]);
        children.push_back(child);
    }
    for (const pid_t child : children) {
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    std::vector<Admitted> asked, got;
    for (int i = 0; i < kChildren; ++i) {
        CHECK(logs.data[i].count > 10);
        for (uint32_t at = 0; at < logs.data[i].count; ++at) {
            got.push_back(logs.data[i].entries[at]);
            asked.push_back({logs.data[i].entries[at].at_ns, 1});
        }
    }
    CHECK(worst_excess(asked, limits.requests) == 0);
    CHECK(worst_excess(got, limits.output_tokens) == 0);
    CHECK(counts.data[1] <= 9);
    // They were not idle either: the limit was met, not merely kept.
    CHECK(asked.size() > 600);
}

TEST_CASE("what a killed process held is given back, what it had used is not", "[limits]") {
    Folder folder;
    const Options options = folder.options();
    const auto limiter = opened(options, base::system_clock());
    const Subject key = subject("a", output(1000));
    const pid_t child = ::fork();
    if (child == 0) {
        auto own = Limiter::open(options, base::system_clock());
        if (!own) ::_exit(1);
        auto hold = (*own)->admit(&key, 1, tokens(900));
        if (hold) (*own)->consume(*hold, tokens(300));
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK_FALSE(limiter->admit(&key, 1, tokens(500)));
    CHECK(limiter->concurrent(key) == 1);
    CHECK(limiter->reclaim() == 1);
    CHECK(limiter->concurrent(key) == 0);
    const uint64_t remaining = limiter->state(key, Kind::output_tokens)->remaining;
    CHECK(remaining >= 700);
    CHECK(remaining < 800);
    CHECK(limiter->reclaim() == 0);
}

TEST_CASE("processes killed at random moments leave nothing half-made", "[limits]") {
    Folder folder;
    const Options options = folder.options();
    const auto limiter = opened(options, base::system_clock());
    Limits limits;
    limits.output_tokens = {60'000'000'000'000, 0};  // gives back within the test
    limits.concurrent = 1000;
    const Subject key = subject("a", limits);
    std::mt19937 random(7);
    for (int round = 0; round < 60; ++round) {
        const pid_t child = ::fork();
        if (child == 0) {
            auto own = Limiter::open(options, base::system_clock());
            if (!own) ::_exit(1);
            std::vector<Hold> live;
            for (unsigned i = 0;; ++i) {
                if (auto hold = (*own)->admit(&key, 1, tokens(i % 100))) live.push_back(*hold);
                if (live.size() < 5) continue;
                (*own)->consume(live.front(), tokens(1));
                (*own)->settle(live.front(), tokens(1));
                live.erase(live.begin());
            }
        }
        ::usleep(2000 + random() % 3000);
        ::kill(child, SIGKILL);
        REQUIRE(::waitpid(child, nullptr, 0) == child);
        limiter->reclaim();
        REQUIRE(limiter->concurrent(key) == 0);
        REQUIRE(limiter->reservations() == 0);
        ::usleep(1000);
        REQUIRE(limiter->state(key, Kind::output_tokens)->remaining ==
                limits.output_tokens.per_minute);
    }
}

TEST_CASE("a step that its process could not end is undone by the next", "[limits]") {
    Folder folder;
    const Options options = folder.options();
    const auto limiter = opened(options, base::system_clock());
    const Subject key = subject("a", output(1000));
    REQUIRE(limiter->admit(&key, 1, tokens(100)));
    const pid_t child = ::fork();
    if (child == 0) {
        auto table = Table::open(options);
        if (!table) ::_exit(1);
        // NOLINTNEXTLINE(bugprone-unused-raii): it dies with it
        new Table::Locked(**table);
        Slot* slot = (*table)->find(key.id, 1, false);
        (*table)->put(slot->held[2], 999);
        (*table)->put(slot->live, 77);
        (*table)->put(slot->held[2], 5);
        ::kill(::getpid(), SIGKILL);
    }
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(limiter->concurrent(key) == 1);
    CHECK(limiter->state(key, Kind::output_tokens)->remaining == 900);
}

TEST_CASE("a stopped process that keeps the lock costs a bounded wait, and no count", "[limits]") {
    Folder folder;
    const Options options = folder.options();
    const auto limiter = opened(options, base::system_clock());
    const Subject key = subject("a", output(1000));
    auto hold = limiter->admit(&key, 1, tokens(100));
    REQUIRE(hold);
    const pid_t child = ::fork();
    if (child == 0) {
        auto table = Table::open(options);
        if (!table) ::_exit(1);
        new Table::Locked(**table);
        ::kill(::getpid(), SIGSTOP);
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, WUNTRACED) == child);
    REQUIRE(WIFSTOPPED(status));
    const int64_t since = base::system_clock().mono_ms();
    CHECK(limiter->admit(&key, 1, tokens(1)).error().why == Why::busy);
    CHECK_FALSE(limiter->consume(*hold, tokens(1)));
    limiter->settle(*hold, tokens(40));
    CHECK(base::system_clock().mono_ms() - since < 1000);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(limiter->concurrent(key) == 1);
    limiter->reclaim();  // what was settled meanwhile is done now
    CHECK(limiter->concurrent(key) == 0);
    CHECK(limiter->state(key, Kind::output_tokens)->remaining < 970);
}
