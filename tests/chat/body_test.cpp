#include "chat/body.hpp"

#include <catch2/catch.hpp>

using namespace parley::chat;

TEST_CASE("only the top-level model is renamed", "[body]") {
    CHECK(with_model(R"({"a":{"model":"x"},"s":"\"model\":\"x\"","model" : "old","z":1})", "new") ==
          R"({"a":{"model":"x"},"s":"\"model\":\"x\"","model" : "new","z":1})");
    CHECK(with_model(R"({"v":"model","model":"o\"ld"})", "n\"w") ==
          R"({"v":"model","model":"n\"w"})");
    CHECK(with_model(R"([{"model":"x"}])", "y") == R"([{"model":"x"}])");
}

TEST_CASE("a position is two whole numbers", "[body]") {
    CHECK(parse_position("3-17") == std::make_pair(uint32_t{3}, uint64_t{17}));
    for (const char* bad :
         {"", "-", "3-", "-17", "3-1x", "3", "a-1", "3-1-2", "-3-1", "99999999999-1"})
        CHECK_FALSE(parse_position(bad));
}
