#include "http/server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <ctime>

#include "base/clock.hpp"
#include "http/connection.hpp"

namespace parley::http {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsPerWake = 64;
constexpr int64_t kTickMs = 100;
constexpr size_t kScratchBytes = 64 * 1024;
constexpr uint32_t kExcessMax = 128;

class Fd {
  public:
    explicit Fd(int fd) : fd_(fd) {}
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

  private:
    int fd_;
};

// What an address is counted by: IPv4 whole, IPv6 by its /64, which one customer commonly holds.
std::string address_key(const std::string& peer) {
    in6_addr six{};
    if (::inet_pton(AF_INET6, peer.c_str(), &six) != 1) return peer;
    return std::string(reinterpret_cast<const char*>(&six), 8);
}

std::string show_address(const sockaddr_storage& address) {
    char text[INET6_ADDRSTRLEN] = "";
    if (address.ss_family == AF_INET) {
        const auto& four = reinterpret_cast<const sockaddr_in&>(address);
        ::inet_ntop(AF_INET, &four.sin_addr, text, sizeof text);
    } else if (address.ss_family == AF_INET6) {
        const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
        if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
            ::inet_ntop(AF_INET, six.sin6_addr.s6_addr + 12, text, sizeof text);
        else
            ::inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text);
    } else {
        return "unix";
    }
    return text;
}

void prepare_socket(int fd) {
    const int on = 1;
    const int idle_s = 60;
    const int interval_s = 10;
    const int probes = 5;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

// nullptr, the descriptor closed, when the reactor cannot take it.
std::shared_ptr<Connection> make_connection(Server::Core& core, int fd,
                                            std::unique_ptr<Stream> stream, const std::string& peer,
                                            bool tls) {
    try {
        return std::make_shared<Connection>(core, fd, std::move(stream), peer, tls);
    } catch (const std::exception&) {
        ::close(fd);
        return nullptr;
    }
}

base::Result<int> listen_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return base::fail(base::Errc::config,
                          "socket path '" + path + "' must have 1 to 107 bytes");
    std::memcpy(address.sun_path, path.data(), path.size());
    const auto* name = reinterpret_cast<const sockaddr*>(&address);
    Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(probe.get(), name, sizeof address) == 0 || errno == EAGAIN)
        return base::fail(base::Errc::conflict, "socket '" + path + "' is in use");
    if (errno == ECONNREFUSED) ::unlink(path.c_str());
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd.get() < 0 || ::bind(fd.get(), name, sizeof address) != 0 ||
        ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), kBacklog) != 0)
        return base::fail(base::errno_error(errno, "cannot listen on 'unix:" + path + "'"));
    return fd.release();
}

base::Result<int> listen_tcp(const std::string& address, bool reuse_port) {
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon + 1 == address.size())
        return base::fail(base::Errc::config,
                          "address '" + address + "' must be HOST:PORT or unix:PATH");
    std::string host = address.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int rc = ::getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                 address.substr(colon + 1).c_str(), &hints, &found);
    if (rc != 0)
        return base::fail(base::Errc::config,
                          "address '" + address + "': " + std::string(::gai_strerror(rc)));
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(found, ::freeaddrinfo);
    Fd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (fd.get() >= 0) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd.get() >= 0 && reuse_port &&
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        return base::fail(base::errno_error(errno, "cannot share '" + address + "'"));
    if (fd.get() < 0 || ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 ||
        ::listen(fd.get(), kBacklog) != 0)
        return base::fail(base::errno_error(errno, "cannot listen on '" + address + "'"));
    return fd.release();
}

}  // namespace

// ---- Core

Server::Core::Core(Loop& loop_, Options options_, OnHead on_head_, OnRequest on_request_)
    : loop(loop_),
      options(std::move(options_)),
      on_head(std::move(on_head_)),
      on_request(std::move(on_request_)),
      timer(std::make_unique<Timer>(loop_)),
      scratch(kScratchBytes) {
    timer->every(kTickMs, [this] { tick(); });
}

Server::Core::~Core() {
    timer.reset();
    close_listeners();
    close_all();
}

int64_t Server::Core::now_ms() { return base::system_clock().mono_ms(); }

const std::string& Server::Core::date() {
    const int64_t second = base::system_clock().wall_ms() / 1000;
    if (second != date_second) {
        date_second = second;
        const time_t time = second;
        tm parts{};
        ::gmtime_r(&time, &parts);
        char text[40];
        static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT",
                      kDays[parts.tm_wday], parts.tm_mday, kMonths[parts.tm_mon],
                      parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
        date_text = text;
    }
    return date_text;
}

Response Server::Core::error_response(int status, std::string_view why,
                                      const Request* request) const {
    if (options.error_response) return options.error_response(status, why, request);
    return Response::text(status, std::string(why) + "\n");
}

base::Result<uint16_t> Server::Core::add_listener(int fd, std::shared_ptr<TlsContext> tls) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        return base::fail(base::errno_error(errno, "cannot use the listening socket"));
    uint16_t port = 0;
    if (address.ss_family == AF_INET)
        port = ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
    if (address.ss_family == AF_INET6)
        port = ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    auto listener = std::make_unique<Listener>();
    listener->fd = fd;
    listener->unix_socket = address.ss_family == AF_UNIX;
    listener->tls = std::move(tls);
    watch(*listener);
    listeners.push_back(std::move(listener));
    return port;
}

