#include "load/http_response.hpp"

#include <catch2/catch.hpp>

using namespace parley;
using load::HttpResponse;

namespace {

struct Read {
    bool fine = true;
    bool complete = false;
    bool reusable = false;
    int status = 0;
    size_t used = 0;
    std::string body;
};

Read read_in_two(std::string_view bytes, size_t cut, bool close = false) {
    HttpResponse response;
    Read out;
    const auto take = [&](std::string_view piece) { out.body += piece; };
    for (const auto piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
        auto used = response.feed(piece, take);
        if (!used) {
            out.fine = false;
            return out;
        }
        out.used += *used;
    }
    if (close) out.fine = response.end_of_input().has_value();
    out.complete = response.complete();
    out.reusable = response.reusable();
    out.status = response.status();
    return out;
}

}  // namespace

TEST_CASE("chunked, counted and interim responses read the same wherever they are cut", "[load]") {
    const std::string chunked =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream; "
        "charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, world ok\r\n0\r\nTrailer: "
        "x\r\n\r\n";
    const std::string counted =
        "HTTP/1.1 529 \r\nContent-Length: 8\r\nConnection: close\r\n\r\noverload";
    for (size_t cut = 0; cut <= chunked.size(); ++cut) {
        const Read read = read_in_two(chunked, cut);
        CAPTURE(cut);
        REQUIRE(read.fine);
        REQUIRE(read.complete);
        REQUIRE(read.reusable);
        REQUIRE(read.body == "hello, world ok");
    }
    for (size_t cut = 0; cut <= counted.size(); ++cut) {
        const Read read = read_in_two(counted, cut);
        CAPTURE(cut);
        REQUIRE(read.complete);
        REQUIRE_FALSE(read.reusable);
        REQUIRE(read.status == 529);
        REQUIRE(read.body == "overload");
    }
}

TEST_CASE("bytes after a response are left for the next one", "[load]") {
    const std::string first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const Read read = read_in_two(first + "HTTP/1.1 200 OK\r\n", 3);
    CHECK(read.complete);
    CHECK(read.used == first.size());
}

TEST_CASE("a body without a length ends with the connection, any other is torn by it", "[load]") {
    const Read open = read_in_two("HTTP/1.1 200 OK\r\n\r\nall of it", 20, true);
    CHECK(open.fine);
    CHECK(open.complete);
    CHECK_FALSE(open.reusable);
    CHECK(open.body == "all of it");
    CHECK_FALSE(read_in_two("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\npart", 5, true).fine);
    CHECK_FALSE(
        read_in_two("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 5, true)
            .fine);
    CHECK_FALSE(read_in_two("", 0, true).fine);
}

TEST_CASE("a response that could be misread is refused", "[load]") {
    for (const char* bad : {
             "SSH-2.0-OpenSSH\r\n",
             "HTTP/1.1 2xx OK\r\n",
             "HTTP/1.1 200OK\r\n",
             "HTTP/1.1 200 OK\n",
             "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
             "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n",
             "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
             "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
             "HTTP/1.1 200 OK\r\nno colon here\r\n",
             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
         }) {
        CAPTURE(bad);
        CHECK_FALSE(read_in_two(bad, 7).fine);
    }
    CHECK_FALSE(read_in_two("HTTP/1.1 200 OK\r\nX: " + std::string(70'000, 'a'), 50'000).fine);
}
