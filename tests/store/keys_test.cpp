// Keys that change while they are in use, whose totals a usage row makes, and who owns an idempotency key.
#include "fixture.hpp"
#include "store/check.hpp"

using namespace parley;
using namespace parley::store;

namespace {

struct Made {
    std::string secret, id;
};
Made make_key(Fixture& f, KeyCreate command = {}) {
    const auto pepper = read_pepper(f.options.env.dir);
    REQUIRE(pepper);
    const NewApiKey made = new_api_key();
    command.org = "acme";
    command.hash = base::hex(api_key_hash(made.secret, *pepper));
    command.prefix = made.prefix;
    return {made.secret, text_at(f.run(command.json()).json, "/key_id")};
}
Made rotate(Fixture& f, const std::string& id, int64_t grace_ms) {
    const auto pepper = read_pepper(f.options.env.dir);
    const NewApiKey made = new_api_key();
    const KeyRotate command{id, base::hex(api_key_hash(made.secret, *pepper)), made.prefix,
                            grace_ms};
    return {made.secret, text_at(f.run(command.json()).json, "/key_id")};
}
bool works(Fixture& f, const Made& key) {
    return f.reader->api_key(key.secret, f.clock.wall_ms()).has_value();
}
uint64_t output_of(Fixture& f, const Ulid& who) {
    const auto day = static_cast<uint32_t>(f.clock.wall_ms() / 86'400'000);
    uint64_t sum = 0;
    const auto totals = f.reader->usage(who, day, day);
    REQUIRE(totals);
    for (const UsageTotal& total : *totals) sum += total.output_tokens;
    return sum;
}

}  // namespace

