// What an org keeps for a time only goes by itself, and nothing else does. The clock is the test's.
#include "store/check.hpp"
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {

constexpr int64_t kDay = 24ll * 3600 * 1000;

// One round of gc over everything; how many pieces it took.
int collect(Fixture& f) {
    std::string at = R"({"command":"gc"})";
    for (int pieces = 1;; ++pieces) {
        const auto said = f.run(at);
        const auto idle = text_at(said.json, "/idle"), batches = text_at(said.json, "/batches");
        if (idle.empty() && batches.empty()) return pieces;
        REQUIRE(pieces < 1000);
        at = R"({"command":"gc","idle":")" + idle + R"(","batches":")" + batches + R"("})";
    }
}

OrgUpdate keep(const Ulid& org, int64_t ms) {
    OrgUpdate update;
    update.org = show_id(kOrg, org);
    update.retention_ms = ms;
    return update;
}

std::vector<std::string> deleted(Fixture& f) {
    std::vector<std::string> out;
    const auto changes = f.reader->changes(0, 10'000);
    REQUIRE(changes);
    for (const auto& change : *changes)
        if (text_at(change.json, "/type") == "conversation.deleted")
            out.push_back(text_at(change.json, "/conversation"));
    return out;
}

}  // namespace

TEST_CASE("a conversation idle for longer than its org keeps it goes with its messages",
          "[store]") {
    Fixture f;
    f.run(keep(f.org, 30 * kDay).json());
    const Ulid old = f.conversation("old"), used = f.conversation("used");
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(old, "what is forgotten").json()));
    f.run(Fixture::end_of(answer).json());
    f.clock.advance_ms(29 * kDay);
    f.run(Fixture::end_of(Fixture::answer_of(f.run(f.send_to(used).json()))).json());
    collect(f);
    REQUIRE(f.reader->conversation(f.org, f.user, old));
    REQUIRE(deleted(f).empty());

    f.clock.advance_ms(kDay);  // to the millisecond
    collect(f);
    REQUIRE(f.reader->conversation(f.org, f.user, old).error().code == Errc::not_found);
    REQUIRE(f.reader->conversation(f.org, f.user, used));
    REQUIRE(deleted(f) == std::vector{show_id(kConv, old)});
    REQUIRE(f.reader->conversations(f.user, 10, "")->rows.size() == 1);
    // Its messages are taken by the steps that take those of any deleted conversation.
    f.run(R"({"command":"gc"})");
    REQUIRE(f.reader->message(old, answer).error().code == Errc::not_found);
    REQUIRE(f.reader->messages({old, 50, {}, {}})->rows.empty());
    // Usage stays: numbers without texts.
    REQUIRE_FALSE(f.reader->usage_since(0, 10)->empty());
    REQUIRE(check_store(*f.writer->env())->findings == 0);
}

TEST_CASE("an org that asks for no end, and one that takes it back, keep all", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const auto made = f.run(OrgCreate{.name = "strict", .retention_ms = kDay}.json());
    const Ulid strict = *parse_id(kOrg, text_at(made.json, "/org"));
    const Ulid bob = user_id(strict, "bob");
    for (int i = 0; i < 5; ++i)
        f.run(ConversationCreate{.org = strict, .user = bob, .user_name = "bob"}.json());
    f.clock.advance_ms(400 * kDay);
    f.run(keep(strict, 0).json());
    collect(f);
    REQUIRE(f.reader->conversations(bob, 10, "")->rows.size() == 5);
    f.run(keep(strict, kDay).json());
    collect(f);
    REQUIRE(f.reader->conversations(bob, 10, "")->rows.empty());
    REQUIRE(f.reader->conversation(f.org, f.user, conv));
}

TEST_CASE("many users are walked in small steps, each idle conversation once", "[store]") {
    Fixture f;
    f.options.gc_rows_max = 60;  // ten a piece
    f.reopen();
    f.run(keep(f.org, kDay).json());
    for (int u = 0; u < 25; ++u) {
        const std::string name = "user " + std::to_string(u);
        for (int c = 0; c < 3; ++c)
            f.run(ConversationCreate{.org = f.org, .user = user_id(f.org, name), .user_name = name}
                      .json());
    }
    f.clock.advance_ms(2 * kDay);
    const Ulid fresh = f.conversation();
    REQUIRE(collect(f) >= 75 / 10);
    auto gone = deleted(f);
    REQUIRE(gone.size() == 75);
    REQUIRE(std::set(gone.begin(), gone.end()).size() == 75);
    REQUIRE(f.reader->conversation(f.org, f.user, fresh));
    // A second round has nothing to do.
    collect(f);
    REQUIRE(deleted(f).size() == 75);
}

TEST_CASE("a retention that is no good is refused and changes nothing", "[store]") {
    Fixture f;
    f.refused(keep(f.org, kDay - 1).json());
    f.refused(keep(f.org, kRetentionMax + 1).json());
    f.refused(R"({"command":"org_update","org":"acme","retention_ms":-1})");
    f.refused(OrgCreate{.name = "other", .retention_ms = 1}.json());
    REQUIRE(f.reader->org(f.org)->retention_ms == 0);
    f.run(keep(f.org, kDay).json());
    OrgUpdate weight;
    weight.org = "acme";
    weight.weight = 2;
    f.run(weight.json());
    REQUIRE(f.reader->org(f.org)->retention_ms == kDay);
}
