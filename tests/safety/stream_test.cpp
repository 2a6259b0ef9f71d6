#include "safety/stream.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace parley;
using namespace parley::safety;

namespace {

std::shared_ptr<const Policy> policy_of(
    const std::string& rest, const std::string& output = "output = { flag = 2.0, block = 2.0 }") {
    auto policy = Policy::parse("version = \"t\"\n[thresholds.output]\n" + output + "\n" + rest);
    if (!policy) FAIL(policy.error().what);
    return *policy;
}

std::string rule(const std::string& pattern, const std::string& action = "block") {
    return "[[rule]]\nid = \"r-" + std::to_string(std::hash<std::string>{}(pattern) % 10000) +
           "\"\nside = \"output\"\npattern = '" + pattern + "'\naction = \"" + action + "\"\n";
}

struct Run {
    std::string released;
    bool blocked = false;
    size_t most_held = 0;
};

// Pushes `pieces` one by one; released text is what the judge let go.
Run run(OutputJudge& judge, const std::vector<std::string>& pieces) {
    Run out;
    size_t gone = 0;
    auto take = [&](const base::Result<Step>& step) {
        if (!step) FAIL(step.error().what);
        REQUIRE(step->release >= gone);
        REQUIRE(step->release <= pieces.size());
        for (; gone < step->release; ++gone) out.released += pieces[gone];
        out.blocked |= step->block;
    };
    for (size_t i = 0; i < pieces.size() && !out.blocked; ++i) {
        take(judge.push(pieces[i], 1));
        out.most_held = std::max(out.most_held, i + 1 - gone);
    }
    if (!out.blocked) take(judge.finish());
    return out;
}

// Random cuts at code points.
std::vector<std::string> cut(const std::string& text, std::mt19937& random, size_t most) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.size(), at + 1 + random() % most);
        while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
        out.push_back(text.substr(at, end - at));
        at = end;
    }
    return out;
}

}  // namespace

TEST_CASE("no byte of a blocked match ever leaves, wherever tokens are cut", "[stream]") {
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    struct Case {
        const char* pattern;
        const char* match;
    };
    const Case cases[] = {
        {"the secret word is xyzzy", "the secret word is xyzzy"},
        {"(?i)begin private key", "BEGIN PRIVATE KEY"},
        {"\\bkill\\s+the\\s+king\\b!", "kill   the king!"},
        {"\\d{4}-\\d{4}-\\d{4}-\\d{4}", "1234-5678-9012-3456"},
        {"alpha.{0,200}omega", "alpha and many, many other letters before the omega"},
        {"schlüssel ?ß+ende", "schlüssel ßßßende"},
        {"forbidden", "f\u200bo\u200brbidden"},
        {"forbidden", "f\u043erbidd\u0435n"},
        {"x(ab|cd)*y", "xabcdcdabababababababababababy"}};
    const char* around[] = {"Once upon a time there was a small fox. ", "",
                            " and so on, the end of it all.",
                            "the the the secret secret alpha kill 1234-5678 BEGIN x forb ",
                            "e\u0301 \U0001F468\u200d\U0001F469 z "};
    for (int round = 0; round < 300; ++round) {
        const Case& c = cases[random() % std::size(cases)];
        const std::string before = around[random() % 5], after = around[random() % 5];
        const std::string text = before + c.match + after;
        const std::string hold =
            "[hold]\ntokens = " + std::to_string(random() % 3 * 4) + "\nwatch_tokens = 32\n";
        INFO("round " << round << " pattern " << c.pattern << " text " << text);
        OutputJudge judge(policy_of(hold + rule(c.pattern)), "a question");
        const Run got = run(judge, cut(text, random, 1 + random() % 9));
        CHECK(got.blocked);
        CHECK(judge.verdict().action == Action::block);
        CHECK(judge.verdict().rules.size() == 1);
        CHECK(got.released.size() <= before.size());
        CHECK(text.compare(0, got.released.size(), got.released) == 0);
    }
}

TEST_CASE("an answer without a match leaves whole and in order", "[stream]") {
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const std::string text =
        "The secret wor is not xyzzy, the secret word was lost. kill the kin of 1234-5678-9012. "
        "\U0001F1E9\U0001F1EA "
        "e\u0301a\u0300 \uac00\u11a8 done";
    for (int round = 0; round < 200; ++round) {
        OutputJudge judge(policy_of(rule("the secret word is xyzzy") +
                                    rule("\\d{4}-\\d{4}-\\d{4}-\\d{4}") + rule("kill the king")),
                          "");
        const Run got = run(judge, cut(text, random, 1 + random() % 9));
        CHECK_FALSE(got.blocked);
        CHECK(got.released == text);
        CHECK(judge.verdict().action == Action::allow);
    }
}

TEST_CASE("a word boundary at the end of the text is not yet one", "[stream]") {
    OutputJudge judge(policy_of("[hold]\ntokens = 0\n" + rule("\\bkill you\\b")), "");
    auto step = judge.push("I will kill you", 1);
    REQUIRE(step);
    CHECK_FALSE(step->block);
    CHECK(step->release == 0);
    step = judge.push("rself laughing", 1);
    REQUIRE(step);
    CHECK_FALSE(step->block);
    CHECK(step->release == 2);

    OutputJudge other(policy_of("[hold]\ntokens = 0\n" + rule("\\bkill you\\b")), "");
    REQUIRE(other.push("I will kill you", 1));
    step = other.finish();
    REQUIRE(step);
    CHECK(step->block);
    CHECK(step->release == 0);
}

