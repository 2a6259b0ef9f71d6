// The forward pass: the same bits whatever the batch, the chunks, the threads and the kernels; the
// refusals of create(); and the real model beside an independent one.
#include "engine/forward.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "kernels/kernels.hpp"
#include "reference_logits.hpp"
#include "support/model_file.hpp"
#include "tiny_model.hpp"

using namespace parley;

namespace {

using model::Token;
using Logits = std::vector<float>;

// The paths of this host, the reference last; the ones it lacks say so.
std::vector<std::string> paths() {
    std::vector<std::string> usable;
    for (const std::string_view name : kernels::names()) {
        if (kernels::find(name) != nullptr) {
            usable.emplace_back(name);
        } else {
            std::printf("SKIPPED: %s is not for this processor\n", std::string{name}.c_str());
        }
    }
    return usable;
}

std::unique_ptr<engine::Forward> make(const model::Gguf& file, const std::string& kernel,
                                      uint32_t threads = 2, uint32_t rows_max = 700,
                                      const std::string& kv_type = "f16") {
    engine::ForwardOptions options;
    options.kv_type = kv_type;
    options.kernel = kernel;
    options.threads = threads;
    options.rows_max = rows_max;
    options.kv_blocks = 256;
    auto forward = engine::Forward::create(file, options);
    if (!forward) FAIL(forward.error().what);
    REQUIRE(std::string{(*forward)->kernel()} == kernel);
    REQUIRE((*forward)->threads() == threads);
    return std::move(*forward);
}

model::Gguf tiny(const test::TinyModel& model = {}) {
    auto file = model::Gguf::parse(model.build());
    if (!file) FAIL(file.error().what);
    return std::move(*file);
}

std::vector<Token> tokens(uint32_t seed, uint32_t count, uint32_t vocab) {
    std::mt19937 random{seed};
    std::vector<Token> out(count);
    for (Token& token : out) token = static_cast<Token>(random() % vocab);
    return out;
}

// A sequence with its place in the KV cache. Blocks are neither in order nor side by side.
struct Sequence {
    std::vector<Token> text;
    std::vector<uint32_t> blocks;
    uint32_t done = 0;

