#include "http/connection.hpp"

#include "http/body_file.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace parley::http {

namespace asio = boost::asio;

namespace {

constexpr int kReadsPerWake = 16;  // then others get their turn
constexpr uint64_t kReserveMax = 1 << 20;

}  // namespace

Connection::Connection(Server::Core& core, int fd, std::unique_ptr<Stream> stream, std::string peer,
                       bool tls)
    : core_(&core),
      socket_(core.loop.context(), fd),
      stream_(std::move(stream)),
      peer_(std::move(peer)),
      tls_(tls) {}

Connection::~Connection() = default;

void Connection::enter(State state, int64_t deadline_in_ms) {
    state_ = state;
    deadline_ms_ = deadline_in_ms == 0 ? 0 : Server::Core::now_ms() + deadline_in_ms;
}

void Connection::begin() {
    if (tls_)
        enter(State::handshake, core_->options.handshake_ms);
    else
        enter(State::idle, core_->options.header_ms);
    arm_read();
}

void Connection::begin_excess(const Response& response) {
    excess_ = true;
    keep_alive_ = false;
    enter(State::closing, 0);
    respond(response, false);
    flush();
}

void Connection::drain(int64_t grace_ms) {
    keep_alive_ = false;  // a head or body on its way is still answered
    if (state_ != State::handshake && state_ != State::idle) return;
    if (pending() > 0)
        enter(State::closing, 0);
    else if (grace_ms > 0)
        deadline_ms_ = Server::Core::now_ms() + grace_ms;  // its request may be on its way
    else
        kill();
}

// ---- waiting

bool Connection::wants_input() const {
    switch (state_) {
        case State::handshake:
        case State::body:
            return !read_closed_;
        case State::idle:
        case State::head:
            if (!backlogged()) return !read_closed_;
            [[fallthrough]];
        // While an answer is made, reading on is how a client's leaving is seen.
        case State::answering:
        case State::closing:
            return !read_closed_ && in_.size() < core_->options.pipeline_bytes_max;
        // Who asks and never reads is not read from either; who reads slowly may still say stop.
        case State::upgraded:
            return !read_closed_ && pending() <= core_->options.write_bytes_max / 8;
        case State::lingering:
            return true;
        case State::dead:
            return false;
    }
    return false;
}

void Connection::arm_read() {
    if (read_armed_ || !(wants_input() || (write_wants_read_ && state_ != State::dead))) return;
    read_armed_ = true;
    socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                           self->read_armed_ = false;
                           if (!error && self->state_ != State::dead) self->on_readable();
                       });
}

void Connection::arm_write() {
    if (write_armed_ || state_ == State::dead) return;
    write_armed_ = true;
    socket_.async_wait(asio::posix::stream_descriptor::wait_write,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                           self->write_armed_ = false;
                           if (!error && self->state_ != State::dead) self->on_writable();
                       });
}

// The client reads its answers too slowly to be given more of them.
bool Connection::backlogged() const { return pending() > core_->options.write_low_bytes; }

bool Connection::overdue(int64_t now_ms) const {
    if (deadline_ms_ != 0 && now_ms >= deadline_ms_) return true;
    return pending() > 0 && now_ms - written_at_ms_ >= core_->options.write_stall_ms;
}

void Connection::check_deadline(int64_t now_ms) {
    if (state_ == State::dead) return;
    if (pending() > 0 && now_ms - written_at_ms_ >= core_->options.write_stall_ms) {
        ++core_->stats.stalled_total;
        peer_gone();
        return;
    }
    if (deadline_ms_ == 0 || now_ms < deadline_ms_) return;
    switch (state_) {
        case State::head:
            refuse(400, "the request header did not arrive in time");
            break;
        case State::body:
            refuse(400, "the request body arrived too slowly");
            break;
        default:
            kill();
            break;
    }
}

// ---- input

void Connection::on_readable() {
    const auto self = shared_from_this();
    if (write_wants_read_) {
        write_wants_read_ = false;
        flush();
        if (state_ == State::dead) return;
    }
    if (state_ == State::lingering)
        discard_input();
    else
        read_some();
    if (state_ != State::dead) arm_read();
}

