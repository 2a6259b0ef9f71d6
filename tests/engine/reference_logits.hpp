// The reference logits in tests/data: an independent fp32 pass's ten best after each prompt, and its greedy
// text with the gap at every step; and how far the engine's logits are from them.
#pragma once

#include <simdjson.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "engine/forward.hpp"

namespace parley::test {

struct ReferencePrompt {
    std::string name;
    std::vector<model::Token> ids, greedy;
    std::vector<double> gap;
    std::vector<std::pair<model::Token, double>> top;  // natural log of probability
    double llama_kl = 0;  // of llama.cpp's logits from the same pass
};

inline std::vector<ReferencePrompt> reference_prompts(const std::string& file) {
    simdjson::dom::parser parser;
    const auto document = parser.load(PARLEY_SOURCE_DIR "/tests/data/" + file);
    std::vector<ReferencePrompt> prompts;
    for (const auto entry : document["prompts"].get_array()) {
        ReferencePrompt prompt;
        prompt.name = std::string{entry["name"].get_string().value()};
        for (const int64_t id : entry["ids"].get_array())
            prompt.ids.push_back(static_cast<model::Token>(id));
        const auto numpy = entry["numpy"];
        for (const int64_t id : numpy["greedy"].get_array()) {
            prompt.greedy.push_back(static_cast<model::Token>(id));
        }
        for (const double gap : numpy["gap"].get_array()) prompt.gap.push_back(gap);
        for (const auto pair : numpy["top"].get_array()) {
            prompt.top.emplace_back(static_cast<model::Token>(pair.at(0).get_int64().value()),
                                    pair.at(1).get_double().value());
        }
        prompt.llama_kl = entry["numpy_vs_llama"]["kl"].get_double().value();
        prompts.push_back(std::move(prompt));
    }
    return prompts;
}

struct Nearness {
    double kl = 0;    // of ours from the reference's: over its ten best, and anything else
    long shared = 0;  // of the ten best
};

inline Nearness nearness(const ReferencePrompt& prompt, const std::vector<float>& logits) {
    Nearness near;
    double sum = 0;
    const double top = *std::max_element(logits.begin(), logits.end());
    for (const float x : logits) sum += std::exp(x - top);
    const double log_sum = top + std::log(sum);
    double rest = 1, our_rest = 1;
    for (const auto& [token, log_p] : prompt.top) {
        const double log_q = logits[static_cast<size_t>(token)] - log_sum;
        near.kl += std::exp(log_p) * (log_p - log_q);
        rest -= std::exp(log_p);
        our_rest -= std::exp(log_q);
    }
    if (rest > 1e-6) near.kl += rest * std::log(rest / std::max(our_rest, 1e-9));
    std::vector<model::Token> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + 10, order.end(),
                      [&](model::Token a, model::Token b) {
                          return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                      });
    near.shared = std::count_if(prompt.top.begin(), prompt.top.end(), [&](const auto& t) {
        return std::find(order.begin(), order.begin() + 10, t.first) != order.begin() + 10;
    });
    return near;
}

// After each prompt `file` knows: no further from the reference than `kl_most`, eight of its ten best, and
// its greedy text, but where the best two logits are close: there two correct engines may part.
inline void agrees_with_reference(engine::Forward& forward, const std::string& file, size_t count,
                                  double kl_most, const std::string& label) {
    const auto prompts = reference_prompts(file);
    REQUIRE(prompts.size() == count);
    std::vector<float> logits(forward.vocab_size());
    std::vector<uint32_t> blocks(forward.kv_blocks());
    std::iota(blocks.rbegin(), blocks.rend(), 0);
    double kl_sum = 0, llama_sum = 0;
    for (const ReferencePrompt& prompt : prompts) {
        INFO(prompt.name);
        auto position = static_cast<uint32_t>(prompt.ids.size());
        const engine::Chunk whole{prompt.ids, 0, blocks, 1};
        forward.run({&whole, 1}, logits);
        const Nearness near = nearness(prompt, logits);
        CHECK(near.kl < kl_most);
        CHECK(near.shared >= 8);
        kl_sum += near.kl;
        llama_sum += prompt.llama_kl;
        size_t same = 0;
        double parted = 0;
        for (; same < prompt.greedy.size(); ++same) {
            const auto token = static_cast<model::Token>(
                std::max_element(logits.begin(), logits.end()) - logits.begin());
            if (token != prompt.greedy[same]) {
                parted = prompt.gap[same];
                break;
            }
            const engine::Chunk chunk{{&token, 1}, position++, blocks, 1};
            forward.run({&chunk, 1}, logits);
        }
        CHECK(parted < 0.35);
        std::printf("%-4s %-12s kl %.4f, %ld of the ten best, %zu of %zu greedy tokens",
                    label.c_str(), prompt.name.c_str(), near.kl, near.shared, same,
                    prompt.greedy.size());
        if (same < prompt.greedy.size()) std::printf(" (parts at a gap of %.3f)", parted);
        std::printf("\n");
    }
    std::printf("%-4s mean kl %.4f, llama.cpp over the whole vocabulary %.4f\n", label.c_str(),
                kl_sum / static_cast<double>(count), llama_sum / static_cast<double>(count));
}

}  // namespace parley::test
