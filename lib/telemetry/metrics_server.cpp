#include "telemetry/metrics_server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <thread>
#include <vector>

#include "base/clock.hpp"

namespace parley::telemetry {
namespace {

using base::Errc;
using base::Result;

class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }

  private:
    int fd_ = -1;
};

struct Address {
    sockaddr_storage storage{};
    socklen_t size = 0;
    bool loopback = false;
};

Result<Address> parse_address(const std::string& text) {
    const auto bad = [&] {
        return base::fail(
            Errc::config,
            fmt::format("bad metrics address '{}': expected 127.0.0.1:PORT or [::1]:PORT", text));
    };
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos) return bad();
    std::string host = text.substr(0, colon);
    uint16_t port = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end) return bad();
    if (host == "localhost") host = "127.0.0.1";
    Address out;
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
        auto& six = reinterpret_cast<sockaddr_in6&>(out.storage);
        six.sin6_family = AF_INET6;
        six.sin6_port = htons(port);
        if (::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &six.sin6_addr) != 1)
            return bad();
        out.size = sizeof six;
        out.loopback = IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
    } else {
        auto& four = reinterpret_cast<sockaddr_in&>(out.storage);
        four.sin_family = AF_INET;
        four.sin_port = htons(port);
        if (::inet_pton(AF_INET, host.c_str(), &four.sin_addr) != 1) return bad();
        out.size = sizeof four;
        out.loopback = (ntohl(four.sin_addr.s_addr) >> 24) == 127;
    }
    return out;
}

std::string show_address(const sockaddr_storage& storage) {
    char host[INET6_ADDRSTRLEN] = {};
    if (storage.ss_family == AF_INET6) {
        const auto& six = reinterpret_cast<const sockaddr_in6&>(storage);
        ::inet_ntop(AF_INET6, &six.sin6_addr, host, sizeof host);
        return fmt::format("[{}]:{}", host, ntohs(six.sin6_port));
    }
    const auto& four = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &four.sin_addr, host, sizeof host);
    return fmt::format("{}:{}", host, ntohs(four.sin_port));
}

struct Connection {
    Fd fd;
    std::string in;
    std::string out;  // not empty: answering
    size_t written = 0;
    int64_t deadline_ms = 0;
    bool closing =
        false;  // answered; waits for the peer to close, so that no unread byte resets it
};

}  // namespace

struct MetricsServer::Impl {
    MetricsServerOptions options;
    const Registry& registry;
    Fd listener;
    Fd wake;
    std::string address;
    std::vector<Connection> connections;
    std::thread thread;

    Impl(MetricsServerOptions o, const Registry& r) : options(std::move(o)), registry(r) {}

    std::string answer(std::string_view request) const {
        const std::string_view line = request.substr(0, request.find_first_of("\r\n"));
        const size_t one = line.find(' ');
        const size_t two = one == std::string_view::npos ? one : line.find(' ', one + 1);
        if (two == std::string_view::npos || !line.substr(two + 1).starts_with("HTTP/1."))
            return respond(400, "Bad Request", "not an HTTP/1 request\n", true);
        const std::string_view method = line.substr(0, one);
        std::string_view path = line.substr(one + 1, two - one - 1);
        path = path.substr(0, path.find('?'));
        const bool body = method != "HEAD";
        if (path != "/metrics" && path != "/healthz")
            return respond(404, "Not Found", "there are /metrics and /healthz\n", body);
        if (method != "GET" && method != "HEAD")
            return respond(405, "Method Not Allowed", "GET or HEAD\n", true);
        if (path == "/metrics") return respond(200, "OK", registry.render(), body);
        if (options.healthy) {
            if (auto fine = options.healthy(); !fine)
                return respond(503, "Service Unavailable", fine.error().what + "\n", body);
        }
        return respond(200, "OK", "ok\n", body);
    }

    static std::string respond(int status, const char* reason, const std::string& body,
                               bool with_body) {
        std::string out = fmt::format(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            "Content-Length: {}\r\n{}Connection: close\r\n\r\n",
            status, reason, body.size(), status == 405 ? "Allow: GET, HEAD\r\n" : "");
        if (with_body) out += body;
        return out;
    }

