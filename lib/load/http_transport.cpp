// One keep-alive connection per slot, non-blocking, over plain TCP (TLS is not offered: put loadgen on
// the near side of whatever ends it).
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/clock.hpp"
#include "load/http_response.hpp"
#include "load/sse.hpp"
#include "load/transport.hpp"

namespace parley::load {
namespace {

using base::Errc;
using base::Result;

constexpr size_t kErrorBodyMax = 64 << 10;
constexpr int64_t kScanNs = 25'000'000;     // deadlines are kept this exactly
constexpr int64_t kTailNs = 1'000'000'000;  // from message_stop to the end of the response

struct Url {
    std::string host, port = "80", base;
};

Result<Url> parse_url(const std::string& text) {
    const auto bad = [&](const char* why) {
        return base::fail(Errc::usage, fmt::format("bad --url '{}': {}", text, why));
    };
    if (text.starts_with("https://"))
        return bad("TLS is not offered; give the plain address behind it");
    if (!text.starts_with("http://")) return bad("expected http://HOST:PORT");
    for (const char c : text)
        if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f)
            return bad("a blank or control character in it");
    std::string rest = text.substr(7);
    Url out;
    if (const size_t slash = rest.find('/'); slash != std::string::npos) {
        out.base = rest.substr(slash);
        while (out.base.ends_with('/')) out.base.pop_back();
        rest.resize(slash);
    }
    if (rest.find('@') != std::string::npos)
        return bad("credentials belong in PARLEY_API_KEY or --key-file");
    std::string after = rest;
    if (rest.starts_with('[')) {
        const size_t close = rest.find(']');
        if (close == std::string::npos) return bad("an unclosed '['");
        out.host = rest.substr(1, close - 1);
        after = rest.substr(close + 1);
        if (!after.empty()) {
            if (after[0] != ':') return bad("text after ']'");
            out.port = after.substr(1);
        }
    } else {
        const size_t colon = rest.find(':');
        out.host = rest.substr(0, colon);
        if (colon != std::string::npos) out.port = rest.substr(colon + 1);
    }
    uint16_t number = 0;
    const auto [end, error] =
        std::from_chars(out.port.data(), out.port.data() + out.port.size(), number);
    if (out.host.empty()) return bad("no host");
    if (error != std::errc() || end != out.port.data() + out.port.size() || number == 0)
        return bad("bad port");
    return out;
}

struct Target {
    sockaddr_storage storage{};
    socklen_t size = 0;
    int family = AF_INET;
};

class HttpTransport;

class Connection final : public Watcher, SseHandler {
  public:
    Connection(HttpTransport& owner, uint32_t slot);
    ~Connection() override { close(); }
    void start(const std::string& body);
    void cancel();
    void keep_time(int64_t now_ns);
    void deliver();
    void ready() override;

  private:
    enum class State { closed, idle, connecting, sending, reading };
    bool on_event(std::string_view name, std::string_view data) override;
    void on_comment(std::string_view text) override;

    bool busy() const { return state_ > State::idle; }
    void open();
    void connected();
    void flush();
    void receive();
    void take(std::string_view bytes);
    void lost(int number);  // errno of the loss; 0: closed by the peer
    void finish(Outcome outcome, bool keep);
    Outcome error_from_body() const;
    void close();

    HttpTransport& owner_;
    const uint32_t slot_;
    int fd_ = -1;
    State state_ = State::closed;
    const std::string* body_ = nullptr;
    std::string head_;
    size_t sent_ = 0;
    HttpResponse response_;
    SseParser sse_;
    std::string error_body_;
    int64_t stamp_ns_ = -1;
    int64_t now_ns_ = 0;  // of the bytes in hand
    int64_t idle_deadline_ns_ = 0;
    int64_t total_deadline_ns_ = 0;
    bool reused_ = false;    // the request went onto a connection that had served before
    bool complete_ = false;  // message_stop seen; the rest of the response is its framing
    bool failed_ = false;    // the sink has the reason
    bool not_sse_ = false;
    Outcome pending_;  // delivered by the next tick()