void Connection::read_some() {
    if (state_ == State::handshake) {
        switch (stream_->handshake()) {
            case Io::ok:
                enter(State::idle, core_->options.header_ms);
                break;
            case Io::want_read:
                return;
            case Io::want_write:
                arm_write();
                return;
            default:
                kill();
                return;
        }
    }
    auto& scratch = core_->scratch;
    for (int reads = 0; wants_input() && state_ != State::lingering; ++reads) {
        if (reads == kReadsPerWake) {
            // OpenSSL may hold bytes that no readiness will tell of: come back by ourselves.
            core_->loop.post([self = shared_from_this()] {
                if (self->state_ != State::dead) self->on_readable();
            });
            return;
        }
        const IoResult got = stream_->read(scratch.data(), scratch.size());
        switch (got.io) {
            case Io::ok:
                break;
            case Io::want_read:
                return;
            case Io::want_write:
                read_wants_write_ = true;
                arm_write();
                return;
            case Io::closed:
                peer_closed();
                return;
            case Io::failed:
                peer_gone();
                return;
        }
        in_.append(scratch.data(), got.bytes);
        process();
        if (!tls_ && got.bytes < scratch.size()) return;
    }
}

void Connection::discard_input() {
    auto& scratch = core_->scratch;
    for (int reads = 0; reads < kReadsPerWake; ++reads) {
        const ssize_t n = ::recv(socket_.native_handle(), scratch.data(), scratch.size(), 0);
        if (n > 0) continue;
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) kill();
        return;
    }
}

void Connection::peer_closed() {
    read_closed_ = true;
    if (state_ == State::upgraded) return peer_gone();
    if (state_ == State::answering) {
        if (auto writer = writer_.lock()) tell_closed(writer);
        return;
    }
    process();
}

void Connection::peer_gone() {
    if (state_ == State::dead) return;
    if (auto writer = writer_.lock()) tell_closed(writer);
    kill();
}

void Connection::tell_closed(const Writer& writer) {
    if (writer->finished_ || writer->closed_) return;
    writer->closed_ = true;
    ++core_->stats.gone_total;
    // Posted: we may stand inside the caller's own write().
    core_->loop.post([writer] {
        writer->drain_ = nullptr;
        if (auto callback = std::move(writer->close_)) callback();
    });
}

void Connection::kill() {
    if (state_ == State::dead) return;
    const auto self = shared_from_this();
    if (serving()) {
        --core_->stats.requests_active;
        if (auto writer = writer_.lock()) tell_closed(writer);
    }
    state_ = State::dead;
    boost::system::error_code ignored;
    stream_.reset();
    socket_.close(ignored);
    release(in_);
    release(out_);
    on_bytes_.reset();
    out_at_ = 0;
    Server::Core* const core = core_;
    core->forget(*this);  // core_ stays for the rest of this call
}

// ---- requests

void Connection::process() {
    if (in_process_) return;
    const auto self = shared_from_this();
    in_process_ = true;
    while (step()) {
    }
    in_process_ = false;
    if (state_ == State::idle && in_.empty()) release(in_);
    if (!read_closed_ || state_ == State::answering || state_ == State::dead) return;
    // No more will come. What is still to be written may still be read.
    if (pending() == 0)
        kill();
    else if (!backlogged() || in_.empty())
        enter(State::closing, 0);
}

void Connection::resume() {
    const auto self = shared_from_this();
    process();
    // Not only armed: OpenSSL may hold bytes that no readiness will tell of.
    if (state_ != State::dead && wants_input()) on_readable();
}

bool Connection::step() {
    switch (state_) {
        case State::idle:
        case State::head:
            return take_head();
        case State::body:
            return take_body();
        case State::upgraded: {
            if (in_.empty() || !on_bytes_) return false;
            const std::string bytes = std::exchange(in_, std::string());
            const auto callback = *on_bytes_;  // it may end the connection
            callback(bytes);
            return state_ == State::upgraded;
        }
        default:
            return false;
    }
}