    Sequence(std::vector<Token> text_in, uint32_t first_block, uint32_t step = 1)
        : text(std::move(text_in)) {
        for (uint32_t i = 0; i * engine::kBlockTokens < text.size() + 64; ++i) {
            blocks.push_back((first_block + i * step) % 256);
        }
    }
    engine::Chunk next(uint32_t count, uint32_t logit_rows) {
        count = std::min(count, static_cast<uint32_t>(text.size()) - done);
        engine::Chunk chunk{std::span(text).subspan(done, count), done, blocks, logit_rows};
        done += count;
        return chunk;
    }
};

// Logits after the last token, fed in chunks of `size`.
Logits feed(engine::Forward& forward, Sequence& sequence, uint32_t size) {
    Logits logits(forward.vocab_size());
    while (sequence.done < sequence.text.size()) {
        const bool last = sequence.done + size >= sequence.text.size();
        const engine::Chunk chunk = sequence.next(size, last);
        forward.run({&chunk, 1}, last ? std::span<float>(logits) : std::span<float>{});
    }
    return logits;
}

bool same_bits(const Logits& a, const Logits& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string refusal(const std::vector<uint8_t>& bytes, engine::ForwardOptions options,
                    base::Errc code) {
    auto file = model::Gguf::parse(bytes);
    if (!file) FAIL(file.error().what);
    options.kv_blocks = options.kv_blocks == 4096 ? 8 : options.kv_blocks;
    auto forward = engine::Forward::create(*file, options);
    REQUIRE(!forward);
    CHECK(std::string{base::name(forward.error().code)} == base::name(code));
    return forward.error().what;
}

}  // namespace

TEST_CASE("the logits of several last rows are those of the rows one by one", "[forward]") {
    const model::Gguf file = tiny(test::TinyModel{});
    auto forward = make(file, paths().back(), 2, 700, "f16");
    const uint32_t vocab = forward->vocab_size();
    Sequence alone{tokens(1, 80, 83), 3, 5}, beside{tokens(2, 80, 83), 100, 5};
    Logits expected(16 * vocab), got(16 * vocab);
    for (Sequence* sequence : {&alone, &beside}) {
        const engine::Chunk start = sequence->next(72, 0);
        forward->run({&start, 1}, {});
        for (uint32_t i = 0; i < 8; ++i) {
            const engine::Chunk one = sequence->next(1, 1);
            forward->run({&one, 1},
                         std::span(expected).subspan((sequence == &beside ? 8 + i : i) * vocab, vocab));
        }
        sequence->done = 72;
    }
    const std::vector<engine::Chunk> both{alone.next(8, 8), beside.next(8, 8)};
    forward->run(both, got);
    CHECK(same_bits(expected, got));

    alone.done = beside.done = 72;  // only the last three of the one, and none of the other
    const std::vector<engine::Chunk> some{beside.next(8, 0), alone.next(8, 3)};
    Logits last(3 * vocab);
    forward->run(some, last);
    CHECK(same_bits(last, Logits(expected.begin() + 5 * vocab, expected.begin() + 8 * vocab)));
}

TEST_CASE("a text that goes on in a copied block has the logits of one that was computed whole",
          "[forward]") {
    const std::string kv_type = GENERATE("f16", "int8");
    const model::Gguf file = tiny(test::TinyModel{});
    auto forward = make(file, paths().front(), 2, 700, kv_type);
    auto text = tokens(1, 60, 83);
    Sequence whole{text, 3, 5}, again{text, 100, 5};
    auto fork_text = text;
    fork_text.resize(27);  // one block and eleven tokens
    for (const Token token : tokens(2, 30, 83)) fork_text.push_back(token);
    Sequence fork{fork_text, 4, 5}, expected{fork_text, 101, 5};
    const Logits once = feed(*forward, again, 60);
    const Logits fork_once = feed(*forward, expected, 60);

    const engine::Chunk start = whole.next(50, 0);
    forward->run({&start, 1}, {});
    fork.blocks[0] = whole.blocks[0];
    forward->copy_block(whole.blocks[1], fork.blocks[1]);
    fork.done = 27;
    CHECK(same_bits(feed(*forward, fork, 7), fork_once));
    CHECK(same_bits(feed(*forward, whole, 3), once));  // nor was the first one's block written
    const uint32_t own = whole.blocks[1];
    forward->copy_block(own, own);
    whole.done = 59;
    CHECK(same_bits(feed(*forward, whole, 1), once));
}

TEST_CASE("every path gives the reference's logits, bit for bit", "[forward]") {
    const std::string kv_type = GENERATE("f16", "int8");
    for (const bool own_output : {true, false}) {
        test::TinyModel model;
        model.own_output = own_output;
        model.rope_dims = own_output ? 32 : 16;
        const model::Gguf file = tiny(model);
        std::vector<Logits> expected;
        auto names = paths();
        std::reverse(names.begin(), names.end());
        REQUIRE(names.front() == "reference");
        for (const std::string& name : names) {
            auto forward = make(file, name, 2, 700, kv_type);
            Sequence sequence{tokens(1, 300, 83), 3, 5};
            std::vector<Logits> got;
            for (const uint32_t size : {37u, 1u, 1u, 200u, 1u, 30u, 1u, 1u}) {
                Logits logits(forward->vocab_size());
                const engine::Chunk chunk = sequence.next(size, true);
                forward->run({&chunk, 1}, logits);
                got.push_back(std::move(logits));
            }
            if (expected.empty()) {
                expected = got;
                for (const float x : got.back()) REQUIRE(std::isfinite(x));
                continue;
            }
            for (size_t i = 0; i < got.size(); ++i) {
                INFO(name << " step " << i << " own output " << own_output);
                REQUIRE(same_bits(got[i], expected[i]));
            }
        }
    }
}

TEST_CASE("a model of any one type has the reference's logits on every path", "[forward]") {
    using kernels::Type;
    for (const Type type : {Type::q4_0, Type::q4_1, Type::q5_0, Type::q5_1, Type::q8_0, Type::q4_k,
                            Type::q5_k, Type::q6_k, Type::f16, Type::bf16, Type::f32}) {
        test::TinyModel model;
        // Widths of whole super-blocks.
        model.embedding = 256;
        model.heads = 8;
        model.feed_forward = 512;
        model.types = {type};
        const model::Gguf file = tiny(model);
        auto names = paths();
        std::reverse(names.begin(), names.end());
        std::vector<Logits> expected;
        for (const std::string& name : names) {
            auto forward = make(file, name);
            Sequence sequence{tokens(3, 40, 83), 3, 5};
            std::vector<Logits> got;
            for (const uint32_t size : {17u, 1u, 20u, 1u, 1u}) {
                Logits logits(forward->vocab_size());
                const engine::Chunk chunk = sequence.next(size, true);
                forward->run({&chunk, 1}, logits);
                got.push_back(std::move(logits));
            }
            INFO(name << " " << kernels::traits(type).name);
            if (expected.empty()) {
                expected = got;
                for (const float x : got.back()) REQUIRE(std::isfinite(x));
                REQUIRE(*std::max_element(got.back().begin(), got.back().end()) > 0.1f);
                continue;
            }
            for (size_t i = 0; i < got.size(); ++i) REQUIRE(same_bits(got[i], expected[i]));
        }
    }
}

TEST_CASE("a sequence has the same logits alone and in batches of 3 and 16", "[forward]") {
    const std::string kv_type = GENERATE("f16", "int8");
    const model::Gguf file = tiny();
    for (const std::string& name : paths()) {
        auto forward = make(file, name, 2, 700, kv_type);
        for (const uint32_t batch : {3u, 16u}) {
            // Sequence i decodes after a prompt of its own length; each step also prefills another.
            std::vector<std::vector<Logits>> alone(batch);
            std::vector<std::vector<Token>> texts;
            for (uint32_t i = 0; i < batch; ++i) texts.push_back(tokens(50 + i, 10 + 19 * i, 83));
            constexpr uint32_t kSteps = 5;
            for (uint32_t i = 0; i < batch; ++i) {
                Sequence sequence{texts[i], 0};
                const auto prompt = static_cast<uint32_t>(texts[i].size()) - kSteps;
                for (uint32_t step = 0; step <= kSteps; ++step) {
                    Logits logits(forward->vocab_size());
                    const engine::Chunk chunk = sequence.next(step == 0 ? prompt : 1, true);
                    forward->run({&chunk, 1}, logits);
                    alone[i].push_back(std::move(logits));
                }
            }
            std::vector<Sequence> sequences;
            uint32_t first = 1;
            for (uint32_t i = 0; i < batch; ++i) {
                sequences.emplace_back(texts[i], first);
                first += static_cast<uint32_t>(sequences.back().blocks.size());
            }
            // Starts are staggered, so that prompts and decoding rows of all stand side by side.
            std::vector<uint32_t> step(batch, 0);
            for (uint32_t round = 0; round < batch + kSteps; ++round) {
                std::vector<engine::Chunk> chunks;
                std::vector<uint32_t> who;
                for (uint32_t i = 0; i < batch; ++i) {
                    if (round < i || step[i] > kSteps) continue;
                    const auto prompt = static_cast<uint32_t>(texts[i].size()) - kSteps;
                    chunks.push_back(sequences[i].next(step[i] == 0 ? prompt : 1, true));
                    who.push_back(i);
                }
                std::vector<float> logits(chunks.size() * forward->vocab_size());
                forward->run(chunks, logits);
                for (size_t n = 0; n < who.size(); ++n) {
                    const uint32_t i = who[n];
                    const auto at = logits.begin() + static_cast<long>(n * forward->vocab_size());
                    INFO(name << " batch " << batch << " sequence " << i << " step " << step[i]);
                    REQUIRE(same_bits(Logits(at, at + forward->vocab_size()), alone[i][step[i]]));
                    ++step[i];
                }
            }
        }
    }
}

TEST_CASE("chunks of 1, 7, 16 and all give the same logits, over several attention splits",
          "[forward]") {
    const std::string kv_type = GENERATE("f16", "int8");
    const model::Gguf file = tiny();
    for (const std::string& name : paths()) {
        auto forward = make(file, name, 2, 700, kv_type);
        // The naive kernels need not see the long text in every way.
        const uint32_t length = name == "reference" ? 270 : 650;
        Logits expected;
        for (const uint32_t size : {length, 1u, 7u, 16u, 255u}) {
            Sequence sequence{tokens(4, length, 83), size};
            const Logits got = feed(*forward, sequence, size);
            if (expected.empty()) expected = got;
            INFO(name << " chunks of " << size);
            REQUIRE(same_bits(got, expected));
        }
    }
}

TEST_CASE("the number of threads does not change a bit, however few rows there are", "[forward]") {
    const model::Gguf file = tiny();
    const std::string name = kernels::best().name;
    std::vector<Logits> expected;
    for (const uint32_t threads : {1u, 2u, 3u, 8u}) {
        auto forward = make(file, name, threads);
        Sequence sequence{tokens(6, 600, 83), 0};
        std::vector<Logits> got;
        for (const uint32_t size : {590u, 1u, 1u, 2u, 3u, 1u}) {
            Logits logits(forward->vocab_size());
            const engine::Chunk chunk = sequence.next(size, true);
            forward->run({&chunk, 1}, logits);
            got.push_back(std::move(logits));
        }
        if (expected.empty()) expected = got;
        INFO(threads << " threads");
        for (size_t i = 0; i < got.size(); ++i) REQUIRE(same_bits(got[i], expected[i]));
    }
}

TEST_CASE("INT8 KV takes at most 0.63 of the memory and moves the logits, a little", "[forward]") {
    const model::Gguf file = tiny();
    auto half = make(file, kernels::best().name);
    auto byte = make(file, kernels::best().name, 2, 700, "int8");
    // Heads of 32: two scales to 64 bytes.
    CHECK(half->kv_bytes() == 256ull * 16 * 2 * 2 * 2 * 32 * 2);
    CHECK(byte->kv_bytes() == 256ull * 16 * 2 * 2 * (2 * 32 + 8));
    Sequence one{tokens(12, 300, 83), 0}, other{tokens(12, 300, 83), 0};
    const Logits expected = feed(*half, one, 300), got = feed(*byte, other, 300);
    CHECK(!same_bits(got, expected));
    double most = 0, apart = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        most = std::max<double>(most, std::fabs(expected[i]));
        apart = std::max<double>(apart, std::fabs(got[i] - expected[i]));
    }
    CHECK(apart < 0.05 * most);
}

