#include "live/presence.hpp"

#include <catch2/catch.hpp>

#include "../store/fixture.hpp"
#include "base/file.hpp"

using namespace parley;
using namespace parley::live;

TEST_CASE("who is present is told by all chatd that live, and by no other") {
    store::TempDir dir;
    const std::string run = dir.path();
    const auto one = store::user_id({}, "one"), two = store::user_id({}, "two");
    CHECK(present_users(run).empty());
    CHECK(present_users(run + "/nowhere").empty());
    const auto a = base::LockFile::take(run + "/chatd-A.lock");
    auto b = base::LockFile::take(run + "/chatd-B.lock");
    REQUIRE(a);
    REQUIRE(b);
    REQUIRE(write_presence(run, "A", {{one, 2}}, 100));
    REQUIRE(write_presence(run, "B", {{two, 1}}, 100));
    CHECK(present_users(run) == std::set<store::Ulid>{one, two});
    CHECK(read_presence(run, "A") == Devices{{one, 2}});
    REQUIRE(write_presence(run, "A", {}, 100));
    CHECK(present_users(run) == std::set<store::Ulid>{two});
    {
        const auto ended = std::move(*b);
    }
    CHECK(present_users(run).empty());
    CHECK(presence_boots(run).size() == 2);  // its file is there still
}

TEST_CASE("a file of presence that is cut, or of nobody, tells of nobody; more users than are told are not") {
    store::TempDir dir;
    const std::string run = dir.path();
    const auto one = store::user_id({}, "one"), two = store::user_id({}, "two");
    const auto lock = base::LockFile::take(run + "/chatd-A.lock");
    REQUIRE(lock);
    CHECK_FALSE(read_presence(run, "A"));
    REQUIRE(base::write_file(presence_path(run, "A"), "cut", 0600));
    CHECK_FALSE(read_presence(run, "A"));
    CHECK(present_users(run).empty());
    REQUIRE(write_presence(run, "A", {{one, 1}, {two, 1}}, 1));
    CHECK(present_users(run).size() == 1);
    CHECK_FALSE(write_presence(run + "/nowhere", "A", {}, 1));
}
