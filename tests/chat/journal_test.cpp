#include "chat/journal.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using namespace parley::chat;

namespace {

struct ScriptStore final : StoreCommands {
    struct Sent {
        std::string json;
        Done done;
    };
    std::vector<Sent> sent;
    bool full = false;
    base::Result<void> submit(std::string json, Done done, int64_t) override {
        if (full) return base::fail(base::Errc::again, "full");
        sent.push_back({std::move(json), std::move(done)});
        return {};
    }
    void reply(size_t index, const std::string& reason = "") {
        store::CommandReply reply;
        if (!reason.empty()) reply.error = base::Error{base::Errc::conflict, reason};
        reply.reason = reason;
        sent.at(index).done(reply);
    }
};

struct Scene {
    base::ManualClock clock;
    ScriptStore store;
    std::shared_ptr<Journal> journal;
    uint64_t seq = 3;
    uint64_t offset = 0;

    explicit Scene(JournalOptions options = {}) {
        options.owner = "boot";
        journal = std::make_shared<Journal>(options, store, clock);
    }
    void delta(const std::string& text, uint32_t block = 0) {
        messages::Event event;
        event.type = messages::EventType::content_block_delta;
        event.index = block;
        event.text = text;
        const std::vector<int32_t> ids = {static_cast<int32_t>(seq)};
        journal->add(Checked{seq++, event, ids, offset});
        offset += text.size();
    }
    void pass(int64_t ms) {
        clock.advance_ms(ms);
        journal->tick();
    }
};

bool has(const std::string& json, const std::string& part) {
    return json.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("deltas within the flush time become one append, with every cut", "[journal]") {
    Scene scene;
    scene.delta("Hel");
    scene.pass(10);
    scene.delta("lo");
    CHECK(scene.store.sent.empty());
    scene.pass(25);
    REQUIRE(scene.store.sent.size() == 1);
    const std::string& json = scene.store.sent[0].json;
    CHECK(has(json, R"("text":"Hello")"));
    CHECK(has(json, "[[3,3,1],[4,2,1]]"));
    CHECK(has(json, R"("offset":0)"));
    scene.delta("!");
    scene.pass(30);
    REQUIRE(scene.store.sent.size() == 2);
    CHECK(has(scene.store.sent[1].json, R"("offset":5)"));
    CHECK(has(scene.store.sent[1].json, R"("first_seq":5)"));
}

TEST_CASE("the end follows what was gathered, and reports once", "[journal]") {
    Scene scene;
    scene.delta("a");
    int done = 0;
    store::Finish finish;
    finish.status = "done";
    scene.journal->finish(finish, [&](const store::CommandReply& reply) { done += reply.ok(); });
    REQUIRE(scene.store.sent.size() == 2);
    CHECK(has(scene.store.sent[0].json, "append"));
    CHECK(has(scene.store.sent[1].json, "finish"));
    scene.pass(100);
    CHECK(scene.store.sent.size() == 2);
    CHECK(done == 0);
    scene.store.reply(0);
    scene.store.reply(1);
    CHECK(done == 1);
}

TEST_CASE("a full store delays pieces, then stops the credit, and loses nothing", "[journal]") {
    JournalOptions options;
    options.bytes_max = 100;
    Scene scene(options);
    scene.store.full = true;
    for (int i = 0; i < 10; ++i) scene.delta("0123456789");
    scene.pass(30);
    CHECK(scene.journal->backlog(64) == 64);
    bool told = false;
    scene.journal->on_progress([&] { told = true; });
    scene.store.full = false;
    scene.pass(30);
    CHECK(told);
    CHECK(scene.journal->backlog(64) == 0);
    REQUIRE(scene.store.sent.size() == 1);
    CHECK(has(scene.store.sent[0].json, "01234567890123456789"));
}

TEST_CASE("unconfirmed appends are bounded", "[journal]") {
    JournalOptions options;
    options.unconfirmed_max = 2;
    Scene scene(options);
    for (int i = 0; i < 5; ++i) {
        scene.delta("x");
        scene.pass(30);
    }
    CHECK(scene.store.sent.size() == 2);
    scene.store.reply(0);
    scene.pass(30);
    REQUIRE(scene.store.sent.size() == 3);
    CHECK(has(scene.store.sent[2].json, R"("text":"xxx")"));
}

TEST_CASE("a fenced journal says so once and writes nothing more", "[journal]") {
    Scene scene;
    int fenced = 0;
    scene.journal->on_fenced([&] { ++fenced; });
    scene.delta("a");
    scene.pass(30);
    scene.delta("b");
    scene.pass(30);
    REQUIRE(scene.store.sent.size() == 2);
    scene.store.reply(0, "fenced");
    scene.store.reply(1, "fenced");
    CHECK(fenced == 1);
    CHECK_FALSE(scene.journal->gone());
    scene.delta("c");
    scene.pass(30);
    CHECK(scene.store.sent.size() == 2);
}

TEST_CASE("a journal whose stream the store has no more is fenced, and knows that it is gone",
          "[journal]") {
    Scene scene;
    scene.delta("a");
    scene.pass(30);
    REQUIRE(scene.store.sent.size() == 1);
    store::CommandReply reply;
    reply.error = base::Error{base::Errc::not_found, "no such stream"};
    scene.store.sent[0].done(reply);
    CHECK(scene.journal->fenced());
    CHECK(scene.journal->gone());
}

TEST_CASE("an end that the store does not take is offered until it does", "[journal]") {
    Scene scene;
    scene.store.full = true;
    int done = 0;
    scene.journal->finish({}, [&](const store::CommandReply&) { ++done; });
    scene.pass(5000);
    CHECK(scene.store.sent.empty());
    scene.store.full = false;
    scene.pass(25);
    scene.pass(25);
    REQUIRE(scene.store.sent.size() == 1);
    scene.store.reply(0);
    CHECK(done == 1);
}