TEST_CASE("what a block held before does not matter", "[forward]") {
    const model::Gguf file = tiny();
    auto forward = make(file, kernels::best().name);
    Sequence fresh{tokens(8, 45, 83), 0};
    const Logits expected = feed(*forward, fresh, 45);
    Sequence other{tokens(9, 600, 83), 0};
    (void)feed(*forward, other, 600);
    Sequence again{tokens(8, 45, 83), 0};
    REQUIRE(same_bits(feed(*forward, again, 45), expected));
}

TEST_CASE("a prefix written once serves several sequences", "[forward]") {
    const model::Gguf file = tiny();
    auto forward = make(file, kernels::best().name);
    const auto prefix = tokens(10, 32, 83);
    std::vector<Sequence> sequences;
    std::vector<Logits> expected;
    for (uint32_t i = 0; i < 2; ++i) {
        std::vector<Token> text = prefix;
        const auto rest = tokens(20 + i, 9, 83);
        text.insert(text.end(), rest.begin(), rest.end());
        sequences.emplace_back(text, 100 + 20 * i);
        Sequence alone{text, 50};
        expected.push_back(feed(*forward, alone, 100));
    }
    Sequence first{prefix, 0};
    (void)feed(*forward, first, 32);
    std::vector<engine::Chunk> chunks;
    for (Sequence& sequence : sequences) {
        sequence.blocks[0] = first.blocks[0];
        sequence.blocks[1] = first.blocks[1];
        sequence.done = 32;
        chunks.push_back(sequence.next(100, true));
    }
    std::vector<float> logits(2 * forward->vocab_size());
    forward->run(chunks, logits);
    for (uint32_t i = 0; i < 2; ++i) {
        const auto at = logits.begin() + i * forward->vocab_size();
        REQUIRE(same_bits(Logits(at, at + forward->vocab_size()), expected[i]));
    }
}

