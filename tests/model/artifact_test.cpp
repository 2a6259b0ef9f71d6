#include "model/artifact.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <random>

#include "base/text.hpp"
#include "model/gguf.hpp"
#include "model/markup.hpp"
#include "small_spm.hpp"
#include "small_vocabulary.hpp"
#include "support/model_file.hpp"

using namespace parley;
using base::Errc;
using model::Artifact;

namespace {

model::Gguf small_file() {
    auto file = model::Gguf::parse(test::small_vocabulary().build());
    REQUIRE(file);
    return std::move(*file);
}

Artifact small() {
    auto artifact = Artifact::from_gguf(small_file(), 0, "");
    REQUIRE(artifact);
    return std::move(*artifact);
}

// With a check sum that fits, so that damage reaches what lies behind it.
std::string sealed(std::string bytes) {
    if (bytes.size() >= 16) {
        const uint32_t crc = base::crc32c(std::string_view(bytes).substr(16));
        std::memcpy(bytes.data() + 12, &crc, sizeof crc);
    }
    return bytes;
}

}  // namespace

TEST_CASE("an artifact says of a model what its file says", "[artifact]") {
    const auto file = small_file();
    const auto made = Artifact::from_gguf(file, 0, "");
    REQUIRE(made);
    const auto read = Artifact::parse(made->serialise());
    REQUIRE(read);
    CHECK(read->serialise() == made->serialise());
    CHECK(read->hash() == file.content_hash());
    CHECK(read->name() == "small");
    CHECK(read->architecture() == "llama");
    CHECK(read->limits().context_tokens == 256);
    CHECK(read->limits().output_tokens_max == 256);
    CHECK(read->chat_template().family() == "chatml");
    CHECK(read->chat_template().jinja() == test::kSmallJinja);
    const std::vector<model::Turn> turns = {{model::Role::user, "the cat"}};
    CHECK(read->chat_template().render(read->tokenizer(), turns) ==
          made->chat_template().render(made->tokenizer(), turns));
    CHECK(Artifact::from_gguf(file, 64, "chatml")->limits().context_tokens == 64);
}

TEST_CASE("a context longer than the model's, or a file without one, is refused", "[artifact]") {
    const auto longer = Artifact::from_gguf(small_file(), 257, "");
    REQUIRE_FALSE(longer);
    CHECK(longer.error().code == Errc::invalid);
    CHECK(longer.error().what.find("256") != std::string::npos);
    test::GgufWriter bare = test::small_vocabulary();
    CHECK_FALSE(Artifact::from_gguf(*model::Gguf::parse(bare.build()), 0, "gemma"));
    test::GgufWriter nothing;
    CHECK_FALSE(Artifact::from_gguf(*model::Gguf::parse(nothing.build()), 0, ""));
}

TEST_CASE("an artifact cut anywhere is refused, with its old check sum and with one that fits",
          "[artifact]") {
    const std::string whole = small().serialise();
    REQUIRE(Artifact::parse(sealed(whole)));
    for (size_t size = 0; size < whole.size(); ++size) {
        const auto cut = Artifact::parse(whole.substr(0, size));
        REQUIRE_FALSE(cut);
        REQUIRE(cut.error().code == Errc::corrupt);
        const auto fitting = Artifact::parse(sealed(whole.substr(0, size)));
        REQUIRE_FALSE(fitting);
        REQUIRE(fitting.error().code == Errc::corrupt);
    }
    CHECK_FALSE(Artifact::parse(sealed(whole + "x")));
}

TEST_CASE("a changed byte anywhere is noticed", "[artifact]") {
    const std::string whole = small().serialise();
    for (size_t at = 0; at < whole.size(); ++at) {
        auto bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ 0x20);
        REQUIRE_FALSE(Artifact::parse(bytes));
    }
    auto newer = whole;
    newer[8] = 2;
    CHECK(Artifact::parse(newer).error().code == Errc::unsupported);
}

