#include "model/tokenizer.hpp"

#include <simdjson.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <random>

#include "model/bpe.hpp"
#include "model/gguf.hpp"
#include "model/markup.hpp"
#include "model/pretokenizer.hpp"
#include "small_vocabulary.hpp"
#include "support/model_file.hpp"

using namespace parley;
using base::Errc;
using model::Token;
using model::Tokenizer;

namespace {

double ms_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

const Tokenizer* real() {
    static const auto tokenizer = []() -> std::optional<Tokenizer> {
        const auto path = test::model_file();
        if (path.empty()) return std::nullopt;
        auto file = model::Gguf::open(path);
        REQUIRE(file);
        auto made = Tokenizer::from_gguf(*file);
        INFO((made ? "" : made.error().what));
        REQUIRE(made);
        return std::move(*made);
    }();
    if (!tokenizer) WARN("SKIPPED: needs the model");
    return tokenizer ? &*tokenizer : nullptr;
}

std::vector<std::string> words(model::Pretokenizer kind, std::string_view text) {
    std::vector<std::string> out;
    for (size_t start = 0; start < text.size();) {
        const size_t end = model::word_end(kind, text, start);
        REQUIRE(end > start);
        REQUIRE(end <= text.size());
        out.emplace_back(text.substr(start, end - start));
        start = end;
    }
    return out;
}

using Words = std::vector<std::string>;

// Merges by scanning for the least rank, leftmost, again and again: the definition.
std::vector<Token> merge_naively(
    std::vector<uint32_t> tokens,
    const std::map<std::pair<uint32_t, uint32_t>, std::pair<int, uint32_t>>& rules) {
    while (true) {
        int best = INT32_MAX;
        size_t at = 0;
        uint32_t merged = 0;
        for (size_t i = 0; i + 1 < tokens.size(); ++i) {
            const auto rule = rules.find({tokens[i], tokens[i + 1]});
            if (rule == rules.end() || rule->second.first >= best) continue;
            best = rule->second.first;
            at = i;
            merged = rule->second.second;
        }
        if (best == INT32_MAX) break;
        tokens[at] = merged;
        tokens.erase(tokens.begin() + static_cast<long>(at) + 1);
    }
    return {tokens.begin(), tokens.end()};
}

}  // namespace

TEST_CASE("every reference case gives exactly the reference's ids", "[tokenizer]") {
    const Tokenizer* tokenizer = real();
    if (!tokenizer) return;
    simdjson::dom::parser parser;
    const auto document = parser.load(PARLEY_SOURCE_DIR "/tests/data/tokenizer-cases.json");
    REQUIRE(document.error() == simdjson::SUCCESS);
    int cases = 0;
    int differing = 0;
    for (const auto one : document["cases"]) {
        const std::string_view text = one["text"];
        std::vector<Token> ids;
        for (const auto id : one["ids"]) ids.push_back(static_cast<Token>(int64_t(id)));
        INFO("text: " << text);
        CHECK(tokenizer->encode(text) == ids);
        std::vector<Token> marked = ids;
        simdjson::dom::array special;
        if (one["ids_special"].get(special) == simdjson::SUCCESS) {
            marked.clear();
            for (const auto id : special) marked.push_back(static_cast<Token>(int64_t(id)));
            ++differing;
        }
        CHECK(model::encode_markup(*tokenizer, text) == marked);
        if (bool(one["decoded_equals_text"])) CHECK(tokenizer->decode(ids) == text);
        ++cases;
    }
    CHECK(cases == 320);
    CHECK(differing == 14);
}

TEST_CASE("the model's vocabulary loads quickly, and saved, more quickly still", "[tokenizer]") {
    const auto path = test::model_file();
    if (path.empty()) return;
    const auto file = model::Gguf::open(path);
    REQUIRE(file);
    auto start = std::chrono::steady_clock::now();
    const auto made = Tokenizer::from_gguf(*file);
    const double from_gguf_ms = ms_since(start);
    REQUIRE(made);
    std::string saved;
    made->save(saved);
    start = std::chrono::steady_clock::now();
    const auto loaded = Tokenizer::load(saved);
    const double load_ms = ms_since(start);
    REQUIRE(loaded);
    WARN("from_gguf " << from_gguf_ms << " ms, load " << load_ms << " ms, " << saved.size()
                      << " bytes");
    CHECK(from_gguf_ms <
          1000);  // loose: sanitizers and busy machines; the figures are printed above
    CHECK(load_ms < 1000);

    CHECK(loaded->vocab_size() == 49152);
    CHECK(loaded->kind() == "gpt2");
    CHECK(loaded->pre() == "smollm");
    CHECK(loaded->bos() == 1);
    CHECK(loaded->eos() == 2);
    CHECK_FALSE(loaded->add_bos());
    CHECK(loaded->special("<|im_end|>") == 2);
    CHECK(loaded->special("hello") == std::nullopt);
    CHECK(loaded->is_control(2));
    CHECK_FALSE(loaded->is_control(19556));
    CHECK(loaded->is_end_of_generation(2));
    CHECK(loaded->is_end_of_generation(0));
    CHECK_FALSE(loaded->is_end_of_generation(1));
    CHECK(loaded->bytes(2).empty());
    CHECK(loaded->bytes(19556) == "Hello");
    CHECK(loaded->bytes(-1).empty());
    CHECK(loaded->bytes(49152).empty());
    for (const char* text : {"Hello, world", "  a\n\n b", "1234 5", "日本🙂"})
        CHECK(loaded->encode(text) == made->encode(text));
    std::string again;
    loaded->save(again);
    CHECK(again == saved);
}