TEST_CASE("create refuses what it cannot compute and says which", "[forward]") {
    using base::Errc;
    using Catch::Matchers::Contains;
    engine::ForwardOptions options;
    test::TinyModel model;
    const auto with = [&](auto change) {
        test::TinyModel changed;
        changed.change = change;
        return changed.build();
    };
    options.kernel = "avx1024";
    CHECK_THAT(refusal(model.build(), options, Errc::config), Contains("'avx1024'"));
    options.kernel = "";
    options.kv_type = "int4";
    CHECK_THAT(refusal(model.build(), options, Errc::config), Contains("'int4'"));
    options.kv_type = "f16";
    options.threads = 100'000;
    CHECK_THAT(refusal(model.build(), options, Errc::config), Contains("threads"));
    options.threads = 1;
    options.context_tokens = 1025;
    CHECK_THAT(refusal(model.build(), options, Errc::config), Contains("1025"));
    options.context_tokens = 0;
    options.rows_max = 0;
    CHECK_THAT(refusal(model.build(), options, Errc::config), Contains("rows_max"));
    options.rows_max = 16;
    options.kv_blocks = 0xffffffff;
    CHECK_THAT(refusal(model.build(), options, Errc::again), Contains("KV cache"));
    options.kv_blocks = 8;

    model.leave_out = "blk.1.ffn_up.weight";
    CHECK_THAT(refusal(model.build(), options, Errc::corrupt), Contains("'blk.1.ffn_up.weight'"));
    model.leave_out = "output_norm.weight";
    CHECK_THAT(refusal(model.build(), options, Errc::corrupt), Contains("'output_norm.weight'"));
    model.leave_out = "token_embd.weight";
    CHECK_THAT(refusal(model.build(), options, Errc::corrupt), Contains("'token_embd.weight'"));
    CHECK_THAT(refusal(with([](test::GgufWriter& file) {
                           file.tensor_f32("blk.0.attn_q.bias", {192}, std::vector<float>(192));
                       }),
                       options, Errc::unsupported),
               Contains("'blk.0.attn_q.bias'"));
    CHECK_THAT(refusal(with([](test::GgufWriter& file) {
                           file.string("llama.rope.scaling.type", "longrope");
                       }),
                       options, Errc::unsupported),
               Contains("'longrope'"));
    CHECK_THAT(refusal(with([](test::GgufWriter& file) { file.u32("llama.expert_count", 8); }),
                       options, Errc::unsupported),
               Contains("experts"));

    test::TinyModel shaped;
    shaped.kv_heads = 4;
    CHECK_THAT(refusal(shaped.build(), options, Errc::corrupt), Contains("6 heads"));
    shaped = {};
    shaped.head_dim = 40;
    shaped.rope_dims = 40;
    CHECK_THAT(refusal(shaped.build(), options, Errc::unsupported), Contains("40 dimensions"));
    shaped = {};
    shaped.rope_dims = 31;
    CHECK_THAT(refusal(shaped.build(), options, Errc::corrupt), Contains("31"));
}

