// The real Gemma 3 (270M, base): beside an independent fp32 pass, and its own bits beyond its window.
#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "engine/forward.hpp"
#include "kernels/kernels.hpp"
#include "model/gguf.hpp"
#include "reference_logits.hpp"
#include "support/model_file.hpp"

using namespace parley;

namespace {

std::unique_ptr<engine::Forward> load(const std::string& path, const std::string& kernel,
                                      const std::string& kv_type = "f16") {
    auto file = model::Gguf::open(path);
    REQUIRE(file);
    engine::ForwardOptions options;
    options.kernel = kernel;
    options.kv_type = kv_type;
    options.threads = 2;
    options.rows_max = 1024;
    options.kv_blocks = 128;
    auto forward = engine::Forward::create(*file, options);
    if (!forward) FAIL(forward.error().what);
    file->drop_pages();
    return std::move(*forward);
}

}  // namespace

TEST_CASE("the real gemma3 agrees with an independent fp32 pass", "[gemma][real]") {
    const std::string path = test::gemma_file();
    if (path.empty()) return;
    const std::string kv_type = GENERATE("f16", "int8");
    auto forward = load(path, kernels::best().name, kv_type);
    CHECK(forward->context_tokens() == 32768);
    test::agrees_with_reference(*forward, "gemma3-270m-q4_k_m.json", 7,
                                kv_type == "int8" ? 0.05 : 0.03, kv_type);
}

TEST_CASE("the real gemma3 has the same bits past its window in any chunks and on the fast paths",
          "[gemma][real]") {
    const std::string path = test::gemma_file();
    if (path.empty()) return;
    // Longer than the window of 512 and two splits of attention.
    std::mt19937 random{3};
    std::vector<model::Token> text(1200);
    for (auto& token : text) token = static_cast<model::Token>(random() % 250'000);
    std::vector<float> expected;
    for (const std::string_view name : kernels::names()) {
        if (name == "reference" || kernels::find(name) == nullptr) continue;
        auto forward = load(path, std::string{name});
        std::vector<uint32_t> blocks(80);
        for (uint32_t i = 0; i < 80; ++i) blocks[i] = 127 - i;
        std::vector<float> logits(forward->vocab_size());
        for (const uint32_t size : {512u, 177u}) {
            for (uint32_t at = 0, count = 0; at < 1200; at += count) {
                // The last rows one by one: they decode, their attention cut between threads.
                count = at < 1190 ? std::min(size, 1190 - at) : 1;
                const engine::Chunk chunk{std::span(text).subspan(at, count), at, blocks, 1};
                forward->run({&chunk, 1}, logits);
            }
            if (expected.empty()) expected = logits;
            INFO(name << " chunks of " << size);
            REQUIRE(std::memcmp(logits.data(), expected.data(), logits.size() * 4) == 0);
        }
    }
    REQUIRE(!expected.empty());
}