    friend class HttpTransport;
};

class HttpTransport final : public Transport {
  public:
    HttpTransport(Loop& loop, HttpOptions options, TransportSink& sink, Url url,
                  std::vector<Target> targets)
        : loop_(loop), options_(std::move(options)), sink_(sink), targets_(std::move(targets)) {
        const std::string host =
            url.host.find(':') == std::string::npos ? url.host : '[' + url.host + ']';
        head_ = fmt::format(
            "POST {}/v1/messages HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: loadgen/{}\r\n"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\nanthropic-version: "
            "2023-06-01\r\n",
            url.base, host, url.port, PARLEY_VERSION);
        if (!options_.api_key.empty()) head_ += "x-api-key: " + options_.api_key + "\r\n";
        if (options_.ttft_deadline_ms > 0)
            head_ += fmt::format("x-slo-ttft-ms: {}\r\n", options_.ttft_deadline_ms);
        if (options_.timestamps) head_ += "x-parley-timestamps: 1\r\n";
        name_ = fmt::format("{}:{}", host, url.port);
        connections_.reserve(options_.slots);
        for (uint32_t i = 0; i < options_.slots; ++i)
            connections_.push_back(std::make_unique<Connection>(*this, i));
        buffer_.resize(64 << 10);
    }

    Result<void> probe() override {
        std::string why;
        for (size_t i = 0; i < targets_.size(); ++i) {
            const int fd =
                ::socket(targets_[i].family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            if (fd < 0) return base::fail(base::errno_error(errno, "cannot make a socket"));
            int number = 0;
            if (::connect(fd, reinterpret_cast<sockaddr*>(&targets_[i].storage),
                          targets_[i].size) != 0) {
                number = errno;
                if (number == EINPROGRESS) {
                    pollfd one{fd, POLLOUT, 0};
                    socklen_t size = sizeof number;
                    const int n = ::poll(&one, 1, static_cast<int>(options_.connect_timeout_ms));
                    number = ETIMEDOUT;
                    if (n > 0) ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size);
                }
            }
            ::close(fd);
            if (number == 0) {
                target_ = i;
                return {};
            }
            why = base::errno_error(number, fmt::format("cannot connect to '{}'", name_)).what;
        }
        return base::fail(Errc::unavailable, why);
    }

    void start(uint32_t slot, const std::string& body) override { connections_[slot]->start(body); }
    void cancel(uint32_t slot) override { connections_[slot]->cancel(); }
    void tick(int64_t now_ns) override {
        if (now_ns >= next_scan_ns_) {
            next_scan_ns_ = now_ns + kScanNs;
            for (auto& connection : connections_) connection->keep_time(now_ns);
        }
        std::vector<uint32_t> ended;
        ended.swap(ended_);  // on_done() may start() and end anew
        for (const uint32_t slot : ended) connections_[slot]->deliver();
    }
    bool busy() const override { return !ended_.empty(); }
    uint64_t reconnects() const override { return reconnects_; }

  private:
    friend class Connection;
    Loop& loop_;
    HttpOptions options_;
    TransportSink& sink_;
    const base::Clock& clock_ = base::system_clock();
    std::vector<Target> targets_;
    size_t target_ = 0;
    std::string head_;
    std::string name_;
    std::string buffer_;  // shared: what a read brings is parsed before the next read
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<uint32_t> ended_;  // slots whose done() is still to be delivered
    int64_t next_scan_ns_ = 0;
    uint64_t reconnects_ = 0;
};

Connection::Connection(HttpTransport& owner, uint32_t slot)
    : owner_(owner), slot_(slot), sse_(owner.options_.event_bytes_max) {}

void Connection::close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
    state_ = State::closed;
}

void Connection::start(const std::string& body) {
    const int64_t now = owner_.clock_.mono_ns();
    body_ = &body;
    head_ = owner_.head_ + fmt::format("Content-Length: {}\r\n\r\n", body.size());
    sent_ = 0;
    response_.reset();
    sse_.reset();
    error_body_.clear();
    stamp_ns_ = -1;
    complete_ = failed_ = not_sse_ = false;
    total_deadline_ns_ = now + owner_.options_.request_timeout_ms * 1'000'000;
    if (state_ == State::idle) {
        reused_ = true;
        state_ = State::sending;
        idle_deadline_ns_ = now + owner_.options_.read_timeout_ms * 1'000'000;
        flush();
    } else {
        reused_ = false;
        open();
    }
}

void Connection::open() {
    const Target& target = owner_.targets_[owner_.target_];
    fd_ = ::socket(target.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    state_ = State::connecting;
    if (fd_ < 0) return lost(errno);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    idle_deadline_ns_ = owner_.clock_.mono_ns() + owner_.options_.connect_timeout_ms * 1'000'000;
    const int rc = ::connect(fd_, reinterpret_cast<const sockaddr*>(&target.storage), target.size);
    if (rc != 0 && errno != EINPROGRESS) return lost(errno);
    if (auto watched = owner_.loop_.add(fd_, true, true, *this); !watched) return lost(EMFILE);
}

void Connection::connected() {
    int number = 0;
    socklen_t size = sizeof number;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &number, &size);
    if (number != 0) return lost(number);
    sockaddr_storage peer{};
    size = sizeof peer;
    if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&peer), &size) != 0)
        return;  // not yet: a stale wake
    state_ = State::sending;
    idle_deadline_ns_ = owner_.clock_.mono_ns() + owner_.options_.read_timeout_ms * 1'000'000;
    flush();
}

