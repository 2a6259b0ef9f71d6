#include "limits/limits.hpp"

#include <fmt/format.h>

#include <random>

#include "support.hpp"

using namespace parley;
using namespace parley::limits;

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
    size_t admitted = 0;
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
        CHECK(worst_excess(asked, limits.requests) == 0);
        CHECK(worst_excess(got, limits.output_tokens) == 0);
    }
    CHECK(admitted > 2000);  // over all rounds: a limit that admits nothing is kept easily
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

TEST_CASE("what is no request at once is neither refused by that limit nor counted in it",
          "[limits]") {
    Folder folder;
    base::ManualClock clock;
    const auto limiter = opened(folder.options(), clock);
    Limits limits = requests(60, 3);
    limits.concurrent = 1;
    const Subject key = subject("a", limits);
    Demand aside;
    aside.at_once = false;
    auto first = limiter->admit(&key, 1, aside);
    REQUIRE(first);
    CHECK(limiter->concurrent(key) == 0);
    const auto own = limiter->admit(&key, 1, {});
    REQUIRE(own);
    CHECK(limiter->concurrent(key) == 1);
    CHECK(limiter->admit(&key, 1, {}).error().kind == Kind::concurrent);
    CHECK(limiter->state(key, Kind::requests)->remaining == 1);
    REQUIRE(limiter->admit(&key, 1, aside));
    // The rate holds for it like for any other.
    const auto refused = limiter->admit(&key, 1, aside);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == Kind::requests);
    CHECK(refused.error().wait_ns == 1'000'000'000);
    limiter->settle(*first, {});
    CHECK(limiter->concurrent(key) == 1);
}
