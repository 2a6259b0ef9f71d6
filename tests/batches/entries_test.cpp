#include "batches/entries.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using batches::Entries;

namespace {

// ids of the entries, or the error.
std::string read(const std::string& body, batches::EntriesOptions options = {}) {
    Entries entries(body, options);
    std::string ids;
    for (;;) {
        auto entry = entries.next();
        if (!entry) return entry.error().message;
        if (!*entry) {
            CHECK(entries.offset() == body.size());
            return ids;
        }
        ids += (*entry)->custom_id + "=" + (*entry)->params + ";";
    }
}
std::string one(const std::string& entry) { return read("{\"requests\":[" + entry + "]}"); }
const std::string kGood = R"({"custom_id":"a","params":{}})";
const std::string kNotJson = "The request body is not valid JSON";

}  // namespace

TEST_CASE("entries come one by one, whatever the layout and the other members") {
    CHECK(
        read(
            R"( {"x" : [1,{"y":"]}"}], "requests" : [ {"params":{"s":"}],\"" , "n":[1]},"custom_id":"a"} ,
        {"custom_id":"b-_9","params":{ },"more":null} ] , "z":-1.5e3 } )") ==
        R"(a={"s":"}],\"","n":[1]};b-_9={};)");
}

TEST_CASE("a body that is no batch is refused by name") {
    CHECK(read("") == "The request body is not valid JSON: the body is empty");
    CHECK(read("[]") == "The request body should be a JSON object");
    CHECK(read("{}") == "requests: Field required");
    CHECK(read(R"({"requests":{}})") == "requests: Input should be a valid list");
    CHECK(read(R"({"requests":[]})") == "requests: List should have at least 1 item");
    CHECK(one("1") == "requests.0: Input should be an object");
    CHECK(one(R"({"params":{}})") == "requests.0.custom_id: Field required");
    CHECK(one(R"({"custom_id":1,"params":{}})") ==
          "requests.0.custom_id: Input should be a valid string");
    const std::string pattern =
        "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
    CHECK(one(R"({"custom_id":"a b","params":{}})") == pattern);
    CHECK(one("{\"custom_id\":\"" + std::string(65, 'a') + "\",\"params\":{}}") == pattern);
    CHECK(one(R"({"custom_id":"a"})") == "requests.0.params: Field required");
    CHECK(one(R"({"custom_id":"a","params":[]})") ==
          "requests.0.params: Input should be an object");
    CHECK(one(kGood + "," + kGood) == "requests.1.custom_id: custom_id should be unique");
}

TEST_CASE("what is not JSON is refused wherever it stands") {
    const std::string deep = std::string(200, '[') + std::string(200, ']');
    for (const std::string& body :
         {"{\"requests\":[" + kGood, "{\"requests\":[" + kGood + "]",
          "{\"requests\":[" + kGood + "]}x", "{\"requests\":[" + kGood + ",]}",
          "{\"requests\":[," + kGood + "]}", "{\"requests\":[" + kGood + " " + kGood + "]}",
          "{\"requests\":[" + kGood + "],}", "{,\"requests\":[" + kGood + "]}",
          "{requests:[" + kGood + "]}", "{\"a\":tru,\"requests\":[" + kGood + "]}",
          "{\"a\":1 2,\"requests\":[" + kGood + "]}", "{\"a\":\"x,\"requests\":[" + kGood + "]}",
          "{\"requests\":[" + kGood + "],\"requests\":[]}",
          std::string(R"({"requests":[{"custom_id":"a","params":{"x":01}}]})"),
          std::string(R"({"requests":[{"custom_id":"a","params":{}},"b]})"),
          std::string("{\"requests\":[{\"custom_id\":\"a\",\"params\":{\"x\":\"\xff\"}}]}"),
          std::string(R"({"requests":[{"custom_id":"a","custom_id":"b","params":{}}]})"),
          "{\"requests\":[{\"custom_id\":\"a\",\"params\":{\"x\":" + deep + "}}]}"}) {
        INFO(body);
        CHECK(read(body).substr(0, kNotJson.size()) == kNotJson);
    }
}

TEST_CASE("no prefix of a body is a body") {
    const std::string body =
        R"({"a":1,"requests":[{"custom_id":"a","params":{"x":"\\"}}],"b":"c"})";
    REQUIRE(read(body) == R"(a={"x":"\\"};)");
    for (size_t size = 0; size < body.size(); ++size) {
        INFO(body.substr(0, size));
        CHECK(read(body.substr(0, size)).substr(0, kNotJson.size()) == kNotJson);
    }
}

TEST_CASE("number and size of entries are bounded") {
    batches::EntriesOptions options;
    options.entries_max = 2;
    const std::string body =
        R"({"requests":[{"custom_id":"a","params":{}},{"custom_id":"b","params":{}})";
    CHECK(read(body + "]}", options) == "a={};b={};");
    CHECK(read(body + R"(,{"custom_id":"c","params":{}}]})", options) ==
          "requests: List should have at most 2 items");
    options.entry_bytes_max = 40;
    CHECK(read(R"({"requests":[{"custom_id":"a","params":{"x":"a text, longer than forty"}}]})",
               options) == "a=;");
}