TEST_CASE("text is released eight tokens behind the last finished word", "[stream]") {
    OutputJudge judge(policy_of("[hold]\ntokens = 8\n"), "");
    size_t released = 0;
    for (size_t i = 1; i <= 40; ++i) {
        auto step = judge.push("word ", 1);
        REQUIRE(step);
        released = step->release;
        CHECK(released == (i > 8 ? i - 8 : 0));
    }
    auto step = judge.finish();
    REQUIRE(step);
    CHECK(step->release == 40);
}

TEST_CASE("no hold-back means that each token leaves as it comes", "[stream]") {
    OutputJudge judge(policy_of("[hold]\ntokens = 0\n"), "");
    for (size_t i = 1; i <= 20; ++i) {
        auto step = judge.push(i % 3 ? "wor" : "d ", 1);
        REQUIRE(step);
        CHECK(step->release == i);
    }
}

TEST_CASE("a policy may hold the whole answer", "[stream]") {
    OutputJudge judge(policy_of("[hold]\nall = true\n"), "");
    auto step = judge.push("", 0);  // message_start
    REQUIRE(step);
    CHECK(step->release == 1);
    for (int i = 0; i < 50; ++i) {
        step = judge.push("some words ", 2);
        REQUIRE(step);
        CHECK(step->release == 1);
    }
    step = judge.finish();
    REQUIRE(step);
    CHECK(step->release == 51);
}

TEST_CASE("nothing is released in the middle of a grapheme", "[stream]") {
    OutputJudge judge(policy_of("[hold]\ntokens = 0\n"), "");
    const std::vector<std::string> pieces = {"a ", "\U0001F468", "\u200d", "\U0001F469", " b"};
    size_t released = 0;
    for (const std::string& piece : pieces) {
        auto step = judge.push(piece, 1);
        REQUIRE(step);
        CHECK((step->release <= 1 || step->release == 5));
        released = step->release;
    }
    CHECK(released == 5);
}

TEST_CASE("one window of noise does not stop an answer, two do", "[stream]") {
    // Every text is over a threshold of nothing: the first judgement alone must not block.
    auto policy = policy_of("[hold]\ntokens = 0\nwindows = 2\nevery_tokens = 8\n",
                            "output = { flag = 2.0, block = 0.0 }");
    OutputJudge judge(policy, "");
    size_t tokens = 0;
    bool blocked = false;
    while (!blocked && tokens < 40) {
        auto step = judge.push("word ", 1);
        REQUIRE(step);
        blocked = step->block;
        ++tokens;
    }
    CHECK(tokens == 16);
    CHECK(judge.verdict().reason == "score");
}

TEST_CASE("a flag rule is noted and stops nothing", "[stream]") {
    OutputJudge judge(policy_of(rule("lighthouse", "flag")), "");
    std::mt19937 random(1);
    const Run got = run(judge, cut("There is a lighthouse on the hill over there.", random, 4));
    CHECK_FALSE(got.blocked);
    CHECK(judge.verdict().action == Action::flag);
    CHECK(judge.verdict().rules.size() == 1);
}

TEST_CASE("a continuation is judged from its released text on", "[stream]") {
    const auto policy = policy_of("[hold]\ntokens = 0\n" + rule("alpha beta gamma"));
    OutputJudge judge(policy, "q", "so: alpha be");
    auto step = judge.push("ta gamma ", 3);
    REQUIRE(step);
    CHECK(step->block);
    CHECK(step->release == 0);
    OutputJudge broken(policy, "q", "alpha beta gamma delta");
    step = broken.push("x", 1);
    REQUIRE(step);
    CHECK(step->block);
}

TEST_CASE("late judging releases nothing and stays an error", "[stream]") {
    static int64_t cpu = 0;
    cpu = 0;
    OutputJudge judge(
        policy_of("[hold]\ntokens = 0\n"), "", "", +[]() -> int64_t { return cpu += 60'000'000; });
    auto step = judge.push("hello ", 1);
    REQUIRE_FALSE(step);
    CHECK(step.error().code == base::Errc::timeout);
    CHECK_FALSE(judge.push("more ", 1));
    CHECK_FALSE(judge.finish());
}

TEST_CASE("an answer that is not UTF-8, or too long, is an error", "[stream]") {
    OutputJudge judge(policy_of(""), "");
    auto step = judge.push("\xc3", 1);
    REQUIRE_FALSE(step);
    CHECK(step.error().code == base::Errc::invalid);
    OutputJudge other(policy_of("[limits]\ntext_bytes_max = 1024\n"), "");
    REQUIRE(other.push(std::string(1024, 'a'), 1));
    step = other.push("b", 1);
    REQUIRE_FALSE(step);
    CHECK(step.error().code == base::Errc::too_large);
}

TEST_CASE("the noise of a small model is not stopped by the shipped policy", "[stream]") {
    const auto policy = *Policy::builtin();
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const char* words[] = {"the",  "capital", "of",      "is",    "Paris", "and",    "a",
                           "city", "in",      "Europe",  "that",  "you",   "can",    "visit",
                           "with", "your",    "friends", ",",     ".",     "river",  "it",
                           "was",  "built",   "many",    "years", "ago",   "python", "function",
                           "def",  "return",  "123",     "\n"};
    for (int round = 0; round < 20; ++round) {
        OutputJudge judge(policy, "What is the capital of France?");
        bool blocked = false;
        const size_t loop = 1 + random() % 30;
        for (int i = 0; i < 300 && !blocked; ++i) {
            auto step = judge.push(
                std::string(" ") + words[(random() % 3 ? i % loop : random()) % std::size(words)],
                1);
            REQUIRE(step);
            blocked = step->block;
        }
        CHECK_FALSE(blocked);
    }
}
