// What a mask costs on the real vocabulary of SmolLM2 (49,152 tokens).
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>

#include "grammar/mask.hpp"
#include "grammar/schema.hpp"
#include "model/gguf.hpp"
#include "model/tokenizer.hpp"
#include "support/model_file.hpp"
#include "validator.hpp"
#include "vocabularies.hpp"

using namespace parley;
using Clock = std::chrono::steady_clock;

namespace {

class Real final : public grammar::Vocabulary {
  public:
    explicit Real(const model::Tokenizer& t) : t_(t) {}
    uint32_t size() const override { return t_.vocab_size(); }
    std::string_view bytes(int32_t token) const override { return t_.bytes(token); }
    bool ends_answer(int32_t token) const override { return t_.is_end_of_generation(token); }

  private:
    const model::Tokenizer& t_;
};

double us(Clock::time_point from) {
    return std::chrono::duration<double, std::micro>(Clock::now() - from).count();
}

}  // namespace

TEST_CASE("a mask over the real vocabulary is small change beside a decode step",
          "[grammar][model]") {
    const std::string path = test::model_file();
    if (path.empty()) return;
    const auto file = model::Gguf::open(path);
    REQUIRE(file);
    const auto tokenizer = model::Tokenizer::from_gguf(*file);
    REQUIRE(tokenizer);
    auto from = Clock::now();
    const auto trie = std::make_shared<const grammar::Trie>(Real(*tokenizer));
    const double trie_us = us(from);
    const std::string schema =
        R"({"type":"object","properties":{"title":{"type":"string","maxLength":400},"tags":{"type":"array","items":{"type":"string"}},"score":{"type":"number"},"by":{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150}},"required":["name"]}},"required":["title","tags","score","by"],"additionalProperties":false})";
    const std::string text =
        R"({"title":"The quick brown fox jumps over the lazy dog, \"twice\", and goes home — at last.","tags":["fox","dog","brown & quick","été"],"score":-12.75,"by":{"name":"Ada Lovelace, Countess","age":36}})";
    from = Clock::now();
    auto automaton = grammar::compile_schema(schema);
    REQUIRE(automaton);
    auto made = grammar::TokenGrammar::create(std::move(*automaton), trie);
    REQUIRE(made);
    const double compile_us = us(from);
    from = Clock::now();
    (*made)->warm(256, 5'000'000'000);
    const double warm_us = us(from);
    const size_t warmed = (*made)->outcomes();
    CHECK(warmed > 10);
    CHECK(warmed <= 256);
    for (const char* pass : {"first", "later"}) {
        grammar::Matcher m(*made);
        std::vector<double> times;
        for (const auto token : tokenizer->encode(text)) {
            from = Clock::now();
            const auto mask = m.mask(1000);
            times.push_back(us(from));
            REQUIRE(test::allowed(mask, token));
            from = Clock::now();
            REQUIRE(m.accept(token, tokenizer->bytes(token)));
            times.back() += us(from);
        }
        CHECK(m.over());
        std::sort(times.begin(), times.end());
        const double median = times[times.size() / 2];
        WARN(pass << " text: mask and accept p50 " << median << " us, p90 "
                  << times[times.size() * 9 / 10] << " us, max " << times.back() << " us; trie "
                  << trie_us / 1000 << " ms (" << trie->nodes() << " nodes), schema "
                  << compile_us / 1000 << " ms, " << warmed << " outcomes ahead "
                  << warm_us / 1000 << " ms");
        CHECK((*made)->outcomes() == warmed);  // none was left to the loop
        CHECK(median < 110);  // 5 % of a step of 2.2 ms
    }
    test::Validator validator(schema);
    CHECK(validator.check(text) == "");
}
