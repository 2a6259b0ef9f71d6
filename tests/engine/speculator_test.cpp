#include "engine/speculator.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace parley;
using engine::CostModel;
using engine::DraftBudget;
using engine::Guess;
using engine::IterationLoad;
using engine::Speculator;
using Tokens = std::vector<model::Token>;

namespace {

Tokens guess(const Tokens& tokens, uint32_t count) {
    Speculator speculator;
    speculator.follow(tokens);
    Tokens out;
    if (speculator.guesses()) speculator.draft(tokens, count, out);
    return out;
}

// Follows `text` token by token from place `from` on, as an engine would.
Speculator followed(const Tokens& text, size_t from) {
    Speculator speculator;
    for (size_t end = from; end <= text.size(); ++end)
        speculator.follow(std::span(text).first(end));
    return speculator;
}

// step_s for any iteration, row_s more for each sequence, draft_s for each guessed token.
CostModel model_of(double step_s, double row_s, double draft_s) {
    CostModel cost;
    std::mt19937 random(7);
    for (int i = 0; i < 300; ++i) {
        IterationLoad load;
        load.decode_rows = 1 + random() % 16;
        load.draft_rows = random() % 9;
        cost.observe(load, step_s + load.decode_rows * row_s + load.draft_rows * draft_s);
    }
    return cost;
}

// A text that repeats itself for long: its guesses come true.
const Speculator& sure() {
    static const Speculator speculator = [] {
        Tokens text;
        for (int i = 0; i < 200; ++i) text.push_back(i % 10);
        return followed(text, 50);
    }();
    return speculator;
}

}  // namespace

TEST_CASE("the guess is what followed the longest earlier match, the latest of equal ones",
          "[speculation]") {
    CHECK(guess({1, 2, 3, 4, 9, 2, 3, 5, 8, 1, 2, 3}, 2) == Tokens{4, 9});  // 1 2 3 before 2 3
    CHECK(guess({2, 3, 4, 9, 2, 3, 5, 8, 2, 3}, 2) == Tokens{5, 8});
    CHECK(guess({1, 2, 3, 4, 5}, 2).empty());
    CHECK(guess({7, 3, 8, 3}, 2).empty());  // one token alike is too little
    CHECK(guess({}, 2).empty());
    CHECK(guess({1}, 2).empty());
}

TEST_CASE("a repetition shorter than the draft goes round", "[speculation]") {
    CHECK(guess({9, 1, 2, 3, 1, 2, 3}, 8) == Tokens{1, 2, 3, 1, 2, 3, 1, 2});
    CHECK(guess({5, 5, 5}, 4) == Tokens{5, 5, 5, 5});
}

TEST_CASE("the place goes on with the text, and is given up where the text does not repeat it",
          "[speculation]") {
    const Tokens text{1, 2, 3, 4, 5, 6, 7, 0, 2, 3, 4, 5, 8};
    Speculator speculator;
    speculator.follow(std::span(text).first(10));
    for (size_t end = 10; end < text.size(); ++end) {
        speculator.follow(std::span(text).first(end));
        REQUIRE(speculator.guesses());
        Tokens next;
        speculator.draft(std::span(text).first(end), 1, next);
        CHECK(next == Tokens{text[end - 7]});
    }
    speculator.follow(text);
    CHECK_FALSE(speculator.guesses());
}

TEST_CASE("a text in one piece or token by token leads to the same guess", "[speculation]") {
    std::mt19937 random(3);
    for (int round = 0; round < 50; ++round) {
        Tokens text;
        for (int i = 0; i < 700; ++i) text.push_back(static_cast<model::Token>(random() % 400));
        const size_t from = random() % 600;
        for (size_t i = from; i < from + 40; ++i) text.push_back(text[i]);  // a long match at the end
        const Speculator grown = followed(text, 650);
        REQUIRE(grown.guesses());
        Tokens next;
        grown.draft(text, 5, next);
        CHECK(next == guess(text, 5));
        CHECK(next[0] == text[from + 40]);
    }
}

