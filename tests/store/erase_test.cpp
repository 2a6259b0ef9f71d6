// A user's erasure, held against every byte of every file.
#include <filesystem>
#include <fstream>

#include "store/access.hpp"
#include "store/check.hpp"
#include "store/fixture.hpp"
#include "store/message_batches.hpp"

using namespace parley;
using namespace parley::store;

namespace {

// Files under `dir` that hold `text`.
std::vector<std::string> holding(const std::string& dir, std::string_view text) {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
        if (!entry.is_regular_file()) continue;
        std::ifstream file(entry.path(), std::ios::binary);
        const std::string all{std::istreambuf_iterator<char>(file), {}};
        if (all.find(text) != std::string::npos) out.push_back(entry.path().filename());
    }
    return out;
}

// All that a user may say, in every table that keeps it.
Ulid live(Fixture& f, const std::string& secret) {
    const std::string create = ConversationCreate{.org = f.org,
                                                  .user = f.user,
                                                  .user_name = "alice",
                                                  .title = secret,
                                                  .system = "\"" + secret + "\"",
                                                  .metadata = "{\"m\":\"" + secret + "\"}"}
                                   .json();
    const Command made{"boot-c", 1, create};
    auto outcomes = f.writer->apply({&made, 1});
    REQUIRE(outcomes);
    const Ulid conv = *parse_id(kConv, text_at(outcomes->front().json, "/conversation/id"));
    Send send = f.send_to(conv, secret);
    send.params = "{\"p\":\"" + secret + "\"}";
    send.idem_key = "k";
    send.fingerprint = "f";
    const std::string body = send.json();
    const Command sent{"boot-c", 2, body};
    auto answered = f.writer->apply({&sent, 1});
    REQUIRE(answered);
    const Ulid answer = Fixture::answer_of(answered->front());
    f.run(Fixture::piece(answer, 1, 0, secret).json());
    f.run(Fixture::end_of(answer).json());
    const Ulid running = Fixture::answer_of(f.run(f.send_to(conv, secret).json()));
    f.run(Fixture::piece(running, 1, 0, secret).json());
    f.run(IdemTake{.user = f.user,
                   .scope = "messages",
                   .key = "x",
                   .fingerprint = "f",
                   .result = "\"" + secret + "\""}
              .json());
    const Ulid batch = *parse_id(kBatch, text_at(f.run(MessageBatchCreate{.org = f.org,
                                                                          .user = f.user,
                                                                          .key_id = "",
                                                                          .owner = "o",
                                                                          .total = 1,
                                                                          .ttl_ms = 1000}
                                                           .json())
                                                     .json,
                                                 "/batch/id"));
    f.run(MessageBatchAdd{batch, "o", {{0, "c", "{\"p\":\"" + secret + "\"}", ""}}}.json());
    return conv;
}

uint64_t erase(Fixture& f, const Ulid& user) {
    uint64_t plain = 0;
    for (;;) {
        const Outcome outcome = f.run(UserErase{f.org, user}.json());
        plain += static_cast<uint64_t>(number_at(outcome.json, "/plain_rows"));
        if (flag_at(outcome.json, "/done")) return plain;
    }
}

std::string findings(Env& env) {
    auto report = check_store(env);
    REQUIRE(report);
    std::string out;
    for (const auto& finding : report->first) out += finding.table + ": " + finding.what + "\n";
    return out;
}

}  // namespace

TEST_CASE("what a user wrote stands in no file in the clear, and with the key gone in no copy",
          "[store]") {
    Fixture f;
    const std::string secret = "the cat is called Schnurrhaar";
    const Ulid conv = live(f, secret);
    REQUIRE(holding(f.dir.path(), secret).empty());
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->title == secret);
    REQUIRE(findings(*f.writer->env()).empty());

    // A copy made before: it opens with the keys of the store, and not without.
    const std::string copy = f.dir.path() + "/copy";
    std::filesystem::create_directory(copy);
    REQUIRE(f.writer->env()->copy_to(copy, true));
    REQUIRE_FALSE(std::filesystem::exists(copy + "/keys"));
    EnvOptions options;
    options.dir = copy;
    options.map_bytes = 64u << 20;
    {
        auto bare = Env::open(options);
        REQUIRE(bare);
        auto reader = make_reader(*bare);
        REQUIRE((*reader)->conversation(f.org, f.user, conv).error().code == Errc::unsupported);
    }
    options.keys_dir = f.options.env.dir + "/keys";
    {
        auto with = Env::open(options);
        REQUIRE(with);
        REQUIRE((*make_reader(*with))->conversation(f.org, f.user, conv)->title == secret);
        REQUIRE(findings(**with).empty());
    }

    REQUIRE(erase(f, f.user) == 0);
    REQUIRE(holding(f.dir.path(), secret).empty());
    REQUIRE(holding(f.options.env.dir + "/keys", f.user.view()).empty());
    REQUIRE(f.reader->conversations(f.user, 10, "")->rows.empty());
    REQUIRE(f.reader->conversation(f.org, f.user, conv).error().code == Errc::not_found);
    REQUIRE(f.reader->user(f.user).error().code == Errc::not_found);
    REQUIRE(f.reader->running_streams("", 10)->empty());
    REQUIRE(findings(*f.writer->env()).empty());
    {
        auto with = Env::open(options);
        REQUIRE(with);
        REQUIRE((*make_reader(*with))->conversation(f.org, f.user, conv).error().code ==
                Errc::not_found);
    }
    // The log tells followers, once, and by id alone.
    auto changes = f.reader->changes(0, kRowsMax);
    REQUIRE(changes);
    REQUIRE(text_at(changes->back().json, "/type") == "user.erased");
    REQUIRE(text_at(changes->back().json, "/user") == show_id(kUser, f.user));

    // gc takes what was left, over a restart, and a user of that name begins anew.
    f.reopen();
    std::string streams;
    for (int i = 0; i < 20; ++i) {
        std::string body = R"({"command":"gc","streams":")" + streams + R"("})";
        streams = text_at(f.run(body).json, "/streams");
    }
    REQUIRE(f.reader->messages({conv, 10, {}, {}, false})->rows.empty());
    REQUIRE(f.reader->stream(Ulid{}).error().code == Errc::not_found);
    REQUIRE(findings(*f.writer->env()).empty());
    f.refused(UserErase{f.org, f.user}.json());
    const Ulid fresh = f.conversation("again");
    f.reopen();
    REQUIRE(f.reader->conversation(f.org, f.user, fresh)->title == "again");
}

