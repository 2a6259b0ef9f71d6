#include "fixture.hpp"
#include "store/check.hpp"
#include "store/message_batches.hpp"

namespace parley::store {
namespace {

struct Batches : Fixture {
    Ulid id;
    // Also what is refused.
    Outcome run(const std::string& json) {
        auto outcome = writer->apply_one(json);
        REQUIRE(outcome);
        return *outcome;
    }
    MessageBatchRow row() { return *reader->message_batch(org, user, id); }
    Outcome make(uint64_t total, const std::string& owner = "boot-a") {
        MessageBatchCreate create{org, user, "", owner, R"({"x":1})", total, 86'400'000};
        Outcome made = run(create.json());
        id = *parse_id(kBatch, text_at(made.json, "/batch/id"));
        return made;
    }
    Outcome add(uint32_t count, const std::string& owner = "boot-a") {
        MessageBatchAdd command{id, owner, {}};
        for (uint32_t i = 0; i < count; ++i)
            command.items.push_back({0, "c" + std::to_string(i), R"({"model":"m"})", ""});
        return run(command.json());
    }
    Outcome result(uint32_t index, uint64_t tokens = 3, const std::string& owner = "boot-a") {
        MessageBatchResult command;
        command.batch = id;
        command.owner = owner;
        command.index = index;
        command.result = R"({"type":"succeeded","message":{}})";
        command.model = "m";
        command.output_tokens = tokens;
        return run(command.json());
    }
    Outcome sweep(uint64_t most, const std::string& owner = "boot-a") {
        return run(MessageBatchSweep{id, owner, BatchOutcome::canceled, most}.json());
    }
    uint64_t used() {
        auto totals = reader->usage(org, 0, UINT32_MAX);
        REQUIRE(totals);
        uint64_t sum = 0;
        for (const auto& total : *totals) sum += total.output_tokens;
        return sum;
    }
    void sound() {
        auto report = check_store(*writer->env(), 10);
        REQUIRE(report);
        for (const auto& found : report->first) UNSCOPED_INFO(found.table + ": " + found.what);
        CHECK(report->findings == 0);
    }
};

}  // namespace

TEST_CASE("a batch runs once all its entries are there, and ends with the last result", "[batch]") {
    Batches t;
    t.make(3);
    CHECK_FALSE(t.reader->message_batch(t.org, t.user, t.id));  // being created: nobody's yet
    t.add(2);
    CHECK_FALSE(t.reader->message_batch(t.org, t.user, t.id));
    t.add(1);
    CHECK(t.row().state == "running");
    CHECK(t.row().params == R"({"x":1})");
    CHECK(t.add(1).refused);
    CHECK_FALSE(flag_at(t.result(2).json, "/ended"));
    CHECK_FALSE(flag_at(t.result(0).json, "/ended"));
    t.sound();
    CHECK(flag_at(t.result(1).json, "/ended"));
    CHECK(t.row().state == "ended");
    CHECK(t.row().succeeded == 3);
    CHECK(t.row().ended_ms > 0);
    CHECK(t.reader->open_batches(10)->empty());
    auto done = t.reader->batch_items(t.id, true, 0, 10, 1 << 20);
    REQUIRE(done);
    REQUIRE(done->size() == 3);
    CHECK((*done)[2].result == R"({"type":"succeeded","message":{}})");
    CHECK(t.reader->batch_items(t.id, false, 0, 10, 1 << 20)->empty());
    t.sound();
}

TEST_CASE("an entry is charged once, however often its result comes", "[batch]") {
    Batches t;
    t.make(2);
    t.add(2);
    CHECK_FALSE(flag_at(t.result(0, 5).json, "/replayed"));
    CHECK(flag_at(t.result(0, 7).json, "/replayed"));
    CHECK(t.used() == 5);
    CHECK(t.row().finished() == 1);
    t.sound();
}

TEST_CASE("a batch obeys its owner alone, and is claimed once from the one before", "[batch]") {
    Batches t;
    t.make(2);
    t.add(2);
    CHECK(text_at(t.result(0, 1, "boot-b").json, "/error/reason") == "fenced");
    CHECK(text_at(t.run(MessageBatchClaim{t.id, "boot-b", "boot-z"}.json()).json,
                  "/error/reason") == "fenced");
    CHECK_FALSE(t.run(MessageBatchClaim{t.id, "boot-b", "boot-a"}.json()).refused);
    CHECK(text_at(t.run(MessageBatchClaim{t.id, "boot-c", "boot-a"}.json()).json,
                  "/error/reason") == "fenced");
    CHECK(t.result(0).refused);
    CHECK_FALSE(t.result(0, 1, "boot-b").refused);
    CHECK(t.used() == 1);
}

TEST_CASE("cancel sweeps what is pending, in pieces, and leaves what was finished", "[batch]") {
    Batches t;
    t.make(5);
    t.add(5);
    t.result(3);
    CHECK_FALSE(t.run(MessageBatchCancel{t.org, t.user, t.id}.json()).refused);
    CHECK(t.row().state == "canceling");
    CHECK(t.row().cancel_ms > 0);
    CHECK(flag_at(t.sweep(2).json, "/left"));
    CHECK(flag_at(t.sweep(2).json, "/ended"));
    CHECK(t.row().canceled == 4);
    CHECK(t.row().succeeded == 1);
    CHECK_FALSE(t.run(MessageBatchCancel{t.org, t.user, t.id}.json()).refused);
    CHECK(t.row().state == "ended");
    t.sound();
}

TEST_CASE("an entry that is wrong from the start is finished, and a batch of such ends at once",
          "[batch]") {
    Batches t;
    t.make(1);
    MessageBatchAdd command{t.id, "boot-a", {{0, "a", "", R"({"type":"errored"})"}}};
    CHECK_FALSE(t.run(command.json()).refused);
    CHECK(t.row().state == "ended");
    CHECK(t.row().errored == 1);
    t.sound();
}

TEST_CASE("only an ended batch is deleted, and only by its user; gc takes its entries", "[batch]") {
    Batches t;
    t.make(2);
    t.add(2);
    CHECK(text_at(t.run(MessageBatchDelete{t.org, t.user, t.id, ""}.json()).json,
                  "/error/reason") == "running");
    t.result(0);
    t.result(1);
    const Ulid other = user_id(t.org, "bob");
    CHECK(t.run(MessageBatchDelete{t.org, other, t.id, ""}.json()).code == Errc::not_found);
    CHECK_FALSE(t.run(MessageBatchDelete{t.org, t.user, t.id, ""}.json()).refused);
    CHECK_FALSE(t.reader->message_batch(t.org, t.user, t.id));
    t.sound();
    t.run(R"({"command":"gc"})");
    CHECK(t.reader->batch_items(t.id, true, 0, 10, 1 << 20)->empty());
    t.sound();
}

TEST_CASE("one that is being created is taken back by its owner", "[batch]") {
    Batches t;
    t.make(2);
    t.add(1);
    CHECK(t.run(MessageBatchDelete{t.org, t.user, t.id, "boot-b"}.json()).refused);
    CHECK_FALSE(t.run(MessageBatchDelete{t.org, t.user, t.id, "boot-a"}.json()).refused);
    CHECK(t.reader->open_batches(10)->empty());
    t.sound();
}

TEST_CASE("a batch is forgotten 29 days after its creation, not before", "[batch]") {
    Batches t;
    t.make(1);
    t.add(1);
    t.result(0);
    t.clock.advance_ms(28ll * 86'400'000);
    t.run(R"({"command":"gc"})");
    CHECK(t.reader->message_batch(t.org, t.user, t.id));
    t.clock.advance_ms(2ll * 86'400'000);
    t.run(R"({"command":"gc"})");
    CHECK_FALSE(t.reader->message_batch(t.org, t.user, t.id));
    t.run(R"({"command":"gc"})");
    t.sound();
}

TEST_CASE("batches are listed newest first, from either side, each to its user", "[batch]") {
    Batches t;
    std::vector<Ulid> ids;
    for (int i = 0; i < 4; ++i) {
        t.make(1);
        t.add(1);
        ids.push_back(t.id);
    }
    BatchesQuery query{t.org, t.user, 2, {}, {}};
    const auto listed = [&] {
        std::vector<Ulid> out;
        auto list = t.reader->message_batches(query);
        REQUIRE(list);
        for (const auto& row : list->rows) out.push_back(row.id);
        return std::pair{out, list->has_more};
    };
    CHECK(listed() == std::pair{std::vector{ids[3], ids[2]}, true});
    query.older_than = ids[2];
    CHECK(listed() == std::pair{std::vector{ids[1], ids[0]}, false});
    query.older_than.reset();
    query.newer_than = ids[0];
    CHECK(listed() == std::pair{std::vector{ids[2], ids[1]}, true});
    query.newer_than.reset();
    query.user = user_id(t.org, "bob");
    CHECK(listed() == std::pair{std::vector<Ulid>{}, false});
}

}  // namespace parley::store
