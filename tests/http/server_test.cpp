#include "http/server.hpp"

#include <catch2/catch.hpp>
#include <thread>

#include "http/raw_client.hpp"
#include "http/test_server.hpp"

using raw::Answer;
using raw::RawClient;

namespace {

std::string get(const std::string& target, const std::string& more = "") {
    return "GET " + target + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n";
}
std::string post(const std::string& target, const std::string& body) {
    return "POST " + target +
           " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           body;
}

}  // namespace

TEST_CASE("requests of one connection are answered one after the other", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.connected());
    for (int i = 0; i < 3; ++i) {
        REQUIRE(client.send(get("/hello?i=" + std::to_string(i))));
        const Answer answer = client.answer();
        CHECK(answer.status == 200);
        CHECK(answer.body == "GET /hello i=" + std::to_string(i) + ":");
        CHECK_FALSE(answer.has("connection: close"));
        CHECK(answer.has("date: "));
    }
    CHECK(server.stats().connections == 1);
    CHECK(server.stats().requests_total == 3);
}

TEST_CASE("pipelined requests are answered in order", "[http]") {
    TestServer server;
    RawClient client(server.port);
    // The stream in the middle is answered from a timer: the third has to wait for it.
    REQUIRE(client.send(get("/one") + get("/stream") + post("/three", "abc") + get("/four")));
    CHECK(client.answer().body == "GET /one:");
    CHECK(client.answer().body == "data: 3\n\ndata: 2\n\ndata: 1\n\n");
    CHECK(client.answer().body == "POST /three 3:abc");
    CHECK(client.answer().body == "GET /four:");
    // Far more than is read ahead.
    std::string many;
    for (int i = 0; i < 5000; ++i) many += get("/n");
    std::thread sender([&] { client.send(many); });
    int answered = 0;
    while (answered < 5000 && client.answer().body == "GET /n:") ++answered;
    sender.join();
    CHECK(answered == 5000);
}

TEST_CASE("bodies come whole, by length and in chunks", "[http]") {
    TestServer server;
    RawClient client(server.port);
    const std::string big(5 << 20, 'b');
    REQUIRE(client.send(post("/echo", big)));
    CHECK(client.answer().body == "POST /echo " + std::to_string(big.size()));
    const std::string chunked =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    for (const char byte : chunked) REQUIRE(client.send(std::string(1, byte)));
    CHECK(client.answer().body == "POST /echo 7:abcdefg");
    REQUIRE(client.send(chunked + get("/after")));
    CHECK(client.answer().body == "POST /echo 7:abcdefg");
    CHECK(client.answer().body == "GET /after:");
}

