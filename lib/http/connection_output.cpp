// Connection, the way out: answers, their framing, and the socket's back-pressure.
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "http/connection.hpp"

namespace parley::http {
namespace {

constexpr size_t kBurstBytes = 16384;  // queued at most before the turn's end
constexpr size_t kKeepBytes = 4096;    // a larger buffer is given back when it is empty

// A header value of ours cannot end its line, whatever it was made from.
void append_value(std::string& out, std::string_view value) {
    for (const char c : value) {
        const auto byte = static_cast<unsigned char>(c);
        out += (byte < 0x20 && c != '\t') || byte == 0x7F ? ' ' : c;
    }
}

}  // namespace

void release(std::string& buffer) {
    buffer.clear();
    if (buffer.capacity() > kKeepBytes) std::string().swap(buffer);
}

std::string_view reason_phrase(int status) {
    switch (status) {
        case 101:
            return "Switching Protocols";
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
    on_bytes_.reset();
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
    flush_soon();
}

bool Connection::upgrade(ResponseWriter&,
                         const std::vector<std::pair<std::string, std::string>>& headers,
                         std::function<void(std::string_view)> on_bytes) {
    if (state_ != State::answering || !head_.http11) return false;
    output_begins();
    out_ += "HTTP/1.1 101 ";
    out_ += reason_phrase(101);
    out_ += "\r\nconnection: Upgrade\r\n";
    for (const auto& [name, value] : headers) {
        out_ += name;
        out_ += ": ";
        append_value(out_, value);
        out_ += "\r\n";
    }
    out_ += "date: ";
    out_ += core_->date();
    out_ += "\r\n\r\n";
    on_bytes_ = std::make_unique<std::function<void(std::string_view)>>(std::move(on_bytes));
    keep_alive_ = false;
    enter(State::upgraded, 0);
    flush_soon();
    // Posted: what the client has sent ahead must not be taken inside the call that upgrades.
    core_->loop.post([self = shared_from_this()] {
        if (self->state_ != State::dead) self->resume();
    });
    return true;
}

bool Connection::write(ResponseWriter& writer, std::string_view bytes) {
    if (!serving()) return false;
    if (writer.head_only_ || bytes.empty()) return true;  // an empty chunk would end the body
    output_begins();
    if (state_ == State::answering && body_form_ == Body::chunked) {
        char size[20];
        const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16);
        out_.append(size, end.ptr);
        out_ += "\r\n";
        out_ += bytes;
        out_ += "\r\n";
    } else {
        out_ += bytes;
    }
    flush_soon();
    if (state_ == State::dead) return false;
    if (pending() > core_->options.write_low_bytes) above_low_ = true;
    if (pending() <= core_->options.write_bytes_max) return true;
    ++core_->stats.stalled_total;
    peer_gone();
    return false;
}

void Connection::finish(ResponseWriter& writer) {
    if (!serving()) return;
    if (state_ == State::answering && !writer.head_only_ && body_form_ == Body::chunked)
        out_ += "0\r\n\r\n";
    --core_->stats.requests_active;
    answered();
    flush();
}

void Connection::abort(ResponseWriter&) {
    if (!serving()) return;
    writer_.reset();  // it knows
    // Reset rather than close: the client must not take the end of bytes for the end of the answer.
    const struct ::linger hard { 1, 0 };
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    kill();
}

void Connection::abandoned(const ResponseWriter& writer) {
    if (!serving()) return;
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
    if (!serving() || !above_low_ || pending() > core_->options.write_low_bytes) return;
    above_low_ = false;
    if (auto writer = writer_.lock(); writer && writer->drain_) {
        const auto callback = writer->drain_;  // it may replace itself
        callback();
    }
}

// What one turn of the loop writes goes out as one: a burst of events costs one call of the system, not
// one each. Nothing waits longer than the turn.
void Connection::flush_soon() {
    if (pending() >= kBurstBytes) return flush();
    if (std::exchange(flush_posted_, true)) return;
    core_->loop.post([self = shared_from_this()] {
        self->flush_posted_ = false;
        if (self->state_ != State::dead) self->flush();
    });
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
