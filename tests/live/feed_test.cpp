#include "live/feed.hpp"

#include <catch2/catch.hpp>

#include "../store/fixture.hpp"

using namespace parley;
using namespace parley::live;
using store::Fixture;

TEST_CASE("a change is told in the API's words, with ids and no text") {
    Fixture f;
    const auto conv = f.conversation("secret title");
    const auto sent = f.run(f.send_to(conv, "secret text").json());
    std::vector<std::string> types;
    const auto rows = f.reader->feed(f.user, 0, 100);
    REQUIRE(rows);
    for (const auto& row : *rows) {
        const auto event = event_of(row);
        REQUIRE(event);
        types.push_back(event->type);
        CHECK(event->json.find("secret") == std::string::npos);
        CHECK(store::text_at(event->json, "/type") == event->type);
        CHECK(store::text_at(event->json, "/conversation_id") ==
              store::show_id(store::kConv, conv));
    }
    CHECK(types == std::vector<std::string>{"conversation.created", "message.created"});
    const auto event = event_of(rows->back());
    CHECK(store::text_at(event->json, "/message_id") ==
          store::show_id(store::kMsg, f.answer_of(sent)));
    CHECK(route_of(rows->back()).user == f.user);
}

TEST_CASE("what is no device's business is not told") {
    for (const char* json : {R"({"seq":1,"ms":1,"type":"usage.charged"})", R"({"seq":1})", "x", "",
                             R"({"type":5})", R"({"type":"message.cancel_asked"})"})
        CHECK_FALSE(event_of({1, json}));
    CHECK_FALSE(route_of({1, "x"}).user);
}

TEST_CASE("a feed holds its user's changes alone, after a place, in order") {
    Fixture f;
    f.conversation();
    const auto bob = store::user_id(f.org, "bob");
    f.run(store::ConversationCreate{.org = f.org, .user = bob, .user_name = "bob"}.json());
    f.conversation();
    const auto mine = *f.reader->feed(f.user, 0, 100);
    REQUIRE(mine.size() == 2);
    CHECK(mine[0].seq < mine[1].seq);
    CHECK(f.reader->feed(bob, 0, 100)->size() == 1);
    CHECK(f.reader->feed(f.user, mine[0].seq, 100)->size() == 1);
    CHECK(f.reader->feed(f.user, 0, 1)->size() == 1);
    CHECK(f.reader->feed(f.user, UINT64_MAX, 1)->empty());
    CHECK(f.reader->feed(store::user_id(f.org, "nobody"), 0, 9)->empty());
}

TEST_CASE("a device follows from its place, or is told to read everything anew") {
    Fixture f;
    constexpr int64_t kWindow = 1000;
    f.conversation();
    const uint64_t first = *f.reader->last_change();
    f.conversation();
    const uint64_t last = *f.reader->last_change();
    const auto at = [&](std::optional<uint64_t> since, size_t most = 10) {
        return *place_of(*f.reader, f.user, since, f.clock.wall_ms(), kWindow, most);
    };
    CHECK(at(std::nullopt).after == last);
    CHECK(at(first).start == Start::follow);
    CHECK(at(first).after == first);
    CHECK(at(last).start == Start::follow);
    CHECK(at(last + 1).start == Start::resync);
    CHECK(at(0, 1).start == Start::resync);
    f.clock.advance_ms(kWindow);
    CHECK(at(first).start == Start::resync);
    CHECK(at(first).after == last);
    // Nothing happened since: however long ago that was, nothing was missed.
    CHECK(at(last).start == Start::follow);
}

TEST_CASE("the hub wakes a user's listeners alone, and those who left no more") {
    Hub hub(2);
    const store::Ulid ann = store::user_id({}, "ann"), bob = store::user_id({}, "bob");
    int a = 0, b = 0;
    auto one = hub.listen(ann, [&] { ++a; });
    auto two = hub.listen(ann, [&] { ++a; });
    auto three = hub.listen(bob, [&] { ++b; });
    REQUIRE(one);
    CHECK_FALSE(hub.listen(ann, [] {}));
    hub.wake(ann);
    CHECK(a == 2);
    CHECK(b == 0);
    two.reset();
    hub.wake(ann);
    CHECK(a == 3);
    CHECK(hub.listeners() == 2);
    hub.wake(store::user_id({}, "nobody"));
}

TEST_CASE("a listener that leaves, or makes others leave, while it is woken, harms nobody") {
    Hub hub;
    const store::Ulid ann = store::user_id({}, "ann");
    std::shared_ptr<void> one, two;
    int woken = 0;
    one = hub.listen(ann, [&] {
        ++woken;
        one.reset();
        two.reset();
    });
    two = hub.listen(ann, [&] { ++woken; });
    hub.wake(ann);
    CHECK(woken == 1);
    CHECK(hub.listeners() == 0);
}