void Connection::flush() {
    while (sent_ < head_.size() + body_->size()) {
        iovec parts[2] = {};
        size_t count = 0;
        if (sent_ < head_.size()) parts[count++] = {head_.data() + sent_, head_.size() - sent_};
        const size_t into = sent_ < head_.size() ? 0 : sent_ - head_.size();
        if (into < body_->size())
            parts[count++] = {const_cast<char*>(body_->data()) + into, body_->size() - into};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = count;
        const ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return owner_.loop_.change(fd_, true, true, *this);
        // A server that refuses early closes its side: what it said is still to be read.
        if (n < 0 && errno == EPIPE) break;
        if (n < 0) return lost(errno);
        sent_ += static_cast<size_t>(n);
    }
    state_ = State::reading;
    owner_.loop_.change(fd_, true, false, *this);
}

void Connection::ready() {
    if (state_ == State::connecting) connected();
    if (fd_ >= 0 && state_ != State::connecting) receive();
    if (state_ == State::sending && fd_ >= 0) flush();
}

void Connection::receive() {
    std::string& buffer = owner_.buffer_;
    ssize_t n = 0;
    do n = ::recv(fd_, buffer.data(), buffer.size(), 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (state_ == State::idle) return close();  // closed, or spoke unasked: of no more use
    if (n <= 0) return lost(n < 0 ? errno : 0);
    now_ns_ = owner_.clock_.mono_ns();
    idle_deadline_ns_ =
        complete_ ? idle_deadline_ns_ : now_ns_ + owner_.options_.read_timeout_ms * 1'000'000;
    take({buffer.data(), static_cast<size_t>(n)});
}

void Connection::take(std::string_view bytes) {
    Result<void> stream;
    const auto on_body = [this, &stream](std::string_view piece) {
        if (complete_ || failed_ || !stream) return;
        if (response_.status() / 100 == 2 &&
            response_.content_type().starts_with("text/event-stream")) {
            stream = sse_.feed(piece, *this);
        } else if (error_body_.size() < kErrorBodyMax) {
            not_sse_ = true;
            error_body_ += piece.substr(0, kErrorBodyMax - error_body_.size());
        }
    };
    const auto used = response_.feed(bytes, on_body);
    const int status = response_.has_head() ? response_.status() : 0;
    if (failed_)
        return finish({.error = "failed", .detail = {}, .http_status = status, .reached = true},
                      false);
    if (!used) {
        // After message_stop only the framing is wrong; the answer was whole.
        if (complete_)
            return finish({.error = {}, .detail = {}, .http_status = status, .reached = true},
                          false);
        return finish({.error = "bad_http",
                       .detail = used.error().what,
                       .http_status = status,
                       .reached = true},
                      false);
    }
    if (!stream)
        return finish({.error = "too_large",
                       .detail = stream.error().what,
                       .http_status = status,
                       .reached = true},
                      false);
    if (!response_.complete()) return;
    const bool keep =
        response_.reusable() && *used == bytes.size() && sent_ == head_.size() + body_->size();
    if (complete_)
        return finish({.error = {}, .detail = {}, .http_status = status, .reached = true}, keep);
    if (status / 100 != 2) return finish(error_from_body(), keep);
    if (not_sse_ || !response_.content_type().starts_with("text/event-stream"))
        return finish({.error = "not_sse",
                       .detail = "a 2xx answer whose content-type is not text/event-stream",
                       .http_status = status,
                       .reached = true},
                      keep);
    finish({.error = "ended_early",
            .detail = "the response ended before message_stop",
            .http_status = status,
            .reached = true},
           keep);
}

bool Connection::on_event(std::string_view, std::string_view data) {
    const Verdict verdict = owner_.sink_.on_event(slot_, data, stamp_ns_, now_ns_);
    stamp_ns_ = -1;
    if (verdict == Verdict::complete) {
        complete_ = true;
        idle_deadline_ns_ = now_ns_ + kTailNs;
    }
    failed_ = verdict == Verdict::failed;
    return verdict == Verdict::go_on;
}

void Connection::on_comment(std::string_view text) {
    if (const int64_t stamp = stamp_of_comment(text); stamp >= 0) stamp_ns_ = stamp;
}

// {"type":"error","error":{"type":…,"message":…}}, or whatever else a proxy in between makes of it.
Outcome Connection::error_from_body() const {
    Outcome out;
    out.reached = true;
    out.http_status = response_.status();
    out.error = fmt::format("http_{}", out.http_status);
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    std::string_view text;
    if (parser.parse(error_body_).get(root)) return out;
    if (!root["error"]["type"].get(text)) out.error = safe_name(text);
    if (!root["error"]["message"].get(text)) out.detail = safe_detail(text);
    return out;
}

void Connection::lost(int number) {
    const bool was_connecting = state_ == State::connecting;
    const bool silent = !response_.begun();
    const int status = response_.has_head() ? response_.status() : 0;
    if (number == 0 && !was_connecting && !complete_ && response_.end_of_input() &&
        response_.complete()) {
        // Delimited by the close: judge it as any other whole response.
        return take({});
    }
    close();
    state_ = State::reading;  // busy until finish()
    if (complete_)
        return finish({.error = {}, .detail = {}, .http_status = status, .reached = true}, false);
    // A kept-alive connection that the server closed just as we used it: every client asks again once.
    if (reused_ && silent && !was_connecting && number != ETIMEDOUT) {
        ++owner_.reconnects_;
        reused_ = false;
        sent_ = 0;
        response_.reset();
        return open();
    }
    Outcome out;
    out.http_status = status;
    out.reached = !was_connecting;
    if (number != 0) out.detail = std::strerror(number);
    if (number == EMFILE || number == ENFILE) {
        out.error = "no_descriptor";
    } else if (was_connecting) {
        out.error = number == ECONNREFUSED ? "connect_refused"
                    : number == ETIMEDOUT  ? "connect_timeout"
                                           : "connect_failed";
    } else {
        out.error = number == 0 ? "closed_early" : "reset";
        if (number == 0)
            out.detail = silent ? "closed without a response" : "closed in mid-response";
    }
    finish(std::move(out), false);
}

void Connection::finish(Outcome outcome, bool keep) {
    if (keep && fd_ >= 0)
        state_ = State::idle;
    else
        close();
    // Delivered by tick(), not here: the sink may then start() this very slot, and no call of ours is
    // on the stack.
    pending_ = std::move(outcome);
    owner_.ended_.push_back(slot_);
}

void Connection::cancel() {
    if (busy())
        finish({.error = "cancelled", .detail = {}, .http_status = 0, .reached = true}, false);
}

void Connection::keep_time(int64_t now_ns) {
    if (!busy() || (now_ns < idle_deadline_ns_ && now_ns < total_deadline_ns_)) return;
    const int status = response_.has_head() ? response_.status() : 0;
    if (state_ == State::connecting) return lost(ETIMEDOUT);
    Outcome out;
    out.http_status = status;
    out.reached = true;
    if (!complete_) {
        out.error = now_ns >= total_deadline_ns_ ? "request_timeout" : "read_timeout";
        out.detail = response_.begun() ? "in mid-response" : "before any byte";
    }
    finish(std::move(out), false);
}

void Connection::deliver() {
    const Outcome outcome = std::move(pending_);
    owner_.sink_.on_done(slot_, outcome);
}

}  // namespace

Result<std::unique_ptr<Transport>> make_http_transport(Loop& loop, HttpOptions options,
                                                       TransportSink& sink) {
    auto url = parse_url(options.url);
    if (!url) return base::fail(url.error());
    for (const char c : options.api_key)
        if (static_cast<unsigned char>(c) <= ' ' || static_cast<unsigned char>(c) >= 0x7f)
            return base::fail(Errc::usage,
                              "the API key holds a character that cannot stand in a header");
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int rc = ::getaddrinfo(url->host.c_str(), url->port.c_str(), &hints, &found); rc != 0)
        return base::fail(Errc::unavailable,
                          fmt::format("cannot find host '{}': {}", url->host, ::gai_strerror(rc)));
    std::vector<Target> targets;
    for (const addrinfo* one = found; one; one = one->ai_next) {
        Target target;
        std::memcpy(&target.storage, one->ai_addr, one->ai_addrlen);
        target.size = one->ai_addrlen;
        target.family = one->ai_family;
        targets.push_back(target);
    }
    ::freeaddrinfo(found);
    return std::unique_ptr<Transport>(std::make_unique<HttpTransport>(
        loop, std::move(options), sink, std::move(*url), std::move(targets)));
}

}  // namespace parley::load
