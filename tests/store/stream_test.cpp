// Answers in the making: journal, end, change of owner, and what they cost.
#include "store/check.hpp"
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {
std::string findings(Fixture& f) {
    auto report = check_store(*f.writer->env());
    REQUIRE(report);
    std::string out;
    for (const auto& finding : report->first)
        out += finding.table + " " + finding.key + " " + finding.what + "\n";
    return out;
}
}  // namespace

TEST_CASE("the journal takes each piece once and refuses holes", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(Fixture::piece(answer, 3, 0, "Hel").json());
    const Outcome twice = f.run(Fixture::piece(answer, 3, 0, "Hel").json());
    REQUIRE(number_at(twice.json, "/last_seq") == 3);
    REQUIRE(number_at(twice.json, "/bytes") == 3);
    const Outcome hole = f.refused(Fixture::piece(answer, 5, 4, "o").json(), "gap");
    REQUIRE(number_at(hole.json, "/error/offset") == 3);
    f.run(Fixture::piece(answer, 5, 3, "lo").json());
    auto second = Fixture::piece(answer, 8, 0, "next block");
    second.delta.block = 1;
    f.run(second.json());
    auto back = Fixture::piece(answer, 9, 5, "x");
    f.refused(back.json(), "gap");
    auto stream = f.reader->stream(answer);
    REQUIRE(stream->last_seq == 8);
    REQUIRE(stream->block == 1);
    REQUIRE(stream->tokens == 3);
    auto rows = f.reader->journal(answer, 1, 3, 100);
    REQUIRE(rows->size() == 2);
    REQUIRE(rows->at(0).text == "lo");
    // Without content of its own, the end takes the journal's.
    f.run(Fixture::end_of(answer).json());
    REQUIRE(f.reader->message(conv, answer)->content ==
            R"([{"type":"text","text":"Hello"},{"type":"text","text":"next block"}])");
    REQUIRE(text_at(f.refused(Fixture::piece(answer, 9, 10, "x").json(), "ended").json,
                    "/error/status") == "ended");
    REQUIRE(findings(f).empty());
}

TEST_CASE("a finish happens once, with one usage row and one change", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(conv).json()));
    auto end = Fixture::end_of(answer);
    end.content = R"([{"type":"text","text":"bye"}])";
    end.usage = R"({"input_tokens":10,"output_tokens":5})";
    REQUIRE_FALSE(flag_at(f.run(end.json()).json, "/replayed"));
    const uint64_t changes = *f.reader->last_change();
    REQUIRE(flag_at(f.run(end.json()).json, "/replayed"));
    end.status = "cancelled";
    REQUIRE(text_at(f.refused(end.json(), "ended").json, "/error/status") == "done");
    REQUIRE(*f.reader->last_change() == changes);
    auto totals = f.reader->usage(f.user, 0, UINT32_MAX);
    REQUIRE(totals->size() == 1);
    REQUIRE(totals->at(0).requests == 1);
    REQUIRE(totals->at(0).input_tokens == 10);
    REQUIRE(f.reader->message(conv, answer)->usage == R"({"input_tokens":10,"output_tokens":5})");
    REQUIRE(findings(f).empty());
}

TEST_CASE("a blocked question is blocked on both sides", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Outcome sent = f.run(f.send_to(conv).json());
    f.run(Fixture::end_of(Fixture::answer_of(sent), "blocked").json());
    REQUIRE(f.reader->message(conv, Fixture::answer_of(sent))->status == "blocked");
    REQUIRE(f.reader->message(conv, Fixture::question_of(sent))->status == "blocked");
}

TEST_CASE("a take-over is granted once an epoch and shuts the old owner out", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(Fixture::piece(answer, 3, 0, "Hello").json());
    f.run(Fixture::piece(answer, 4, 5, " wo").json());
    REQUIRE(f.reader->running_streams("boot-b", 10)->size() == 1);
    REQUIRE(f.reader->running_streams("boot-a", 10)->empty());

    TakeOver take{answer, 1, "boot-b", false};
    const Outcome taken = f.run(take.json());
    REQUIRE(number_at(taken.json, "/epoch") == 2);
    REQUIRE(number_at(taken.json, "/tokens") == 2);
    REQUIRE(number_at(taken.json, "/stream/block_bytes") == 8);
    REQUIRE(f.reader->message(conv, answer)->status == "interrupted");
    REQUIRE(f.reader->message(conv, answer)->content == R"([{"type":"text","text":"Hello wo"}])");
    take.owner = "boot-c";
    REQUIRE(text_at(f.refused(take.json(), "fenced").json, "/error/owner") == "boot-b");

    // The dead owner wakes up.
    f.refused(Fixture::piece(answer, 5, 8, "rld").json(), "fenced");
    f.refused(Fixture::end_of(answer).json(), "fenced");

    // A continuation: another epoch, the same text on.
    take = {answer, 2, "boot-b", true};
    f.run(take.json());
    REQUIRE(f.reader->message(conv, answer)->status == "streaming");
    f.run(Fixture::piece(answer, 1, 8, "rld", 3, "boot-b").json());
    auto end = Fixture::end_of(answer, "done", 3, "boot-b");
    end.output_tokens = 3;
    f.run(end.json());
    REQUIRE(f.reader->message(conv, answer)->content ==
            R"([{"type":"text","text":"Hello world"}])");
    take = {answer, 3, "boot-b", true};
    f.refused(take.json(), "ended");
    // Two tokens were charged by the take-over, the third by the end: three in all, one request.
    auto totals = f.reader->usage(f.org, 0, UINT32_MAX);
    uint64_t output = 0, requests = 0;
    for (const auto& total : *totals) output += total.output_tokens, requests += total.requests;
    REQUIRE(output == 3);
    REQUIRE(requests == 1);
    REQUIRE(findings(f).empty());
}

