#include <catch2/catch.hpp>

#include "dispatch/catalogue.hpp"
#include "dispatch/delivered.hpp"
#include "dispatch/prefix_map.hpp"
#include "dispatch/workers.hpp"

using namespace parley;
using namespace parley::dispatch;

namespace {

pipe::HelloMeta hello(const std::string& name, uint32_t slots, std::vector<std::string> models) {
    pipe::HelloMeta out;
    out.name = name;
    out.slots = slots;
    for (auto& hash : models) out.models.push_back({hash, hash, "llama", 100, 100});
    return out;
}

}  // namespace

TEST_CASE("the worker with the least to do is chosen, as long as it has the room that is asked for",
          "[dispatch]") {
    Workers workers;
    workers.join(1, hello("small", 1, {"m"}), {0});
    workers.join(2, hello("large", 3, {"m", "other"}), {0, 1});
    workers.started(1, Level::online, 5);
    REQUIRE(workers.choose(0, Room::slot) == 2u);
    workers.started(2, Level::online, 3);
    REQUIRE(workers.choose(0, Room::slot) == 2u);  // 1 has no slot free
    workers.progressed(2, 2.5);
    workers.ended(1, Level::online, 5, 4);
    workers.started(2, Level::online, 1);
    REQUIRE(workers.choose(0, Room::slot) == 1u);
    REQUIRE(workers.choose(1, Room::slot) == 2u);
    workers.started(2, Level::online, 1);
    REQUIRE_FALSE(workers.choose(1, Room::slot).has_value());
    REQUIRE_FALSE(workers.choose(1, Room::beside).has_value());  // it has no queue of its own
    REQUIRE_FALSE(workers.choose(7, Room::slot).has_value());
    REQUIRE(workers.slots(0) == 4);
}

TEST_CASE(
    "beside the slots there is room up to the worker's queue and once its slots, for batch never",
    "[dispatch]") {
    Workers workers;
    auto said = hello("a", 2, {"m"});
    said.queue = 1;
    workers.join(1, said, {0});
    workers.started(1, Level::batch, 1);
    workers.started(1, Level::online, 1);
    REQUIRE_FALSE(workers.choose(0, Room::slot).has_value());
    REQUIRE(workers.choose(0, Room::online) == 1u);  // batch holds one of the two
    REQUIRE(workers.choose(0, Room::beside) == 1u);
    workers.started(1, Level::online, 1);
    REQUIRE_FALSE(workers.choose(0, Room::beside).has_value());
}

TEST_CASE("a draining or departed worker is not chosen, and one that joins again forgets nothing",
          "[dispatch]") {
    Workers workers;
    workers.join(1, hello("a", 1, {"m"}), {0});
    workers.join(2, hello("b", 4, {"m"}), {0});
    workers.drain(2);
    REQUIRE(workers.choose(0, Room::slot) == 1u);
    workers.started(1, Level::online, 1);
    workers.join(1, hello("a", 1, {"n"}), {1});
    REQUIRE_FALSE(workers.has(0));
    REQUIRE_FALSE(workers.choose(1, Room::slot).has_value());  // its slot is taken
    workers.leave(1);
    workers.leave(2);
    REQUIRE(workers.all().empty());
    REQUIRE_FALSE(workers.has(1));
}

TEST_CASE("the worker that computed the longest beginning is found, and the map stays bounded",
          "[dispatch]") {
    const std::string shared(2000, 'x');
    const auto one = PrefixMap::blocks_of("acme", "m", shared + "one" + std::string(600, 'y'));
    const auto two = PrefixMap::blocks_of("acme", "m", shared + "two" + std::string(600, 'y'));
    PrefixMap map(8);
    map.note(one, 1);
    REQUIRE(map.find(one).blocks == one.size());
    REQUIRE(map.find(two).worker == 1);
    REQUIRE(map.find(two).blocks == 3);  // 1,536 bytes of the 2,000 that they share
    REQUIRE(map.find(PrefixMap::blocks_of("other", "m", shared)).worker == 0);
    for (int i = 0; i < 50; ++i)
        map.note(
            PrefixMap::blocks_of("acme", "m", std::string(600, static_cast<char>('a' + i % 26))),
            2);
    REQUIRE(map.size() <= 8);
}

TEST_CASE("what an asker has of a stream says where the next worker goes on", "[dispatch]") {
    const auto event = [](std::string body, std::vector<int32_t> ids = {}) {
        Delivered::Event out;
        out.meta.ids = std::move(ids);
        out.body = std::move(body);
        return out;
    };
    const std::string start =
        R"({"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":0}}})";
    Delivered delivered;
    REQUIRE_FALSE(delivered.begun());
    REQUIRE(delivered.add(event(start)).size() == 1);
    delivered.cut();
    REQUIRE(delivered.begun());
    REQUIRE_FALSE(delivered.continuation().has_value());
    REQUIRE(delivered.add(event(start)).empty());  // the asker has one
    REQUIRE(
        delivered
            .add(event(
                R"({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}})"))
            .size() == 1);
    REQUIRE(
        delivered
            .add(event(
                R"({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"h\u00e9"}})",
                {5, 6}))
            .size() == 1);
    REQUIRE(delivered.add(event(R"({"type":"content_block_stop","index":0})")).empty());
    delivered.cut();  // its end is not known to the asker: the block goes on
    const auto from = delivered.continuation();
    REQUIRE(from.has_value());
    REQUIRE(from->produced == std::vector<int32_t>{5, 6});
    REQUIRE(from->block == 0);
    REQUIRE(from->released == 3);
    REQUIRE(delivered.add(event(R"({"type":"content_block_stop","index":0})")).empty());
    const auto both = delivered.add(event(
        R"({"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}})"));
    REQUIRE(both.size() == 2);
    REQUIRE(both[0].body.find("content_block_stop") != std::string::npos);
    REQUIRE(delivered.complete());
}

TEST_CASE("names, hashes and aliases resolve; rings and unknown names do not", "[dispatch]") {
    Catalogue catalogue;
    REQUIRE_FALSE(catalogue.resolve("default").has_value());
    catalogue.replace(
        {{"h1", "smol"}, {"h2", "large"}},
        {{"chat", "smol"}, {"best", "chat"}, {"a", "b"}, {"b", "a"}, {"gone", "deleted"}});
    REQUIRE(catalogue.resolve("smol") == "h1");
    REQUIRE(catalogue.resolve("h2") == "h2");
    REQUIRE(catalogue.resolve("best") == "h1");
    REQUIRE_FALSE(catalogue.resolve("a").has_value());
    REQUIRE_FALSE(catalogue.resolve("gone").has_value());
    REQUIRE_FALSE(catalogue.resolve("claude").has_value());
}

TEST_CASE("the first model is the default until somebody says otherwise", "[dispatch]") {
    Catalogue catalogue;
    catalogue.add({"h1", "smol"});
    catalogue.add({"h2", "large"});
    REQUIRE(catalogue.resolve("default") == "h1");
    catalogue.replace({{"h1", "smol"}, {"h2", "large"}}, {{"default", "large"}});
    REQUIRE(catalogue.resolve("default") == "h2");
}

TEST_CASE("a version heard of in a HELLO survives a reading of the store that lacks it",
          "[dispatch]") {
    Catalogue catalogue;
    catalogue.add({"h9", "new"});
    catalogue.replace({{"h1", "smol"}}, {});
    REQUIRE(catalogue.resolve("new") == "h9");
    REQUIRE(catalogue.resolve("default") == "h1");
}
