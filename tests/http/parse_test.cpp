#include "http/parse.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace parley::http;

namespace {

Head good(const std::string& text) {
    Head head;
    const auto refusal = parse_head(text, head);
    INFO(text << (refusal ? refusal->why : ""));
    REQUIRE_FALSE(refusal);
    return head;
}
int status(const std::string& text) {
    Head head;
    const auto refusal = parse_head(text, head);
    return refusal ? refusal->status : 0;
}
std::string get(const std::string& target, const std::string& more = "") {
    return "GET " + target + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n";
}
struct Body {
    std::string body;
    bool done;
    int status;
    size_t used;
};
Body read_body(const std::string& bytes, size_t step, uint64_t bytes_max = 1000) {
    BodyReader reader(true, 0, bytes_max);
    Body out{};
    while (out.used < bytes.size() && !reader.done()) {
        const size_t n = std::min(step, bytes.size() - out.used);
        out.used += reader.feed(std::string_view(bytes).substr(out.used, n), out.body);
    }
    out.status = reader.refusal() ? reader.refusal()->status : 0;
    out.done = reader.done() && out.status == 0;
    return out;
}

}  // namespace

TEST_CASE("a head is read with its path, query and headers", "[parse]") {
    const Head head = good(
        "POST /v1/models/a%2Fb/?limit=5&lifecycle%5B%5D=active&x=a+b&flag HTTP/1.1\r\n"
        "HOST: example.org:8080\r\nX-Api-Key:  k e y \t\r\nContent-Length: 12\r\n"
        "Expect: 100-Continue\r\n\r\n");
    CHECK(head.request.method == "POST");
    CHECK(head.request.path == "/v1/models/a/b");
    CHECK(head.request.segments == std::vector<std::string>{"v1", "models", "a/b"});
    CHECK(head.request.query_value("limit") == "5");
    CHECK(head.request.query_value("lifecycle[]") == "active");
    CHECK(head.request.query_value("x") == "a b");
    CHECK(head.request.query_value("flag") == "");
    CHECK_FALSE(head.request.query_value("nothing"));
    CHECK(head.request.headers.get("x-api-key") == "k e y");
    CHECK(head.request.headers.get("X-API-KEY") == "k e y");
    CHECK(head.content_length == 12);
    CHECK(head.expect_continue);
    CHECK(head.keep_alive);
    CHECK(good(get("/")).request.path == "/");
    CHECK(good(get("/?a=1")).request.path == "/");
    CHECK(good(get("http://other/v1/x?y=z")).request.path == "/v1/x");
    CHECK(good(get("http://other?y=z")).request.path == "/");
    CHECK(good(get("/a//b")).request.path == "/a//b");
}