TEST_CASE("an interrupted answer runs again when its owner goes on", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(Fixture::piece(answer, 3, 0, "a").json());
    auto end = Fixture::end_of(answer, "interrupted");
    f.run(end.json());
    REQUIRE(flag_at(f.run(end.json()).json, "/replayed"));
    REQUIRE(f.reader->stream(answer)->state == "interrupted");
    f.run(Fixture::piece(answer, 4, 1, "b").json());
    REQUIRE(f.reader->message(conv, answer)->status == "streaming");
    end.status = "done";
    end.output_tokens = 7;
    f.run(end.json());
    REQUIRE(f.reader->usage(f.org, 0, UINT32_MAX)->at(0).output_tokens == 7);
    REQUIRE(findings(f).empty());
}

TEST_CASE("a charge counts once per request", "[store]") {
    Fixture f;
    Charge charge{.org = f.org,
                  .user = f.user,
                  .key_id = "",
                  .request_id = "req_1",
                  .model = "m",
                  .service_class = ""};
    charge.input_tokens = 3;
    REQUIRE_FALSE(flag_at(f.run(charge.json()).json, "/replayed"));
    REQUIRE(flag_at(f.run(charge.json()).json, "/replayed"));
    REQUIRE(f.reader->usage(f.user, 0, UINT32_MAX)->at(0).input_tokens == 3);
    charge.request_id = "req_2";
    f.run(charge.json());
    REQUIRE(f.reader->usage(f.user, 0, UINT32_MAX)->at(0).requests == 2);
    REQUIRE(findings(f).empty());
}

TEST_CASE("a stateless key is taken, finished, replayed, freed", "[store]") {
    Fixture f;
    IdemTake take{f.user, "messages", "k", "f1", R"({"at":"here"})"};
    REQUIRE_FALSE(flag_at(f.run(take.json()).json, "/replayed"));
    REQUIRE(text_at(f.run(take.json()).json, "/result/at") == "here");
    take.fingerprint = "f2";
    f.refused(take.json(), "idempotency");
    f.run(IdemFree{f.user, "messages", "k"}.json());
    REQUIRE_FALSE(flag_at(f.run(take.json()).json, "/replayed"));
    f.run(IdemDone{f.user, "messages", "k", R"({"id":"msg"})"}.json());
    REQUIRE(flag_at(f.run(take.json()).json, "/done"));
    REQUIRE(f.reader->idempotency(f.user, "messages", "k", f.clock.wall_ms())->result ==
            R"({"id":"msg"})");
    f.refused(IdemFree{f.user, "messages", "k"}.json(), "ended");
    REQUIRE(
        f.reader->idempotency(f.user, "messages", "k", f.clock.wall_ms() + f.options.idem_ttl_ms)
            .error()
            .code == Errc::not_found);
}

TEST_CASE("gc takes what has expired and nothing else", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    Send send = f.send_to(conv);
    send.idem_key = "old";
    const Ulid old = Fixture::answer_of(f.run(send.json()));
    f.run(Fixture::piece(old, 1, 0, "x").json());
    f.run(Fixture::end_of(old).json());
    f.clock.advance_ms(f.options.idem_ttl_ms + 1);
    send.idem_key = "new";
    const Ulid fresh = Fixture::answer_of(f.run(send.json()));
    f.run(Fixture::piece(fresh, 1, 0, "y").json());
    f.run(R"({"command":"gc"})");
    REQUIRE(f.reader->journal(old, 0, 0, 10)->empty());
    REQUIRE(f.reader->stream(old).error().code == Errc::not_found);
    REQUIRE(f.reader->message(conv, old)->status == "done");
    REQUIRE(f.reader->journal(fresh, 0, 0, 10)->size() == 1);
    REQUIRE(f.reader->idempotency(f.user, "send", "new", f.clock.wall_ms()));
    REQUIRE(findings(f).empty());
    // Nothing left to do: nothing is written.
    MDB_envinfo before{}, after{};
    mdb_env_info(f.writer->env()->handle(), &before);
    f.run(R"({"command":"gc"})");
    mdb_env_info(f.writer->env()->handle(), &after);
    REQUIRE(before.me_last_txnid == after.me_last_txnid);
}

