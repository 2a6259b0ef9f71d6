#include "engine/models.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "fake_forward.hpp"
#include "model/gguf.hpp"
#include "model/small_vocabulary.hpp"

using namespace parley;

namespace {

struct Desk final : engine::Outlet {
    struct Case {
        std::vector<model::Token> ids;
        std::optional<pipe::EndMeta> end;
    };
    std::map<std::string, Case> cases;
    bool event(const std::string& id, uint32_t, const engine::OutEvent& event) override {
        Case& c = cases[id];
        REQUIRE_FALSE(c.end);
        c.ids.insert(c.ids.end(), event.ids.begin(), event.ids.end());
        return true;
    }
    void end(const std::string& id, pipe::EndMeta meta) override {
        REQUIRE_FALSE(cases[id].end);
        cases[id].end = std::move(meta);
    }
};

// Says when it is destroyed, and how often it ran.
struct Counted final : engine::Forward {
    test::FakeForward fake;
    int& runs;
    bool& freed;
    Counted(int& r, bool& f) : runs(r), freed(f) {}
    ~Counted() override { freed = true; }
    void run(std::span<const engine::Chunk> chunks, std::span<float> logits) override {
        ++runs;
        fake.run(chunks, logits);
    }
    void copy_block(uint32_t from, uint32_t to) override { fake.copy_block(from, to); }
    uint32_t vocab_size() const override { return fake.vocab; }
    uint32_t context_tokens() const override { return fake.context; }
    uint32_t kv_blocks() const override { return fake.blocks; }
    uint64_t kv_bytes() const override { return 0; }
    uint64_t weight_bytes() const override { return 0; }
    const char* kernel() const override { return "fake"; }
    uint32_t threads() const override { return 1; }
};

struct Bench {
    base::ManualClock clock;
    Desk desk;
    std::map<std::string, int> runs;
    std::map<std::string, bool> freed;
    engine::Models models{desk, clock};

    // The name is part of the file, so each is a version of its own. Returns the hash.
    std::string add(const std::string& name, int64_t row_ms = 1) {
        auto gguf = test::small_vocabulary();
        gguf.string("test.version", name);
        auto file = model::Gguf::parse(gguf.build());
        REQUIRE(file);
        auto made = model::Artifact::from_gguf(*file, 0, "");
        REQUIRE(made);
        engine::Model model;
        model.name = name;
        model.source = name;
        model.artifact = std::make_unique<model::Artifact>(std::move(*made));
        auto forward = std::make_unique<Counted>(runs[name], freed[name]);
        freed[name] = false;
        forward->fake.vocab = model.artifact->tokenizer().vocab_size();
        forward->fake.end_bias = -100;
        forward->fake.clock = &clock;
        forward->fake.row_ms = row_ms;
        model.forward = std::move(forward);
        const std::string hash = model.artifact->hash();
        REQUIRE(models.add(std::move(model)));
        return hash;
    }
    Desk::Case& ask(const std::string& id, const std::string& version, int tokens = 12,
                    const std::string& name = "any") {
        pipe::Envelope envelope;
        envelope.seed = 7;
        envelope.credit = 1'000'000;
        envelope.version = version;
        models.ask(id, envelope,
                   R"({"model":")" + name +
                       R"(","messages":[{"role":"user","content":"hello"}],"max_tokens":)" +
                       std::to_string(tokens) + "}");
        return desk.cases[id];
    }
    void run() {
        while (models.step()) {
        }
    }
};

}  // namespace

TEST_CASE("each request is answered by the version of its envelope", "[models]") {
    Bench b;
    const std::string one = b.add("one"), two = b.add("two");
    REQUIRE(one != two);
    auto& first = b.ask("req_1", one);
    b.run();
    CHECK(b.runs["two"] == 0);
    auto& second = b.ask("req_2", two);
    b.run();
    REQUIRE((first.end && second.end));
    CHECK(first.end->model == one);
    CHECK(second.end->model == two);
    CHECK(b.models.counters().finished == 2);
}

