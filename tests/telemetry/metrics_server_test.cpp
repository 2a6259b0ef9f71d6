#include "telemetry/metrics_server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

using namespace parley;
using namespace parley::telemetry;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

int dial(const std::string& address) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    timeval limit{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
        ::close(fd);
        return -1;
    }
    return fd;
}

std::string read_all(int fd) {
    std::string out;
    char buffer[4096];
    ssize_t n = 0;
    while ((n = ::recv(fd, buffer, sizeof buffer, 0)) > 0)
        out.append(buffer, static_cast<size_t>(n));
    ::close(fd);
    return out;
}

std::string ask(const std::string& address, const std::string& request) {
    const int fd = dial(address);
    if (fd < 0) return "no connection";
    [[maybe_unused]] const ssize_t n = ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    return read_all(fd);
}

}  // namespace

TEST_CASE("metrics and health are served on a free loopback port", "[telemetry]") {
    Registry registry;
    registry.counter("a_total", "x").add(7);
    std::atomic<bool> healthy{true};
    auto server =
        MetricsServer::start({.address = "127.0.0.1:0",
                              .healthy = [&]() -> base::Result<void> {
                                  if (!healthy)
                                      return base::fail(base::Errc::unavailable, "store gone");
                                  return {};
                              }},
                             registry);
    REQUIRE(server);
    const std::string at = (*server)->address();
    CHECK_THAT(at, StartsWith("127.0.0.1:"));
    CHECK(at != "127.0.0.1:0");
    const std::string text = ask(at, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK_THAT(text, StartsWith("HTTP/1.1 200 OK\r\n"));
    CHECK_THAT(text, Contains("a_total 7\n"));
    CHECK_THAT(ask(at, "GET /healthz HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
    healthy = false;
    CHECK_THAT(ask(at, "GET /healthz HTTP/1.1\r\n\r\n"),
               StartsWith("HTTP/1.1 503 ") && Contains("store gone"));
    CHECK_THAT(ask(at, "GET /other HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
    CHECK_THAT(ask(at, "POST /metrics HTTP/1.1\r\n\r\n"),
               StartsWith("HTTP/1.1 405 ") && Contains("Allow: GET, HEAD"));
    CHECK_THAT(ask(at, "nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
    const std::string head = ask(at, "HEAD /metrics HTTP/1.1\r\n\r\n");
    CHECK(head.ends_with("\r\n\r\n"));
}

TEST_CASE("an address that is not loopback is refused, and so is nonsense", "[telemetry]") {
    Registry registry;
    for (const char* bad : {"0.0.0.0:0", "[::]:0", "8.8.8.8:9101"}) {
        auto server = MetricsServer::start({.address = bad}, registry);
        REQUIRE_FALSE(server);
        CHECK(server.error().code == base::Errc::config);
        CHECK_THAT(server.error().what, Contains("loopback"));
    }
    for (const char* bad :
         {"127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:1x", "host.example:1"}) {
        auto server = MetricsServer::start({.address = bad}, registry);
        REQUIRE_FALSE(server);
        CHECK_THAT(server.error().what, Contains("bad metrics address"));
    }
    auto none = MetricsServer::start({}, registry);
    REQUIRE(none);
    CHECK(*none == nullptr);
}

TEST_CASE("a taken port is an error that names it", "[telemetry]") {
    Registry registry;
    auto first = MetricsServer::start({.address = "127.0.0.1:0"}, registry);
    REQUIRE(first);
    auto second = MetricsServer::start({.address = (*first)->address()}, registry);
    REQUIRE_FALSE(second);
    CHECK(second.error().code == base::Errc::unavailable);
    CHECK_THAT(second.error().what, Contains((*first)->address()));
}

TEST_CASE("silent and oversized requests are bounded, and others are served meanwhile",
          "[telemetry]") {
    Registry registry;
    auto server = MetricsServer::start({.address = "127.0.0.1:0",
                                        .connections_max = 4,
                                        .request_bytes_max = 1024,
                                        .deadline_ms = 300},
                                       registry);
    REQUIRE(server);
    const std::string at = (*server)->address();
    const int silent = dial(at);
    CHECK_THAT(ask(at, "GET /healthz HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
    CHECK_THAT(ask(at, "GET /healthz HTTP/1.1\r\nX: " + std::string(4000, 'a')),
               StartsWith("HTTP/1.1 431 "));
    const auto begun = std::chrono::steady_clock::now();
    CHECK(read_all(silent).empty());  // closed by the deadline
    CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(3));
    std::vector<int> held;
    for (int i = 0; i < 4; ++i) held.push_back(dial(at));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(ask(at, "GET /healthz HTTP/1.1\r\n\r\n")
              .empty());  // the fifth at once is closed unanswered
    for (const int fd : held) ::close(fd);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK_THAT(ask(at, "GET /healthz HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 "));
}
