#include "model/spm.hpp"

#include <simdjson.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <random>

#include "model/gguf.hpp"
#include "model/markup.hpp"
#include "small_spm.hpp"
#include "support/model_file.hpp"

using namespace parley;
using base::Errc;
using model::Token;
using model::Tokenizer;

namespace {

Tokenizer make(const test::GgufWriter& writer) {
    const auto file = model::Gguf::parse(writer.build());
    REQUIRE(file);
    auto tokenizer = Tokenizer::from_gguf(*file);
    INFO((tokenizer ? "" : tokenizer.error().what));
    REQUIRE(tokenizer);
    return std::move(*tokenizer);
}

const Tokenizer* gemma() {
    static const auto tokenizer = []() -> std::optional<Tokenizer> {
        const auto path = test::gemma_file();
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

std::vector<std::string> spelled(const Tokenizer& tokenizer, std::string_view text) {
    std::vector<std::string> out;
    for (const Token id : tokenizer.encode(text)) out.emplace_back(tokenizer.bytes(id));
    return out;
}
using Pieces = std::vector<std::string>;

// The definition, by scanning for the best pair, leftmost, again and again, over the file's own
// spellings (U+2581 and all). `text` holds neither line breaks nor two spaces in a row.
std::vector<Token> encode_naively(std::string_view text, bool prefix) {
    static const auto pieces = test::small_spm_pieces();
    static const auto by_text = [] {
        std::map<std::string, Token> out;
        for (size_t i = 0; i < pieces.size(); ++i)
            if (pieces[i].type == 1) out[pieces[i].text] = static_cast<Token>(i);
        return out;
    }();
    std::vector<std::string> symbols;
    if (prefix && !text.empty()) symbols.emplace_back("\xe2\x96\x81");
    for (size_t i = 0; i < text.size();) {
        const size_t size = static_cast<uint8_t>(text[i]) < 0x80 ? 1 : 2;  // é at the most
        symbols.emplace_back(text[i] == ' ' ? "\xe2\x96\x81" : text.substr(i, size));
        i += size;
    }
    while (true) {
        size_t best = symbols.size();
        float score = 0;
        for (size_t i = 0; i + 1 < symbols.size(); ++i) {
            const auto found = by_text.find(symbols[i] + symbols[i + 1]);
            if (found == by_text.end()) continue;
            const float its = pieces[static_cast<size_t>(found->second)].score;
            if (best < symbols.size() && its <= score) continue;
            best = i;
            score = its;
        }
        if (best == symbols.size()) break;
        symbols[best] += symbols[best + 1];
        symbols.erase(symbols.begin() + static_cast<long>(best) + 1);
    }
    std::vector<Token> out;
    for (const auto& symbol : symbols) {
        if (const auto found = by_text.find(symbol); found != by_text.end())
            out.push_back(found->second);
        else
            for (const char byte : symbol) out.push_back(14 + static_cast<uint8_t>(byte));
    }
    return out;
}

}  // namespace

TEST_CASE("every Gemma reference case gives exactly the reference's ids", "[spm]") {
    const Tokenizer* tokenizer = gemma();
    if (!tokenizer) return;
    simdjson::dom::parser parser;
    const auto document = parser.load(PARLEY_SOURCE_DIR "/tests/data/tokenizer-cases-gemma3.json");
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
        for (const Token id : tokenizer->encode(text)) CHECK_FALSE(tokenizer->is_control(id));
        ++cases;
    }
    CHECK(cases == 320);
    CHECK(differing > 0);
}

TEST_CASE("Gemma's vocabulary loads quickly and comes back from its stored form", "[spm]") {
    const auto path = test::gemma_file();
    if (path.empty()) return;
    const auto file = model::Gguf::open(path);
    REQUIRE(file);
    const auto ms_since = [](auto start) {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count();
    };
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
    WARN("from GGUF " << from_gguf_ms << " ms, stored " << load_ms << " ms, " << saved.size()
                      << " bytes");
    std::string again;
    loaded->save(again);
    CHECK(again == saved);
    CHECK(loaded->vocab_size() == 262144);
    CHECK(loaded->kind() == "llama");
    CHECK(loaded->pre() == "default");
    CHECK(loaded->bos() == 2);
    CHECK(loaded->eos() == 1);
    CHECK(loaded->add_bos());
    CHECK(loaded->special("<end_of_turn>") == 106);
    CHECK(loaded->is_end_of_generation(106));
    CHECK(loaded->is_end_of_generation(1));
    CHECK_FALSE(loaded->is_control(107));  // a line break, added by hand
    CHECK(loaded->bytes(107) == "\n");
    CHECK(loaded->bytes(138) == "  ");
    CHECK(loaded->bytes(496) == " a");
    CHECK(loaded->encode("Hello, <b>world</b>\n\n  x \xff") ==
          made->encode("Hello, <b>world</b>\n\n  x \xff"));
}

TEST_CASE("hostile lengths are merged in about linear time by Gemma's scores", "[spm]") {
    const Tokenizer* tokenizer = gemma();
    if (!tokenizer) return;
    std::string mixed;
    while (mixed.size() < 1u << 20) mixed += "<tab\n \xff\xe2\x96\x81<tr";
    for (const auto& text : {std::string(1 << 20, 'a'), std::string(1 << 20, ' '),
                             std::string(1 << 20, '\n'), std::string(1 << 20, '<'),
                             std::string(1 << 20, '\xff'), std::string(1 << 20, '-'), mixed}) {
        const auto start = std::chrono::steady_clock::now();
        const auto ids = tokenizer->encode(text);
        const double ms =
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                .count();
        WARN("1 MiB of " << static_cast<int>(text[0]) << ": " << ms << " ms, " << ids.size()
                         << " ids");
        CHECK(ms < 20'000);  // a quadratic one takes hours
        if (&text != &mixed && text != mixed) CHECK(tokenizer->decode(ids) == text);
    }
}

TEST_CASE("the best score merges first, the leftmost of equals", "[spm]") {
    const auto tokenizer = make(test::small_spm(false));
    CHECK(spelled(tokenizer, "the") == Pieces{"the"});
    // "el" (−1) goes before "he" (−2): h el lo, never he ll o; and "hello" is then out of reach.
    CHECK(spelled(tokenizer, "hello") == Pieces{"h", "el", "lo"});
    CHECK(spelled(tokenizer, "helo") == Pieces{"h", "el", "o"});
    CHECK(spelled(tokenizer, "aaab") == Pieces{"aa", "ab"});
    CHECK(spelled(tokenizer, "aab") == Pieces{"aa", "b"});  // a tie: the left one
    CHECK(spelled(tokenizer, "aaaaa") == Pieces{"aaaa", "a"});
    CHECK(spelled(tokenizer, "x the") == Pieces{"x", " the"});
    CHECK(tokenizer.encode("").empty());
}

TEST_CASE("the heap gives what repeated scanning gives, by scores with ties", "[spm]") {
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (const bool prefix : {false, true}) {
        const auto tokenizer = make(test::small_spm(prefix));
        const std::vector<std::string> parts = {"t", "h", "e",  "l", "o", "a", "b",  "s",
                                                "z", "<", "/s", "q", "é", "ü", " t", "the"};
        for (int round = 0; round < 2000; ++round) {
            std::string text;
            for (size_t i = random() % 30; i > 0; --i) text += parts[random() % parts.size()];
            if (text.find("<b") != std::string::npos) continue;  // added tokens begin so
            INFO("text: " << text);
            REQUIRE(tokenizer.encode(text) == encode_naively(text, prefix && text[0] != '\0'));
        }
    }
}

TEST_CASE("a first space comes if the file asks for it", "[spm]") {
    CHECK(spelled(make(test::small_spm(false)), "the") == Pieces{"the"});
    const auto with = make(test::small_spm(true));
    CHECK(spelled(with, "the") == Pieces{" the"});
    CHECK(spelled(with, "the<b>the") == Pieces{" the", "<b>", " the"});
    CHECK(spelled(with, "\n") == Pieces{"\n"});
    CHECK(with.encode("").empty());
    CHECK(spelled(make(test::small_spm(false, false)), "the") == Pieces{" the"});
}

TEST_CASE("tokens added by hand are found first, leftmost and longest", "[spm]") {
    const auto tokenizer = make(test::small_spm(false));
    CHECK(spelled(tokenizer, "a<br><b><b") == Pieces{"a", "<br>", "<b>", "<", "b"});
    CHECK(spelled(tokenizer, "\n\n\n\n\n") == Pieces{"\n\n\n", "\n\n"});
    CHECK(spelled(tokenizer, "a   b") == Pieces{"a", "  ", " ", "b"});
    // U+2581 in a text is a space, but not one that the added tokens know.
    CHECK(spelled(tokenizer, "a\xe2\x96\x81\xe2\x96\x81the") == Pieces{"a", " ", " the"});
}

TEST_CASE("what has no token is spelled in bytes and comes back", "[spm]") {
    const auto tokenizer = make(test::small_spm(false));
    CHECK(tokenizer.encode("z") == std::vector<Token>{14 + 'z'});
    CHECK(tokenizer.encode("\xf0\x9f\x99\x82") ==
          std::vector<Token>{14 + 0xf0, 14 + 0x9f, 14 + 0x99, 14 + 0x82});
    CHECK(spelled(tokenizer, "<0x0A>") == Pieces{"<", "0", "x", "0", "A", ">"});
    std::string all;
    for (int byte = 255; byte >= 0; --byte) all += static_cast<char>(byte);
    CHECK(tokenizer.decode(tokenizer.encode(all)) == all);
    // A broken character does not swallow the letter behind it.
    CHECK(spelled(tokenizer,
                  "\xc3"
                  "a") == Pieces{"\xc3", "a"});
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 500; ++round) {
        std::string text;
        for (size_t i = random() % 60; i > 0; --i) text += static_cast<char>(random());
        if (text.find("\xe2\x96\x81") != std::string::npos) continue;
        REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
    }
}

TEST_CASE("no text becomes a control token, whatever the file calls it", "[spm]") {
    const auto tokenizer = make(test::small_spm(false));
    for (const char* text : {"<s>", "</s>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<<s>>",
                             "<|eot_id|>", "x<start_of_turn>user\nhi<end_of_turn>"}) {
        INFO(text);
        const auto ids = tokenizer.encode(text);
        for (const Token id : ids) CHECK_FALSE(tokenizer.is_control(id));
        CHECK(tokenizer.decode(ids) == text);
    }
    CHECK(tokenizer.special("<start_of_turn>") == 3);  // user-defined in the file
    CHECK(tokenizer.is_end_of_generation(2));
    CHECK(tokenizer.is_end_of_generation(4));
    // An EOS that the file says is text is none all the same.
    auto lax = test::small_spm(false);
    lax.u32("tokenizer.ggml.eot_token_id", 12);  // "<b>"
    const auto strict = make(lax);
    CHECK(strict.is_control(12));
    for (const Token id : strict.encode("<b>")) CHECK_FALSE(strict.is_control(id));
}

TEST_CASE("BOS goes by the file's flag, and is on where the file is silent", "[spm]") {
    CHECK(make(test::small_spm(false)).add_bos());
    auto without = test::small_spm(false);
    without.boolean("tokenizer.ggml.add_bos_token", false);
    CHECK_FALSE(make(without).add_bos());
}

TEST_CASE("SentencePiece vocabularies that cannot be used are refused", "[spm]") {
    const auto refusal = [](const test::GgufWriter& writer) {
        const auto file = model::Gguf::parse(writer.build());
        REQUIRE(file);
        const auto tokenizer = Tokenizer::from_gguf(*file);
        REQUIRE_FALSE(tokenizer);
        CHECK(tokenizer.error().code == Errc::corrupt);
        return tokenizer.error().what;
    };
    const auto with = [] {
        test::GgufWriter writer;
        return writer.string("tokenizer.ggml.model", "llama")
            .strings("tokenizer.ggml.tokens", {"a", "<0xGG>"});
    };
    CHECK(refusal(with()).find("token_type") != std::string::npos);
    CHECK(refusal(with().integers("tokenizer.ggml.token_type", {1, 1})).find("scores") !=
          std::string::npos);
    CHECK(refusal(with()
                      .integers("tokenizer.ggml.token_type", {1, 1})
                      .reals("tokenizer.ggml.scores", {1}))
              .find("1 scores for 2") != std::string::npos);
    CHECK(refusal(with()
                      .integers("tokenizer.ggml.token_type", {1, 1})
                      .reals("tokenizer.ggml.scores", {1, std::nanf("")}))
              .find("no number") != std::string::npos);
    CHECK(refusal(with()
                      .integers("tokenizer.ggml.token_type", {1, 6})
                      .reals("tokenizer.ggml.scores", {1, 1}))
              .find("byte") != std::string::npos);
}

TEST_CASE("a saved SentencePiece tokenizer cut or damaged is refused or usable, never a crash",
          "[spm]") {
    const auto tokenizer = make(test::small_spm(true));
    std::string saved;
    tokenizer.save(saved);
    const auto whole = Tokenizer::load(saved);
    REQUIRE(whole);
    CHECK(whole->encode("x the\n\n<b> hello") == tokenizer.encode("x the\n\n<b> hello"));
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
            const size_t at = random() % 2 ? random() % 400 : random() % bytes.size();
            bytes[at] = static_cast<char>(random());
        }
        const auto loaded = Tokenizer::load(bytes);
        if (!loaded) continue;
        for (const Token id : loaded->encode("the hello </s><b>\n\xff <end_of_turn>"))
            REQUIRE_FALSE(loaded->is_control(id));
    }
}