void Server::Core::watch(Listener& listener) {
    listener.watch =
        std::make_unique<FdWatch>(loop, listener.fd, [this, &listener] { accept_from(listener); });
}

void Server::Core::accept_from(Listener& listener) {
    for (int i = 0; i < kAcceptsPerWake; ++i) {
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        const int fd = ::accept4(listener.fd, reinterpret_cast<sockaddr*>(&address), &size,
                                 SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(fd, show_address(address), listener);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) continue;
        // Out of descriptors or memory: the backlog holds them until the next tick.
        if (errno != EAGAIN && errno != EWOULDBLOCK) listener.watch.reset();
        return;
    }
}

void Server::Core::admit(int fd, const std::string& peer, const Listener& listener) {
    ++stats.accepted_total;
    if (!listener.unix_socket) prepare_socket(fd);
    const std::string key = address_key(peer);
    const uint32_t per_address_max = listener.unix_socket ? 0 : options.connections_per_address_max;
    const auto counted = per_address.find(key);
    if (stats.connections >= options.connections_max ||
        (per_address_max != 0 && counted != per_address.end() &&
         counted->second >= per_address_max)) {
        refuse_connection(fd, listener);
        return;
    }
    auto stream = listener.tls ? tls_stream(fd, *listener.tls) : plain_stream(fd);
    if (!stream) {
        ::close(fd);
        return;
    }
    auto connection = make_connection(*this, fd, std::move(stream), peer, listener.tls != nullptr);
    if (!connection) return;
    connections.emplace(connection.get(), connection);
    ++per_address[key];
    ++stats.connections;
    connection->begin();
}

void Server::Core::refuse_connection(int fd, const Listener& listener) {
    ++stats.refused_connections_total;
    if (listener.tls || excess >= kExcessMax) {
        ::close(fd);
        return;
    }
    auto connection = make_connection(*this, fd, plain_stream(fd), std::string(), false);
    if (!connection) return;
    ++excess;
    connections.emplace(connection.get(), connection);
    connection->begin_excess(error_response(503, "too many connections", nullptr));
}

void Server::Core::close_listeners() {
    for (const auto& listener : listeners) {
        listener->watch.reset();
        ::close(listener->fd);
    }
    listeners.clear();
}

void Server::Core::tick() {
    for (const auto& listener : listeners)
        if (!listener->watch) watch(*listener);
    const int64_t now = now_ms();
    std::vector<std::shared_ptr<Connection>> overdue;
    for (const auto& [connection, owner] : connections)
        if (connection->overdue(now)) overdue.push_back(owner);
    for (const auto& connection : overdue) connection->check_deadline(now);
}

void Server::Core::drain(std::function<void()> callback, int64_t grace_ms) {
    on_empty = std::move(callback);
    draining = true;
    close_listeners();
    std::vector<std::shared_ptr<Connection>> all;
    for (const auto& [connection, owner] : connections) all.push_back(owner);
    for (const auto& connection : all) connection->drain(grace_ms);
    if (connections.empty() && on_empty) loop.post(std::exchange(on_empty, nullptr));
}

void Server::Core::close_all() {
    std::vector<std::shared_ptr<Connection>> all;
    for (const auto& [connection, owner] : connections) all.push_back(owner);
    for (const auto& connection : all) connection->kill();
}

void Server::Core::forget(Connection& connection) {
    if (connection.excess()) {
        --excess;
    } else {
        --stats.connections;
        const auto counted = per_address.find(address_key(connection.peer()));
        if (counted != per_address.end() && --counted->second == 0) per_address.erase(counted);
    }
    connections.erase(&connection);
    if (draining && connections.empty() && on_empty) loop.post(std::exchange(on_empty, nullptr));
}

// ---- Server

Server::Server(Loop& loop, Options options, OnHead on_head, OnRequest on_request)
    : core_(std::make_shared<Core>(loop, std::move(options), std::move(on_head),
                                   std::move(on_request))) {}
Server::~Server() = default;

base::Result<uint16_t> Server::listen(const std::string& address, std::shared_ptr<TlsContext> tls,
                                      bool reuse_port) {
    constexpr std::string_view kUnix = "unix:";
    auto fd = address.starts_with(kUnix) ? listen_unix(address.substr(kUnix.size()))
                                         : listen_tcp(address, reuse_port);
    if (!fd) return base::fail(fd.error());
    return listen_fd(*fd, std::move(tls));
}

base::Result<uint16_t> Server::listen_fd(int fd, std::shared_ptr<TlsContext> tls) {
    Fd owner(fd);
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    auto port = core_->add_listener(fd, std::move(tls));
    if (port) owner.release();
    return port;
}

void Server::drain(std::function<void()> on_empty, int64_t grace_ms) {
    core_->drain(std::move(on_empty), grace_ms);
}
std::vector<int> Server::listening() const {
    std::vector<int> fds;
    for (const auto& listener : core_->listeners) fds.push_back(listener->fd);
    return fds;
}
void Server::close_all() { core_->close_all(); }
bool Server::draining() const { return core_->draining; }
const ServerStats& Server::stats() const { return core_->stats; }

}  // namespace parley::http