TEST_CASE("an erasure leaves other users and another org's user of the same name alone",
          "[store]") {
    Fixture f;
    live(f, "mine");
    const Ulid bob = user_id(f.org, "bob");
    const auto made = f.run(
        ConversationCreate{.org = f.org, .user = bob, .user_name = "bob", .title = "bob's"}.json());
    const Ulid kept = *parse_id(kConv, text_at(made.json, "/conversation/id"));
    const Ulid other =
        *parse_id(kOrg, text_at(f.run(OrgCreate{.name = "other"}.json()).json, "/org"));
    f.refused(UserErase{other, f.user}.json());
    f.refused(UserErase{f.org, user_id(f.org, "nobody")}.json());
    f.options.gc_rows_max = 1;  // many slices
    f.reopen();
    erase(f, f.user);
    REQUIRE(f.reader->conversation(f.org, bob, kept)->title == "bob's");
    REQUIRE(findings(*f.writer->env()).empty());
}

TEST_CASE(
    "rows from before there were keys are read, sealed when written again, and named at erasure",
    "[store]") {
    Fixture f;
    const Ulid conv = f.conversation("old");
    {
        // As an older convstore left it.
        auto row = f.reader->conversation(f.org, f.user, conv);
        REQUIRE(row);
        auto record = encode_record(Table::conv, keys::of(conv), to_json(*row));
        MDB_txn* txn = nullptr;
        REQUIRE(mdb_txn_begin(f.writer->env()->handle(), nullptr, 0, &txn) == 0);
        std::string key = keys::of(conv);
        MDB_val k{key.size(), key.data()}, v{record->size(), record->data()};
        REQUIRE(mdb_put(txn, f.writer->env()->dbi(Table::conv), &k, &v, 0) == 0);
        REQUIRE(mdb_txn_commit(txn) == 0);
    }
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->title == "old");
    REQUIRE(findings(*f.writer->env()).empty());
    SECTION("it is erased as it is") { REQUIRE(erase(f, f.user) == 1); }
    SECTION("it was written again") {
        f.run(f.send_to(conv).json());
        REQUIRE(erase(f, f.user) == 0);
    }
}

TEST_CASE("a key whose end was committed is destroyed by the next writer", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation("t");
    const uint32_t slot = *f.writer->env()->user_keys().known_slot(f.user);
    {
        MDB_txn* txn = nullptr;
        REQUIRE(mdb_txn_begin(f.writer->env()->handle(), nullptr, 0, &txn) == 0);
        std::string key = keys::shred(slot);
        auto record = encode_record(Table::meta, key, "{}");
        MDB_val k{key.size(), key.data()}, v{record->size(), record->data()};
        REQUIRE(mdb_put(txn, f.writer->env()->dbi(Table::meta), &k, &v, 0) == 0);
        REQUIRE(mdb_txn_commit(txn) == 0);
    }
    REQUIRE(f.reader->conversation(f.org, f.user, conv));
    f.reopen();
    REQUIRE(f.reader->conversation(f.org, f.user, conv).error().code == Errc::not_found);
}

TEST_CASE("keys that were changed or lost are said to be so", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation("t");
    const std::string dir = f.options.env.dir + "/keys";
    SECTION("a flipped bit in a slot") {
        std::fstream file(dir + "/users", std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(60);
        file.put('\x55');
        file.close();
        auto row = f.reader->conversation(f.org, f.user, conv);
        REQUIRE(row.error().code == Errc::corrupt);
        REQUIRE(row.error().what.find("does not open") != std::string::npos);
    }
    SECTION("no master key") {
        f.reader.reset();
        f.writer.reset();
        std::filesystem::remove(dir + "/master");
        auto opened = Writer::open(f.options, f.clock);
        REQUIRE_FALSE(opened);
        REQUIRE(opened.error().what.find("master") != std::string::npos);
    }
}

TEST_CASE("who opened the keys before the writer made them reads what was sealed since", "[store]") {
    char folder[] = "/tmp/parley-keys-XXXXXX";
    REQUIRE(::mkdtemp(folder));
    const std::string dir = std::string(folder) + "/keys";
    auto early = UserKeys::open(dir, false);
    REQUIRE(early);
    CHECK_FALSE((*early)->present());
    CHECK((*early)->open("b", std::string(64, 'x')).error().code == base::Errc::unsupported);
    auto writer = UserKeys::open(dir, true);
    REQUIRE(writer);
    Ulid user{};
    auto slot = (*writer)->slot_of(user);
    REQUIRE(slot);
    const auto sealed = (*writer)->seal(*slot, "b", "words");
    REQUIRE(sealed);
    CHECK((*early)->open("b", *sealed) == "words");
    CHECK((*early)->present());
    std::filesystem::remove_all(folder);
}
