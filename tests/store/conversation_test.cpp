// Conversations through the writer and back out of the reader.
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

TEST_CASE("a send makes both messages, the stream, the change and moves the conversation",
          "[store]") {
    Fixture f;
    const Ulid old = f.conversation("old");
    f.clock.advance_ms(1000);
    const Ulid fresh = f.conversation("fresh");
    f.clock.advance_ms(1000);
    REQUIRE(f.reader->conversations(f.user, 10, "")->rows.at(0).id == fresh);
    const uint64_t before = *f.reader->last_change();
    const Outcome sent = f.run(f.send_to(old).json());
    const Ulid question = Fixture::question_of(sent), answer = Fixture::answer_of(sent);
    REQUIRE(question < answer);
    auto list = f.reader->conversations(f.user, 10, "");
    REQUIRE(list->rows.size() == 2);
    REQUIRE(list->rows[0].id == old);
    REQUIRE(list->rows[0].message_count == 2);
    REQUIRE(list->rows[0].head == answer);
    REQUIRE(f.reader->unread(f.user, list->rows[0]) == uint64_t{1});
    REQUIRE(f.reader->message(old, answer)->status == "streaming");
    REQUIRE(f.reader->message(old, question)->content == R"([{"type":"text","text":"hello"}])");
    REQUIRE(f.reader->stream(answer)->state == "running");
    REQUIRE(*f.reader->last_change() == before + 1);
    REQUIRE(text_at(f.reader->changes(before, 10)->at(0).json, "/type") == "message.sent");
}

TEST_CASE("the same key and body send once, another body is refused", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    Send send = f.send_to(conv);
    send.idem_key = "k";
    send.fingerprint = "body-1";
    const Outcome first = f.run(send.json());
    const Outcome again = f.run(send.json());
    REQUIRE_FALSE(flag_at(first.json, "/replayed"));
    REQUIRE(flag_at(again.json, "/replayed"));
    REQUIRE(number_at(again.json, "/change") == 0);
    REQUIRE(Fixture::answer_of(first) == Fixture::answer_of(again));
    send.fingerprint = "body-2";
    REQUIRE(f.refused(send.json(), "idempotency").code == Errc::conflict);
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->message_count == 2);
    // The state of the answer is told as it is now.
    f.run(Fixture::end_of(Fixture::answer_of(first)).json());
    send.fingerprint = "body-1";
    REQUIRE(text_at(f.run(send.json()).json, "/message/status") == "done");
    // A key that has expired may be used anew.
    f.clock.advance_ms(f.options.idem_ttl_ms + 1);
    REQUIRE_FALSE(flag_at(f.run(send.json()).json, "/replayed"));
}

TEST_CASE("a second send on a running branch is refused and names the running answer", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Outcome sent = f.run(f.send_to(conv).json());
    const Outcome no = f.refused(f.send_to(conv).json(), "running");
    REQUIRE(text_at(no.json, "/error/running") == show_id(kMsg, Fixture::answer_of(sent)));
    // Another answer to the same question: the same branch.
    Send regenerate = f.send_to(conv);
    regenerate.content.clear();
    regenerate.parent = show_id(kMsg, Fixture::question_of(sent));
    f.refused(regenerate.json(), "running");
    // Another root is another branch.
    Send root = f.send_to(conv);
    root.parent = Send::kRoot;
    f.run(root.json());
    // Interrupted is not running.
    f.run(Fixture::end_of(Fixture::answer_of(sent), "interrupted").json());
    const Outcome sibling = f.run(regenerate.json());
    REQUIRE(f.reader->children(conv, Fixture::question_of(sent))->size() == 2);
    REQUIRE(f.reader->children(conv, {})->size() == 2);
    REQUIRE(Fixture::question_of(sibling) == Fixture::question_of(sent));
}

TEST_CASE("a parent must exist in the same conversation", "[store]") {
    Fixture f;
    const Ulid a = f.conversation(), b = f.conversation();
    const Outcome in_a = f.run(f.send_to(a).json());
    Send send = f.send_to(b);
    send.parent = show_id(kMsg, Fixture::answer_of(in_a));
    REQUIRE(f.refused(send.json()).code == Errc::not_found);
    send.parent = "msg_nonsense";
    REQUIRE(f.refused(send.json()).code == Errc::not_found);
    REQUIRE(f.reader->conversation(f.org, f.user, b)->message_count == 0);
}

TEST_CASE("another user's conversation looks like none", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid other = user_id(f.org, "bob");
    REQUIRE(f.reader->conversation(f.org, other, conv).error().code == Errc::not_found);
    Send send = f.send_to(conv);
    send.user = other;
    REQUIRE(f.refused(send.json()).code == Errc::not_found);
    REQUIRE(f.refused(ConversationDelete{f.org, other, conv}.json()).code == Errc::not_found);
}

TEST_CASE("a patch with a stale rev is refused, and a send never makes one stale", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    f.run(f.send_to(conv).json());
    ConversationUpdate patch{.org = f.org, .user = f.user, .conv = conv, .rev = 1, .title = "new"};
    f.run(patch.json());
    REQUIRE(number_at(f.refused(patch.json(), "rev").json, "/error/rev") == 2);
    ConversationUpdate system{.org = f.org, .user = f.user, .conv = conv, .system = "\"be brief\""};
    f.run(system.json());
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->system == "\"be brief\"");
    system.system = "null";
    f.run(system.json());
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->system == "null");
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->title == "new");
}

