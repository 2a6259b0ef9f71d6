#include "handover.hpp"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/log.hpp"

namespace parley::chatd {

using base::fail;

namespace {

constexpr std::string_view kPrefix = "chatd-", kSuffix = ".listen";
constexpr int kManagerFirst = 3;  // SD_LISTEN_FDS_START

bool address_of(const std::string& path, sockaddr_un& out) {
    out = {};
    out.sun_family = AF_UNIX;
    if (path.size() >= sizeof out.sun_path) return false;
    std::memcpy(out.sun_path, path.data(), path.size());
    return true;
}

bool same_user(int fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

bool send_with(int fd, std::string_view text, const std::vector<int>& sockets) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * Handover::kSocketsMax)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!sockets.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * sockets.size());
        cmsghdr* head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * sockets.size());
        std::memcpy(CMSG_DATA(head), sockets.data(), sizeof(int) * sockets.size());
    }
    return ::sendmsg(fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

// One message, with what came along; nothing after kWaitMs or at the end.
std::optional<std::string> receive(int fd, std::vector<int>& sockets) {
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, Handover::kWaitMs) != 1) return std::nullopt;
    char text[Handover::kMessageMax];
    iovec part{text, sizeof text};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * Handover::kSocketsMax)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); got > 0 && head;
         head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int one = -1;
            std::memcpy(&one, CMSG_DATA(head) + i * sizeof(int), sizeof one);
            sockets.push_back(one);
        }
    }
    if (got <= 0) return std::nullopt;
    return std::string(text, static_cast<size_t>(got));
}

bool is_listening(int fd) {
    int value = 0;
    socklen_t size = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value == 1;
}

}  // namespace

uint16_t port_of(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
    if (address.ss_family == AF_INET)
        return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
    if (address.ss_family == AF_INET6)
        return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    return 0;
}

bool socket_is_loopback(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
    if (address.ss_family == AF_UNIX) return true;
    if (address.ss_family == AF_INET)
        return (ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24) == 127;
    return address.ss_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// ---- the predecessor

struct Handover::Taker {
    int fd = -1;
    bool took = false;
    std::unique_ptr<http::FdWatch> watch;
    explicit Taker(int taker_fd) : fd(taker_fd) {}
    ~Taker() {
        watch.reset();
        ::close(fd);
    }
    Taker(const Taker&) = delete;
    Taker& operator=(const Taker&) = delete;
};

Handover::Handover(http::Loop& loop, std::string path, std::string address,
                   std::function<std::vector<int>()> sockets, std::function<void()> on_go)
    : loop_(loop),
      path_(std::move(path)),
      address_(std::move(address)),
      sockets_(std::move(sockets)),
      on_go_(std::move(on_go)) {}

Handover::~Handover() {
    takers_.clear();
    watch_.reset();
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_.c_str());
}

std::string Handover::path_of(const base::Places& places, const std::string& boot) {
    return places.run() + "/" + std::string(kPrefix) + boot + std::string(kSuffix);
}

base::Result<std::unique_ptr<Handover>> Handover::offer(http::Loop& loop, std::string path,
                                                        std::string address,
                                                        std::function<std::vector<int>()> sockets,
                                                        std::function<void()> on_go) {
    std::unique_ptr<Handover> made(new Handover(loop, std::move(path), std::move(address),
                                                std::move(sockets), std::move(on_go)));
    sockaddr_un name;
    if (!address_of(made->path_, name))
        return fail(base::Errc::config, "socket path '" + made->path_ + "' is too long");
    // Messages stay whole.
    made->fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made->fd_ < 0 ||
        ::bind(made->fd_, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
        ::chmod(made->path_.c_str(), 0600) != 0 || ::listen(made->fd_, kTakersMax) != 0)
        return fail(base::errno_error(errno, "cannot listen on '" + made->path_ + "'"));
    Handover* const self = made.get();
    made->watch_ =
        std::make_unique<http::FdWatch>(loop, made->fd_, [self] { self->accept_takers(); });
    return made;
}