bool Connection::take_head() {
    // One empty line before a request is forgiven, as RFC 9112 §2.2 asks.
    if (!skipped_crlf_ && in_.starts_with("\r\n")) {
        in_.erase(0, 2);
        scanned_ = 0;
        skipped_crlf_ = true;
    }
    if (in_.empty() || backlogged()) return false;
    if (state_ == State::idle) {
        scanned_ = 0;
        enter(State::head, core_->options.header_ms);
    }
    const size_t size = head_size(in_, scanned_);
    scanned_ = in_.size();
    if (size > core_->options.header_bytes_max ||
        (size == 0 && in_.size() > core_->options.header_bytes_max)) {
        refuse(431, "the request header is too large");
        return false;
    }
    if (size == 0) return false;
    head_ = Head();
    const auto refusal = parse_head(std::string_view(in_).substr(0, size), head_);
    in_.erase(0, size);
    if (refusal) {
        refuse(refusal->status, refusal->why);
        return false;
    }
    has_request_ = true;
    skipped_crlf_ = false;
    head_.request.peer = peer_;
    head_.request.tls = tls_;
    ++requests_;
    const uint32_t most = core_->options.requests_per_connection_max;
    keep_alive_ = head_.keep_alive && !core_->draining && (most == 0 || requests_ < most);

    HeadDecision decision = core_->on_head(head_.request);
    if (state_ == State::dead) return false;
    if (decision.response) {
        ++core_->stats.requests_total;
        if (head_.has_body()) keep_alive_ = false;  // its bytes are dropped with the connection
        respond(*decision.response, head_.request.method == "HEAD");
        answered();
        flush();
        return state_ == State::idle;
    }
    body_ = BodyReader(head_.chunked, head_.content_length, decision.body_bytes_max);
    if (body_.refusal()) {
        refuse(body_.refusal()->status, body_.refusal()->why);
        return false;
    }
    if (!decision.body_folder.empty()) {
        auto file = BodyFile::make(decision.body_folder);
        if (!file) {
            refuse(503, "no room for the request body");
            return false;
        }
        head_.request.body_file = std::move(*file);
    }
    if (!head_.has_body()) {
        dispatch();
        return state_ == State::idle;
    }
    enter(State::body, core_->options.body_ms);
    // What is only claimed is not allocated.
    if (!head_.request.body_file)
        head_.request.body.reserve(std::min<uint64_t>(head_.content_length, kReserveMax));
    if (head_.expect_continue && in_.empty()) {
        output_begins();
        out_ += "HTTP/1.1 100 Continue\r\n\r\n";
        flush();
    }
    return state_ == State::body;
}

bool Connection::take_body() {
    std::string& body = head_.request.body;
    const uint64_t before = body_.bytes();
    const size_t used = body_.feed(in_, body);
    in_.erase(0, used);
    if (body_.refusal()) {
        refuse(body_.refusal()->status, body_.refusal()->why);
        return false;
    }
    if (BodyFile* const file = head_.request.body_file.get()) {
        const bool written = file->append(body).has_value();
        body.clear();
        if (!written) {
            refuse(503, "no room for the request body");
            return false;
        }
    }
    if (body_.done()) {
        dispatch();
        return state_ == State::idle;
    }
    // Each body_rate_bytes buy one more second.
    const uint64_t rate = std::max<uint64_t>(1, core_->options.body_rate_bytes);
    deadline_ms_ += static_cast<int64_t>((body_.bytes() / rate - before / rate) * 1000);
    return false;
}

void Connection::dispatch() {
    enter(State::answering, 0);
    ++core_->stats.requests_total;
    ++core_->stats.requests_active;
    auto writer =
        std::make_shared<ResponseWriter>(weak_from_this(), head_.request.method == "HEAD");
    writer_ = writer;
    above_low_ = false;
    core_->on_request(std::move(head_.request), std::move(writer));
    has_request_ = false;
}

void Connection::refuse(int status, const std::string& why, bool from_client) {
    if (from_client) ++core_->stats.refused_requests_total;
    keep_alive_ = false;
    const Request* request = has_request_ ? &head_.request : nullptr;
    const bool head_only = request && request->method == "HEAD";
    enter(State::closing, 0);
    respond(core_->error_response(status, why, request), head_only);
    release(in_);
    flush();
}

}  // namespace parley::http
