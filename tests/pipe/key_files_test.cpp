#include "pipe/key_files.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "pipe/context.hpp"

using namespace parley::pipe;
using parley::base::Errc;

namespace {

std::string file(const std::string& text) {
    char name[] = "/tmp/parley-keys-XXXXXX";
    ::close(::mkstemp(name));
    std::ofstream(name) << text;
    return name;
}

}  // namespace

TEST_CASE("a list of public keys is read line by line, blank lines aside", "[pipe]") {
    const std::string one = make_curve_pair().public_key;
    const std::string two = make_curve_pair().public_key;
    const auto keys = read_allowed_keys(file(one + "\n\n" + two));
    REQUIRE(keys.has_value());
    REQUIRE(*keys == std::vector<std::string>{one, two});
}

TEST_CASE("a line that is no key, an empty list or a missing file is refused", "[pipe]") {
    const std::string good = make_curve_pair().public_key;
    const auto bad = read_allowed_keys(file(good + "\nnot-a-key\n"));
    REQUIRE(bad.error().code == Errc::config);
    REQUIRE(bad.error().what.find("line 2") != std::string::npos);
    REQUIRE(read_allowed_keys(file(std::string(40, '"'))).error().code == Errc::config);
    REQUIRE(read_allowed_keys(file("\n")).error().code == Errc::config);
    REQUIRE(read_allowed_keys("/no/such/keys").error().code == Errc::not_found);
}