TEST_CASE("create refuses hostile sizes before it uses them", "[forward]") {
    using base::Errc;
    const char* const kKeys[] = {
        "llama.block_count",          "llama.embedding_length",        "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.context_length",
        "llama.attention.key_length", "llama.rope.dimension_count"};
    for (const char* hostile : kKeys) {
        for (const uint64_t value : {uint64_t{0}, uint64_t{0x7fffffff}, uint64_t{0xffffffff},
                                     uint64_t{0x8000000000000000}, ~uint64_t{0}}) {
            test::GgufWriter file;
            file.string("general.architecture", "llama");
            for (const char* key : kKeys) {
                file.u64(key, std::string_view{key} == hostile ? value : 32);
            }
            file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
            file.tensor_f32("token_embd.weight", {32, 2}, std::vector<float>(64));
            auto parsed = model::Gguf::parse(file.build());
            REQUIRE(parsed);
            engine::ForwardOptions options;
            options.kv_blocks = 8;
            options.threads = 1;
            auto forward = engine::Forward::create(*parsed, options);
            REQUIRE(!forward);
            INFO(forward.error().what);
            CHECK(forward.error().what.find(hostile) != std::string::npos);
        }
    }
    test::GgufWriter other;
    other.string("general.architecture", "mamba");
    CHECK(refusal(other.build(), {}, Errc::unsupported).find("'mamba'") != std::string::npos);
    CHECK(refusal(test::GgufWriter{}.u32("x", 1).build(), {}, Errc::corrupt) ==
          "the file has no 'general.architecture'");
}