TEST_CASE("damage behind a fitting check sum is refused or usable, never a crash", "[artifact]") {
    const std::string whole = small().serialise();
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    int refused = 0;
    for (int round = 0; round < 3000; ++round) {
        auto bytes = whole;
        for (int i = 0; i < 2; ++i)
            bytes[16 + random() % (bytes.size() - 16)] = static_cast<char>(random());
        const auto read = Artifact::parse(sealed(bytes));
        refused += !read;
        if (!read) continue;
        const std::vector<model::Turn> turns = {{model::Role::user, "the <|im_end|>"}};
        (void)read->chat_template().render(read->tokenizer(), turns);
        (void)read->serialise();
    }
    CHECK(refused > 0);
}

TEST_CASE("the model's artifact is small and loads quickly", "[artifact]") {
    const auto path = test::model_file();
    if (path.empty()) return;
    const auto file = model::Gguf::open(path);
    REQUIRE(file);
    const auto made = Artifact::from_gguf(*file, 0, "");
    REQUIRE(made);
    const std::string bytes = made->serialise();
    const auto start = std::chrono::steady_clock::now();
    const auto read = Artifact::parse(bytes);
    const double ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    REQUIRE(read);
    WARN(bytes.size() << " bytes, parsed in " << ms << " ms");
    CHECK(bytes.size() < 2'000'000);
    CHECK(read->limits().context_tokens == 8192);
    CHECK(read->name() == "Smollm2 135M 8k Lc100K Mix1 Ep2");
}

TEST_CASE("a model without a template is refused with the way out, and takes it", "[artifact]") {
    const auto path = test::gemma_file();
    if (path.empty()) return;
    const auto file = model::Gguf::open(path);
    REQUIRE(file);
    const auto refused = Artifact::from_gguf(*file, 0, "");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::unsupported);
    CHECK(refused.error().what.find("no chat template") != std::string::npos);
    CHECK(refused.error().what.find("--chat-template") != std::string::npos);
    const auto made = Artifact::from_gguf(*file, 0, "gemma");
    REQUIRE(made);
    const auto bytes = made->serialise();
    WARN("HASH.tok of " << bytes.size() << " bytes");
    const auto read = Artifact::parse(bytes);
    REQUIRE(read);
    CHECK(read->serialise() == bytes);
    const std::vector<model::Turn> turns = {{model::Role::system, "S"}, {model::Role::user, "hi"}};
    CHECK(read->chat_template().render(read->tokenizer(), turns) ==
          model::encode_markup(
              made->tokenizer(),
              "<bos><start_of_turn>user\nS\n\nhi<end_of_turn>\n<start_of_turn>model\n"));
}

TEST_CASE("an artifact of a SentencePiece model comes back, and damaged is refused or usable",
          "[artifact]") {
    const auto file = model::Gguf::parse(test::small_spm(true).build());
    REQUIRE(file);
    const std::vector<model::Turn> turns = {{model::Role::user, "the <end_of_turn></s> hello\n\n"}};
    for (const char* family : {"gemma", "llama3", "zephyr"}) {
        const auto made = Artifact::from_gguf(*file, 0, family);
        REQUIRE(made);
        const std::string whole = made->serialise();
        CHECK(whole[8] == 1);  // the format version that gpt2 kinds have had from the start
        const auto read = Artifact::parse(whole);
        REQUIRE(read);
        CHECK(read->serialise() == whole);
        CHECK(read->tokenizer().kind() == "llama");
        CHECK(read->chat_template().render(read->tokenizer(), turns) ==
              made->chat_template().render(made->tokenizer(), turns));
        const auto seed = std::random_device{}();
        INFO("seed " << seed);
        std::mt19937 random(seed);
        int refused = 0;
        for (int round = 0; round < 1000; ++round) {
            auto bytes = whole;
            for (int i = 0; i < 2; ++i)
                bytes[16 + random() % (bytes.size() - 16)] = static_cast<char>(random());
            const auto damaged = Artifact::parse(sealed(bytes));
            refused += !damaged;
            if (!damaged) continue;
            (void)damaged->chat_template().render(damaged->tokenizer(), turns);
            REQUIRE(damaged->serialise() == sealed(bytes));
        }
        CHECK(refused > 0);
    }
}