    void accept_all(int64_t now_ms) {
        while (true) {
            Fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (fd.get() < 0) return;
            if (connections.size() >= options.connections_max)
                continue;  // closed as it leaves scope
            Connection made;
            made.fd = std::move(fd);
            made.deadline_ms = now_ms + options.deadline_ms;
            connections.push_back(std::move(made));
        }
    }

    // False: close it.
    bool serve(Connection& c) const {
        if (c.closing || c.out.empty()) {
            char buffer[2048];
            while (true) {
                const ssize_t n = ::recv(c.fd.get(), buffer, sizeof buffer, 0);
                if (n == 0) return false;
                if (n < 0 && errno == EINTR) continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
                if (n < 0) return false;
                if (c.closing) continue;
                c.in.append(buffer, static_cast<size_t>(n));
                if (c.in.size() > options.request_bytes_max) {
                    c.out = respond(431, "Request Header Fields Too Large", "too large\n", true);
                    break;
                }
                if (c.in.find("\r\n\r\n") != std::string::npos ||
                    c.in.find("\n\n") != std::string::npos) {
                    c.out = answer(c.in);
                    break;
                }
            }
        }
        while (!c.closing && c.written < c.out.size()) {
            const ssize_t n = ::send(c.fd.get(), c.out.data() + c.written, c.out.size() - c.written,
                                     MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
            c.written += static_cast<size_t>(n);
        }
        if (!c.out.empty() && !c.closing) {
            ::shutdown(c.fd.get(), SHUT_WR);
            c.closing = true;
        }
        return true;
    }

    void run() {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        const base::Clock& clock = base::system_clock();
        std::vector<pollfd> polled;
        while (true) {
            polled.assign({{wake.get(), POLLIN, 0}, {listener.get(), POLLIN, 0}});
            int64_t wait_ms = -1;
            int64_t now_ms = clock.mono_ms();
            for (const Connection& c : connections) {
                const bool writing = !c.out.empty() && !c.closing;
                polled.push_back({c.fd.get(), static_cast<short>(writing ? POLLOUT : POLLIN), 0});
                const int64_t left = std::max<int64_t>(0, c.deadline_ms - now_ms);
                wait_ms = wait_ms < 0 ? left : std::min(wait_ms, left);
            }
            if (::poll(polled.data(), polled.size(), static_cast<int>(wait_ms)) < 0 &&
                errno != EINTR)
                return;
            if (polled[0].revents) return;
            now_ms = clock.mono_ms();
            for (size_t i = connections.size(); i-- > 0;) {
                bool keep = now_ms < connections[i].deadline_ms;
                if (keep && polled[i + 2].revents) keep = serve(connections[i]);
                if (!keep) connections.erase(connections.begin() + static_cast<std::ptrdiff_t>(i));
            }
            if (polled[1].revents) accept_all(now_ms);
        }
    }
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
    impl_->thread = std::thread([this] { impl_->run(); });
}

MetricsServer::~MetricsServer() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(impl_->wake.get(), &one, sizeof one);
    impl_->thread.join();
}

const std::string& MetricsServer::address() const { return impl_->address; }

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(MetricsServerOptions options,
                                                            const Registry& registry) {
    if (options.address.empty()) return std::unique_ptr<MetricsServer>();
    auto parsed = parse_address(options.address);
    if (!parsed) return base::fail(parsed.error());
    if (!parsed->loopback && !options.remote_allowed)
        return base::fail(
            Errc::config,
            fmt::format("refusing to serve metrics on '{}': not a loopback address, and there "
                        "is neither key nor TLS on it",
                        options.address));
    auto impl = std::make_unique<Impl>(std::move(options), registry);
    const auto failed = [&](int number) {
        auto error = base::errno_error(
            number, fmt::format("cannot bind metrics to '{}'", impl->options.address));
        return base::fail(Errc::unavailable, error.what);
    };
    impl->listener =
        Fd(::socket(parsed->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (impl->listener.get() < 0) return failed(errno);
    const int on = 1;
    ::setsockopt(impl->listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(impl->listener.get(), reinterpret_cast<sockaddr*>(&parsed->storage), parsed->size) !=
            0 ||
        ::listen(impl->listener.get(), 16) != 0)
        return failed(errno);
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    if (::getsockname(impl->listener.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
        return failed(errno);
    impl->address = show_address(bound);
    impl->wake = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (impl->wake.get() < 0) return failed(errno);
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

}  // namespace parley::telemetry
