#include "engine/sampler.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "engine/random.hpp"
#include "engine/row.hpp"

using namespace parley;
using engine::Sampler;
using engine::SamplerScratch;
using engine::SamplingOptions;

namespace {

model::Token pick(const SamplingOptions& options, std::vector<float> logits, uint64_t index = 0) {
    SamplerScratch scratch;
    return Sampler(options).pick(logits, index, scratch);
}

// The set of tokens that a thousand draws bring up.
std::set<model::Token> drawn(SamplingOptions options, const std::vector<float>& logits) {
    std::set<model::Token> seen;
    for (uint64_t i = 0; i < 1000; ++i) seen.insert(pick(options, logits, i));
    return seen;
}

}  // namespace

TEST_CASE("philox gives the published vectors", "[sampler]") {
    // Random123's kat_vectors, philox 4x32 with 10 rounds.
    CHECK(engine::philox4x32_10({0, 0, 0, 0}, {0, 0}) ==
          engine::PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(engine::philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                                {0xffffffff, 0xffffffff}) ==
          engine::PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(engine::philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                                {0xa4093822, 0x299f31d0}) ==
          engine::PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a random number depends on seed and index alone and is even over [0, 1)", "[sampler]") {
    CHECK(engine::uniform(7, 3) == engine::uniform(7, 3));
    CHECK(engine::uniform(7, 3) != engine::uniform(8, 3));
    CHECK(engine::uniform(7, 3) != engine::uniform(7, 4));
    CHECK(engine::uniform(7, 3) != engine::uniform(7ull + (1ull << 32), 3));
    double sum = 0;
    int low = 0;
    for (uint64_t i = 0; i < 20'000; ++i) {
        const double u = engine::uniform(42, i);
        REQUIRE(u >= 0);
        REQUIRE(u < 1);
        sum += u;
        low += u < 0.1;
    }
    CHECK(sum / 20'000 == Approx(0.5).margin(0.01));
    CHECK(low / 20'000.0 == Approx(0.1).margin(0.01));
}

TEST_CASE("weights are close to the exponential, 1 at the greatest and 0 for what is no number",
          "[sampler]") {
    std::vector<float> row = {0.0f, -100.0f, -std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()};
    std::vector<float> weights, sums, maxima;
    engine::row_weigh(row, 0, 1, weights, sums, maxima);
    CHECK(weights[0] == 1.0f);
    for (size_t i = 1; i < weights.size(); ++i) CHECK(weights[i] == 0.0f);
    row.clear();
    for (float x = -86.5f; x <= 0.0f; x += 0.0137f) row.push_back(x);
    engine::row_weigh(row, 0, 1, weights, sums, maxima);
    for (size_t i = 0; i < row.size(); ++i) {
        const double exact = std::exp(static_cast<double>(row[i]));
        CHECK(std::abs(weights[i] - exact) <= 2.5e-7 * exact);
    }
}

TEST_CASE("every path of this host gives the same bits, whatever the length", "[sampler]") {
    const auto paths = engine::row_paths();
    REQUIRE(std::string(paths.back().name) == "plain");
    for (const size_t size : {1u, 63u, 64u, 65u, 1000u, 49'152u}) {
        std::vector<float> row;
        for (size_t i = 0; i < size; ++i)
            row.push_back(static_cast<float>(engine::uniform(size, i) * 40 - 20));
        if (size > 64) row[17] = std::numeric_limits<float>::quiet_NaN();
        std::vector<float> maxima, weights, sums, tops;
        const float most = engine::row_max(row, maxima, paths.back());
        engine::row_weigh(row, most, 1.25f, weights, sums, tops, paths.back());
        for (const auto& path : paths) {
            INFO(path.name << " " << size);
            std::vector<float> maxima2, weights2, sums2, tops2;
            CHECK(engine::row_max(row, maxima2, path) == most);
            engine::row_weigh(row, most, 1.25f, weights2, sums2, tops2, path);
            CHECK(maxima2 == maxima);
            CHECK(weights2 == weights);
            CHECK(sums2 == sums);
            CHECK(tops2 == tops);
        }
    }
}

TEST_CASE("greedy takes the lowest id on ties", "[sampler]") {
    SamplingOptions greedy;
    greedy.temperature = 0;
    CHECK(pick(greedy, {1, 5, 3, 5, 5}) == 1);
    CHECK(pick(greedy, {-1, -2, -1}) == 0);
}

TEST_CASE("logits that are not numbers are never chosen, and none at all is said", "[sampler]") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    SamplingOptions o;
    o.temperature = 0;
    CHECK(pick(o, {nan, 1, nan}) == 1);
    CHECK(pick(o, {nan, nan}) == engine::kNoToken);
    CHECK(pick(o, {-inf, -inf}) == engine::kNoToken);
    o.temperature = 1;
    CHECK(drawn(o, {nan, 1, 2, nan, -inf}) == std::set<model::Token>{1, 2});
    CHECK(pick(o, {nan, nan}) == engine::kNoToken);
    CHECK(pick(o, {inf, 0}) == engine::kNoToken);
}

TEST_CASE("draws follow the softmax of the logits over the temperature", "[sampler]") {
    const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
    for (const float temperature : {1.0f, 0.5f}) {
        for (const uint32_t top_k : {0u, 3u - 1u + 1u}) {  // without and with the sorting path
            SamplingOptions o;
            o.temperature = temperature;
            o.top_k = top_k;
            o.min_p = top_k ? 1e-6f : 0.0f;
            o.seed = 99;
            double weights[3], total = 0;
            for (int i = 0; i < 3; ++i) {
                weights[i] = std::exp(logits[static_cast<size_t>(i)] / temperature);
                total += weights[i];
            }
            int counts[3] = {};
            for (uint64_t n = 0; n < 20'000; ++n) ++counts[pick(o, logits, n)];
            for (int i = 0; i < 3; ++i)
                CHECK(counts[i] / 20'000.0 == Approx(weights[i] / total).margin(0.012));
        }
    }
}

TEST_CASE("top-k keeps exactly k, the lower id on ties", "[sampler]") {
    SamplingOptions o;
    o.top_k = 2;
    CHECK(drawn(o, {1, 3, 2, 0}) == std::set<model::Token>{1, 2});
    CHECK(drawn(o, {2, 2, 2, 2}) == std::set<model::Token>{0, 1});
    o.top_k = 1;
    CHECK(drawn(o, {1, 3, 3, 0}) == std::set<model::Token>{1});
    o.top_k = 100;
    CHECK(drawn(o, {1, 1, 1}).size() == 3);
}

TEST_CASE("top-p keeps the smallest set that reaches p, and at least one", "[sampler]") {
    const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                       std::log(0.05f)};
    SamplingOptions o;
    o.top_p = 0.7f;
    CHECK(drawn(o, logits) == std::set<model::Token>{0, 1});
    o.top_p = 0.9f;
    CHECK(drawn(o, logits) == std::set<model::Token>{0, 1, 2});
    o.top_p = 0.0f;
    CHECK(drawn(o, logits) == std::set<model::Token>{0});
}

TEST_CASE("top-p counts within what top-k left", "[sampler]") {
    // Alone, 0.5 needs token 0; within the two of top-k (5/8, 3/8), 0.7 needs both.
    SamplingOptions o;
    o.top_k = 2;
    o.top_p = 0.7f;
    CHECK(drawn(o, {std::log(0.5f), std::log(0.3f), std::log(0.2f)}) ==
          std::set<model::Token>{0, 1});
    o.top_p = 0.6f;
    CHECK(drawn(o, {std::log(0.5f), std::log(0.3f), std::log(0.2f)}) == std::set<model::Token>{0});
}

TEST_CASE("min-p drops what is far below the most likely token", "[sampler]") {
    SamplingOptions o;
    o.min_p = 0.2f;
    CHECK(drawn(o, {std::log(0.6f), std::log(0.3f), std::log(0.1f)}) ==
          std::set<model::Token>{0, 1});
}

TEST_CASE("penalties move a greedy choice away from what was said", "[sampler]") {
    SamplingOptions o;
    o.temperature = 0;
    SamplerScratch scratch;
    const auto after = [&](const SamplingOptions& options, std::vector<model::Token> prompt,
                           std::vector<model::Token> produced, std::vector<float> logits) {
        Sampler sampler(options);
        sampler.saw_prompt(prompt);
        for (const auto token : produced) sampler.produced(token);
        return sampler.pick(logits, 0, scratch);
    };
    o.repetition_penalty = 2;
    CHECK(after(o, {1}, {}, {1.0f, 1.5f, 0.0f}) == 0);  // 1.5 / 2 < 1
    CHECK(after(o, {}, {1}, {1.0f, 1.5f, 0.0f}) == 0);
    CHECK(after(o, {0, 1}, {}, {-1.0f, -1.0f, -1.5f}) == 2);  // -1 · 2 < -1.5
    o = {};
    o.temperature = 0;
    o.presence_penalty = 1;
    CHECK(after(o, {1}, {}, {1.0f, 1.5f}) == 1);  // the prompt does not count
    CHECK(after(o, {}, {1, 1}, {1.0f, 1.5f}) == 0);
    CHECK(after(o, {}, {1, 1, 1}, {0.0f, 1.5f}) == 1);  // once, however often it was said
    o = {};
    o.temperature = 0;
    o.frequency_penalty = 0.5f;
    CHECK(after(o, {}, {1}, {0.6f, 1.2f}) == 1);
    CHECK(after(o, {}, {1, 1}, {0.6f, 1.2f}) == 0);
}

TEST_CASE("cuts and draws on a large row are those of a full sort", "[sampler]") {
    std::vector<float> row;
    for (uint64_t i = 0; i < 5000; ++i)
        row.push_back(static_cast<float>(static_cast<int>(engine::uniform(3, i) * 200)) /
                      10);  // ties
    for (const uint32_t top_k : {0u, 1u, 7u, 40u, 300u, 4999u}) {
        for (const float top_p : {1.0f, 0.95f, 0.5f, 0.01f}) {
            SamplingOptions o;
            o.top_k = top_k;
            o.top_p = top_p;
            // By definition, in double.
            std::vector<std::pair<double, model::Token>> all;
            for (size_t i = 0; i < row.size(); ++i)
                all.emplace_back(-static_cast<double>(row[i]), static_cast<model::Token>(i));
            std::sort(all.begin(), all.end());
            if (top_k > 0) all.resize(std::min<size_t>(all.size(), top_k));
            double total = 0;
            for (const auto& [x, token] : all) total += std::exp(-x - 20);
            std::set<model::Token> allowed;
            double sum = 0;
            for (const auto& [x, token] : all) {
                if (sum >= static_cast<double>(top_p) * total * (1 + 1e-5)) break;
                sum += std::exp(-x - 20);
                allowed.insert(token);
            }
            std::set<model::Token> seen;
            for (uint64_t n = 0; n < 300; ++n) seen.insert(pick(o, row, n));
            INFO("top_k " << top_k << " top_p " << top_p);
            for (const auto token : seen) CHECK(allowed.count(token) == 1);
            if (allowed.size() <= 5) CHECK(seen.size() == allowed.size());
        }
    }
}

TEST_CASE("a sampling option out of range is refused by name", "[sampler]") {
    SamplingOptions o;
    CHECK(check(o));
    o.top_p = 1.5f;
    REQUIRE_FALSE(check(o));
    CHECK(check(o).error().what == "top_p: range: 0..1");
    o = {};
    o.temperature = std::numeric_limits<float>::quiet_NaN();
    CHECK_FALSE(check(o));
    o = {};
    o.repetition_penalty = 0;
    CHECK_FALSE(check(o));
}

TEST_CASE("a token that is not allowed is never picked", "[engine][sampler]") {
    engine::SamplerScratch scratch;
    for (uint32_t n = 0; n < 300; ++n) {
        engine::SamplingOptions options;
        options.temperature = n % 3 == 0 ? 0.0f : 1.5f;
        options.top_k = n % 4 == 1 ? 3 : 0;
        options.top_p = n % 5 == 2 ? 0.8f : 1.0f;
        options.seed = n;
        const engine::Sampler sampler(options);
        std::vector<float> logits(150);
        for (size_t i = 0; i < logits.size(); ++i)
            logits[i] = static_cast<float>((i * 37 + n * 11) % 101) / 10.0f;
        // Bits for 128 of 150 tokens: those past the end are not allowed either.
        const std::vector<uint64_t> allowed = {uint64_t{1} << (n % 64), uint64_t{5} << (n % 60)};
        const auto token = sampler.pick(logits, n, scratch, allowed);
        REQUIRE(token >= 0);
        REQUIRE(token < 128);
        REQUIRE((allowed[static_cast<size_t>(token) / 64] >> (token % 64) & 1) == 1);
    }
    std::vector<float> logits(70, 1.0f);
    const std::vector<uint64_t> none(2, 0);
    CHECK(engine::Sampler({}).pick(logits, 0, scratch, none) == engine::kNoToken);
}
