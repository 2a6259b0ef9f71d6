#include "load/prompts.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

using namespace parley;
using Catch::Matchers::Contains;
using load::PromptSet;

TEST_CASE("text, prompts and bodies become whole Messages API bodies", "[load]") {
    auto set = PromptSet::parse(
        "Say \"hi\"\r\n\n   \n{\"prompt\":\"Two\",\"system\":\"be short\"}\n"
        "{\"model\":\"m1\",\"max_tokens\":7,\"temperature\":0.5,\"stream\":false,"
        "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Three\"}]}]}",
        {});
    REQUIRE(set);
    REQUIRE(set->size() == 3);
    CHECK(
        set->body(0) ==
        R"({"messages":[{"role":"user","content":"Say \"hi\""}],"model":"default","max_tokens":128,"stream":true})");
    CHECK(
        set->body(1) ==
        R"({"messages":[{"role":"user","content":"Two"}],"system":"be short","model":"default","max_tokens":128,"stream":true})");
    CHECK(
        set->body(2) ==
        R"({"model":"m1","max_tokens":7,"temperature":0.5,"messages":[{"role":"user","content":[{"type":"text","text":"Three"}]}],"stream":true})");
}

TEST_CASE("the run's settings replace the line's own", "[load]") {
    load::PromptOptions options;
    options.model = "m2";
    options.max_tokens = 3;
    options.temperature = 0;
    auto set = PromptSet::parse(
        "{\"model\":\"m1\",\"max_tokens\":7,\"temperature\":0.5,\"messages\":[]}", options);
    REQUIRE(set);
    CHECK(set->body(0) ==
          R"({"messages":[],"model":"m2","max_tokens":3,"temperature":0,"stream":true})");
}

TEST_CASE("a bad line is an error that names it", "[load]") {
    for (const char* bad : {"ok\n{\"prompt\":", "ok\n{\"text\":\"x\"}", "ok\n{\"prompt\":5}",
                            "ok\n{\"prompt\":\"x\",\"messages\":[]}", "ok\nbad \xff utf-8"}) {
        CAPTURE(bad);
        auto set = PromptSet::parse(bad, {});
        REQUIRE_FALSE(set);
        CHECK(set.error().code == base::Errc::invalid);
        CHECK_THAT(set.error().what, Contains("line 2"));
    }
    CHECK_FALSE(PromptSet::parse("\n\n", {}));
    load::PromptOptions two;
    two.prompts_max = 2;
    CHECK(PromptSet::parse("a\nb\n", two));
    auto three = PromptSet::parse("a\nb\nc", two);
    REQUIRE_FALSE(three);
    CHECK(three.error().code == base::Errc::too_large);
}

TEST_CASE("a missing file is said so, and the shipped sets are good", "[load]") {
    auto none = PromptSet::read("/nonexistent/prompts", {});
    REQUIRE_FALSE(none);
    CHECK_THAT(none.error().what, Contains("/nonexistent/prompts"));
    size_t sets = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(PARLEY_SOURCE_DIR "/examples/loadgen")) {
        if (entry.path().extension() != ".jsonl" && entry.path().extension() != ".txt") continue;
        ++sets;
        CAPTURE(entry.path().string());
        auto set = PromptSet::read(entry.path().string(), {});
        REQUIRE(set);
        CHECK(set->size() >= 8);
    }
    CHECK(sets >= 2);
}
