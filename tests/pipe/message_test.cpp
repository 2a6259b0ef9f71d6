#include "pipe/message.hpp"

#include <catch2/catch.hpp>

using namespace parley::pipe;
using parley::base::Errc;

TEST_CASE("a line carries the same message as the frames, byte for byte", "[pipe]") {
    const Message sent{Verb::event, "req_\"1\"", R"({"attempt":2,"seq":7})",
                       R"({"type": "ping",  "x":[1, {"y":"}"}]})"};
    const auto back = from_line(to_line(sent), "bare");
    REQUIRE(back.has_value());
    REQUIRE(back->verb == Verb::event);
    REQUIRE(back->id == sent.id);
    REQUIRE(back->meta == sent.meta);
    REQUIRE(back->body == sent.body);  // spaces too: stamps cover bytes
}

TEST_CASE("a bare Messages API body is an ASK with a default envelope", "[pipe]") {
    const std::string body = R"({"model":"m","max_tokens":1,"messages":[]})";
    const auto message = from_line(body, "req_9");
    REQUIRE(message.has_value());
    REQUIRE(message->verb == Verb::ask);
    REQUIRE(message->id == "req_9");
    REQUIRE(message->body == body);
    REQUIRE(parse_envelope(message->meta)->attempt == 1);
}

TEST_CASE("a malformed line is refused with a reason", "[pipe]") {
    for (const char* line :
         {"", "nonsense", "[1]", "{\"parley\":1}", R"({"parley":2,"verb":"ASK","id":"a"})",
          R"({"parley":1,"verb":"SHOUT","id":"a"})", R"({"parley":1,"verb":"ASK","id":7})",
          R"({"parley":1,"verb":"ASK","id":"a","meta":3})",
          R"({"parley":1,"verb":"ASK","id":"a"} trailing)",
          R"({"parley":1,"verb":"ASK","id":"a","meta":{},"meta":{}})",
          "{\"parley\":1,\"verb\":\"ASK\",\"id\":\"\xff\"}"}) {
        CAPTURE(line);
        const auto message = from_line(line, "x");
        REQUIRE_FALSE(message.has_value());
        REQUIRE(message.error().code == Errc::invalid);
        REQUIRE_FALSE(message.error().what.empty());
    }
}

TEST_CASE("an envelope comes back as it went, continuation and 64-bit seed too", "[pipe]") {
    Envelope e;
    e.attempt = 3;
    e.credit = 9;
    e.org = "o";
    e.user = "u\"";
    e.cls = Class::batch;
    e.seed = 0xffff'ffff'ffff'fff0ull;
    e.sampling.min_p = 0.05;
    e.sampling.temperature = 1.5;
    e.sampling.stops = {"\n"};
    e.ttft_ms = 12;
    e.total_ms = 34;
    e.weight = 2.5;
    e.unfiltered = true;
    e.continuation = Continuation{{1, 2, 49151}, 0, 11, "hello world"};
    const auto back = parse_envelope(to_meta(e));
    REQUIRE(back.has_value());
    REQUIRE(back->attempt == 3);
    REQUIRE(back->credit == 9);
    REQUIRE(back->user == "u\"");
    REQUIRE(back->cls == Class::batch);
    REQUIRE(back->seed == e.seed);
    REQUIRE(back->sampling.min_p == 0.05);
    REQUIRE(back->sampling.temperature == 1.5);
    REQUIRE(back->sampling.stops == std::vector<std::string>{"\n"});
    REQUIRE(back->weight == 2.5);
    REQUIRE(back->unfiltered);
    REQUIRE(back->continuation->produced == std::vector<int32_t>{1, 2, 49151});
    REQUIRE(back->continuation->released == 11);
    REQUIRE(back->continuation->text == "hello world");
}

TEST_CASE("a known member of the wrong type is refused by name, an unknown one ignored", "[pipe]") {
    REQUIRE(parse_envelope(R"({"attempt":1,"later":{"x":1}})").has_value());
    for (const char* meta :
         {R"({"attempt":"1"})", R"({"attempt":0})", R"({"attempt":-1})", R"({"class":"vip"})",
          R"({"produced":[1,-2]})", R"({"seed":1.5})", R"({"weight":0})", "7", "{"}) {
        CAPTURE(meta);
        REQUIRE_FALSE(parse_envelope(meta).has_value());
    }
    REQUIRE(parse_envelope(R"({"class":"vip"})").error().what.find("class") != std::string::npos);
    REQUIRE_FALSE(parse_hello_meta(R"({"role":"king","boot":"b"})").has_value());
    REQUIRE_FALSE(parse_event_meta(R"({"seq":-1})").has_value());
}

TEST_CASE("tokens guessed and come true travel in END and STATUS, and are absent at 0", "[pipe]") {
    EndMeta end;
    StatusMeta status;
    CHECK(to_meta(end).find("drafted") == std::string::npos);
    CHECK(to_meta(status).find("accepted") == std::string::npos);
    end.drafted_tokens = 1ull << 40;
    end.accepted_tokens = 7;
    status.drafted_tokens = 12;
    status.accepted_tokens = 11;
    const auto end_back = parse_end_meta(to_meta(end));
    const auto status_back = parse_status_meta(to_meta(status));
    REQUIRE(end_back);
    REQUIRE(status_back);
    CHECK(end_back->drafted_tokens == 1ull << 40);
    CHECK(end_back->accepted_tokens == 7);
    CHECK(status_back->drafted_tokens == 12);
    CHECK(status_back->accepted_tokens == 11);
    CHECK_FALSE(parse_end_meta(R"({"drafted_tokens":-1})"));
    CHECK_FALSE(parse_status_meta(R"({"accepted_tokens":"7"})"));
}