TEST_CASE("the real model agrees with an independent fp32 pass", "[forward][real]") {
    const std::string path = test::model_file();
    if (path.empty()) return;
    auto file = model::Gguf::open(path);
    REQUIRE(file);
    const std::string kv_type = GENERATE("f16", "int8");
    auto forward = make(*file, kernels::best().name, 2, 700, kv_type);
    // INT8 KV may cost as much again as what the two sides' other rounding does.
    test::agrees_with_reference(*forward, "smollm2-135m-q4_1.json", 10,
                                kv_type == "int8" ? 0.05 : 0.03, kv_type);
}

TEST_CASE("the real model gives the reference's bits on every path, in any chunks and batch",
          "[forward][real]") {
    const std::string path = test::model_file();
    if (path.empty()) return;
    auto file = model::Gguf::open(path);
    REQUIRE(file);
    const auto prompts = test::reference_prompts("smollm2-135m-q4_1.json");
    Logits expected;
    auto names = paths();
    std::reverse(names.begin(), names.end());
    for (const std::string& name : names) {
        auto forward = make(*file, name);
        const auto& ids = prompts.at(4).ids;
        for (const uint32_t size : {64u, 16u, 7u, 1u}) {
            if (name == "reference" && size != 64 && size != 7) continue;  // slow
            Sequence sequence{ids, size};
            const Logits got = feed(*forward, sequence, size);
            if (expected.empty()) expected = got;
            INFO(name << " chunks of " << size);
            REQUIRE(same_bits(got, expected));
        }
        // The same text sixteen times and other texts between.
        if (name == "reference") continue;
        std::vector<Sequence> sequences;
        for (uint32_t i = 0; i < 16; ++i)
            sequences.emplace_back(prompts.at(i % 2 == 0 ? 4 : 1).ids, i * 8);
        std::vector<engine::Chunk> chunks;
        for (Sequence& sequence : sequences) chunks.push_back(sequence.next(100, true));
        std::vector<float> logits(16 * forward->vocab_size());
        forward->run(chunks, logits);
        for (uint32_t i = 0; i < 16; i += 2) {
            const auto at = logits.begin() + i * forward->vocab_size();
            INFO(name << " sequence " << i);
            REQUIRE(same_bits(Logits(at, at + forward->vocab_size()), expected));
        }
    }
}
