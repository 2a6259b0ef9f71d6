#include <catch2/catch.hpp>
#include <chrono>
#include <random>

#include "base/text.hpp"
#include "grammar/mask.hpp"
#include "grammar/plain.hpp"
#include "grammar/schema.hpp"
#include "schemas.hpp"
#include "validator.hpp"
#include "vocabularies.hpp"

using namespace parley;
using grammar::Matcher;
using grammar::TokenGrammar;

namespace {

const test::ByteVocabulary& vocabulary() {
    static const test::ByteVocabulary v;
    return v;
}
std::shared_ptr<const grammar::Trie> trie() {
    static const auto t = std::make_shared<const grammar::Trie>(vocabulary());
    return t;
}

std::shared_ptr<const TokenGrammar> by_schema(const std::string& schema,
                                              grammar::SchemaOptions options = {}) {
    auto automaton = grammar::compile_schema(schema, options);
    INFO(schema);
    if (!automaton) FAIL(automaton.error().what);
    auto out = TokenGrammar::create(std::move(*automaton), trie());
    if (!out) FAIL(out.error().what);
    return *out;
}

std::string refusal(const std::string& schema) {
    const auto automaton = grammar::compile_schema(schema);
    return automaton ? "" : automaton.error().what;
}

bool takes(const std::shared_ptr<const TokenGrammar>& g, std::string_view text) {
    Matcher m(g);
    for (const char c : text)
        if (!m.accept(1 + static_cast<uint8_t>(c), {&c, 1})) return false;
    return m.finished();
}

// A text of random allowed tokens within `budget`.
std::string generate(Matcher& m, uint64_t budget, std::mt19937_64& random) {
    std::string out;
    for (; budget > 0; --budget) {
        const auto mask = m.mask(budget);
        std::vector<int32_t> tokens;
        for (uint32_t t = 0; t < vocabulary().size(); ++t)
            if (test::allowed(mask, static_cast<int32_t>(t)))
                tokens.push_back(static_cast<int32_t>(t));
        if (tokens.empty()) return out + " <no token>";
        const int32_t token = tokens[random() % tokens.size()];
        if (!m.accept(token, vocabulary().bytes(token))) return out + " <refused>";
        out += vocabulary().bytes(token);
        if (m.over()) break;
    }
    return out;
}

}  // namespace

TEST_CASE("random texts under random schemas parse and validate, within any budget", "[grammar]") {
    const uint64_t seed = std::random_device{}();
    for (uint64_t n = 0; n < 150; ++n) {
        test::SchemaMaker maker(seed + n);
        const std::string schema = maker.root();
        CAPTURE(seed, n, schema);
        const auto g = by_schema(schema);
        test::Validator validator(schema);
        std::mt19937_64 random(seed ^ n);
        for (int i = 0; i < 6; ++i) {
            Matcher m(g);
            REQUIRE(m.tokens_least() == g->tokens_least());
            const uint64_t budget = g->tokens_least() + (i == 0 ? 0 : random() % (i * i * 10));
            CAPTURE(budget);
            const std::string text = generate(m, budget, random);
            CAPTURE(text);
            CHECK(m.finished());
            CHECK(validator.check(text) == "");
        }
    }
}

TEST_CASE("a mask holds exactly the tokens that are accepted", "[grammar]") {
    const uint64_t seed = std::random_device{}();
    for (uint64_t n = 0; n < 40; ++n) {
        test::SchemaMaker maker(seed + n);
        const std::string schema = maker.root();
        CAPTURE(seed, n, schema);
        const auto g = by_schema(schema);
        std::mt19937_64 random(seed ^ n);
        Matcher m(g);
        for (int step = 0; step < 60 && !m.over(); ++step) {
            const auto span = m.mask();
            const std::vector<uint64_t> mask(span.begin(), span.end());
            std::vector<int32_t> tokens;
            for (uint32_t t = 0; t < vocabulary().size(); ++t) {
                const auto token = static_cast<int32_t>(t);
                Matcher copy = m;
                const bool fits = copy.accept(token, vocabulary().bytes(token));
                CAPTURE(step, token, vocabulary().words[t]);
                REQUIRE(fits == test::allowed(mask, token));
                if (fits && token != 0) tokens.push_back(token);
            }
            if (tokens.empty()) break;
            const int32_t token = tokens[random() % tokens.size()];
            REQUIRE(m.accept(token, vocabulary().bytes(token)));
        }
    }
}

