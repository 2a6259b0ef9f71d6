#include "chat/context.hpp"

#include <catch2/catch.hpp>

#include "model/gguf.hpp"
#include "model/small_vocabulary.hpp"

using namespace parley;
using namespace parley::chat;

namespace {

// 256 tokens of window, a token a byte (nearly).
const model::Artifact& artifact() {
    static const model::Artifact small = [] {
        static const auto bytes = test::small_vocabulary().build();
        auto file = model::Gguf::parse(bytes);
        REQUIRE(file);
        auto made = model::Artifact::from_gguf(*file, 0, "");
        REQUIRE(made);
        return std::move(*made);
    }();
    return small;
}

std::vector<store::MessageRow> talk(const std::vector<std::string>& texts) {
    std::vector<store::MessageRow> rows;
    for (size_t i = 0; i < texts.size(); ++i) {
        store::MessageRow row;
        row.role = i % 2 == 0 ? "user" : "assistant";
        row.status = "done";
        row.content = texts[i].empty() ? "[]" : R"([{"type":"text","text":")" + texts[i] + R"("}])";
        rows.push_back(row);
    }
    return rows;
}

ContextOptions options(uint64_t max_tokens = 16) {
    ContextOptions o;
    o.model = "m";
    o.max_tokens = max_tokens;
    return o;
}

bool has(const std::string& json, const std::string& part) {
    return json.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a path that fits is sent whole, with system and sampling", "[context]") {
    ContextOptions o = options();
    o.system = R"("Be brief.")";
    o.extra_members = R"("temperature":0)";
    const auto context = build_context(talk({"one", "two", "three"}), o, &artifact());
    REQUIRE(context);
    CHECK(context->truncated_messages == 0);
    CHECK(has(context->body, R"("system":"Be brief.")"));
    CHECK(has(context->body, R"("temperature":0})"));
    for (const char* text : {"one", "two", "three"}) CHECK(has(context->body, text));
    const auto request = messages::parse_request(context->body);
    REQUIRE(request);
    CHECK(context->prompt_tokens == count_prompt(*request, artifact()));
}

TEST_CASE("a long talk loses its oldest turns, whole ones, and says how many", "[context]") {
    std::vector<std::string> texts;
    for (int i = 0; i < 21; ++i) texts.push_back(std::string(20, static_cast<char>('b' + i)));
    const auto context = build_context(talk(texts), options(), &artifact());
    REQUIRE(context);
    CHECK(context->truncated_messages > 0);
    CHECK(context->truncated_messages % 2 == 0);  // never begins with an answer
    CHECK(has(context->body, texts[20]));
    CHECK_FALSE(has(context->body, texts[0]));
    CHECK(has(context->body, texts[context->truncated_messages]));
    CHECK_FALSE(has(context->body, texts[context->truncated_messages - 1]));
    CHECK(context->prompt_tokens + 16 <= 256);
    // One turn more would not have fitted.
    ContextOptions none = options();
    auto more = talk(texts);
    more.erase(more.begin(), more.begin() + context->truncated_messages - 2);
    const auto again = build_context(more, none, &artifact());
    REQUIRE(again);
    CHECK(again->truncated_messages == 2);
}

TEST_CASE("a blocked question and its answer are never part of a prompt", "[context]") {
    auto rows = talk({"bad", "", "good", "fine", "now"});
    rows[0].status = "blocked";
    rows[1].status = "blocked";
    auto context = build_context(rows, options(), &artifact());
    REQUIRE(context);
    CHECK_FALSE(has(context->body, "bad"));
    CHECK(context->truncated_messages == 0);
    // Where only the answer is marked yet.
    rows[0].status = "done";
    context = build_context(rows, options(), &artifact());
    REQUIRE(context);
    CHECK_FALSE(has(context->body, "bad"));
}

TEST_CASE("a new message that alone is too long is refused in the exact words", "[context]") {
    const auto context = build_context(talk({std::string(400, 'b')}), options(), &artifact());
    REQUIRE_FALSE(context);
    CHECK(context.error().status == 400);
    CHECK(context.error().message.rfind("prompt is too long: ", 0) == 0);
    CHECK(has(context.error().message, " tokens > 255 maximum"));
}

TEST_CASE("the answer's length is cut to what the window leaves", "[context]") {
    const auto context = build_context(talk({std::string(100, 'b')}), options(10'000), &artifact());
    REQUIRE(context);
    CHECK(context->max_tokens == 256 - context->prompt_tokens);
    CHECK(has(context->body, "\"max_tokens\":" + std::to_string(context->max_tokens)));
}

TEST_CASE("without an artifact nothing is cut", "[context]") {
    const auto context = build_context(talk({std::string(4000, 'b')}), options(), nullptr);
    REQUIRE(context);
    CHECK(context->prompt_tokens == 0);
    CHECK(has(context->body, std::string(4000, 'b')));
}