TEST_CASE("chances fall where guesses fail, and rise where they come true, with no row spent",
          "[speculation]") {
    std::mt19937 random(1);
    Tokens noise;
    for (int i = 0; i < 2000; ++i) noise.push_back(static_cast<model::Token>(random() % 20));
    const Speculator wrong = followed(noise, 100);
    for (Speculator s : {wrong}) CHECK(s.chance(0) < 0.15);
    CHECK(sure().chance(0) > 0.95);
    CHECK(sure().chance(7) > 0.95);

    // The same text begins to repeat itself: sure again within its length.
    Tokens turned = noise;
    for (int i = 0; i < 60; ++i) turned.push_back(i % 12);
    CHECK(followed(turned, 100).chance(0) > 0.8);
}

TEST_CASE("rows are spent where they raise the tokens a second, and nowhere else", "[speculation]") {
    IterationLoad one;
    one.decode_rows = 1;
    const auto rows = [&](const CostModel& cost, const Speculator& of, const IterationLoad& load) {
        Guess g{&of, 8, 0};
        DraftBudget().share(cost, load, {&g, 1});
        return g.rows;
    };
    const CostModel cheap = model_of(2e-3, 0.1e-3, 0.1e-3);
    REQUIRE(cheap.draft_known());
    CHECK(cheap.draft_row_s() == Approx(0.1e-3).epsilon(0.1));
    CHECK(rows(cheap, sure(), one) == 8);
    CHECK(rows(model_of(2e-3, 0.1e-3, 2.2e-3), sure(), one) == 0);
    // As dear as a sequence's own row: they pay for one sequence, not in a batch where the rows are
    // the most of it.
    const CostModel arithmetic = model_of(0.1e-3, 1e-3, 1e-3);
    IterationLoad crowd;
    crowd.decode_rows = 16;
    CHECK(rows(arithmetic, sure(), crowd) == 0);

    std::mt19937 random(1);
    Tokens noise;
    for (int i = 0; i < 2000; ++i) noise.push_back(static_cast<model::Token>(random() % 20));
    CHECK(rows(model_of(2e-3, 0.1e-3, 0.5e-3), followed(noise, 100), one) == 0);
}

TEST_CASE("an iteration's time bounds the rows, however well they pay", "[speculation]") {
    IterationLoad one;
    one.decode_rows = 1;
    const CostModel cost = model_of(2e-3, 0.1e-3, 0.1e-3);
    const auto rows = [&](double most) {
        Guess g{&sure(), 8, 0};
        DraftBudget().share(cost, one, {&g, 1}, most);
        return g.rows;
    };
    CHECK(rows(0) == 8);
    CHECK(rows(1) == 8);
    CHECK(rows(2.46e-3) == 3);
    CHECK(rows(1e-3) == 0);
}

TEST_CASE("the likeliest guesses get the rows first", "[speculation]") {
    Speculator fresh;
    const Tokens text{1, 2, 3, 1, 2};  // a short match of which nothing is known
    fresh.follow(text);
    std::vector<Guess> guesses{{&fresh, 8, 0}, {&sure(), 8, 0}, {&fresh, 8, 0}};
    IterationLoad three;
    three.decode_rows = 3;
    DraftBudget().share(model_of(2e-3, 0.1e-3, 0.4e-3), three, guesses);
    CHECK(guesses[1].rows == 8);
    CHECK(guesses[0].rows < 2);
    CHECK(guesses[2].rows < 2);
}

TEST_CASE("a row thought too dear is tried again, seldom and briefly", "[speculation]") {
    IterationLoad one;
    one.decode_rows = 1;
    const CostModel dear = model_of(1e-3, 0.1e-3, 5e-3);
    DraftBudget budget;
    uint32_t tried = 0;
    for (int i = 0; i < 320; ++i) {
        Guess g{&sure(), 8, 0};
        budget.share(dear, one, {&g, 1});
        tried += g.rows > 0;
        CHECK(g.rows <= 4);
    }
    CHECK(tried == 10);
}

TEST_CASE("nothing is guessed before an iteration was timed", "[speculation]") {
    IterationLoad one;
    one.decode_rows = 1;
    Guess g{&sure(), 8, 0};
    DraftBudget().share(CostModel(), one, {&g, 1});
    CHECK(g.rows == 0);
}
