#include "chat/replay.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using namespace parley::chat;

namespace {

store::DeltaRow row(uint32_t epoch, uint32_t first, uint32_t last, uint64_t offset,
                    std::string text, std::string data, int64_t block = 0) {
    store::DeltaRow r;
    r.epoch = epoch;
    r.first_seq = first;
    r.last_seq = last;
    r.offset = offset;
    r.text = std::move(text);
    r.data = std::move(data);
    r.block = block;
    return r;
}

std::vector<store::DeltaRow> two_rows() {
    return {row(1, 1, 5, 0, "abc", "[[4,1,1],[5,2,1]]"),
            row(1, 6, 7, 3, "de", "[[6,1,1],[7,1,1]]")};
}

std::string drain(const std::shared_ptr<Stream>& stream, std::optional<uint64_t> after) {
    std::string out;
    const auto reader = stream->read(after, [] {});
    REQUIRE(reader);
    while (const Frame* frame = reader->peek()) {
        out += std::to_string(frame->seq) + ":" + std::string(messages::name(frame->type)) + " ";
        reader->pop();
    }
    return out;
}

store::MessageRow done(std::string status = "done") {
    store::MessageRow message;
    message.status = std::move(status);
    message.stop_reason = message.status == "done" ? "end_turn" : "";
    return message;
}

}  // namespace

TEST_CASE("a position at a cut gets the exact suffix, with the producer's numbers and offsets") {
    Replay replay(1, two_rows());
    CHECK(replay.position() == 7);
    CHECK(replay.offset() == 5);
    CHECK(replay.content_json() == R"([{"type":"text","text":"abcde"}])");
    for (const uint64_t seq : {3, 4, 5, 6, 7}) CHECK(replay.covers(seq));
    for (const uint64_t seq : {0, 1, 2, 8, 99}) CHECK_FALSE(replay.covers(seq));
    const auto stream = replay.stream(4, 1 << 20, done("streaming"));
    REQUIRE(replay.add(row(1, 8, 8, 5, "f", "[[8,1,1]]")));
    replay.end(done(), {});
    CHECK(drain(stream, 4) ==
          "5:content_block_delta 6:content_block_delta 7:content_block_delta 8:content_block_delta "
          "9:content_block_stop 10:message_delta 11:message_stop ");
    const auto reader = stream->read(4, [] {});
    CHECK(reader->peek()->sse.find(R"("text":"bc")") != std::string::npos);
    CHECK(reader->peek()->sse.find(R"("offset":1)") != std::string::npos);
    CHECK(reader->peek()->sse.rfind("id: 1-5\n", 0) == 0);
}

TEST_CASE("without a row the answer's start is made anew when the first one comes") {
    Replay replay(1, {});
    CHECK(replay.position() == 1);
    const auto stream = replay.stream(1, 1 << 20, done("streaming"));
    REQUIRE(replay.add(row(1, 1, 4, 0, "a", "[[4,1,1]]")));
    replay.end(done("cancelled"), {});
    CHECK(drain(stream, 1) ==
          "2:message_start 3:content_block_start 4:content_block_delta 5:content_block_stop "
          "6:message_delta 7:message_stop ");
}

TEST_CASE("a later epoch begins with the text of the ones before as its fourth event") {
    auto rows = two_rows();
    Replay fresh(2, rows);
    CHECK(fresh.position() == 4);
    CHECK(fresh.offset() == 5);
    rows.push_back(row(2, 1, 5, 5, "!", "[[5,1,1]]"));
    Replay replay(2, rows);
    CHECK(replay.position() == 5);
    CHECK(replay.covers(4));
    CHECK_FALSE(replay.covers(3));
    CHECK(drain(replay.stream(4, 1 << 20, done("streaming")), 4) == "5:content_block_delta ");
}

TEST_CASE("a second block opens where its first delta says so") {
    auto rows = two_rows();
    Replay replay(1, rows);
    const auto stream = replay.stream(7, 1 << 20, done("streaming"));
    REQUIRE(replay.add(row(1, 8, 10, 0, "x", "[[10,1,1]]", 1)));
    CHECK(drain(stream, 7) == "8:content_block_stop 9:content_block_start 10:content_block_delta ");
}

TEST_CASE("a row that does not follow, or whose cuts are not its text, is refused") {
    for (const auto& bad :
         {row(1, 9, 9, 6, "f", "[[9,1,1]]"), row(1, 9, 9, 5, "f", "[[9,1,1]]"),
          row(2, 8, 8, 5, "f", "[[8,1,1]]"), row(1, 8, 8, 5, "f", "[[8,2,1]]"),
          row(1, 8, 8, 5, "f", "null"), row(1, 8, 8, 5, "f", "[[7,1,1]]"),
          row(1, 8, 8, 0, "f", "[[8,1,1]]", 2), row(1, 8, 8, 0, "f", "[[8,1,1]]", -1)}) {
        Replay replay(1, two_rows());
        const auto stream = replay.stream(7, 1 << 20, done("streaming"));
        CHECK_FALSE(replay.add(bad));
        CHECK(stream->next_seq() == 8);
    }
}

TEST_CASE("an answer that failed ends with its error, not with closing events") {
    Replay replay(1, two_rows());
    const auto stream = replay.stream(7, 1 << 20, done("streaming"));
    replay.end(done("failed"), messages::ApiError::overloaded(1));
    CHECK(stream->next_seq() == 8);
    REQUIRE(stream->failure());
}
