#include "fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {

struct Sessions : Fixture {
    std::string hash(const std::string& token) {
        return base::hex(api_key_hash(token, writer->env()->pepper()));
    }
    SessionCreate create(const std::string& token, int64_t ttl_ms = 1000) {
        return {org, user, "alice", hash(token), ttl_ms};
    }
    std::optional<Errc> code(const std::string& token) {
        auto row = reader->session(token, clock.wall_ms());
        if (row) return std::nullopt;
        return row.error().code;
    }
};

}  // namespace

TEST_CASE("a session is found by its token until it expires, and by nothing else") {
    Sessions f;
    f.run(f.create("ps_a").json());
    const auto row = f.reader->session("ps_a", f.clock.wall_ms());
    REQUIRE(row);
    CHECK(row->user == f.user);
    CHECK(row->user_name == "alice");
    CHECK(f.code("ps_b") == Errc::not_found);
    CHECK_FALSE(f.reader->session("ps_a", f.clock.wall_ms() + 1000));
    f.refused(f.create("ps_a").json(), "exists");
    auto other = f.create("ps_c");
    other.user_name = "mallory";
    f.refused(other.json());
    CHECK(f.reader->user(f.user));
}

TEST_CASE("a renewed session goes on under the new token; the old one for its grace only") {
    Sessions f;
    f.run(f.create("ps_a", 1'000'000).json());
    const auto before = *f.reader->session("ps_a", f.clock.wall_ms());
    f.run(SessionRenew{f.hash("ps_a"), f.hash("ps_b"), 500}.json());
    const auto after = *f.reader->session("ps_b", f.clock.wall_ms());
    CHECK(after.id == before.id);
    CHECK(after.expires_ms == before.expires_ms);
    CHECK(f.reader->session("ps_a", f.clock.wall_ms() + 499));
    CHECK_FALSE(f.reader->session("ps_a", f.clock.wall_ms() + 500));
    f.refused(SessionRenew{f.hash("ps_a"), f.hash("ps_c"), 500}.json(), "replaced");
    f.refused(SessionRenew{f.hash("ps_x"), f.hash("ps_c"), 500}.json());
    // Logging out with either token ends both.
    f.run(SessionEnd{f.hash("ps_a")}.json());
    CHECK(f.code("ps_b") == Errc::not_found);
    CHECK(f.code("ps_a") == Errc::not_found);
    f.run(SessionEnd{f.hash("ps_a")}.json());
}

TEST_CASE("renewing again and again leaves two tokens at most") {
    Sessions f;
    f.run(f.create("ps_0", 1'000'000).json());
    for (int i = 0; i < 5; ++i)
        f.run(SessionRenew{f.hash("ps_" + std::to_string(i)), f.hash("ps_" + std::to_string(i + 1)),
                           3'600'000}
                  .json());
    for (int i = 0; i < 4; ++i) CHECK(f.code("ps_" + std::to_string(i)) == Errc::not_found);
    CHECK(f.code("ps_4") == std::nullopt);
    f.run(SessionEnd{f.hash("ps_5")}.json());
    CHECK(f.code("ps_4") == Errc::not_found);
}

TEST_CASE("logging out everywhere ends all sessions of the user so far and no later one") {
    Sessions f;
    f.run(f.create("ps_a").json());
    f.run(f.create("ps_b").json());
    const Ulid bob = user_id(f.org, "bob");
    f.run(SessionCreate{f.org, bob, "bob", f.hash("ps_bob"), 1000}.json());
    f.run(SessionEndAll{f.org, f.user}.json());
    f.run(f.create("ps_c").json());
    CHECK(f.code("ps_a") == Errc::denied);
    CHECK(f.code("ps_b") == Errc::denied);
    CHECK(f.code("ps_c") == std::nullopt);
    CHECK(f.code("ps_bob") == std::nullopt);
    f.refused(SessionEndAll{f.org, user_id(f.org, "nobody")}.json());
    f.reopen();
    CHECK(f.code("ps_a") == Errc::denied);
}

TEST_CASE("another password ends the sessions that came in with the old one") {
    Sessions f;
    const std::string hash = *hash_password("old");
    f.run(UserCreate{"acme", "alice", hash, false}.json());
    f.run(f.create("ps_a").json());
    f.refused(UserCreate{"acme", "alice", hash, false}.json(), "exists");
    CHECK(f.code("ps_a") == std::nullopt);
    f.run(UserCreate{"acme", "alice", *hash_password("new"), true}.json());
    CHECK(f.code("ps_a") == Errc::denied);
}

TEST_CASE("sessions that have expired are cleared away by the ones that come") {
    Sessions f;
    for (int i = 0; i < 200; ++i) f.run(f.create("ps_" + std::to_string(i), 1).json());
    f.clock.advance_ms(10);
    for (int i = 0; i < 200; ++i) f.run(f.create("ps_new" + std::to_string(i), 1000).json());
    int left = 0;
    for (int i = 0; i < 200; ++i) left += f.code("ps_" + std::to_string(i)) != Errc::not_found;
    CHECK(left < 20);
    CHECK(f.code("ps_new0") == std::nullopt);
}

TEST_CASE("a session command that is no good changes nothing") {
    Sessions f;
    for (const std::string& bad :
         {SessionCreate{f.org, f.user, "alice", "xyz", 1}.json(),
          SessionCreate{f.org, f.user, "alice", f.hash("a"), 0}.json(),
          SessionCreate{f.org, f.user, "alice", f.hash("a"), -5}.json(),
          SessionRenew{f.hash("a"), "12", 5}.json(), SessionEnd{"12"}.json()})
        f.refused(bad);
    CHECK(f.code("a") == Errc::not_found);
}
