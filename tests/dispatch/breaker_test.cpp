// Breakers of worker and version, on a clock of the test's own.
#include "dispatch/breaker.hpp"

#include <catch2/catch.hpp>

using namespace parley::dispatch;
using State = Breakers::State;
using End = Breakers::End;

namespace {
const Breakers::Key kKey{"worker-0", "abc"};

Breakers opened(int64_t now_ms = 0) {
    Breakers b;
    for (int i = 0; i < 5; ++i) b.ended(kKey, End::failed, now_ms);
    REQUIRE(b.all().at(kKey).state == State::open);
    return b;
}
}  // namespace

TEST_CASE("a breaker opens at the fifth failure, for that worker and version alone") {
    Breakers b;
    for (int i = 0; i < 4; ++i) CHECK_FALSE(b.ended(kKey, End::failed, i));
    CHECK(b.allows(kKey));
    CHECK(b.ended(kKey, End::failed, 4));
    CHECK_FALSE(b.allows(kKey));
    CHECK(b.allows({"worker-1", "abc"}));
    CHECK(b.allows({"worker-0", "def"}));
    CHECK(b.opened() == 1);
}

TEST_CASE("failures that are few among many ends, or long ago, open nothing") {
    Breakers few;
    for (int i = 0; i < 60; ++i) few.ended(kKey, i % 3 == 0 ? End::failed : End::good, i);
    CHECK(few.allows(kKey));
    Breakers old;
    for (int i = 0; i < 40; ++i) old.ended(kKey, End::failed, i * 2600);
    CHECK(old.allows(kKey));
    Breakers neutral;
    for (int i = 0; i < 40; ++i) neutral.ended(kKey, End::neutral, i);
    CHECK(neutral.all().empty());
}

TEST_CASE("an open breaker lets as many probes through as it may, and closes when they end well") {
    Breakers b = opened();
    CHECK(b.tick(4999).empty());
    REQUIRE(b.tick(5000) == std::vector<Breakers::Key>{kKey});
    CHECK(b.allows(kKey));
    CHECK_FALSE(b.started(kKey));
    CHECK(b.started(kKey));  // the second of two
    CHECK_FALSE(b.allows(kKey));
    CHECK_FALSE(b.ended(kKey, End::good, 5100));
    CHECK(b.ended(kKey, End::good, 5200));
    CHECK(b.allows(kKey));
    CHECK(b.count(State::closed) == 1);
}

TEST_CASE("a probe that fails opens it for twice as long, up to the bound") {
    Breakers b = opened();
    int64_t now = 5000, wait = 5000;
    for (int i = 0; i < 6; ++i) {
        REQUIRE(b.tick(now).size() == 1);
        b.started(kKey);
        CHECK(b.ended(kKey, End::failed, now));
        wait = std::min<int64_t>(wait * 2, 60'000);
        CHECK(b.tick(now + wait - 1).empty());
        now += wait;
    }
}

TEST_CASE("a cancelled probe gives its place back, and ends from before count for nothing") {
    Breakers b = opened();
    CHECK_FALSE(b.ended(kKey, End::good, 10));  // begun before it opened
    b.tick(5000);
    CHECK_FALSE(b.ended(kKey, End::failed, 5001));
    CHECK(b.allows(kKey));
    b.started(kKey);
    b.started(kKey);
    CHECK(b.ended(kKey, End::neutral, 5002));
    CHECK(b.allows(kKey));
}

TEST_CASE("errors_min of 0 opens nothing, and keys are bounded") {
    BreakerOptions never;
    never.errors_min = 0;
    Breakers off(never);
    for (int i = 0; i < 100; ++i) off.ended(kKey, End::failed, i);
    CHECK(off.all().empty());
    Breakers many;
    for (size_t i = 0; i < 2 * Breakers::kMost; ++i)
        many.ended({"w" + std::to_string(i), "v"}, End::failed, 0);
    CHECK(many.all().size() <= Breakers::kMost);
}
