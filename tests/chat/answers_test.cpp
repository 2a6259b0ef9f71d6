// The answers of one process: found while they linger, dropped in time, bounded.
#include "chat/answers.hpp"

#include <catch2/catch.hpp>

#include "script.hpp"

using namespace parley;
using namespace parley::chat;
using namespace parley::chat::test;

namespace {

struct Crowd {
    base::ManualClock clock;
    ScriptUpstream upstream;
    std::shared_ptr<Host> host = std::make_shared<Host>();
    Answers answers;

    explicit Crowd(uint32_t answers_max) : answers(answers_max, clock) {}
    std::shared_ptr<Answer> begin(const std::string& id, int64_t linger_ms = 5000) {
        AnswerOptions options;
        options.id = id;
        options.model = "my-model";
        options.body = "{}";
        options.key = test_key();
        auto answer = std::make_shared<Answer>(std::move(options), upstream, *host, clock);
        if (!answers.add(answer, host, linger_ms)) return nullptr;
        answer->start();
        return answer;
    }
    static void finish(Answer& answer) {
        Teller teller(answer, 1);
        teller.start();
        teller.block();
        teller.text("Hello", {1});
        teller.stop(1);
        teller.end();
    }
};

}  // namespace

TEST_CASE("an answer that is over is found until it has lingered, and no longer", "[answers]") {
    Crowd crowd(8);
    const auto slow = crowd.begin("msg_slow");
    Crowd::finish(*crowd.begin("msg_long", 5000));
    Crowd::finish(*crowd.begin("msg_short", 1000));
    crowd.answers.tick();
    CHECK(crowd.answers.live() == 1);
    crowd.clock.advance_ms(999);
    crowd.answers.tick();
    CHECK(crowd.answers.readable("msg_short") != nullptr);
    crowd.clock.advance_ms(1);
    crowd.answers.tick();
    CHECK(crowd.answers.readable("msg_short") == nullptr);
    CHECK(crowd.answers.readable("msg_long") != nullptr);
    crowd.clock.advance_ms(4000);
    crowd.answers.tick();
    CHECK(crowd.answers.readable("msg_long") == nullptr);
    CHECK(crowd.answers.find("msg_slow") == slow);
}

TEST_CASE("no more are live than the bound, and one that is over makes room", "[answers]") {
    Crowd crowd(2);
    const auto first = crowd.begin("msg_1");
    REQUIRE(crowd.begin("msg_2") != nullptr);
    CHECK(crowd.begin("msg_3") == nullptr);
    CHECK(crowd.answers.full());
    Crowd::finish(*first);
    crowd.answers.tick();
    CHECK(crowd.begin("msg_3") != nullptr);
    CHECK(crowd.begin("msg_3") == nullptr);
}

TEST_CASE("those that linger are at most as many again: the oldest go first", "[answers]") {
    Crowd crowd(2);
    for (int i = 0; i < 6; ++i) {
        Crowd::finish(*crowd.begin("msg_" + std::to_string(i), 60'000));
        crowd.clock.advance_ms(1);
        crowd.answers.tick();
    }
    CHECK(crowd.answers.readable("msg_1") == nullptr);
    CHECK(crowd.answers.readable("msg_2") != nullptr);
    CHECK(crowd.answers.readable("msg_5") != nullptr);
}

TEST_CASE("the same id is taken once while it is live or lingers", "[answers]") {
    Crowd crowd(8);
    Crowd::finish(*crowd.begin("msg_1", 1000));
    crowd.answers.tick();
    CHECK(crowd.begin("msg_1") == nullptr);
    crowd.clock.advance_ms(1000);
    crowd.answers.tick();
    CHECK(crowd.begin("msg_1") != nullptr);
}

TEST_CASE("of an answer that lingers the stream is kept, and neither the answer nor its host",
          "[answers]") {
    Crowd crowd(8);
    auto answer = crowd.begin("msg_1");
    Crowd::finish(*answer);
    const std::weak_ptr<Answer> seen = answer;
    answer.reset();
    crowd.answers.tick();
    CHECK(seen.expired());
    CHECK(crowd.host.use_count() == 1);
    CHECK(crowd.answers.find("msg_1") == nullptr);
    const auto* kept = crowd.answers.readable("msg_1");
    REQUIRE(kept);
    CHECK(kept->stream->whole()->find("Hello") != std::string::npos);
}

TEST_CASE("of an answer that nobody can read nothing lingers", "[answers]") {
    Crowd crowd(8);
    AnswerOptions options;
    options.id = "msg_1";
    options.key = test_key();
    options.stream.keep_frames = false;
    auto answer =
        std::make_shared<Answer>(std::move(options), crowd.upstream, *crowd.host, crowd.clock);
    REQUIRE(crowd.answers.add(answer, crowd.host, 5000));
    answer->start();
    Crowd::finish(*answer);
    crowd.answers.tick();
    CHECK(crowd.answers.readable("msg_1") == nullptr);
}