void Handover::accept_takers() {
    for (;;) {
        const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (!same_user(fd) || takers_.size() >= kTakersMax) {
            ::close(fd);
            continue;
        }
        const auto taker = std::make_shared<Taker>(fd);
        takers_.push_back(taker);
        const std::weak_ptr<Taker> weak = taker;
        taker->watch = std::make_unique<http::FdWatch>(loop_, fd, [this, weak] {
            if (const auto known = weak.lock()) hear(known);
        });
    }
}

void Handover::hear(const std::shared_ptr<Taker>& taker) {
    char text[kMessageMax];
    const ssize_t got = ::recv(taker->fd, text, sizeof text, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    const std::string_view said(text, got > 0 ? static_cast<size_t>(got) : 0);
    if (said == "take " + address_ && !taker->took) {
        std::vector<int> sockets = sockets_();
        taker->took = !sockets.empty() && sockets.size() <= kSocketsMax;
        if (taker->took ? send_with(taker->fd, "ok", sockets) : send_with(taker->fd, "no", {}))
            return;
    } else if (said == "go" && taker->took) {
        const auto on_go = on_go_;
        on_go();  // has stopped accepting when it returns
        send_with(taker->fd, "gone", {});
    } else if (got > 0) {
        if (send_with(taker->fd, "no", {})) return;
    }
    takers_.remove(taker);
}

// ---- the successor

std::optional<Handover::Taken> Handover::take(const base::Places& places,
                                              const std::string& address) {
    std::vector<std::string> names;
    if (DIR* dir = ::opendir(places.run().c_str())) {
        while (const dirent* entry = ::readdir(dir)) {
            const std::string_view name = entry->d_name;
            if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) names.emplace_back(name);
        }
        ::closedir(dir);
    }
    std::sort(names.begin(), names.end());  // boot ids rise with time: the oldest first
    for (const std::string& name : names) {
        const std::string path = places.run() + "/" + name;
        sockaddr_un there;
        Taken taken;
        taken.connection = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (taken.connection < 0) return std::nullopt;
        const bool reached = address_of(path, there) &&
                             ::connect(taken.connection, reinterpret_cast<const sockaddr*>(&there),
                                       sizeof there) == 0;
        if (!reached && errno == ECONNREFUSED) ::unlink(path.c_str());  // of a dead one
        if (reached && same_user(taken.connection) &&
            send_with(taken.connection, "take " + address, {})) {
            const auto reply = receive(taken.connection, taken.sockets);
            const bool good = reply == "ok" && !taken.sockets.empty() &&
                              std::all_of(taken.sockets.begin(), taken.sockets.end(), is_listening);
            if (good) return taken;
        }
        for (const int fd : taken.sockets) ::close(fd);
        ::close(taken.connection);
    }
    return std::nullopt;
}

bool Handover::go(Taken& taken) {
    std::vector<int> none;
    const bool told = send_with(taken.connection, "go", {}) &&
                      receive(taken.connection, none) == std::optional<std::string>("gone");
    ::close(std::exchange(taken.connection, -1));
    return told;
}

std::vector<int> Handover::from_manager() {
    const char* const pid = std::getenv("LISTEN_PID");
    const char* const count = std::getenv("LISTEN_FDS");
    std::vector<int> sockets;
    int number = 0;
    if (pid && count && std::to_string(::getpid()) == pid) {
        const auto [end, error] = std::from_chars(count, count + std::strlen(count), number);
        if (error != std::errc() || *end != 0) number = 0;
    }
    for (int fd = kManagerFirst; fd < kManagerFirst + number; ++fd) {
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (is_listening(fd))
            sockets.push_back(fd);
        else
            base::log(base::Level::warn, "chatd.socket_ignored", {{"fd", fd}});
    }
    // Not for what we may start.
    for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
    return sockets;
}

}  // namespace parley::chatd
