// A chunk whose rows all want logits, as guessed tokens do: the same bits as token by token, wherever
// attention is cut, and whatever was guessed there before in vain.
#include <catch2/catch.hpp>
#include <cstring>

#include "engine/forward.hpp"
#include "kernels/kernels.hpp"
#include "model/gguf.hpp"
#include "tiny_model.hpp"

using namespace parley;
using Logits = std::vector<float>;
using Tokens = std::vector<model::Token>;

namespace {

constexpr uint32_t kVocab = 83;

Tokens text(uint32_t seed, uint32_t count) {
    std::mt19937 random{seed};
    Tokens out;
    for (uint32_t i = 0; i < count; ++i) out.push_back(static_cast<model::Token>(random() % kVocab));
    return out;
}

struct Feeder {
    std::unique_ptr<engine::Forward> forward;
    std::vector<uint32_t> blocks;

    Feeder(const model::Gguf& file, std::string_view kernel, uint32_t threads,
           const std::string& kv_type) {
        engine::ForwardOptions options;
        options.kernel = kernel;
        options.threads = threads;
        options.kv_blocks = 64;
        options.kv_type = kv_type;
        options.rows_max = 700;
        auto made = engine::Forward::create(file, options);
        REQUIRE(made);
        forward = std::move(*made);
        for (uint32_t i = 0; i < 64; ++i) blocks.push_back(63 - i);
    }
    Logits run(const Tokens& tokens, uint32_t position, uint32_t logit_rows) {
        Logits logits(uint64_t{logit_rows} * kVocab);
        const engine::Chunk chunk{tokens, position, blocks, logit_rows};
        forward->run({&chunk, 1}, logits);
        return logits;
    }
};

Tokens part(const Tokens& all, uint32_t from, uint32_t count) {
    return {all.begin() + from, all.begin() + from + count};
}

void same_row(const Logits& got, uint32_t row, const Logits& expected) {
    REQUIRE(std::memcmp(got.data() + uint64_t{row} * kVocab, expected.data(),
                        kVocab * sizeof(float)) == 0);
}

}  // namespace

TEST_CASE("rows behind a decode row have the bits that they have alone, on every path and cut",
          "[forward][speculation]") {
    test::TinyModel tiny;
    const uint32_t kv_heads = GENERATE(1u, 2u);
    tiny.kv_heads = kv_heads;
    const std::string kv_type = GENERATE("f16", "int8");
    auto file = model::Gguf::parse(tiny.build());
    REQUIRE(file);
    const Tokens all = text(3, 560);
    for (const std::string_view kernel : kernels::names()) {
        if (kernels::find(kernel) == nullptr) continue;
        // Around the ends of attention's splits; the naive kernels see the first only.
        std::vector<uint32_t> places{1, 250, 255, 256, 505, 511};
        if (kernel == "reference") places = {1, 252};
        const uint32_t end = places.back() + 20;
        Feeder one(*file, kernel, 1, kv_type);
        std::vector<Logits> expected(end);
        for (const uint32_t place : places) {
            if (place > 1) (void)one.run(part(all, 0, place), 0, 1);
            for (uint32_t p = place == 1 ? 0 : place; p < place + 16; ++p)
                expected[p] = one.run(part(all, p, 1), p, 1);
        }
        for (const uint32_t threads : {1u, 2u, 4u}) {
            Feeder some(*file, kernel, threads, kv_type);
            for (const uint32_t place : places) {
                (void)some.run(part(all, 0, place), 0, 1);
                for (const uint32_t rows : {2u, 3u, 5u, 9u, 16u}) {
                    INFO(kernel << ", " << threads << " threads, " << rows << " rows at " << place);
                    // First guesses that are all wrong but the first few, then the right ones over them.
                    Tokens wrong = text(9 + rows, rows);
                    wrong[0] = all[place];
                    wrong[1] = all[place + 1];
                    const Logits first = some.run(wrong, place, rows);
                    same_row(first, 0, expected[place]);
                    same_row(first, 1, expected[place + 1]);
                    const Logits right = some.run(part(all, place, rows), place, rows);
                    for (uint32_t r = 0; r < rows; ++r) same_row(right, r, expected[place + r]);
                }
            }
        }
    }
}

TEST_CASE("several sequences with guesses beside others that decode and prefill have their own bits",
          "[forward][speculation]") {
    auto file = model::Gguf::parse(test::TinyModel().build());
    REQUIRE(file);
    const Tokens all = text(4, 400);
    const std::string_view best = kernels::best().name;
    Feeder one(*file, best, 1, "f16");
    const auto at = [&](uint32_t place) {
        if (place > 0) (void)one.run(part(all, 0, place), 0, 1);
        return one.run(part(all, place, 1), place, 1);
    };
    Feeder some(*file, best, 2, "f16");
    // Three sequences of the same text, in blocks of their own.
    std::vector<std::vector<uint32_t>> tables(3);
    for (uint32_t i = 0; i < 60; ++i) tables[i % 3].push_back(i);
    const uint32_t places[] = {259, 30, 120};
    for (uint32_t s = 0; s < 3; ++s) {
        Logits none(kVocab);
        const Tokens prompt = part(all, 0, places[s]);
        const engine::Chunk chunk{prompt, 0, tables[s], 1};
        some.forward->run({&chunk, 1}, none);
    }
    const Tokens first = part(all, 259, 5), second = part(all, 30, 1), third = part(all, 120, 3);
    const std::vector<engine::Chunk> chunks{
        {first, 259, tables[0], 5}, {second, 30, tables[1], 1}, {third, 120, tables[2], 3}};
    Logits got(9ull * kVocab);
    some.forward->run(chunks, got);
    for (uint32_t r = 0; r < 5; ++r) same_row(got, r, at(259 + r));
    same_row(got, 5, at(30));
    for (uint32_t r = 0; r < 3; ++r) same_row(got, 6 + r, at(120 + r));
}
