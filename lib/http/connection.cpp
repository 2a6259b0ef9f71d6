#include "http/connection.hpp"

#include <sys/socket.h>

#include <charconv>

namespace parley::http {

namespace asio = boost::asio;

namespace {

constexpr int kReadsPerWake = 16;  // then others get their turn
constexpr uint64_t kReserveMax = 1 << 20;
constexpr size_t kKeepBytes = 4096;  // a larger buffer is given back when it is empty

void release(std::string& buffer) {
    buffer.clear();
    if (buffer.capacity() > kKeepBytes) std::string().swap(buffer);
}

// A header value of ours cannot end its line, whatever it was made from.
void append_value(std::string& out, std::string_view value) {
    for (const char c : value) {
        const auto byte = static_cast<unsigned char>(c);
        out += (byte < 0x20 && c != '\t') || byte == 0x7F ? ' ' : c;
    }
}

}  // namespace

std::string_view reason_phrase(int status) {
    switch (status) {
        case 100:
            return "Continue";
        case 200:
            return "OK";
        case 201:
            return "Created";
        case 202:
            return "Accepted";
        case 204:
            return "No Content";
        case 206:
            return "Partial Content";
        case 302:
            return "Found";
        case 303:
            return "See Other";
        case 304:
            return "Not Modified";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 402:
            return "Payment Required";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 409:
            return "Conflict";
        case 412:
            return "Precondition Failed";
        case 413:
            return "Content Too Large";
        case 417:
            return "Expectation Failed";
        case 426:
            return "Upgrade Required";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Gateway Timeout";
        case 529:
            return "Overloaded";
        default:
            return "Unknown";
    }
}

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

void Connection::drain() {
    keep_alive_ = false;  // a head or body on its way is still answered
    if (state_ != State::handshake && state_ != State::idle) return;
    if (pending() > 0)
        enter(State::closing, 0);
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
    if (state_ == State::answering) {
        --core_->stats.requests_active;
        if (auto writer = writer_.lock()) tell_closed(writer);
    }
    state_ = State::dead;
    boost::system::error_code ignored;
    stream_.reset();
    socket_.close(ignored);
    release(in_);
    release(out_);
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
    if (!head_.has_body()) {
        dispatch();
        return state_ == State::idle;
    }
    enter(State::body, core_->options.body_ms);
    // What is only claimed is not allocated.
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
    const size_t before = body.size();
    const size_t used = body_.feed(in_, body);
    in_.erase(0, used);
    if (body_.refusal()) {
        refuse(body_.refusal()->status, body_.refusal()->why);
        return false;
    }
    if (body_.done()) {
        dispatch();
        return state_ == State::idle;
    }
    // Each body_rate_bytes buy one more second.
    const uint64_t rate = std::max<uint64_t>(1, core_->options.body_rate_bytes);
    deadline_ms_ += static_cast<int64_t>((body.size() / rate - before / rate) * 1000);
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

// ---- answers

void Connection::output_begins() {
    if (pending() == 0) written_at_ms_ = Server::Core::now_ms();
}

void Connection::append_head(int status,
                             const std::vector<std::pair<std::string, std::string>>& headers,
                             std::optional<size_t> length) {
    if (core_->draining) keep_alive_ = false;
    out_ += "HTTP/1.1 ";
    out_ += std::to_string(status);
    out_ += ' ';
    out_ += reason_phrase(status);
    out_ += "\r\n";
    for (const auto& [name, value] : headers) {
        out_ += name;
        out_ += ": ";
        append_value(out_, value);
        out_ += "\r\n";
    }
    const bool bodiless = status == 204 || status == 304;
    if (length && !bodiless) {
        out_ += "content-length: ";
        out_ += std::to_string(*length);
        out_ += "\r\n";
    } else if (!length) {
        body_form_ = head_.http11 ? Body::chunked : Body::until_close;
        if (body_form_ == Body::chunked)
            out_ += "transfer-encoding: chunked\r\n";
        else
            keep_alive_ = false;
    }
    if (!keep_alive_)
        out_ += "connection: close\r\n";
    else if (!head_.http11)
        out_ += "connection: keep-alive\r\n";
    out_ += "date: ";
    out_ += core_->date();
    out_ += "\r\n\r\n";
}

void Connection::respond(const Response& response, bool head_only) {
    output_begins();
    append_head(response.status, response.headers, response.body.size());
    const bool bodiless = head_only || response.status == 204 || response.status == 304;
    if (!bodiless) out_ += response.body;
}

// The answer's last byte is queued. What follows, if anything, waits until it is flushed only where
// the connection ends.
void Connection::answered() {
    writer_.reset();
    has_request_ = false;
    if (keep_alive_) {
        enter(State::idle, core_->options.idle_ms);
        // Posted: the next request's handler must not run inside the call that ended this one.
        if (!in_process_)
            core_->loop.post([self = shared_from_this()] {
                if (self->state_ != State::dead) self->resume();
            });
    } else {
        enter(State::closing, 0);
    }
}

void Connection::reply(ResponseWriter& writer, Response response) {
    if (state_ != State::answering) return;
    respond(response, writer.head_only_);
    --core_->stats.requests_active;
    answered();
    flush();
}

void Connection::start(ResponseWriter&, int status,
                       const std::vector<std::pair<std::string, std::string>>& headers) {
    if (state_ != State::answering) return;
    output_begins();
    append_head(status, headers, std::nullopt);
    flush();
}

bool Connection::write(ResponseWriter& writer, std::string_view bytes) {
    if (state_ != State::answering) return false;
    if (writer.head_only_ || bytes.empty()) return true;  // an empty chunk would end the body
    output_begins();
    if (body_form_ == Body::chunked) {
        char size[20];
        const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16);
        out_.append(size, end.ptr);
        out_ += "\r\n";
        out_ += bytes;
        out_ += "\r\n";
    } else {
        out_ += bytes;
    }
    flush();
    if (state_ == State::dead) return false;
    if (pending() > core_->options.write_low_bytes) above_low_ = true;
    if (pending() <= core_->options.write_bytes_max) return true;
    ++core_->stats.stalled_total;
    peer_gone();
    return false;
}

void Connection::finish(ResponseWriter& writer) {
    if (state_ != State::answering) return;
    if (!writer.head_only_ && body_form_ == Body::chunked) out_ += "0\r\n\r\n";
    --core_->stats.requests_active;
    answered();
    flush();
}

void Connection::abort(ResponseWriter&) {
    if (state_ != State::answering) return;
    writer_.reset();  // it knows
    // Reset rather than close: the client must not take the end of bytes for the end of the answer.
    const struct ::linger hard { 1, 0 };
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    kill();
}

void Connection::abandoned(const ResponseWriter& writer) {
    if (state_ != State::answering) return;
    if (writer.started_ || writer.closed_) {
        kill();
        return;
    }
    --core_->stats.requests_active;
    respond(core_->error_response(500, "the request was not answered", nullptr), writer.head_only_);
    answered();
    flush();
}

// ---- output

void Connection::on_writable() {
    const auto self = shared_from_this();
    if (state_ == State::handshake) {
        on_readable();
        return;
    }
    flush();
    if (state_ == State::dead) return;
    if (read_wants_write_ || (!in_.empty() && state_ == State::idle)) {
        read_wants_write_ = false;
        resume();
        if (state_ == State::dead) return;
    }
    arm_read();
    if (state_ != State::answering || !above_low_ || pending() > core_->options.write_low_bytes)
        return;
    above_low_ = false;
    if (auto writer = writer_.lock(); writer && writer->drain_) {
        const auto callback = writer->drain_;  // it may replace itself
        callback();
    }
}

void Connection::flush() {
    const auto self = shared_from_this();
    while (pending() > 0) {
        const IoResult sent = stream_->write(std::string_view(out_).substr(out_at_));
        if (sent.io == Io::ok) {
            out_at_ += sent.bytes;
            written_at_ms_ = Server::Core::now_ms();
            continue;
        }
        if (sent.io == Io::want_write) {
            // The sent part goes once it is the larger one: moving bytes stays linear.
            if (out_at_ > out_.size() / 2) {
                out_.erase(0, out_at_);
                out_at_ = 0;
            }
            arm_write();
        } else if (sent.io == Io::want_read) {
            write_wants_read_ = true;
            arm_read();
        } else {
            peer_gone();
        }
        return;
    }
    out_at_ = 0;
    release(out_);
    if (state_ == State::closing) linger();
}

void Connection::linger() {
    if (read_closed_) {
        kill();
        return;
    }
    stream_->shutdown();
    release(in_);
    const int64_t ms = excess_ || core_->draining
                           ? std::min<int64_t>(1000, core_->options.linger_ms)
                           : core_->options.linger_ms;
    enter(State::lingering, std::max<int64_t>(1, ms));
    arm_read();
}

}  // namespace parley::http