TEST_CASE("nesting stops at the depth allowed, and what was opened is closed", "[grammar]") {
    grammar::SchemaOptions options;
    options.limits.depth_max = 9;
    const std::string schema = R"({"type":"array","items":{"$ref":"#"},"minItems":1})";
    CHECK(refusal(schema).find("can never be completed") != std::string::npos);
    const std::string tree =
        R"({"type":"object","properties":{"a":{"type":"array","items":{"$ref":"#"}}},"required":["a"]})";
    const auto g = by_schema(tree, options);
    test::Validator validator(tree);
    std::mt19937_64 random(7);
    for (int i = 0; i < 200; ++i) {
        Matcher m(g);
        const std::string text = generate(m, g->tokens_least() + 100, random);
        CAPTURE(text);
        REQUIRE(m.finished());
        CHECK(validator.check(text) == "");
        int depth = 0, most = 0;
        for (const char c : text)
            most = std::max(most, depth += (c == '{' || c == '[') - (c == '}' || c == ']'));
        CHECK(most <= 10);
    }
}

TEST_CASE("strings are well-formed UTF-8 with whole escapes", "[grammar]") {
    const auto g = by_schema(R"({"type":"string"})");
    for (const char* good :
         {"\"\"", "\"é€😀\x7f\"", R"("\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00\ud7ff\uE000")"})
        CHECK(takes(g, good));
    for (const char* bad : {"\"\n\"", "\"\\x\"", R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")",
                            R"("\u12g4")", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
                            "\"\xF4\x90\x80\x80\"", "\"\xFF\"", "\"\xC3\"", "\"", " \"\""})
        CHECK_FALSE(takes(g, bad));
    const auto two = by_schema(R"({"type":"string","minLength":2,"maxLength":2})");
    for (const char* good : {"\"ab\"", "\"é😀\"", R"("\uD83D\uDE00\n")"}) CHECK(takes(two, good));
    for (const char* bad : {"\"a\"", "\"abc\"", R"("\uD83D\uDE00")"}) CHECK_FALSE(takes(two, bad));
}

