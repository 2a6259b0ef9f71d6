#include "safety/policy.hpp"

#include <catch2/catch.hpp>

#include "base/file.hpp"

using namespace parley;
using namespace parley::safety;

namespace {

const std::string kLeast =
    "version = \"t\"\n[thresholds.user]\nunsafe = { flag = 0.5, block = 0.6 }\n";

std::string refusal(const std::string& toml) {
    auto policy = Policy::parse(toml);
    REQUIRE_FALSE(policy);
    CHECK(policy.error().code == base::Errc::config);
    return policy.error().what;
}

}  // namespace

TEST_CASE("the shipped policy loads and is the file in examples", "[policy]") {
    auto builtin = Policy::builtin();
    REQUIRE(builtin);
    auto file = Policy::load(std::string(PARLEY_SOURCE_DIR) + "/examples/policy.toml");
    REQUIRE(file);
    CHECK((*builtin)->name() == (*file)->name());
    CHECK((*builtin)->hold().tokens == 8);
    CHECK((*builtin)->hold().watch_tokens == 32);
    CHECK((*builtin)->budget().first_ms == 50);
    CHECK((*builtin)->beginnings() != nullptr);
    const std::string name = (*builtin)->name();
    CHECK(name.size() == name.find('@') + 13);
}

TEST_CASE("any changed byte changes the policy's name", "[policy]") {
    auto one = Policy::parse(kLeast), two = Policy::parse(kLeast + "# a remark\n");
    REQUIRE(one);
    REQUIRE(two);
    CHECK((*one)->name() != (*two)->name());
}

TEST_CASE("a policy of rules alone keeps the shipped thresholds, and an empty one is refused",
          "[policy]") {
    auto rules = Policy::parse("[[rule]]\nid = \"r\"\npattern = 'xyzzy'\naction = \"block\"\n");
    auto shipped = Policy::builtin();
    REQUIRE(rules);
    REQUIRE(shipped);
    CHECK((*rules)->name().rfind("unversioned@", 0) == 0);
    REQUIRE((*rules)->rules().size() == 1);
    for (const Voice voice : {Voice::user, Voice::output})
        for (const Head head : {Head::unsafe, Head::jailbreak, Head::output}) {
            CHECK((*rules)->threshold(voice, head).block ==
                  (*shipped)->threshold(voice, head).block);
            CHECK((*rules)->threshold(voice, head).flag == (*shipped)->threshold(voice, head).flag);
        }
    CHECK_THAT(refusal(""), Catch::Contains("version"));
    auto numbered = Policy::parse("version = 7\n[thresholds.user]\nunsafe = { block = 0.6 }\n");
    REQUIRE(numbered);
    CHECK((*numbered)->name().rfind("7@", 0) == 0);
}

TEST_CASE("a policy with anything wrong is refused whole, and says what", "[policy]") {
    CHECK_THAT(refusal("version = "), Catch::Contains("line 1"));
    CHECK_THAT(refusal(kLeast + "colour = 1\n"), Catch::Contains("colour"));
    CHECK_THAT(refusal("version = \"t\"\n"), Catch::Contains("thresholds"));
    CHECK_THAT(refusal("version = \"a b\"\n[thresholds.user]\n"), Catch::Contains("version"));
    CHECK_THAT(refusal(kLeast + "[thresholds.nobody]\n"), Catch::Contains("nobody"));
    CHECK_THAT(refusal(kLeast + "rudeness = { flag = 0.5 }\n"), Catch::Contains("rudeness"));
    CHECK_THAT(refusal(kLeast + "[hold]\ntokens = -1\n"), Catch::Contains("hold.tokens"));
    CHECK_THAT(refusal(kLeast + "[hold]\ntokens = 1.5\n"), Catch::Contains("hold.tokens"));
    CHECK_THAT(refusal(kLeast + "[hold]\nall = 1\n"), Catch::Contains("hold.all"));
    CHECK_THAT(refusal(kLeast + "[budget]\nwall_factor = 0\n"), Catch::Contains("wall_factor"));
    CHECK_THAT(refusal(kLeast + "[weights]\nfile = \"nowhere.bin\"\n"),
               Catch::Contains("nowhere.bin"));
    CHECK_THAT(refusal(kLeast + "[weights]\nsha256 = \"00\"\n"), Catch::Contains("sha256"));
}

TEST_CASE("a rule with anything wrong refuses the policy", "[policy]") {
    auto with = [](const std::string& rule) { return refusal(kLeast + "[[rule]]\n" + rule); };
    CHECK_THAT(with("id = \"r\"\npattern = '(a'\naction = \"block\"\n"),
               Catch::Contains("'r' does not compile"));
    CHECK_THAT(with("id = \"r\"\naction = \"block\"\n"), Catch::Contains("no pattern"));
    CHECK_THAT(with("pattern = 'a'\naction = \"block\"\n"), Catch::Contains("id"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a'\naction = \"stop\"\n"), Catch::Contains("stop"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a'\naction = \"flag\"\nside = \"up\"\n"),
               Catch::Contains("up"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a*'\naction = \"block\"\n"),
               Catch::Contains("empty text"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a\\C'\naction = \"block\"\n"), Catch::Contains("'r'"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a'\naction = \"flag\"\nwhy = \"x\"\n"),
               Catch::Contains("why"));
    CHECK_THAT(with("id = \"r\"\npattern = 'a'\naction = \"flag\"\n[[rule]]\nid = \"r\"\npattern = "
                    "'b'\naction = \"flag\"\n"),
               Catch::Contains("taken twice"));
}

TEST_CASE("weights that are cut, grown or altered in the header are refused", "[policy]") {
    const std::string good(Model::builtin_bytes());
    REQUIRE(Model::parse(good));
    for (size_t size : {size_t{0}, size_t{7}, size_t{11}, size_t{40}, good.size() - 1})
        CHECK_FALSE(Model::parse(std::string_view(good).substr(0, size)));
    CHECK_FALSE(Model::parse(good + "x"));
    std::string bad = good;
    bad[7] = '2';
    CHECK_FALSE(Model::parse(bad));
    bad = good;
    bad[8] = char(0xff), bad[9] = char(0xff), bad[10] = char(0xff), bad[11] = char(0x7f);
    CHECK_FALSE(Model::parse(bad));
    bad = good;
    bad.replace(bad.find("\"unsafe\""), 8, "\"unsage\"");
    CHECK_FALSE(Model::parse(bad));
}
