#include "pipe/key_files.hpp"

#include <sys/stat.h>
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

TEST_CASE("a new key is a file of mode 0600 with its public key beside it, and none is written over", "[pipe]") {
    const std::string path = file("");
    REQUIRE(make_key_files(path).error().code == Errc::conflict);
    ::unlink(path.c_str());
    const auto made = make_key_files(path);
    REQUIRE(made.has_value());
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    REQUIRE((info.st_mode & 0777) == 0600);
    REQUIRE(read_curve_pair(path)->public_key == made->public_key);
    REQUIRE(read_allowed_keys(path + ".pub").value() == std::vector<std::string>{made->public_key});
    REQUIRE(make_key_files(path).error().code == Errc::conflict);
    REQUIRE(read_curve_pair(path)->secret_key == made->secret_key);
    REQUIRE_FALSE(make_key_files("/no/such/folder/key").has_value());
}
