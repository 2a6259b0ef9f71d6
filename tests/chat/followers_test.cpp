// A stream that is read from another process, over a real socket.
#include "chat/followers.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>

#include "pipe/asker.hpp"
#include "script.hpp"

using namespace parley;
using namespace parley::chat;
using messages::EventType;

namespace {

struct Log final : pipe::AskerHandler {
    std::map<std::string, std::vector<std::string>> events;
    std::map<std::string, pipe::EndMeta> ends;
    int ups = 0;
    void on_event(const std::string& id, const pipe::EventMeta&, std::string body) override {
        events[id].push_back(std::move(body));
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override { ends[id] = meta; }
    void on_peer_up(pipe::Peer, const pipe::HelloMeta&) override { ++ups; }
};

struct Two {
    pipe::Context context;
    test::ScriptUpstream upstream;
    std::shared_ptr<test::Host> host = std::make_shared<test::Host>();
    Answers answers{100};
    std::shared_ptr<Answer> answer;
    std::unique_ptr<Followers> followers;
    Log log;
    std::unique_ptr<pipe::Asker> asker;

    Two() {
        char folder[] = "/tmp/parley-follow-XXXXXX";
        const std::string endpoint = std::string("ipc://") + ::mkdtemp(folder) + "/s.sock";
        AnswerOptions options;
        options.id = "msg_1";
        options.envelope.org = "org_1";
        options.envelope.user = "user_1";
        options.stream.bytes_max = 4000;
        answer = std::make_shared<Answer>(options, upstream, *host);
        REQUIRE(answers.add(answer, host, 1000));

        pipe::AnswererOptions serve;
        serve.link.endpoint = endpoint;
        serve.link.bind = true;
        serve.link.hello.name = "chatd";
        auto opened = Followers::open(context, serve, answers);
        REQUIRE(opened);
        followers = std::move(*opened);
        pipe::AskerOptions ask;
        ask.link.endpoint = endpoint;
        ask.link.hello.name = "chatd";
        auto dialled = pipe::Asker::open(context, ask, log);
        REQUIRE(dialled);
        asker = std::move(*dialled);
        REQUIRE(until([&] { return log.ups == 1; }));
    }
    bool until(const std::function<bool()>& done) {
        for (int i = 0; i < 2000; ++i) {
            followers->link().step();
            asker->link().step();
            asker->tick();
            if (done()) return true;
            ::usleep(1000);
        }
        return false;
    }
    void follow(const std::string& request, const std::string& body, uint32_t credit = 64,
                const std::string& user = "user_1", const std::string& stream = "msg_1") {
        pipe::Envelope envelope;
        envelope.org = "org_1";
        envelope.user = user;
        envelope.message = stream;
        envelope.credit = credit;
        REQUIRE(asker->follow(request, envelope, body));
    }
    void push(int n) {
        answer->stream()->push(EventType::content_block_delta,
                               R"({"type":"content_block_delta","n":)" + std::to_string(n) + "}");
    }
};

const std::string kPing = R"({"type":"ping"})";

}  // namespace

TEST_CASE("a follower gets a ping, then the exact data after its place, then the end",
          "[followers]") {
    Two two;
    for (int i = 1; i <= 3; ++i) two.push(i);
    two.follow("all", "");
    two.follow("rest", R"({"epoch":1,"after":2})");
    two.follow("none yet", R"({"epoch":1,"after":3})");
    REQUIRE(two.until([&] { return two.log.events["all"].size() == 4; }));
    REQUIRE(two.until([&] { return two.log.events["none yet"].size() == 1; }));
    CHECK(two.answer->stream()->readers() == 3);
    two.push(4);
    two.answer->stream()->close();
    REQUIRE(two.until([&] { return two.log.ends.size() == 3; }));
    const auto data = [](int n) {
        return R"({"type":"content_block_delta","n":)" + std::to_string(n) + "}";
    };
    CHECK(two.log.events["all"] == std::vector{kPing, data(1), data(2), data(3), data(4)});
    CHECK(two.log.events["rest"] == std::vector{kPing, data(3), data(4)});
    CHECK(two.log.events["none yet"] == std::vector{kPing, data(4)});
    for (const auto& [id, end] : two.log.ends) CHECK(end.ok());
    CHECK(two.answer->stream()->readers() == 0);
}

TEST_CASE("who may not read it, and what is no place of it, is not found", "[followers]") {
    Two two;
    two.push(1);
    two.follow("other user", "", 64, "user_2");
    two.follow("other id", "", 64, "user_1", "msg_2");
    two.follow("ahead", R"({"epoch":1,"after":2})");
    two.follow("other epoch", R"({"epoch":2,"after":1})");
    two.follow("no number", R"({"epoch":1,"after":-1})");
    two.follow("half", R"({"epoch":1})");
    two.follow("no json", "{");
    REQUIRE(two.until([&] { return two.log.ends.size() == 7; }));
    for (const auto& [id, end] : two.log.ends) {
        INFO(id);
        CHECK(end.status == "not_found_error");
        CHECK(two.log.events[id].empty());
    }
    // An ASK finds nobody to answer it.
    pipe::Envelope envelope;
    envelope.org = "org_1";
    envelope.user = "user_1";
    envelope.message = "msg_1";
    REQUIRE(two.asker->ask("asked", envelope, "{}"));
    REQUIRE(two.until([&] { return two.log.ends.count("asked") == 1; }));
    CHECK(two.log.ends["asked"].status == "invalid_request_error");
    CHECK(two.log.events["asked"].empty());
}

TEST_CASE("a follower gets no more than its credit, and one that left is no reader",
          "[followers]") {
    Two two;
    for (int i = 1; i <= 5; ++i) two.push(i);
    two.follow("slow", "", 3);
    REQUIRE(two.until([&] { return two.log.events["slow"].size() == 3; }));
    two.until([&] { return two.log.events["slow"].size() > 3; });
    CHECK(two.log.events["slow"].size() == 3);  // ping and two
    CHECK(two.answer->stream()->backlog() == 3);
    two.asker->grant("slow", 1);
    REQUIRE(two.until([&] { return two.log.events["slow"].size() == 4; }));
    two.asker->cancel("slow", "client_gone");
    REQUIRE(two.until([&] { return two.log.ends.count("slow") == 1; }));
    CHECK(two.log.ends["slow"].status == "cancelled");
    CHECK(two.answer->stream()->readers() == 0);
    CHECK(two.followers->count() == 0);
    // One that falls behind what is kept is told so.
    two.follow("slower", "", 1);
    REQUIRE(two.until([&] { return two.log.events["slower"].size() == 1; }));
    for (int i = 0; i < 200; ++i) two.push(i);
    two.asker->grant("slower", 1);
    REQUIRE(two.until([&] { return two.log.ends.count("slower") == 1; }));
    CHECK(two.log.ends["slower"].status == "overloaded_error");
}

TEST_CASE("a stream that fails fails for its followers, with its error", "[followers]") {
    Two two;
    two.follow("one", "");
    REQUIRE(two.until([&] { return two.log.events["one"].size() == 1; }));
    two.answer->stream()->fail(messages::ApiError::overloaded(1));
    REQUIRE(two.until([&] { return two.log.ends.count("one") == 1; }));
    CHECK(two.log.ends["one"].status == "overloaded_error");
    CHECK(two.log.ends["one"].retryable);
    // Just ended, it still tells so; unknown, it does not.
    two.follow("late", "");
    REQUIRE(two.until([&] { return two.log.ends.count("late") == 1; }));
    CHECK(two.log.ends["late"].status == "overloaded_error");
}
