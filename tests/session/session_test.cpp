#include <catch2/catch.hpp>

#include "session/guard.hpp"
#include "session/token.hpp"

using namespace parley::session;

TEST_CASE("a few wrong passwords cost nothing, each one after doubles the wait up to its bound") {
    GuardOptions options;
    options.wait_max_ms = 8000;
    Guard guard(options);
    int64_t now = 1'000'000;
    for (int i = 0; i < 4; ++i) guard.attempt("ann", "10.0.0.1", now);
    CHECK(guard.wait_ms("ann", "10.0.0.2", now) == 0);
    for (const int64_t expected : {1000, 2000, 4000, 8000, 8000}) {
        guard.attempt("ann", "10.0.0.1", now);
        CHECK(guard.wait_ms("ann", "10.0.0.2", now) == expected);
        CHECK(guard.wait_ms("ann", "10.0.0.2", now + expected - 1) == 1);
        now += expected;
        CHECK(guard.wait_ms("ann", "10.0.0.2", now) == 0);
    }
    CHECK(guard.wait_ms("bob", "10.0.0.2", now) == 0);
}

TEST_CASE("a success forgets the failures of its name and not those of its address") {
    Guard guard;
    for (int i = 0; i < 25; ++i) guard.attempt("ann", "10.0.0.1", 5);
    guard.succeeded("ann", "10.0.0.1");
    CHECK(guard.wait_ms("ann", "10.0.0.2", 5) == 0);
    CHECK(guard.wait_ms("ann", "10.0.0.1", 5) > 0);
    CHECK(guard.wait_ms("someone", "10.0.0.1", 5) > 0);
}

TEST_CASE("people who log in rightly never wait, however many share an address") {
    Guard guard;
    for (int i = 0; i < 200; ++i) {
        CHECK(guard.wait_ms("n" + std::to_string(i), "10.0.0.1", i) == 0);
        guard.attempt("n" + std::to_string(i), "10.0.0.1", i);
        guard.succeeded("n" + std::to_string(i), "10.0.0.1");
    }
}

TEST_CASE("an address that tries many names is slowed although no name is") {
    Guard guard;
    for (int i = 0; i < 20; ++i) guard.attempt("n" + std::to_string(i), "10.0.0.1", 5);
    CHECK(guard.wait_ms("fresh", "10.0.0.1", 5) == 1000);
    CHECK(guard.wait_ms("n3", "10.0.0.9", 5) == 0);
}

TEST_CASE("an hour without a failure forgets") {
    Guard guard;
    for (int i = 0; i < 30; ++i) guard.attempt("ann", "10.0.0.1", 5);
    CHECK(guard.wait_ms("ann", "10.0.0.1", 5 + 60 * 60'000) == 0);
    guard.attempt("ann", "10.0.0.1", 5 + 60 * 60'000);
    CHECK(guard.wait_ms("ann", "10.0.0.1", 5 + 60 * 60'000) == 0);
}

TEST_CASE("the guard's memory is bounded and the newest failures stay") {
    GuardOptions options;
    options.entries_max = 100;
    options.name_free = 1;
    options.address_free = 1'000'000;
    Guard guard(options);
    for (int i = 0; i < 1000; ++i) guard.attempt("n" + std::to_string(i), "10.0.0.1", 1000 + i);
    CHECK(guard.names() == 100);
    CHECK(guard.wait_ms("n999", "10.9.9.9", 2000) > 0);
    CHECK(guard.wait_ms("n0", "10.9.9.9", 1001) == 0);
}

TEST_CASE("an IPv6 address counts by its /64, a mapped IPv4 one as itself") {
    CHECK(address_key("2001:db8::1") == address_key("2001:db8::ffff:1"));
    CHECK(address_key("2001:db8::1") != address_key("2001:db8:0:1::1"));
    CHECK(address_key("::ffff:10.0.0.1") == "10.0.0.1");
    CHECK(address_key("10.0.0.1") == "10.0.0.1");
    CHECK(address_key("unix") == "unix");
}

TEST_CASE("our cookie is found among others, and nothing that only looks like it") {
    CHECK(cookie_of("a=b; parley_session=ps_x; c=d") == "ps_x");
    CHECK(cookie_of("parley_session=ps_x") == "ps_x");
    CHECK(cookie_of("xparley_session=ps_x") == "");
    CHECK(cookie_of("parley_sessions=ps_x") == "");
    CHECK(cookie_of("parley_session") == "");
    CHECK(cookie_of("a=parley_session=ps_x") == "");
    CHECK(cookie_of(";;; ;\t") == "");
    CHECK(cookie_of("") == "");
}

TEST_CASE("an origin is ours by scheme, host and port together") {
    CHECK(origin_is_ours("http://127.0.0.1:8080", "127.0.0.1:8080", false, {}));
    for (const char* other :
         {"https://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1", "null", "",
          "http://127.0.0.1:8080.evil.example", "http://evil.example"})
        CHECK_FALSE(origin_is_ours(other, "127.0.0.1:8080", false, {}));
    CHECK_FALSE(origin_is_ours("http://", "", false, {}));
    CHECK(origin_is_ours("https://chat.example", "10.0.0.1:8080", false, {"https://chat.example"}));
}

TEST_CASE("the cookie says what keeps scripts and other sites away") {
    CHECK(set_cookie("ps_x", 60, false) ==
          "parley_session=ps_x; Path=/; HttpOnly; SameSite=Strict; Max-Age=60");
    CHECK(set_cookie("", 0, true) ==
          "parley_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0; Secure");
}

TEST_CASE("a one-time secret is good once, within its time, and the newest alone") {
    OneTime link;
    CHECK_FALSE(link.take("", 0));
    const std::string first = link.renew(100, 50);
    const std::string second = link.renew(100, 50);
    CHECK(first != second);
    CHECK(second.size() == 43);
    CHECK_FALSE(link.take(first, 100));
    CHECK_FALSE(link.take(second, 150));
    CHECK(link.take(second, 149));
    CHECK_FALSE(link.take(second, 149));
    CHECK_FALSE(link.take("", 149));
}

TEST_CASE("tokens are random and long") {
    CHECK(new_token() != new_token());
    CHECK(new_token().size() == 46);
    CHECK(is_token(new_token()));
    CHECK_FALSE(is_token("pk_x"));
}