TEST_CASE("keep-alive follows the version and the Connection header", "[parse]") {
    CHECK(good(get("/")).keep_alive);
    CHECK_FALSE(good(get("/", "Connection: Close\r\n")).keep_alive);
    CHECK_FALSE(good(get("/", "Connection: x, close\r\n")).keep_alive);
    CHECK_FALSE(good("GET / HTTP/1.0\r\n\r\n").keep_alive);
    CHECK(good("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

TEST_CASE("whatever two readers could understand differently is refused", "[parse]") {
    const std::string refused[] = {
        "GET / HTTP/1.1\r\n\r\n",                        // no Host
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",  // two
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",  // bare LF
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        get("/", "X: y\r\n folded\r\n"),
        get("/", "X: y\r\n\tfolded\r\n"),
        get("/", " X: y\r\n"),
        get("/", "X : y\r\n"),  // space before the colon
        get("/", "X\r\n"),
        get("/", ": y\r\n"),
        get("/", "X: a\rb\r\n"),
        get("/", std::string("X: a\0b\r\n", 8)),
        get("/", "X\x01: a\r\n"),
        get("/", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        get("/", "Content-Length: 5, 5\r\n"),
        get("/", "Content-Length: +5\r\n"),
        get("/", "Content-Length: 0x5\r\n"),
        get("/", "Content-Length: \r\n"),
        get("/", "Content-Length: 5 5\r\n"),
        get("/", "Transfer-Encoding: gzip\r\n"),
        get("/", "Transfer-Encoding: gzip, chunked\r\n"),
        get("/", "Transfer-Encoding: chunked, chunked\r\n"),
        get("/", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        get("/",
            "Transfer-Encoding: \x0b"
            "chunked\r\n"),
        get("/", "Transfer-Encoding: identity\r\n"),
        get("/", "Transfer-Encoding: chunked;q=1\r\n"),
        get("/", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        get("a"),
        get("*"),
        get("/%zz"),
        get("/%4"),
        get("/%00"),
        get("/?a=%00"),
        get("/#x"),
        get("/\xc3\xa9"),
    };
    for (const std::string& text : refused) {
        INFO(text);
        CHECK(status(text) == 400);
    }
    CHECK(status(get("/", "Expect: magic\r\n")) == 417);
    CHECK(status(get("/", "Content-Length: 99999999999999999999\r\n")) == 413);
    CHECK(status(get("/", "Content-Length: 000000000000000005\r\n")) == 0);
}

TEST_CASE("the end of a head is found whole, however it arrives", "[parse]") {
    const std::string head = get("/", "A: b\r\n");
    for (size_t n = 0; n < head.size(); ++n) CHECK(head_size(head.substr(0, n)) == 0);
    CHECK(head_size(head + "rest") == head.size());
    for (size_t from = 0; from < head.size(); ++from)
        CHECK(head_size(head + "rest", from) == head.size());
    CHECK(head_size("GET / HTTP/1.1\nHost: a\n\nrest") == 24);  // to be refused at once
}

TEST_CASE("a chunked body is put together, however it is cut", "[parse]") {
    const std::string bytes =
        "5\r\nhello\r\nA;name=\"v\"\r\n 123456789\r\n0\r\nTrailer: x\r\n\r\nGET /next";
    for (size_t step = 1; step <= bytes.size(); ++step) {
        const Body body = read_body(bytes, step);
        CHECK(body.done);
        CHECK(body.body == "hello 123456789");
        CHECK(bytes.substr(body.used) == "GET /next");
    }
    CHECK(read_body("0\r\n\r\n", 100).done);
}

TEST_CASE("bad chunks are refused", "[parse]") {
    for (const std::string bytes :
         {"x\r\n", "\r\n", "5\nhello", "-5\r\n", "+5\r\n", "0x5\r\n", " 5\r\n", "5 \r\n",
          "5\r\nhelloX\n", "5\r\nhello\rX", "5\r\nhello\n", "1000000000000000\r\n", "5;\x01\r\n",
          "0\r\nbad\x01\r\n\r\n", "0\r\n folded\r\n\r\n", "0\r\nX: y\n"}) {
        INFO(bytes);
        CHECK(read_body(bytes, 100).status == 400);
    }
    CHECK(read_body("5;" + std::string(20'000, 'x') + "\r\n", 1000).status == 400);
    CHECK(read_body("0\r\n" + std::string(20'000, 'x') + "\r\n", 1000).status == 400);
    CHECK(read_body("fffffffffffffff\r\n", 100).status == 413);
    CHECK(read_body("6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n", 100, 10).status == 413);
    CHECK(read_body("6\r\nabcdef\r\n4\r\nabcd\r\n0\r\n\r\n", 100, 10).done);
}

TEST_CASE("no flipped byte crashes the head parser", "[parse]") {
    const std::string text = get("/v1/a%20b?x=y", "Content-Length: 5\r\nConnection: close\r\n");
    int refused = 0;
    for (size_t i = 0; i < text.size(); ++i)
        for (int byte = 0; byte < 256; ++byte) {
            std::string changed = text;
            changed[i] = static_cast<char>(byte);
            Head head;
            if (parse_head(changed, head)) ++refused;
        }
    CHECK(refused > 1000);
}

TEST_CASE("random requests are answered or refused, and never smuggle", "[parse]") {
    // However a body is cut, the reader ends at the same byte with the same verdict.
    constexpr uint32_t kSeed = 20260101;
    std::mt19937 random(kSeed);
    const std::string pieces[] = {"5\r\n", "hello", "\r\n", "0\r\n", ";x=y",
                                  "a",     "\n",    "\r",   "F",     "X: y"};
    int finished = 0;
    for (int round = 0; round < 20'000; ++round) {
        std::string bytes = "5\r\nhello\r\n";
        for (int i = 0; i < 4; ++i) bytes += pieces[random() % std::size(pieces)];
        bytes += "\r\n\r\n";
        const Body whole = read_body(bytes, bytes.size());
        const Body cut = read_body(bytes, 1 + random() % 5);
        const bool same = whole.done == cut.done && whole.status == cut.status &&
                          whole.body == cut.body && (!whole.done || whole.used == cut.used);
        if (!same) {
            INFO("seed " << kSeed << " round " << round << ": " << bytes);
            REQUIRE(same);
        }
        finished += whole.done;
    }
    CHECK(finished > 10);
}
