#include "engine/block_pool.hpp"

#include <catch2/catch.hpp>
#include <set>

using namespace parley;

TEST_CASE("a full pool refuses and changes nothing", "[kv]") {
    engine::BlockPool pool(4);
    std::vector<uint32_t> blocks;
    REQUIRE(pool.take(3, blocks));
    std::vector<uint32_t> more = {77};
    const auto refused = pool.take(2, more);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::again);
    CHECK(more == std::vector<uint32_t>{77});
    CHECK(pool.blocks_free() == 1);
    CHECK(pool.take(1, more));
    CHECK(pool.blocks_free() == 0);
    CHECK(pool.take(0, more));
}

TEST_CASE("no block is handed out twice, and a shared one stays until its last holder goes",
          "[kv]") {
    engine::BlockPool pool(8);
    std::vector<uint32_t> blocks;
    REQUIRE(pool.take(8, blocks));
    CHECK(std::set<uint32_t>(blocks.begin(), blocks.end()).size() == 8);
    pool.share(blocks[0]);
    pool.give_back(blocks);
    CHECK(pool.blocks_free() == 7);
    CHECK(pool.references(blocks[0]) == 1);
    std::vector<uint32_t> again;
    REQUIRE(pool.take(7, again));
    CHECK(std::find(again.begin(), again.end(), blocks[0]) == again.end());
    pool.give_back(std::vector<uint32_t>{blocks[0]});
    CHECK(pool.blocks_free() == 1);
}