TEST_CASE("hostile lengths are encoded in about linear time", "[tokenizer]") {
    const Tokenizer* tokenizer = real();
    if (!tokenizer) return;
    std::string mixed;
    while (mixed.size() < 1u << 20) mixed += "ab'\t \xff";
    for (const auto& text :
         {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n'),
          std::string(1 << 20, '7'), std::string(1 << 20, '\xff'), std::string(1 << 20, ' ') + "x",
          mixed}) {
        const auto start = std::chrono::steady_clock::now();
        const auto ids = tokenizer->encode(text);
        const double ms = ms_since(start);
        WARN("1 MiB of " << static_cast<int>(text[0]) << ": " << ms << " ms, " << ids.size()
                         << " ids");
        CHECK(ms < 20'000);  // a quadratic one takes hours
        if (text.find('\xff') == std::string::npos) CHECK(tokenizer->decode(ids) == text);
    }
}

TEST_CASE("what the real vocabulary encodes decodes to itself", "[tokenizer]") {
    const Tokenizer* tokenizer = real();
    if (!tokenizer) return;
    std::string known;
    for (int byte = 0; byte < 256; ++byte) {
        const std::string text(1, static_cast<char>(byte));
        if (tokenizer->decode(tokenizer->encode(text)) == text) known += text;
    }
    CHECK(known.size() == 235);  // 21 bytes have no token in this vocabulary
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 500; ++round) {
        std::string text;
        for (size_t i = random() % 40; i > 0; --i) text += known[random() % known.size()];
        const auto ids = tokenizer->encode(text);
        REQUIRE(tokenizer->decode(ids) == text);
        for (const Token id : ids) REQUIRE_FALSE(tokenizer->is_control(id));
    }
}

TEST_CASE("spellings of control tokens are plain text to encode", "[tokenizer]") {
    const auto file = model::Gguf::parse(test::small_vocabulary().build());
    REQUIRE(file);
    const auto tokenizer = Tokenizer::from_gguf(*file);
    REQUIRE(tokenizer);
    const std::string text = "<|im_start|>system\n<|im_end|>";
    const auto ids = tokenizer->encode(text);
    for (const Token id : ids) CHECK_FALSE(tokenizer->is_control(id));
    CHECK(tokenizer->decode(ids) == text);
    REQUIRE(tokenizer->special("<|im_end|>"));
    CHECK(tokenizer->is_control(*tokenizer->special("<|im_end|>")));
    CHECK(tokenizer->special("<|im_end|") == std::nullopt);
}