TEST_CASE("numbers keep to their bounds", "[grammar]") {
    for (const auto& [low, high] :
         {std::pair{-20, 20}, {0, 0}, {7, 1234}, {-1005, -98}, {-3, 0}, {1, 9}}) {
        const auto g =
            by_schema(fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", low, high));
        for (int i = -1300; i <= 1300; ++i) {
            CAPTURE(low, high, i);
            REQUIRE(takes(g, std::to_string(i)) == (i >= low && i <= high));
        }
        CHECK_FALSE(takes(g, "01"));
        CHECK_FALSE(takes(g, "-0"));
    }
    const auto g = by_schema(R"({"type":"number","exclusiveMinimum":0,"maximum":1})");
    for (const char* good : {"0.5", "0.001", "1", "0.999999999999999"}) CHECK(takes(g, good));
    for (const char* bad : {"0", "0.0", "0.000", "1.1", "-0.5", "2", "1e0"})
        CHECK_FALSE(takes(g, bad));
    const auto n = by_schema(R"({"type":"number","minimum":-2,"exclusiveMaximum":-1})");
    for (const char* good : {"-2", "-1.5", "-1.01"}) CHECK(takes(n, good));
    for (const char* bad : {"-1", "-1.0", "-2.1", "1.5", "0"}) CHECK_FALSE(takes(n, bad));
}

TEST_CASE("objects are written in the schema's order, optional properties left out at will",
          "[grammar]") {
    const auto g = by_schema(
        R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"],"additionalProperties":false})");
    for (const char* good :
         {R"({"a":1,"b":2,"c":3})", R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})"})
        CHECK(takes(g, good));
    for (const char* bad : {"{}", R"({"a":1})", R"({"b":2,"a":1})", R"({"b":2,})", R"({,"b":2})",
                            R"({"b":2,"d":1})", R"({"b": 2})", R"({"a":1,"c":3})"})
        CHECK_FALSE(takes(g, bad));
    const auto more =
        by_schema(R"({"properties":{"aé":{"const":1}},"additionalProperties":{"type":"null"}})");
    for (const char* good : {"{}", R"({"aé":1,"a":null,"aè":null,"aéa":null})", R"({"z":null})"})
        CHECK(takes(more, good));
    CHECK_FALSE(takes(more, R"({"aé":null})"));
    CHECK_FALSE(takes(more, R"({"z":null,"aé":null})"));
    grammar::SchemaOptions spaces;
    spaces.spaces = true;
    const auto wide =
        by_schema(R"({"properties":{"a":{"type":"array","items":{"const":1}}}})", spaces);
    CHECK(takes(wide, R"({"a": [1, 1,1]})"));
    CHECK_FALSE(takes(wide, R"({"a":  [1]})"));
}

TEST_CASE("a schema that is not offered is refused with its path and keyword", "[grammar]") {
    const std::pair<const char*, const char*> cases[] = {
        {R"({"properties":{"a/b":{"type":"number","multipleOf":3}}})",
         "#/properties/a~1b: 'multipleOf' is not supported"},
        {R"({"items":{"patternProperties":{}}})", "#/items: 'patternProperties' is not supported"},
        {R"({"type":"strin"})", "#: 'type' names no type"},
        {R"x({"type":"string","pattern":"a(?=b)"})x", "#: 'pattern' is not understood"},
        {R"({"type":"string","pattern":"(a)\\1"})", "#: 'pattern' is not understood"},
        {R"({"type":"string","format":"email"})", "#: 'format' 'email' is not supported"},
        {R"({"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]})",
         "#: 'oneOf' needs branches that exclude"},
        {R"({"oneOf":[{"type":"number"},{"type":"integer"}]})",
         "#: 'oneOf' needs branches that exclude"},
        {R"({"$ref":"#"})", "refers to itself before any text"},
        {R"({"$ref":"#/$defs/x"})", "#: '$ref' points to nothing"},
        {R"({"$ref":"http://x/y"})", "#: '$ref' points outside"},
        {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
         "can never be completed"},
        {R"({"required":["x"]})", "#: 'required' names 'x'"},
        {R"({"minimum":3,"maximum":2})", "#: 'minimum' and its opposite leave no number"},
        {R"({"minLength":3,"maxLength":2})", "#: 'minLength' is above 'maxLength'"},
        {R"({"type":"string","maxLength":1000000})", "#: 'maxLength' is above"},
        {R"({"anyOf":[{}],"type":"string"})", "#: 'type' is not supported beside 'anyOf'"},
        {R"({"type":"string","type":"null"})", "#: 'type' stands there twice"},
        {R"([])", "#: an object or true was expected"},
        {R"({)", "the schema is not JSON"},
        {R"(false)", "#: false: nothing is valid"},
    };
    for (const auto& [schema, what] : cases) {
        CAPTURE(schema, refusal(schema));
        CHECK(refusal(schema).find(what) != std::string::npos);
    }
    CHECK(refusal(R"({"oneOf":[{"type":"string"},{"type":"integer"},{"const":true}]})").empty());
    CHECK(
        refusal(
            R"({"allOf":[{"type":"object","properties":{"a":{}}},{"$ref":"#/$defs/b"}],"$defs":{"b":{"properties":{"b":{}},"required":["b"]}}})")
            .empty());
}

TEST_CASE("a hostile schema is refused in bounded time", "[grammar]") {
    std::vector<std::string> hostile;
    std::string many = R"({"type":"object","properties":{)";
    for (int i = 0; i < 6000; ++i)
        many += fmt::format("{}\"property number {}\":{{}}", i ? "," : "", i);
    hostile.push_back(many + "}}");
    hostile.push_back(R"x({"pattern":"((((a{1000}){1000}){1000}){1000})"})x");
    hostile.push_back(R"x({"pattern":"(a?b?c?){9999}d"})x");
    hostile.push_back(R"x({"pattern":"(a|b)*a(a|b){9999}"})x");
    hostile.push_back(R"x({"minItems":60000,"items":{"minLength":60000}})x");
    std::string deep;
    for (int i = 0; i < 900; ++i) deep += R"({"items":)";
    hostile.push_back(deep + "{}" + std::string(900, '}'));
    for (const std::string& schema : hostile) {
        const auto from = std::chrono::steady_clock::now();
        const auto automaton = grammar::compile_schema(schema);
        const double s =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
        CAPTURE(schema.substr(0, 60), s);
        CHECK(s < 5);
        if (!automaton) {
            CHECK(automaton.error().code == base::Errc::too_large);
        }
    }
    CHECK(grammar::compile_schema(std::string(300 * 1024, ' ')).error().code ==
          base::Errc::too_large);
}

TEST_CASE("a plain grammar matches what it says", "[grammar]") {
    const auto compile = [](std::string_view text) {
        auto automaton = grammar::compile_plain(text);
        if (!automaton) FAIL(automaton.error().what);
        return *TokenGrammar::create(std::move(*automaton), trie());
    };
    const auto g = compile(
        "root ::= \"[\" item (\",\" item)* \"]\"  # a list\n\nitem ::= [0-9]{1,3}\n  | 'y\\x65s' | "
        "root\n");
    for (const char* good : {"[1]", "[123,yes,[4]]"}) CHECK(takes(g, good));
    for (const char* bad : {"[]", "[1234]", "[1,]", "yes"}) CHECK_FALSE(takes(g, bad));
    const auto e = compile("root ::= a b? .\na ::= \"é\" | [^a-z]+\nb ::= \"b\"");
    for (const char* good : {"éb€", "é€", "AB!"}) CHECK(takes(e, good));
    CHECK_FALSE(takes(e, "ab"));
    for (const auto& [text, what] : {std::pair{"root ::= root \"a\" | \"b\"", "refers to itself"},
                                     {"root ::= x", "'x' is not defined"},
                                     {"a ::= \"b\"", "no rule 'root'"},
                                     {"root ::= \"a", "without an end"},
                                     {"\nroot ::= \"a\" ]", "line 2"},
                                     {"root ::= \"a\"\nroot ::= \"b\"", "twice"}}) {
        const auto refused = grammar::compile_plain(text);
        CAPTURE(text);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().what.find(what) != std::string::npos);
    }
}

// s and r are the same language under two names: after n letters there are 2^n stacks.
TEST_CASE("past the bound on ways a mask still keeps its promises and the text still ends",
          "[grammar]") {
    auto automaton = grammar::compile_plain(
        "root ::= s\ns ::= \"a\" s b | \"a\" r c | \"a\"\nr ::= \"a\" s b | \"a\" r c | \"a\"\n"
        "b ::= \"x\" | \"yy\"\nc ::= \"x\" | \"zzz\"");
    if (!automaton) FAIL(automaton.error().what);
    const test::ByteVocabulary v;
    const auto g =
        *TokenGrammar::create(std::move(*automaton), std::make_shared<grammar::Trie>(v));
    bool narrowed = false;
    for (uint32_t seed = 1; seed <= 20; ++seed) {
        std::mt19937 random(seed);
        Matcher m(g);
        uint64_t budget = 30 + seed;
        for (; !m.over() && budget > 0; --budget) {
            const auto mask = m.mask(budget);
            std::vector<int32_t> allowed;
            for (uint32_t t = 0; t < v.size(); ++t)
                if (test::allowed(mask, static_cast<int32_t>(t))) {
                    allowed.push_back(static_cast<int32_t>(t));
                    // Letters first, so that there are many ways.
                    if (v.bytes(static_cast<int32_t>(t)) == "a" && budget > 16)
                        allowed.insert(allowed.end(), 50, static_cast<int32_t>(t));
                }
            REQUIRE_FALSE(allowed.empty());
            const int32_t token = allowed[random() % allowed.size()];
            REQUIRE(m.accept(token, v.bytes(token)));
            if (v.ends_answer(token)) break;
            REQUIRE(m.tokens_least() < budget);
        }
        CHECK(m.finished());
        narrowed = narrowed || m.narrowed();
    }
    CHECK(narrowed);
}

TEST_CASE("a token that one way promises is accepted though cheaper ways crowd its middle",
          "[grammar]") {
    // After "b" 300 ways are one letter from the end; the one that "bd" is on is six away.
    std::string text = "root ::= p | q\nq ::= \"bdzzzzz\"\np ::= \"b\" (r0";
    for (int i = 1; i < 300; ++i) text += " | r" + std::to_string(i);
    text += ")\n";
    for (int i = 0; i < 300; ++i) text += "r" + std::to_string(i) + " ::= \"c\"\n";
    auto automaton = grammar::compile_plain(text);
    if (!automaton) FAIL(automaton.error().what);
    test::ByteVocabulary v;
    v.words.push_back("bd");
    const auto bd = static_cast<int32_t>(v.size() - 1);
    Matcher m(*TokenGrammar::create(std::move(*automaton), std::make_shared<grammar::Trie>(v)));
    REQUIRE(test::allowed(m.mask(100), bd));
    REQUIRE(m.accept(bd, "bd"));
    CHECK(m.tokens_least() == 5);
}

TEST_CASE("a vocabulary without a byte that is needed is refused", "[grammar]") {
    test::ByteVocabulary v;
    v.words[1 + '}'] = "";
    auto automaton = grammar::compile_schema(R"({"properties":{"a":{}}})");
    REQUIRE(automaton);
    auto bare = std::make_shared<grammar::Trie>(v);
    // Other tokens hold a '}', but none is sure to fit.
    const auto made = TokenGrammar::create(std::move(*automaton), bare);
    if (!made) CHECK(made.error().code == base::Errc::unsupported);
    auto text = grammar::compile_schema(R"({"const":"}"})");
    test::ByteVocabulary none(false);
    none.words[1 + '}'] = "";
    CHECK_FALSE(TokenGrammar::create(std::move(*text), std::make_shared<grammar::Trie>(none)));
    // A character that only a whole token can write.
    none.words.push_back("😀");
    none.words[1 + 0x9F] = "";
    auto face = grammar::compile_schema(R"({"const":"😀"})");
    auto whole = TokenGrammar::create(std::move(*face), std::make_shared<grammar::Trie>(none));
    REQUIRE(whole);
    Matcher m(*whole);
    CHECK((*whole)->tokens_least() == 3);
    REQUIRE(m.accept(1 + '"', "\""));
    CHECK(test::allowed(m.mask(2), static_cast<int32_t>(none.size() - 1)));
}