TEST_CASE("without a version the body's name chooses among several models", "[models]") {
    Bench b;
    const std::string one = b.add("one");
    auto& only = b.ask("req_0", "");
    b.run();
    CHECK(only.end->model == one);
    const std::string two = b.add("two");
    auto& named = b.ask("req_1", "", 4, "two");
    auto& unknown = b.ask("req_2", "", 4, "three");
    b.run();
    CHECK(named.end->model == two);
    CHECK(unknown.end->status == "not_found_error");
    CHECK(unknown.end->retryable);
    CHECK(unknown.end->message == "the model is not served here");
}

TEST_CASE("a model that retires finishes what runs, refuses what is new, and is freed",
          "[models]") {
    Bench b;
    const std::string one = b.add("one"), two = b.add("two");
    auto& undisturbed = b.ask("req_0", two, 30);
    b.run();
    auto& running = b.ask("req_1", two, 30);
    for (int i = 0; i < 5; ++i) REQUIRE(b.models.step());
    REQUIRE(b.models.retire(two));
    CHECK_FALSE(b.models.retire(two));
    CHECK(b.models.serving().size() == 1);
    auto& late = b.ask("req_2", two);
    REQUIRE(late.end);
    CHECK(late.end->status == "not_found_error");
    CHECK(late.end->reason == "no_worker");
    CHECK(late.end->retryable);
    CHECK(late.end->message == "version " + two + " is not served here");
    CHECK_FALSE(b.freed["two"]);
    b.run();
    REQUIRE(running.end);
    CHECK(running.end->ok());
    CHECK(running.ids == undisturbed.ids);
    CHECK(b.freed["two"]);
    CHECK(b.models.take_freed() == std::vector<std::string>{two});
    CHECK_FALSE(b.freed["one"]);
    CHECK(b.models.counters().finished == 2);  // what the freed one did still counts
    CHECK(b.models.counters().refused == 1);
    CHECK(b.models.stats().decode_rows > 0);
    CHECK(b.ask("req_3", one).end == std::nullopt);
}

TEST_CASE("models that compute beside each other get equal time, not equal turns", "[models]") {
    Bench b;
    const std::string slow = b.add("slow", 10), fast = b.add("fast", 1);
    b.ask("req_1", slow, 200);
    for (int i = 0; i < 5; ++i) REQUIRE(b.models.step());
    const int before = b.runs["slow"];
    b.ask("req_2", fast, 300);
    for (int i = 0; i < 200; ++i) REQUIRE(b.models.step());
    CHECK(b.runs["slow"] - before >= 15);
    CHECK(b.runs["fast"] >= 4 * (b.runs["slow"] - before));
}

TEST_CASE("a model that was idle has saved no time up", "[models]") {
    Bench b;
    const std::string one = b.add("one"), two = b.add("two");
    b.ask("req_1", one, 200);
    for (int i = 0; i < 100; ++i) REQUIRE(b.models.step());
    b.ask("req_2", two, 60);
    const int before = b.runs["one"];
    for (int i = 0; i < 80; ++i) REQUIRE(b.models.step());
    CHECK(b.runs["one"] - before >= 25);
}

TEST_CASE("a version is served once, and one that retires is taken back", "[models]") {
    Bench b;
    const std::string one = b.add("one");
    b.ask("req_1", one, 30);
    REQUIRE(b.models.step());
    auto again = [&] {
        auto file =
            model::Gguf::parse(test::small_vocabulary().string("test.version", "one").build());
        engine::Model model;
        model.name = "new name";
        model.artifact =
            std::make_unique<model::Artifact>(std::move(*model::Artifact::from_gguf(*file, 0, "")));
        model.forward = std::make_unique<test::FakeForward>();
        return b.models.add(std::move(model));
    };
    const auto refused = again();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::conflict);
    CHECK(b.models.retire(one));
    REQUIRE(again());
    CHECK(b.models.hash_of("new name").value_or("") == one);
    b.run();
    CHECK(b.desk.cases["req_1"].end->ok());
    CHECK_FALSE(b.freed["one"]);
}