TEST_CASE("a rotated key's old secret works for the grace and not a moment longer", "[store]") {
    Fixture f;
    KeyCreate like;
    like.scopes = {"messages"};
    like.models = {"small"};
    like.limits = R"({"requests":7})";
    const Made old = make_key(f, like);
    const Made fresh = rotate(f, old.id, 60'000);
    CHECK(works(f, old));
    CHECK(works(f, fresh));
    const auto row = f.reader->api_key(fresh.secret, f.clock.wall_ms());
    CHECK(row->scopes == like.scopes);
    CHECK(row->models == like.models);
    CHECK(row->limits == like.limits);
    CHECK(show_id(kKey, *row->first) == old.id);
    f.clock.advance_ms(59'999);
    CHECK(works(f, old));
    f.clock.advance_ms(1);
    CHECK_FALSE(works(f, old));
    CHECK(works(f, fresh));
    // What no longer works cannot be the root of one that does.
    CHECK(f.refused(KeyRotate{old.id, "", "", 0}.json()).code == Errc::denied);
    // The third shares the limits of the first.
    const Made third = rotate(f, fresh.id, 0);
    CHECK_FALSE(works(f, fresh));
    CHECK(show_id(kKey, *f.reader->api_key(third.secret, f.clock.wall_ms())->first) == old.id);
}

TEST_CASE("a rotation prolongs no key's life", "[store]") {
    Fixture f;
    KeyCreate like;
    like.expires_ms = f.clock.wall_ms() + 1000;
    const Made old = make_key(f, like);
    const Made fresh = rotate(f, old.id, 3'600'000);
    f.clock.advance_ms(1000);
    CHECK_FALSE(works(f, old));
    CHECK_FALSE(works(f, fresh));
    const Made other = make_key(f);
    f.run(KeyRevoke{other.id}.json());
    CHECK(f.refused(KeyRotate{other.id, "", "", 0}.json()).code == Errc::denied);
    CHECK(f.refused(KeyRotate{"key_00000000000000000000000000", "", "", 0}.json()).code ==
          Errc::not_found);
    CHECK(f.refused(KeyRotate{make_key(f).id, "", "", 400ll * 86'400'000}.json()).code ==
          Errc::invalid);
}

TEST_CASE("an update changes what it names and nothing else", "[store]") {
    Fixture f;
    KeyCreate like;
    like.scopes = {"messages"};
    like.limits = R"({"requests":7})";
    const Made key = make_key(f, like);
    KeyUpdate update;
    update.key_id = key.id;
    update.models = {{"small", "large"}};
    f.run(update.json());
    auto row = f.reader->api_key(key.secret, f.clock.wall_ms());
    CHECK(row->models == std::vector<std::string>{"small", "large"});
    CHECK(row->scopes == like.scopes);
    CHECK(row->limits == like.limits);
    update = {};
    update.key_id = key.id;
    update.limits = "{}";
    update.scopes.emplace();
    f.run(update.json());
    row = f.reader->api_key(key.secret, f.clock.wall_ms());
    CHECK(row->limits == "{}");
    CHECK(row->scopes.empty());
    CHECK(row->models.size() == 2);
    update = {};
    update.key_id = key.id;
    update.expires_ms = f.clock.wall_ms() + 5;
    f.run(update.json());
    f.clock.advance_ms(5);
    CHECK_FALSE(works(f, key));
    update.expires_ms = 0;
    f.run(update.json());
    CHECK(works(f, key));
    CHECK(f.refused(R"({"command":"key_update","key_id":")" + key.id + R"(","limits":7})").code ==
          Errc::invalid);

    OrgUpdate org;
    org.org = "acme";
    org.limits = R"({"requests":9})";
    f.run(org.json());
    CHECK(f.reader->org(f.org)->limits == *org.limits);
    CHECK(f.reader->org(f.org)->weight == 1.0);
    org = {};
    org.org = "acme";
    org.disabled = true;
    f.run(org.json());
    CHECK_FALSE(works(f, key));
    CHECK(f.reader->org(f.org)->limits == R"({"requests":9})");
}

TEST_CASE("a charge is summed for org, user, end user and key, each once, and the check agrees",
          "[store]") {
    Fixture f;
    const Made key = make_key(f);
    Charge charge;
    charge.org = f.org;
    charge.user = f.user;
    charge.key_id = key.id;
    charge.model = "m";
    charge.output_tokens = 10;
    charge.request_id = "one";
    f.run(charge.json());
    charge.request_id = "two";
    charge.end_user = user_id(f.org, "somebody");
    f.run(charge.json());
    charge.request_id = "three";
    charge.end_user = f.user;
    charge.key_id = "";
    f.run(charge.json());
    CHECK(output_of(f, f.org) == 30);
    CHECK(output_of(f, f.user) == 30);
    CHECK(output_of(f, *parse_id(kKey, key.id)) == 20);
    CHECK(output_of(f, user_id(f.org, "somebody")) == 10);
    const auto report = check_store(*f.writer->env());
    REQUIRE(report);
    for (const Finding& finding : report->first) UNSCOPED_INFO(finding.table << finding.what);
    CHECK(report->findings == 0);

    f.clock.advance_ms(1000);
    charge.request_id = "four";
    f.run(charge.json());
    const auto rows = f.reader->usage_since(f.clock.wall_ms() - 500, 10);
    REQUIRE(rows);
    CHECK(rows->size() == 1);
    const auto all = f.reader->usage_since(0, 3);
    REQUIRE(all);
    REQUIRE(all->size() == 3);
    CHECK(all->front().end_user == f.user);
    CHECK(all->back().end_user == user_id(f.org, "somebody"));
    CHECK(all->back().key_id == key.id);
}

TEST_CASE("an idempotency key is ended and freed by its owner only", "[store]") {
    Fixture f;
    IdemTake take{f.user, "messages", "k", "f1", "null", "boot-a"};
    f.run(take.json());
    CHECK(flag_at(f.run(take.json()).json, "/replayed"));
    f.refused(IdemFree{f.user, "messages", "k", "boot-b"}.json(), "fenced");
    f.refused(IdemDone{f.user, "messages", "k", "{}", "boot-b"}.json(), "fenced");
    f.run(IdemFree{f.user, "messages", "k", "boot-a"}.json());
    // Another has taken it since: who frees the dead one's key finds that out.
    take.owner = "boot-c";
    f.run(take.json());
    f.refused(IdemFree{f.user, "messages", "k", "boot-a"}.json(), "fenced");
    CHECK(f.reader->idempotency(f.user, "messages", "k", f.clock.wall_ms())->owner == "boot-c");
    const std::string large = "\"" + std::string(2u << 20, 'x') + "\"";
    f.run(IdemDone{f.user, "messages", "k", large, "boot-c"}.json());
    const Outcome again = f.run(take.json());
    CHECK(again.json.size() < 1000);  // a reply is kept for resends: the row has it
    CHECK(flag_at(again.json, "/done"));
    CHECK(f.reader->idempotency(f.user, "messages", "k", f.clock.wall_ms())->result == large);
    f.refused(IdemDone{f.user, "messages", "k", "\"" + std::string(7u << 20, 'x') + "\""}.json());
    f.refused(IdemFree{f.user, "messages", "k", "boot-c"}.json(), "ended");
    f.clock.advance_ms(25ll * 3600 * 1000);
    CHECK_FALSE(f.reader->idempotency(f.user, "messages", "k", f.clock.wall_ms()));
    CHECK_FALSE(flag_at(f.run(take.json()).json, "/replayed"));
}

TEST_CASE("charges of one command are entered once each, and none where one of them is refused",
          "[store]") {
    Fixture f;
    std::vector<Charge> charges(3);
    for (size_t i = 0; i < charges.size(); ++i) {
        charges[i].org = f.org;
        charges[i].user = f.user;
        charges[i].model = "m";
        charges[i].output_tokens = 10;
        charges[i].request_id = "r" + std::to_string(i);
    }
    f.run(charges.front().json());
    CHECK(f.run(charges_json(charges)).json.find(R"("charged":2)") != std::string::npos);
    CHECK(output_of(f, f.org) == 30);
    charges[0].request_id = "fresh";
    charges[2].request_id = "";
    f.refused(charges_json(charges));
    CHECK(output_of(f, f.org) == 30);
}
