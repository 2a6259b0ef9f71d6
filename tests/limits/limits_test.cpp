#include "limits/limits.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <random>

#include "limits/table.hpp"

using namespace parley;
using namespace parley::limits;
using Why = Refusal::Why;

namespace {

struct Folder {
    Folder() {
        char name[] = "/tmp/parley-limits-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~Folder() { (void)std::system(("rm -rf " + path).c_str()); }
    std::string path;
    Options options(uint32_t subjects = 1024, uint32_t reservations = 1024) const {
        return {path + "/limits", subjects, reservations};
    }
};

std::unique_ptr<Limiter> opened(const Options& options, const base::Clock& clock,
                                bool warm = true) {
    auto limiter = Limiter::open(options, clock);
    if (!limiter) FAIL(limiter.error().what);
    if (warm && (*limiter)->begin_refill()) (*limiter)->end_refill();
    return std::move(*limiter);
}

Subject subject(std::string_view name, Limits limits) {
    Subject subject;
    subject.id = subject_id("key", name);
    subject.limits = limits;
    return subject;
}
Limits requests(uint64_t per_minute, uint64_t burst = 0) {
    Limits limits;
    limits.requests = {per_minute, burst};
    return limits;
}
Limits output(uint64_t per_minute, uint64_t burst = 0) {
    Limits limits;
    limits.output_tokens = {per_minute, burst};
    return limits;
}
Demand tokens(uint64_t out, uint64_t in = 0) { return {in, out, 0, true}; }

struct Admitted {
    int64_t at_ns;
    uint64_t amount;
};

// Every window [s, e]: sum ≤ burst + rate · (T + 1 ns), in whole numbers. The worst excess in tokens, or 0.
double worst_excess(std::vector<Admitted> all, const Rate& rate) {
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.at_ns < b.at_ns; });
    constexpr __int128 kMinute = 60'000'000'000;
    __int128 sum = 0, least = 0, worst = 0;
    bool first = true;
    for (const Admitted& each : all) {
        const __int128 opens = sum * kMinute - static_cast<__int128>(rate.per_minute) * each.at_ns;
        least = first ? opens : std::min(least, opens);
        first = false;
        sum += each.amount;
        const __int128 used =
            sum * kMinute - static_cast<__int128>(rate.per_minute) * each.at_ns - least;
        worst =
            std::max(worst, used - static_cast<__int128>(rate.most()) * kMinute - rate.per_minute);
    }
    return static_cast<double>(worst) / static_cast<double>(kMinute);
}

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

}  // namespace

