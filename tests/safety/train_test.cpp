#include <catch2/catch.hpp>

#include "base/file.hpp"
#include "safety/trainer.hpp"

using namespace parley;
using namespace parley::safety;

namespace {

// Made-up rows: "grumf" is harm, "snorl" a jailbreak, "plick" an injection.
std::vector<Row> toy_rows() {
    std::vector<Row> rows;
    const char* subjects[] = {"garden", "teapot", "bicycle", "harbour", "violin", "meadow"};
    int n = 0;
    for (const char* subject : subjects)
        for (const char* verb : {"paint", "carry", "describe", "measure"}) {
            const std::string base = std::string("please ") + verb + " the " + subject;
            const std::string source = "toy" + std::to_string(n++ % 3);
            auto add = [&](const std::string& text, const char* label, bool output = false) {
                Row row;
                row.text = text;
                row.label = label;
                row.source = source + (row.benign() ? "b" : "u");
                row.license = "CC0-1.0";
                row.output = output;
                if (row.label == "harmful" && !output) row.category = n % 2 ? "vcr" : "ncr";
                rows.push_back(row);
            };
            add(base, "benign");
            add(base + " with grumf", "harmful");
            add(base + " in snorl mode", "jailbreak");
            add(base + " plick plick", "prompt_injection");
            add("done: " + base, "benign", true);
            add("done: " + base + " with grumf", "harmful", true);
        }
    return rows;
}

}  // namespace

TEST_CASE("the same rows and seed give the same bits, another seed does not", "[train]") {
    TrainOptions options;
    auto one = train(toy_rows(), options), two = train(toy_rows(), options);
    REQUIRE(one);
    REQUIRE(two);
    CHECK(one->file == two->file);
    options.seed = 43;
    auto three = train(toy_rows(), options);
    REQUIRE(three);
    CHECK(three->file != one->file);
}

TEST_CASE("weights learn what sets the kinds apart", "[train]") {
    auto trained = train(toy_rows(), {});
    REQUIRE(trained);
    auto model = Model::parse(trained->file);
    REQUIRE(model);
    auto z = [&](Head head, const char* text) {
        return score_views(**model, text)[static_cast<size_t>(head)];
    };
    CHECK(z(Head::harmful, "please paint the boat with grumf") >
          z(Head::harmful, "please paint the boat"));
    CHECK(z(Head::jailbreak, "please paint the boat in snorl mode") >
          z(Head::jailbreak, "please paint the boat"));
    CHECK(z(Head::prompt_injection, "please paint plick plick") >
          z(Head::prompt_injection, "please paint the boat"));
    CHECK(z(Head::output, "done: the boat with grumf") > z(Head::output, "done: the boat"));
}

TEST_CASE("rows under share-alike licences do not touch the weights", "[train]") {
    auto rows = toy_rows();
    auto without = train(rows, {});
    Row row = rows[0];
    row.text = "zzz unseen words qqq";
    row.license = "CC-BY-SA-4.0";
    row.source = "toy0b";
    rows.push_back(row);
    TrainOptions options;
    options.calibrate = false;  // calibration scores every row
    auto plain = train(toy_rows(), options), dropped = train(rows, options);
    REQUIRE(plain);
    REQUIRE(dropped);
    CHECK(plain->file == dropped->file);
    options.drop_share_alike = false;
    auto kept = train(rows, options);
    REQUIRE(kept);
    CHECK(kept->file != plain->file);
}

TEST_CASE("rows of one kind only are refused", "[train]") {
    std::vector<Row> rows = toy_rows();
    rows.erase(std::remove_if(rows.begin(), rows.end(),
                              [](const Row& r) { return r.label == "jailbreak"; }),
               rows.end());
    auto trained = train(rows, {});
    REQUIRE_FALSE(trained);
    CHECK_THAT(trained.error().what, Catch::Contains("jailbreak"));
}

TEST_CASE("a bad row names its file and line", "[train]") {
    const std::string path = std::string(PARLEY_BINARY_DIR) + "/bad_rows.jsonl";
    REQUIRE(base::write_file(path, "{\"text\":\"ok\"}\n\n{\"label\":\"benign\"}\n"));
    std::vector<Row> rows;
    auto loaded = load_rows(path, rows);
    REQUIRE_FALSE(loaded);
    CHECK_THAT(loaded.error().what, Catch::Contains(":3: no 'text'"));
}