TEST_CASE("pages of a conversation list are exact on ties and over deletions", "[store]") {
    Fixture f;
    std::vector<Ulid> made;
    for (int i = 0; i < 25; ++i) made.push_back(f.conversation());  // all in one millisecond
    std::set<Ulid> seen;
    std::string cursor;
    for (int page = 0; page < 9; ++page) {
        auto got = f.reader->conversations(f.user, 3, cursor);
        REQUIRE(got);
        for (const auto& row : got->rows) REQUIRE(seen.insert(row.id).second);
        // The row that the cursor stands on goes away.
        if (page == 2) f.run(ConversationDelete{f.org, f.user, got->rows.back().id}.json());
        cursor = got->next_cursor;
        REQUIRE(got->has_more == !cursor.empty());
        if (cursor.empty()) break;
    }
    REQUIRE(seen.size() == 25);
    const std::string good = f.reader->conversations(f.user, 3, "")->next_cursor;
    std::string forged = good;
    forged[5] = forged[5] == 'A' ? 'B' : 'A';
    REQUIRE(f.reader->conversations(f.user, 3, forged).error().code == Errc::invalid);
    REQUIRE(f.reader->conversations(user_id(f.org, "bob"), 3, good).error().code == Errc::invalid);
    REQUIRE(f.reader->conversations(f.user, 3, "x").error().code == Errc::invalid);
}

TEST_CASE("pages of messages run both ways across buckets", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    std::vector<Ulid> all;
    for (int i = 0; i < 12; ++i) {
        const Outcome sent = f.run(f.send_to(conv, std::to_string(i)).json());
        all.push_back(Fixture::question_of(sent));
        all.push_back(Fixture::answer_of(sent));
        f.run(Fixture::end_of(Fixture::answer_of(sent)).json());
        f.clock.advance_ms(4ll * 86'400'000);  // a new bucket every third turn
    }
    REQUIRE(bucket_of(all.front()) < bucket_of(all.back()));
    std::vector<Ulid> up, down;
    MessagesQuery query{.conv = conv, .limit = 5, .before = {}, .after = {}, .ascending = true};
    for (;;) {
        auto page = f.reader->messages(query);
        for (const auto& row : page->rows) up.push_back(row.id);
        if (!page->has_more) break;
        query.after = up.back();
    }
    REQUIRE(up == all);
    query = {.conv = conv, .limit = 5, .before = {}, .after = {}, .ascending = false};
    for (;;) {
        auto page = f.reader->messages(query);
        for (const auto& row : page->rows) down.push_back(row.id);
        if (!page->has_more) break;
        query.before = down.back();
    }
    std::reverse(down.begin(), down.end());
    REQUIRE(down == all);
    auto path = f.reader->path(conv, all.back(), 1000);
    REQUIRE(path->rows.size() == all.size());
    REQUIRE(path->rows.front().id == all.front());
    REQUIRE_FALSE(path->cut);
    path = f.reader->path(conv, all.back(), 5);
    REQUIRE(path->cut);
    REQUIRE(path->rows.back().id == all.back());
}

TEST_CASE("ids rise over restarts and when the clock steps back", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid a = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(Fixture::end_of(a).json());
    f.clock.set_wall_ms(f.clock.wall_ms() - 3'600'000);
    f.reopen();
    const Outcome sent = f.run(f.send_to(conv).json());
    REQUIRE(Fixture::question_of(sent) > a);
    REQUIRE(Fixture::answer_of(sent) > Fixture::question_of(sent));
}

TEST_CASE("a deleted conversation is gone at once and its pages after gc", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid a = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(ConversationDelete{f.org, f.user, conv}.json());
    REQUIRE(f.reader->conversation(f.org, f.user, conv).error().code == Errc::not_found);
    REQUIRE(f.reader->conversations(f.user, 10, "")->rows.empty());
    REQUIRE(f.refused(Fixture::piece(a, 1, 0, "x").json()).code == Errc::not_found);
    REQUIRE(f.reader->message(conv, a));
    f.run(R"({"command":"gc"})");
    REQUIRE(f.reader->message(conv, a).error().code == Errc::not_found);
    // Its running answer is still charged, once.
    const Outcome end = f.run(Fixture::end_of(a).json());
    REQUIRE(flag_at(end.json, "/deleted"));
    REQUIRE(f.reader->usage(f.org, 0, UINT32_MAX)->at(0).output_tokens == 5);
}

TEST_CASE("a read mark lowers unread and never goes back", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Outcome one = f.run(f.send_to(conv).json());
    f.run(Fixture::end_of(Fixture::answer_of(one)).json());
    ReadMark mark{f.org, f.user, conv, Fixture::answer_of(one)};
    REQUIRE(number_at(f.run(mark.json()).json, "/unread") == 0);
    mark.message = Fixture::question_of(one);
    REQUIRE(number_at(f.run(mark.json()).json, "/unread") == 0);
    REQUIRE(f.reader->unread(f.user, *f.reader->conversation(f.org, f.user, conv)) == uint64_t{0});
}