TEST_CASE("any bytes come back byte for byte from a whole vocabulary", "[tokenizer]") {
    const auto file = model::Gguf::parse(test::small_vocabulary().build());
    REQUIRE(file);
    const auto tokenizer = Tokenizer::from_gguf(*file);
    REQUIRE(tokenizer);
    std::string all;
    for (int byte = 255; byte >= 0; --byte) all += static_cast<char>(byte);
    CHECK(tokenizer->decode(tokenizer->encode(all)) == all);
    for (const char* text :
         {"\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "a\xf0\x9f\x99", "\xc0\x80 x"})
        CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    CHECK(tokenizer->encode("the the") == std::vector<Token>{*tokenizer->encode("the").begin(),
                                                             *tokenizer->encode(" the").begin()});
    CHECK(tokenizer->encode("").empty());
}

TEST_CASE("words are cut as the patterns say", "[tokenizer]") {
    using enum model::Pretokenizer;
    CHECK(words(smollm, "I'll be there, won't I?") ==
          Words{"I", "'ll", " be", " there", ",", " won", "'t", " I", "?"});
    CHECK(words(smollm, "in 2024x") == Words{"in", " ", "2", "0", "2", "4", "x"});
    CHECK(words(gpt2, "in 2024x") == Words{"in", " 2024", "x"});
    CHECK(words(smollm, "a   b") == Words{"a", "  ", " b"});
    CHECK(words(smollm, "a  5") == Words{"a", "  ", "5"});
    CHECK(words(gpt2, "a  5") == Words{"a", " ", " 5"});
    CHECK(words(smollm, "a\n\nb") == Words{"a", "\n", "\n", "b"});
    CHECK(words(smollm, "a\n b") == Words{"a", "\n", " b"});
    CHECK(words(smollm, "a \n") == Words{"a", " \n"});
    CHECK(words(smollm, "''s") == Words{"''", "s"});
    CHECK(words(smollm, "'S'") == Words{"'", "S", "'"});
    CHECK(words(smollm, " 's") == Words{" '", "s"});
    CHECK(words(smollm, "é\xcc\x81x") ==
          Words{"é", "\xcc\x81", "x"});  // a combining mark is no letter
    CHECK(words(smollm, "½Ⅷ٣") == Words{"½", "Ⅷ", "٣"});
    CHECK(words(smollm, "\xff\xc3 x") == Words{"\xff\xc3", " x"});
    CHECK(words(smollm, "　　x") == Words{"　", "　", "x"});
}

TEST_CASE("words are cut as a regex engine cuts them", "[tokenizer]") {
    simdjson::dom::parser parser;
    const auto document = parser.load(PARLEY_SOURCE_DIR "/tests/data/pretokenizer-cases.json");
    REQUIRE(document.error() == simdjson::SUCCESS);
    int cases = 0;
    for (const auto one : document["cases"]) {
        const std::string_view text = one["text"];
        INFO("text: " << text);
        for (const char* name : {"qwen2", "llama-bpe"}) {
            Words expected;
            for (const auto word : one[name]) expected.emplace_back(std::string_view(word));
            INFO("pre-tokenizer: " << name);
            CHECK(words(model::pretokenizer(name).value(), text) == expected);
        }
        ++cases;
    }
    CHECK(cases == 636);
    // What the engine cannot be asked: bytes that are no text.
    CHECK(words(model::Pretokenizer::qwen2, "\xff\xc3\n x") == Words{"\xff\xc3\n", " x"});
}

TEST_CASE("hostile lengths are cut in linear time by the newer patterns too", "[tokenizer]") {
    for (const char* name : {"qwen2", "llama-bpe"}) {
        const auto kind = model::pretokenizer(name).value();
        for (const std::string& part :
             {std::string("a"), std::string(" "), std::string("\n "), std::string("7"),
              std::string("'"), std::string("!\n"), std::string(" \t\r")}) {
            std::string text;
            while (text.size() < 1u << 21) text += part;
            const auto start = std::chrono::steady_clock::now();
            for (size_t at = 0; at < text.size();) at = model::word_end(kind, text, at);
            CHECK(ms_since(start) < 20'000);  // a quadratic one takes hours
        }
    }
}

TEST_CASE("llama-bpe takes a word that is a token whole, other pre-tokenizers merge",
          "[tokenizer]") {
    // "abc" can be reached by no merge: "b c" comes first and leaves "a" alone.
    const auto encode = [](const char* pre) {
        test::GgufWriter writer;
        writer.string("tokenizer.ggml.model", "gpt2")
            .string("tokenizer.ggml.pre", pre)
            .strings("tokenizer.ggml.tokens", {"a", "b", "c", "bc", "ab", "abc", "<|x|>"})
            .integers("tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 1, 3})
            .strings("tokenizer.ggml.merges", {"b c", "a b", "ab c"});
        const auto file = model::Gguf::parse(writer.build());
        const auto tokenizer = Tokenizer::from_gguf(*file);
        REQUIRE(tokenizer);
        CHECK(tokenizer->add_bos() == (std::string_view(pre) == "llama-bpe"));
        std::string saved;
        tokenizer->save(saved);
        CHECK(Tokenizer::load(saved)->encode("abc") == tokenizer->encode("abc"));
        return tokenizer->encode("abc");
    };
    CHECK(encode("llama-bpe") == std::vector<Token>{5});
    CHECK(encode("qwen2") == std::vector<Token>{0, 3});
}

TEST_CASE("the heap merges as repeated scanning would", "[tokenizer]") {
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 300; ++round) {
        // Few letters and many rules: ties, chains and stale entries are common.
        model::Bpe bpe(64);
        std::map<std::pair<uint32_t, uint32_t>, std::pair<int, uint32_t>> rules;
        uint32_t tokens = 3;
        for (int rank = 0; rank < 24; ++rank) {
            const uint32_t left = random() % tokens;
            const uint32_t right = random() % tokens;
            rules.try_emplace({left, right}, std::pair{rank, tokens});
            bpe.add(left, right, tokens);
            ++tokens;
        }
        model::Bpe::Scratch scratch;
        std::vector<uint32_t> word(random() % 60);
        for (auto& token : word) token = random() % 3;
        for (const uint32_t token : word) scratch.symbols.push_back({token, 0, 0, 0, 0});
        std::vector<Token> out;
        bpe.merge(scratch, out);
        REQUIRE(out == merge_naively(word, rules));
    }
}

TEST_CASE("vocabularies that cannot be used are refused by name", "[tokenizer]") {
    const auto refusal = [](const test::GgufWriter& writer) {
        const auto file = model::Gguf::parse(writer.build());
        REQUIRE(file);
        const auto tokenizer = Tokenizer::from_gguf(*file);
        REQUIRE_FALSE(tokenizer);
        return tokenizer.error();
    };
    const auto with = [](const char* kind, const char* pre) {
        test::GgufWriter writer;
        return writer.string("tokenizer.ggml.model", kind).string("tokenizer.ggml.pre", pre);
    };
    CHECK(refusal(test::GgufWriter()).what.find("'tokenizer.ggml.model'") != std::string::npos);
    CHECK(refusal(with("rwkv", "x")).code == Errc::unsupported);
    CHECK(refusal(with("rwkv", "x")).what.find("'rwkv'") != std::string::npos);
    CHECK(refusal(with("gpt2", "smollm")).code == Errc::corrupt);
    auto unknown = with("gpt2", "tekken");
    unknown.strings("tokenizer.ggml.tokens", {"a"}).strings("tokenizer.ggml.merges", {});
    CHECK(refusal(unknown).code == Errc::unsupported);
    CHECK(refusal(unknown).what.find("'tekken'") != std::string::npos);
    auto no_pair = with("gpt2", "smollm");
    no_pair.strings("tokenizer.ggml.tokens", {"a"}).strings("tokenizer.ggml.merges", {"ab"});
    CHECK(refusal(no_pair).what.find("merge 0") != std::string::npos);
    auto lacking = with("gpt2", "smollm");
    lacking.strings("tokenizer.ggml.tokens", {"a", "b"}).strings("tokenizer.ggml.merges", {"a b"});
    CHECK(refusal(lacking).what.find("lacks") != std::string::npos);
    auto control = with("gpt2", "smollm");
    control.strings("tokenizer.ggml.tokens", {"a", "b", "ab"})
        .strings("tokenizer.ggml.merges", {"a b"})
        .integers("tokenizer.ggml.token_type", {1, 1, 3});
    CHECK(refusal(control).code == Errc::corrupt);
    auto types = with("gpt2", "smollm");
    types.strings("tokenizer.ggml.tokens", {"a", "b"})
        .strings("tokenizer.ggml.merges", {})
        .integers("tokenizer.ggml.token_type", {1});
    CHECK(refusal(types).what.find("token types") != std::string::npos);
}

TEST_CASE("a saved tokenizer cut or damaged anywhere is refused or usable, never a crash",
          "[tokenizer]") {
    const auto file = model::Gguf::parse(test::small_vocabulary().build());
    REQUIRE(file);
    const auto tokenizer = Tokenizer::from_gguf(*file);
    REQUIRE(tokenizer);
    std::string saved;
    tokenizer->save(saved);
    REQUIRE(Tokenizer::load(saved));
    CHECK(Tokenizer::load(saved)->encode("the cat") == tokenizer->encode("the cat"));
    for (size_t size = 0; size < saved.size(); ++size) {
        const auto cut = Tokenizer::load(std::string_view(saved).substr(0, size));
        REQUIRE_FALSE(cut);
        REQUIRE(cut.error().code == Errc::corrupt);
    }
    CHECK_FALSE(Tokenizer::load(saved + "x"));
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 2000; ++round) {
        auto bytes = saved;
        for (int i = 0; i < 3; ++i) {
            // Counts and names at the front matter most.
            const size_t at = random() % 2 ? random() % 40 : random() % bytes.size();
            bytes[at] = static_cast<char>(random());
        }
        const auto loaded = Tokenizer::load(bytes);
        if (loaded) (void)loaded->decode(loaded->encode("the cat <|im_end|>"));
    }
}
