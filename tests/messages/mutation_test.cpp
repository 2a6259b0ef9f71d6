// Seeded mutations of good input: whatever comes in, there is an answer, and it is valid UTF-8.
#include <catch2/catch.hpp>
#include <random>

#include "base/text.hpp"
#include "messages/events.hpp"
#include "messages/request.hpp"

using namespace parley::messages;

namespace {

constexpr uint32_t kSeed = 20260101;
constexpr int kRounds = 20'000;

const std::string kPieces[] = {"\"",
                               "{",
                               "}",
                               "[",
                               "]",
                               ",",
                               ":",
                               "null",
                               "\\u0000",
                               "\\ud8",
                               "\xff",
                               "1e999",
                               "-1",
                               "\"x\":",
                               "\"type\"",
                               "\"text\"",
                               "\"role\"",
                               "\"content\"",
                               "true",
                               "\xe2\x80",
                               "\\",
                               "9999999999999999999",
                               "\"cache_control\":{\"type\":\"ephemeral\"}"};

std::string mutate(std::string text, std::mt19937& random) {
    const auto below = [&](size_t n) { return random() % n; };
    for (size_t changes = 1 + below(4); changes > 0 && !text.empty(); --changes) {
        const size_t at = below(text.size());
        switch (below(4)) {
            case 0:
                text[at] = static_cast<char>(random());
                break;
            case 1:
                text.erase(at, 1 + below(8));
                break;
            case 2:
                text.insert(at, kPieces[below(std::size(kPieces))]);
                break;
            case 3:
                text.insert(at, text.substr(below(text.size()), below(40)));
                break;
        }
    }
    return text;
}

}  // namespace

TEST_CASE("a mutated request is read consistently or refused with a 4xx", "[mutation]") {
    const std::string good =
        R"({"model":"m","max_tokens":10,"system":[{"type":"text","text":"s"}],"stop_sequences":["a"],"messages":[{"role":"user","content":[{"type":"text","text":"aé\n"},{"type":"document","title":"t","source":{"type":"content","content":[{"type":"text","text":"d"}]}}]},{"role":"assistant","content":"x"},{"role":"user","content":"y"}],"thinking":{"type":"adaptive"},"tools":[],"metadata":{"user_id":"u"}})";
    REQUIRE(parse_request(good));
    std::mt19937 random(kSeed);
    int accepted = 0;
    for (int round = 0; round < kRounds; ++round) {
        const std::string json = mutate(good, random);
        const auto request = parse_request(json);
        bool ok = true;
        if (request) {
            ++accepted;
            for (const JudgedText& piece : request->judged)
                ok = ok && piece.turn < request->turns.size() &&
                     piece.offset + piece.size <= request->turns[piece.turn].text.size();
            for (const Turn& turn : request->turns) ok = ok && parley::base::utf8_valid(turn.text);
        } else {
            ok = request.error().status == 400 && parley::base::utf8_valid(request.error().message);
        }
        if (!ok) {
            INFO("seed " << kSeed << " round " << round << "\n" << json);
            REQUIRE(ok);
        }
    }
    CHECK(accepted > 100);
    CHECK(accepted < kRounds);
}

TEST_CASE("a mutated event is read or refused", "[mutation]") {
    const std::string events[] = {
        EventWriter::message_start("msg_1", "m", {}), EventWriter::text_delta(3, "a\n\u00e9", 7),
        EventWriter::message_delta({StopReason::stop_sequence, "x", R"({"type":"y"})"}, {}),
        EventWriter::error(ApiError::overloaded(1), "req_1")};
    std::mt19937 random(kSeed);
    int accepted = 0;
    for (int round = 0; round < kRounds; ++round) {
        const auto event = parse_event(mutate(events[random() % std::size(events)], random));
        if (!event) continue;
        ++accepted;
        if (!parley::base::utf8_valid(event->text)) {
            INFO("seed " << kSeed << " round " << round);
            REQUIRE(false);
        }
    }
    CHECK(accepted > 100);
    CHECK(accepted < kRounds);
}
