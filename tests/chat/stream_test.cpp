#include "chat/stream.hpp"

#include <catch2/catch.hpp>

using namespace parley::chat;
using parley::messages::EventType;

namespace {
std::shared_ptr<Stream> make(StreamOptions options = {}) {
    return std::make_shared<Stream>(options);
}
}  // namespace

TEST_CASE("frames carry epoch and a dense number", "[stream]") {
    auto stream = make({.epoch = 3});
    auto reader = stream->read(std::nullopt, nullptr);
    stream->push(EventType::message_start, "{}");
    stream->push(EventType::message_stop, "{}");
    REQUIRE(reader->peek());
    CHECK(reader->peek()->sse == "id: 3-1\nevent: message_start\ndata: {}\n\n");
    reader->pop();
    CHECK(reader->peek()->seq == 2);
    reader->pop();
    CHECK_FALSE(reader->at_end());
    stream->close();
    CHECK(reader->at_end());
    CHECK_FALSE(reader->failure());
}

TEST_CASE("a reader that stands before what is kept has lagged, others have not", "[stream]") {
    auto stream = make({.bytes_max = 200});
    auto slow = stream->read(std::nullopt, nullptr);
    auto fast = stream->read(std::nullopt, nullptr);
    for (int i = 0; i < 20; ++i) {
        stream->push(EventType::content_block_delta, R"({"x":1})");
        while (fast->peek()) fast->pop();
    }
    CHECK(slow->lagged());
    CHECK_FALSE(slow->peek());
    CHECK_FALSE(fast->lagged());
    CHECK(stream->bytes_kept() <= 200);
    CHECK_FALSE(stream->read(1, nullptr));
    CHECK_FALSE(stream->read(99, nullptr));
    CHECK(stream->read(20, nullptr));
}

TEST_CASE("a woken reader may leave within the wake", "[stream]") {
    auto stream = make();
    std::shared_ptr<StreamReader> one;
    int woken = 0;
    one = stream->read(std::nullopt, [&] {
        ++woken;
        one.reset();
    });
    auto two = stream->read(std::nullopt, [&] { ++woken; });
    stream->push(EventType::message_start, "{}");
    stream->push(EventType::message_stop, "{}");
    CHECK(woken == 3);
    CHECK(stream->readers() == 1);
    CHECK(stream->backlog() == 2);
}

TEST_CASE("a stream ends once", "[stream]") {
    auto stream = make();
    stream->fail(parley::messages::ApiError::overloaded(1));
    stream->close();
    stream->push(EventType::message_stop, "{}");
    auto reader = stream->read(std::nullopt, nullptr);
    CHECK(reader->at_end());
    CHECK(reader->failure());
    CHECK(stream->next_seq() == 1);
}