TEST_CASE("HEAD never carries a body", "[http]") {
    TestServer server;
    RawClient client(server.port);
    for (const std::string path : {"/hello", "/stream", "/forbidden"}) {
        REQUIRE(client.send("HEAD " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"));
        const Answer answer = client.answer(true);
        CHECK(answer.status == (path == "/forbidden" ? 403 : 200));
        REQUIRE(client.send(get("/next")));
        CHECK(client.answer().body == "GET /next:");  // so nothing stood in between
    }
}

TEST_CASE("HTTP/1.0 gets its stream up to the end of the connection", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send("GET /stream HTTP/1.0\r\n\r\n"));
    const Answer answer = client.answer();
    CHECK_FALSE(answer.has("chunked"));
    CHECK(answer.has("connection: close"));
    CHECK(answer.complete);
    CHECK(answer.body == "data: 3\n\ndata: 2\n\ndata: 1\n\n");
    RawClient keep(server.port);
    REQUIRE(keep.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    CHECK(keep.answer().has("connection: keep-alive"));
    REQUIRE(keep.send("GET /b HTTP/1.0\r\n\r\n"));
    CHECK(keep.answer().body == "GET /b:");
    CHECK(keep.read_to_end());
}

TEST_CASE("every piece of a stream is sent at once", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/hold")));
    REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
    const auto has = [&](const std::string& text) {
        return client.read_until([&](const std::string& b) { return b.find(text) != b.npos; });
    };
    server.call([&] {
        server.held["/hold"]->start(200, {});
        server.held["/hold"]->write("first");
    });
    CHECK(has("5\r\nfirst\r\n"));
    server.call([&] { server.held["/hold"]->write("second"); });
    CHECK(has("6\r\nsecond\r\n"));
    server.call([&] { server.held["/hold"]->finish(); });
    CHECK(client.answer().body == "firstsecond");
}

TEST_CASE("malformed requests get a 400 that can be read, and the connection ends", "[http]") {
    TestServer server;
    for (const std::string& text :
         {std::string("GARBAGE\r\n\r\n"), std::string("GET / HTTP/1.1\r\n\r\n"),
          std::string("GET / HTTP/1.1\nHost: a\n\n"), get("/", "X: y\r\n z\r\n"),
          get("/", "Transfer-Encoding: xchunked\r\n"),
          get("/", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "abc",
          std::string("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
          get("/", "Content-Length: 3\r\nContent-Length: 3\r\n") + "abc",
          get("/", "Transfer-Encoding: chunked\r\n") + "zz\r\n"}) {
        RawClient client(server.port);
        REQUIRE(client.send(text + get("/smuggled")));
        const Answer answer = client.answer();
        INFO(text);
        CHECK(answer.status == 400);
        CHECK(answer.has("connection: close"));
        CHECK(client.read_to_end());
        CHECK(client.buffer.empty());  // what followed was not read as a request
    }
    CHECK(server.stats().refused_requests_total == 9);
}

TEST_CASE("a head over the bound is 431", "[http]") {
    TestServer server;
    RawClient whole(server.port);
    REQUIRE(whole.send(get("/", "X: " + std::string(33'000, 'x') + "\r\n")));
    CHECK(whole.answer().status == 431);
    CHECK(whole.read_to_end());
    RawClient endless(server.port);
    REQUIRE(endless.send("GET / HTTP/1.1\r\nX: " + std::string(40'000, 'x')));
    CHECK(endless.answer().status == 431);
}

TEST_CASE("a body over its route's bound is 413, which the client can read", "[http]") {
    TestServer server;
    RawClient client(server.port);
    // The client sends all of it before it reads, as most do.
    REQUIRE(client.send(post("/small", std::string(8 << 20, 'x'))));
    const Answer answer = client.answer();
    CHECK(answer.status == 413);
    CHECK(answer.has("connection: close"));
    CHECK(client.read_to_end());
    RawClient chunked(server.port);
    std::string bytes = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int i = 0; i < 1000; ++i) bytes += "400\r\n" + std::string(1024, 'x') + "\r\n";
    REQUIRE(chunked.send(bytes));
    CHECK(chunked.answer().status == 413);
    CHECK(chunked.read_to_end());
    RawClient fits(server.port);
    REQUIRE(fits.send(post("/small", "0123456789")));
    CHECK(fits.answer().status == 200);
}

TEST_CASE("Expect: 100-continue is answered before the body, or refused before it", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: "
                    "100-continue\r\n\r\n"));
    CHECK(client.answer().status == 100);
    REQUIRE(client.send("abc"));
    CHECK(client.answer().body == "POST /echo 3:abc");
    REQUIRE(
        client.send("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: "
                    "100-continue\r\n\r\n"));
    CHECK(client.answer().status == 413);
    CHECK(client.read_to_end());
}

TEST_CASE("a request may be answered at its head, its body unread", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/forbidden") + get("/next")));
    CHECK(client.answer().status == 403);
    CHECK(client.answer().body == "GET /next:");
    REQUIRE(client.send(post("/forbidden", std::string(4 << 20, 'x'))));
    const Answer answer = client.answer();
    CHECK(answer.status == 403);
    CHECK(answer.body == "no");
    CHECK(client.read_to_end());
}

TEST_CASE("paths are decoded piece by piece", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/segments/a%2Fb/c/")));
    CHECK(client.answer().body == "GET /segments/a/b/c:");
    REQUIRE(client.send(get("/segments/")));
    CHECK(client.answer().body == "[segments]:");
}

TEST_CASE("a handler that lets go of its writer answers 500", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/drop") + get("/next")));
    CHECK(client.answer().status == 500);
    CHECK(client.answer().body == "GET /next:");
}

TEST_CASE("an aborted stream does not look like a finished one", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/abort")));
    CHECK_FALSE(client.answer().complete);
}

TEST_CASE("a header value of ours cannot end its line", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/split")));
    CHECK(client.answer().has("x-evil: a  set-cookie: b\r\n"));
}

TEST_CASE("a client that leaves is noticed while it waits", "[http]") {
    TestServer server;
    {
        RawClient client(server.port);
        REQUIRE(client.send(get("/hold")));
        REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
        client.close();
    }
    CHECK(server.eventually([&] { return server.gone == 1; }));
    CHECK(server.eventually([&] { return server.stats().connections == 0; }));
    CHECK(server.stats().gone_total == 1);
    {
        RawClient client(server.port);
        REQUIRE(client.send(get("/hold")));
        REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
        client.half_close();  // this too is leaving
        CHECK(server.eventually([&] { return server.gone == 2; }));
        CHECK(server.eventually([&] { return server.stats().connections == 0; }));
    }
}

TEST_CASE("a client that closed its sending half still reads a quick answer", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/one") + get("/two")));
    client.half_close();
    CHECK(client.answer().body == "GET /one:");
    CHECK(client.answer().body == "GET /two:");
    CHECK(client.read_to_end());
}

TEST_CASE("back-pressure: writing pauses and goes on as the client reads", "[http]") {
    http::Options options;
    options.write_bytes_max = 256 * 1024;
    TestServer server(options);
    RawClient client(server.port, 32 * 1024);
    REQUIRE(client.send(get("/flood")));
    // Nothing is read: the server stops by itself far below the whole.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(server.written < 8u << 20);
    const Answer answer = client.answer(false, 10'000);
    CHECK(answer.complete);
    CHECK(answer.body.size() == 8u << 20);
    CHECK(server.drained > 0);
}

TEST_CASE("a writer that ignores back-pressure loses its client, not the server", "[http]") {
    http::Options options;
    options.write_bytes_max = 1 << 20;
    TestServer server(options);
    RawClient client(server.port, 32 * 1024);
    REQUIRE(client.send(get("/overflow")));
    CHECK(server.eventually([&] { return server.refused_write == 1; }));
    CHECK(server.eventually([&] { return server.gone == 1; }));
    CHECK(server.stats().connections == 0);
    CHECK(server.stats().stalled_total == 1);
    RawClient other(server.port);
    REQUIRE(other.send(get("/fine")));
    CHECK(other.answer().status == 200);
}

TEST_CASE("deadlines end slow heads, slow bodies, idle and stalled connections", "[http]") {
    http::Options options;
    options.header_ms = 600;
    options.body_ms = 600;
    options.body_rate_bytes = 1'000'000;
    options.idle_ms = 600;
    options.write_stall_ms = 600;
    TestServer server(options);
    RawClient silent(server.port);
    RawClient slow_head(server.port);
    RawClient slow_body(server.port);
    RawClient idle(server.port);
    RawClient stalled(server.port, 32 * 1024);
    REQUIRE(slow_head.send("GET / HTTP/1.1\r\nHos"));
    REQUIRE(slow_body.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nab"));
    REQUIRE(idle.send(get("/")));
    REQUIRE(stalled.send(get("/flood")));
    CHECK(idle.answer().status == 200);
    // One byte now and then does not help a head or a body.
    for (int i = 0; i < 10; ++i) {
        slow_head.send("t");
        slow_body.send("c");
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    CHECK(slow_head.answer().status == 400);
    CHECK(slow_body.answer().status == 400);
    CHECK(silent.read_to_end());
    CHECK(silent.buffer.empty());
    CHECK(idle.read_to_end());
    CHECK(idle.buffer.empty());
    CHECK(server.eventually([&] { return server.stats().stalled_total == 1; }));
    slow_head.close();
    slow_body.close();
    CHECK(server.eventually([&] { return server.stats().connections == 0; }));
}

TEST_CASE("connections over a cap are told 503 and closed; those within are served", "[http]") {
    http::Options options;
    options.connections_max = 3;
    options.connections_per_address_max = 2;
    TestServer server(options);
    RawClient first(server.port);
    RawClient second(server.port);
    REQUIRE(server.eventually([&] { return server.stats().connections == 2; }));
    RawClient third(server.port);
    CHECK(third.answer().status == 503);
    CHECK(third.read_to_end());
    REQUIRE(first.send(get("/a")));
    CHECK(first.answer().status == 200);
    CHECK(server.stats().refused_connections_total == 1);
    second.close();
    REQUIRE(server.eventually([&] { return server.stats().connections == 1; }));
    RawClient fourth(server.port);
    REQUIRE(fourth.send(get("/b")));
    CHECK(fourth.answer().status == 200);
}

TEST_CASE("draining closes what is idle and finishes what runs", "[http]") {
    TestServer server;
    std::atomic<bool> empty{false};
    RawClient idle(server.port);
    REQUIRE(idle.send(get("/a")));
    REQUIRE(idle.answer().status == 200);
    RawClient running(server.port);
    REQUIRE(running.send(get("/hold")));
    REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
    server.call([&] { server.server->drain([&] { empty = true; }); });
    CHECK(idle.read_to_end());
    CHECK_FALSE(RawClient(server.port).connected());
    CHECK_FALSE(empty);
    server.call([&] { server.held["/hold"]->reply(http::Response::text(200, "done")); });
    const Answer answer = running.answer();
    CHECK(answer.body == "done");
    CHECK(answer.has("connection: close"));
    CHECK(running.read_to_end());
    running.close();
    CHECK(server.eventually([&] { return empty.load(); }));
}

TEST_CASE("close_all tells those who were answering", "[http]") {
    TestServer server;
    RawClient client(server.port);
    REQUIRE(client.send(get("/hold")));
    REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
    server.call([&] { server.server->close_all(); });
    CHECK(server.eventually([&] { return server.gone == 1; }));
    client.read_to_end();
    CHECK(client.ended);
}

TEST_CASE("errors of the server itself go through the caller's form", "[http]") {
    http::Options options;
    options.error_response = [](int status, std::string_view why, const http::Request* request) {
        return http::Response::json(status, "{\"why\":\"" + std::string(why) + "\",\"path\":\"" +
                                                (request ? request->path : "") + "\"}");
    };
    TestServer server(options);
    RawClient client(server.port);
    REQUIRE(client.send(post("/small", std::string(11, 'x'))));
    const Answer answer = client.answer();
    CHECK(answer.status == 413);
    CHECK(answer.body == R"({"why":"the request body is too large","path":"/small"})");
}

TEST_CASE("a socket in the file system is served, a live one is not stolen", "[http]") {
    const std::string path = "/tmp/parley-http-test-" + std::to_string(::getpid()) + ".sock";
    http::Loop loop;
    const auto decide = [](const http::Request&) { return http::HeadDecision{}; };
    const auto serve = [](http::Request, http::Writer) {};
    {
        http::Server server(loop, {}, decide, serve);
        REQUIRE(server.listen("unix:" + path));
        http::Server other(loop, {}, decide, serve);
        const auto refused = other.listen("unix:" + path);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == parley::base::Errc::conflict);
    }
    http::Server again(loop, {}, decide, serve);  // the file was left behind: replaced
    CHECK(again.listen("unix:" + path));
    ::unlink(path.c_str());
    CHECK_FALSE(again.listen("nonsense"));
    CHECK_FALSE(again.listen("127.0.0.1:"));
    CHECK_FALSE(again.listen("unix:"));
    CHECK_FALSE(again.listen("203.0.113.1:80"));
}