TEST_CASE("a bucket admits its burst, then refuses with the wait that is true", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    const Subject key = subject("a", requests(60, 3));
    for (int i = 0; i < 3; ++i) REQUIRE(limiter->admit(&key, 1, {}));
    const auto refused = limiter->admit(&key, 1, {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().why == Why::limit);
    CHECK(refused.error().kind == Kind::requests);
    CHECK_FALSE(refused.error().never);
    CHECK(refused.error().wait_ns == 1'000'000'000);
    clock.advance_ms(999);
    CHECK_FALSE(limiter->admit(&key, 1, {}));
    clock.advance_ms(1);
    CHECK(limiter->admit(&key, 1, {}));
    CHECK_FALSE(limiter->admit(&key, 1, {}));
    // Another key is another bucket.
    const Subject other = subject("b", requests(60, 3));
    CHECK(limiter->admit(&other, 1, {}));
}

TEST_CASE("a burst of one is admitted at any rate", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    for (const uint64_t rate : {1, 7, 23, 527, 60'001, 999'999'937}) {
        const Subject key = subject(fmt::format("{}", rate), requests(rate, 1));
        CHECK(limiter->admit(&key, 1, {}));
        CHECK_FALSE(limiter->admit(&key, 1, {}));
        CHECK(limiter->state(key, Kind::requests)->remaining == 0);
    }
}

TEST_CASE("one subject that is full refuses for all, and the others lose nothing", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    const std::array both{subject("org", output(1000)), subject("key", output(100))};
    CHECK_FALSE(limiter->admit(both.data(), 2, tokens(101)));
    CHECK(limiter->admit(both.data(), 2, tokens(101)).error().never);
    CHECK(limiter->admit(both.data(), 2, tokens(101)).error().subject == 1);
    CHECK(limiter->state(both[0], Kind::output_tokens)->remaining == 1000);
    CHECK(limiter->admit(both.data(), 2, tokens(100)));
    CHECK(limiter->state(both[0], Kind::output_tokens)->remaining == 900);
    CHECK(limiter->state(both[1], Kind::output_tokens)->remaining == 0);
    CHECK(limiter->state(both[1], Kind::output_tokens)->reset_ns == 60'000'000'000);
    CHECK_FALSE(limiter->state(both[1], Kind::input_tokens));
}

TEST_CASE("what was held and not used is free at once; what was used comes back with time",
          "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    const Subject key = subject("a", output(600));
    auto hold = limiter->admit(&key, 1, tokens(600));
    REQUIRE(hold);
    CHECK_FALSE(limiter->admit(&key, 1, tokens(1)));
    clock.advance_ms(1000);  // a held token is not free however long it is held
    CHECK_FALSE(limiter->admit(&key, 1, tokens(1)));
    CHECK(limiter->consume(*hold, tokens(100)) == 0u);
    clock.advance_ms(1000);
    auto ten = limiter->admit(&key, 1, tokens(10));
    REQUIRE(ten);
    CHECK_FALSE(limiter->admit(&key, 1, tokens(1)));
    CHECK(limiter->settle(*ten, {}) == 0);
    CHECK(limiter->settle(*hold, tokens(100)) == 0);  // 200 in all, 10 of them back
    CHECK(limiter->state(key, Kind::output_tokens)->remaining == 410);
    CHECK(limiter->settle(*hold, tokens(100)) == 0);  // twice is nothing
    CHECK(limiter->state(key, Kind::output_tokens)->remaining == 410);
    CHECK(limiter->reservations() == 0);
}

TEST_CASE("a hold given back late is not paid a second time", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    const Subject key = subject("a", output(60, 100));
    auto first = limiter->admit(&key, 1, tokens(50));
    REQUIRE(first);
    clock.advance_ms(300'000);  // an eager bucket would be full again here
    REQUIRE(limiter->admit(&key, 1, tokens(50)));
    limiter->settle(*first, {});
    CHECK(limiter->admit(&key, 1, tokens(50)));
    CHECK_FALSE(limiter->admit(&key, 1, tokens(1)));  // 100 in this window, not 150
}

TEST_CASE("more than was held is counted, and the overshoot told", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    const Subject key = subject("a", output(100));
    auto hold = limiter->admit(&key, 1, tokens(60));
    auto rest = limiter->admit(&key, 1, tokens(30));
    REQUIRE(hold);
    REQUIRE(rest);
    CHECK(limiter->consume(*hold, tokens(70)) == 0u);  // ten more: they were free
    CHECK(limiter->settle(*hold, tokens(25)) == 25);
    CHECK(limiter->state(key, Kind::output_tokens)->remaining == 0);
    CHECK(limiter->settle(*rest, {}) == 0);
    CHECK(limiter->state(key, Kind::output_tokens)->remaining == 5);
}

TEST_CASE("no more run at once than may, and an end makes room", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    Limits limits;
    limits.concurrent = 2;
    const Subject key = subject("a", limits);
    auto one = limiter->admit(&key, 1, {});
    auto two = limiter->admit(&key, 1, {});
    REQUIRE(two);
    const auto refused = limiter->admit(&key, 1, {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == Kind::concurrent);
    CHECK(limiter->concurrent(key) == 2);
    limiter->settle(*one, {});
    CHECK(limiter->admit(&key, 1, {}));
}

TEST_CASE("spend is a sum per period that begins with what the store knows", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    clock.set_wall_ms(1'767'225'600'000 + 30ll * 86'400'000);  // 2026-01-31
    const auto limiter = opened(folder.options(), clock);
    Limits limits;
    limits.spend_micro = 1000;
    Subject org = subject("a", limits);
    CHECK(limiter->admit(&org, 1, {}).error().why == Why::unknown_spend);
    org.spent_micro = 600;
    Demand demand;
    demand.spend_micro = 300;
    auto hold = limiter->admit(&org, 1, demand);
    REQUIRE(hold);
    org.spent_micro = 0;  // said again, it is not believed
    CHECK_FALSE(limiter->admit(&org, 1, demand));
    CHECK(limiter->admit(&org, 1, demand).error().kind == Kind::spend);
    CHECK(limiter->admit(&org, 1, demand).error().never);
    demand.spend_micro = 100;
    limiter->settle(*hold, demand);  // 700 now
    demand.spend_micro = 300;
    CHECK(limiter->admit(&org, 1, demand));
    CHECK_FALSE(limiter->admit(&org, 1, demand));
    clock.advance_ms(86'400'000);  // February
    org.spent_micro.reset();
    CHECK(limiter->admit(&org, 1, demand).error().why == Why::unknown_spend);
    org.spent_micro = 0;
    CHECK(limiter->admit(&org, 1, demand));
}

TEST_CASE("a table that knows no past refuses until the past is told", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    clock.advance_ms(100'000);
    const auto one = opened(folder.options(), clock, false);
    const auto two = opened(folder.options(), clock, false);
    const Subject key = subject("a", output(600));
    CHECK(one->cold());
    CHECK(one->admit(&key, 1, tokens(1)).error().why == Why::cold);
    CHECK(one->admit(&key, 0, tokens(1)));  // no limit, no past needed
    REQUIRE(one->begin_refill());
    CHECK_FALSE(two->begin_refill());  // one does it
    one->replay(&key, 1, tokens(500), clock.mono_ns() - 20'000'000'000);
    two->replay(&key, 1, tokens(500), clock.mono_ns());  // not its turn: nothing
    two->end_refill();
    CHECK(two->cold());
    one->end_refill();
    CHECK_FALSE(two->cold());
    CHECK(two->state(key, Kind::output_tokens)->remaining == 300);  // 20 s gave 200 back
}

TEST_CASE("full tables refuse and change nothing; a subject at rest makes room", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(16, 4), clock);
    std::vector<Hold> holds;
    for (int i = 0; i < 4; ++i) {
        const Subject key = subject(fmt::format("{}", i), requests(60));
        auto hold = limiter->admit(&key, 1, {});
        REQUIRE(hold);
        holds.push_back(*hold);
    }
    const Subject fifth = subject("fifth", requests(60));
    CHECK(limiter->admit(&fifth, 1, {}).error().why == Why::full);
    CHECK(limiter->reservations() == 4);
    for (Hold& hold : holds) limiter->settle(hold, {});
    // Sixteen subjects with a debt fill the only set.
    for (int i = 0; i < 12; ++i) {
        const Subject key = subject(fmt::format("more{}", i), requests(60));
        auto hold = limiter->admit(&key, 1, {});
        REQUIRE(hold);
        limiter->settle(*hold, {});
    }
    CHECK(limiter->admit(&fifth, 1, {}).error().why == Why::full);
    clock.advance_ms(1001);
    CHECK(limiter->admit(&fifth, 1, {}));
}

TEST_CASE("a table in use is not made anew with other sizes; one at rest is", "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const Subject key = subject("a", requests(60, 1));
    {
        const auto limiter = opened(folder.options(), clock);
        REQUIRE(limiter->admit(&key, 1, {}));
        const auto other = Limiter::open(folder.options(64), clock);
        REQUIRE_FALSE(other);
        CHECK(other.error().code == base::Errc::config);
        const auto same = opened(folder.options(), clock, false);
        CHECK_FALSE(same->admit(&key, 1, {}));
    }
    {
        const auto again = opened(folder.options(), clock, false);  // the past outlives processes
        CHECK_FALSE(again->cold());
        CHECK_FALSE(again->admit(&key, 1, {}));
    }
    const auto fresh = opened(folder.options(64), clock, false);
    CHECK(fresh->cold());
}

TEST_CASE("in every window what random traffic was admitted stays within burst + rate · T",
          "[limits]") {
    const unsigned seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 40; ++round) {
        Folder folder;
        base::ManualClock clock;
        const auto limiter = opened(folder.options(), clock);
        Limits limits;
        limits.requests = {1 + random() % 600, random() % 20};
        limits.output_tokens = {1 + random() % 100'000, random() % 30'000};
        const Subject key = subject("a", limits);
        struct Live {
            Hold hold;
            size_t index;
            uint64_t reserved, used;
        };
        std::vector<Live> live;
        std::vector<Admitted> asked, got;
        size_t admitted = 0;
        for (int step = 0; step < 3000; ++step) {
            clock.advance_ms(random() % 4 == 0 ? random() % 2000 : random() % 30);
            const unsigned what = random() % 8;
            if (what < 4) {
                const uint64_t amount = random() % (limits.output_tokens.most() / 3 + 2);
                if (auto hold = limiter->admit(&key, 1, tokens(amount))) {
                    asked.push_back({clock.mono_ns(), 1});
                    got.push_back({clock.mono_ns(), amount});
                    live.push_back({*hold, got.size() - 1, amount, 0});
                    ++admitted;
                }
            } else if (!live.empty()) {
                const size_t at = random() % live.size();
                Live& each = live[at];
                const uint64_t more = random() % (each.reserved - each.used + 1);
                each.used += more;
                if (what < 6) {
                    CHECK(limiter->consume(each.hold, tokens(more)) == 0u);
                } else {
                    CHECK(limiter->settle(each.hold, tokens(more)) == 0);
                    got[each.index].amount = each.used;
                    live.erase(live.begin() + static_cast<int64_t>(at));
                }
            }
        }
        CHECK(admitted > 20);
        CHECK(worst_excess(asked, limits.requests) == 0);
        CHECK(worst_excess(got, limits.output_tokens) == 0);
    }
}

namespace {

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

TEST_CASE("limits that nobody would keep are refused by name", "[limits]") {
    const auto good = parse_limits(
        R"({"requests":60,"requests_burst":5,"input_tokens":1000,"concurrent":3,"spend":1.5,)"
        R"("spend_period":"day","user":{"output_tokens":7}})");
    REQUIRE(good);
    CHECK(good->own.requests.most() == 5);
    CHECK(good->own.input_tokens.most() == 1000);
    CHECK(good->own.concurrent == 3);
    CHECK(good->own.spend_micro == 1'500'000);
    CHECK(good->own.period == Period::day);
    CHECK(good->user.output_tokens.per_minute == 7);
    CHECK_FALSE(good->user.requests.per_minute);
    CHECK_FALSE(parse_limits("{}")->own.any());
    CHECK_FALSE(parse_limits(R"({"requests":null})")->own.any());
    for (const char* bad :
         {"", "[]", "7", R"({"requests":0})", R"({"requests":-1})", R"({"requests":1.5})",
          R"({"requests":"60"})", R"({"request":60})", R"({"requests_burst":3})", R"({"spend":0})",
          R"({"spend":"1"})", R"({"spend_period":"week"})", R"({"user":{"user":{}}})",
          R"({"user":{"rpm":1}})", R"({"user":3})", R"({"concurrent":1e3})",
          R"({"requests":1000000000001})"}) {
        INFO(bad);
        CHECK_FALSE(parse_limits(bad));
    }
}

TEST_CASE("periods begin with the UTC day and month", "[limits]") {
    const int64_t noon = 1'767'225'600'000 + 12 * 3'600'000;  // 2026-01-01T12:00Z
    CHECK(period_first_day(Period::day, noon) == 20454);
    CHECK(period_first_day(Period::month, noon) == 20454);
    CHECK(period_first_day(Period::month, noon + 30ll * 86'400'000) == 20454);
    CHECK(period_first_day(Period::month, noon + 31ll * 86'400'000) == 20485);
}
