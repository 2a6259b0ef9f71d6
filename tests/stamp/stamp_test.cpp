#include "stamp/stamp.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using parley::stamp::Chain;
using parley::stamp::Key;

namespace {

Key key(uint8_t fill) {
    std::array<uint8_t, Key::kBytes> bytes{};
    bytes.fill(fill);
    return Key::from_bytes(bytes);
}

std::string scratch() {
    char name[] = "/tmp/parley-stamp-XXXXXX";
    return ::mkdtemp(name);
}

}  // namespace

TEST_CASE("a chain accepts exactly what was stamped, in order", "[stamp]") {
    Chain writer(key(1), "req_1", 1);
    Chain reader(key(1), "req_1", 1);
    for (uint64_t seq = 0; seq < 5; ++seq) {
        const std::string event = "event " + std::to_string(seq);
        REQUIRE(reader.check(seq, "p1", event, writer.next(seq, "p1", event)));
    }
}

TEST_CASE("a lost, reordered, replayed, altered or foreign event breaks the chain for good",
          "[stamp]") {
    Chain writer(key(1), "req_1", 1);
    const auto s0 = writer.next(0, "p", "a");
    const auto s1 = writer.next(1, "p", "b");
    SECTION("lost") {
        Chain reader(key(1), "req_1", 1);
        REQUIRE_FALSE(reader.check(1, "p", "b", s1));
        REQUIRE_FALSE(reader.check(0, "p", "a", s0));  // broken stays broken
    }
    SECTION("replayed") {
        Chain reader(key(1), "req_1", 1);
        REQUIRE(reader.check(0, "p", "a", s0));
        REQUIRE_FALSE(reader.check(0, "p", "a", s0));
    }
    SECTION("altered text") {
        Chain reader(key(1), "req_1", 1);
        REQUIRE_FALSE(reader.check(0, "p", "A", s0));
    }
    SECTION("another policy") {
        Chain reader(key(1), "req_1", 1);
        REQUIRE_FALSE(reader.check(0, "q", "a", s0));
    }
    SECTION("another attempt") {
        Chain reader(key(1), "req_1", 2);
        REQUIRE_FALSE(reader.check(0, "p", "a", s0));
    }
    SECTION("another request") {
        Chain reader(key(1), "req_2", 1);
        REQUIRE_FALSE(reader.check(0, "p", "a", s0));
    }
    SECTION("another key") {
        Chain reader(key(2), "req_1", 1);
        REQUIRE_FALSE(reader.check(0, "p", "a", s0));
    }
    SECTION("no stamp") {
        Chain reader(key(1), "req_1", 1);
        REQUIRE_FALSE(reader.check(0, "p", "a", ""));
    }
}

TEST_CASE("the key file is made once, private, and kept", "[stamp]") {
    const std::string path = scratch() + "/stamp.key";
    REQUIRE(Key::open(path).error().code == parley::base::Errc::not_found);
    const auto first = Key::open_or_make(path);
    REQUIRE(first.has_value());
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    REQUIRE((info.st_mode & 0777) == 0600);
    const auto second = Key::open_or_make(path);
    REQUIRE(second.has_value());
    REQUIRE(Chain(*first, "r", 1).next(0, "p", "x") == Chain(*second, "r", 1).next(0, "p", "x"));
}

TEST_CASE("a key file others can read, or of another size, is refused", "[stamp]") {
    const std::string folder = scratch();
    const std::string path = folder + "/stamp.key";
    REQUIRE(Key::open_or_make(path).has_value());
    ::chmod(path.c_str(), 0644);
    REQUIRE(Key::open(path).error().code == parley::base::Errc::config);
    const std::string small = folder + "/small.key";
    std::ofstream(small) << "short";
    ::chmod(small.c_str(), 0600);
    REQUIRE(Key::open(small).error().code == parley::base::Errc::corrupt);
}