TEST_CASE("keys are found by their secret, and refused once revoked or expired", "[store]") {
    Fixture f;
    const NewApiKey made = new_api_key();
    KeyCreate create;
    create.org = "acme";
    create.hash = base::hex(api_key_hash(made.secret, f.writer->env()->pepper()));
    create.prefix = made.prefix;
    create.models = {"m"};
    create.expires_ms = f.clock.wall_ms() + 1000;
    const Outcome reply = f.run(create.json());
    REQUIRE(text_at(reply.json, "/key").empty());
    auto row = f.reader->api_key(made.secret, f.clock.wall_ms());
    REQUIRE(row);
    REQUIRE(row->user == user_id(f.org, "default"));
    REQUIRE(row->models == std::vector<std::string>{"m"});
    REQUIRE(f.reader->api_key(made.secret + "x", f.clock.wall_ms()).error().code ==
            Errc::not_found);
    REQUIRE(f.reader->api_key(made.secret, f.clock.wall_ms() + 1000).error().code == Errc::denied);
    f.run(KeyRevoke{show_id(kKey, row->id)}.json());
    f.run(KeyRevoke{show_id(kKey, row->id)}.json());
    REQUIRE(f.reader->api_key(made.secret, f.clock.wall_ms()).error().code == Errc::denied);
    REQUIRE(f.refused(KeyRevoke{"key_00000000000000000000000000"}.json()).code == Errc::not_found);
    REQUIRE(f.refused(OrgCreate{.name = "acme"}.json(), "exists").code == Errc::conflict);
    REQUIRE(f.refused(create.json(), "exists").code == Errc::conflict);
}

TEST_CASE("a password is stored as argon2id and checked", "[store]") {
    Fixture f;
    auto hash = hash_password("hunter2");
    REQUIRE(hash);
    f.run(UserCreate{"acme", "alice", *hash}.json());
    REQUIRE(verify_password(f.reader->user(f.user)->password_hash, "hunter2"));
    REQUIRE_FALSE(verify_password(f.reader->user(f.user)->password_hash, "hunter3"));
    REQUIRE_FALSE(verify_password("", ""));
    REQUIRE_FALSE(hash_password(""));
    f.refused(UserCreate{"acme", "alice", *hash}.json(), "exists");
    REQUIRE(f.refused(UserCreate{"acme", "carol", "plain"}.json()).code == Errc::invalid);
}

TEST_CASE("the first model becomes the default and keeps it", "[store]") {
    Fixture f;
    ModelPut put{
        .hash = "h1", .name = "small", .tokenizer = "t", .context = 2048, .output_max = 2048};
    REQUIRE(flag_at(f.run(put.json()).json, "/created"));
    const uint64_t changes = *f.reader->last_change();
    REQUIRE_FALSE(flag_at(f.run(put.json()).json, "/created"));
    REQUIRE(*f.reader->last_change() == changes);
    put.hash = "h2";
    put.name = "large";
    f.run(put.json());
    REQUIRE(f.reader->models()->size() == 2);
    REQUIRE(f.reader->aliases()->at(0).target == "small");
    f.run(AliasSet{"default", "large"}.json());
    REQUIRE(f.reader->aliases()->at(0).target == "large");
    f.run(AliasSet{"default", "small", R"({"x":1})", "anna", "large was \"slow\""}.json());
    f.run(AliasSet{"default", "large", {}, "bert", ""}.json());
    AliasRow row = f.reader->aliases()->at(0);
    REQUIRE(row.rule == R"({"x":1})");
    REQUIRE(row.history.find(R"("who":"anna","why":"large was \"slow\"")") != std::string::npos);
    for (int i = 0; i < 100; ++i) f.run(AliasSet{"default", "large", {}, "n", ""}.json());
    row = f.reader->aliases()->at(0);
    REQUIRE(std::count(row.history.begin(), row.history.end(), '{') == 64);
    REQUIRE(row.history.find("anna") == std::string::npos);
    REQUIRE(f.refused(AliasSet{"default", "large", {}, std::string(300, 'x'), ""}.json()).code ==
            Errc::invalid);
    f.run(AliasSet{"default", ""}.json());
    REQUIRE(f.reader->aliases()->empty());
}

TEST_CASE("what is no command is refused and leaves nothing", "[store]") {
    Fixture f;
    const uint64_t changes = *f.reader->last_change();
    REQUIRE(f.refused("").code == Errc::invalid);
    REQUIRE(f.refused("[]").code == Errc::invalid);
    REQUIRE(f.refused("{}").code == Errc::invalid);
    REQUIRE(f.refused(R"({"command":"drop"})").code == Errc::unsupported);
    REQUIRE(f.refused(R"({"command":"send","org":7})").code == Errc::invalid);
    REQUIRE(f.refused(R"({"command":"org_create","name":"\ud800"})").code == Errc::invalid);
    REQUIRE(f.refused(std::string("{\"command\":\"org_create\",\"name\":\"\xff\"}")).code ==
            Errc::invalid);
    REQUIRE(f.refused(std::string(9u << 20, ' ')).code == Errc::too_large);
    REQUIRE(*f.reader->last_change() == changes);
}
