#include "load/http_response.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace parley::load {
namespace {

using base::Errc;
using base::Result;

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    return out;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}

auto bad(const char* what) { return base::fail(Errc::invalid, what); }

}  // namespace

void HttpResponse::reset() {
    const size_t bound = head_bytes_max_;
    *this = HttpResponse(bound);
}

Result<void> HttpResponse::status_line(std::string_view line) {
    // "HTTP/1.1 200 OK"; the reason may be empty or absent.
    if (line.size() < 12 || !line.starts_with("HTTP/1.") || line[8] != ' ')
        return bad("not an HTTP/1 status line");
    const auto [rest, error] = std::from_chars(line.data() + 9, line.data() + 12, status_);
    if (error != std::errc() || rest != line.data() + 12 || status_ < 100 ||
        (line.size() > 12 && line[12] != ' '))
        return bad("not an HTTP status");
    keep_alive_ = line[7] != '0';
    state_ = State::headers;
    return {};
}

Result<void> HttpResponse::header(std::string_view line) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0 || line[colon - 1] == ' ')
        return bad("malformed header");
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trim(line.substr(colon + 1));
    if (name == "content-length") {
        uint64_t length = 0;
        const auto [rest, error] =
            std::from_chars(value.data(), value.data() + value.size(), length);
        if (value.empty() || error != std::errc() || rest != value.data() + value.size())
            return bad("malformed content-length");
        if (has_length_ && length != left_) return bad("two content-lengths that differ");
        has_length_ = true;
        left_ = length;
    } else if (name == "transfer-encoding") {
        if (chunked_ || lower(value) != "chunked")
            return bad("a transfer-encoding other than chunked");
        chunked_ = true;
    } else if (name == "connection") {
        const std::string wish = lower(value);
        if (wish.find("close") != std::string::npos) keep_alive_ = false;
        if (wish.find("keep-alive") != std::string::npos) keep_alive_ = true;
    } else if (name == "content-type") {
        content_type_ = lower(value);
    }
    return {};
}

Result<void> HttpResponse::head_done() {
    if (status_ < 200) {  // interim: the real one follows
        reset();
        begun_ = true;
        return {};
    }
    if (chunked_ && has_length_) return bad("both content-length and transfer-encoding");
    if (status_ == 204 || status_ == 304) {
        state_ = State::done;
    } else if (chunked_) {
        state_ = State::chunk_size;
    } else if (has_length_) {
        state_ = left_ == 0 ? State::done : State::length;
    } else {
        keep_alive_ = false;
        state_ = State::to_close;
    }
    head_bytes_ = 0;
    return {};
}

Result<void> HttpResponse::chunk_line(std::string_view line) {
    const std::string_view digits = trim(line.substr(0, line.find(';')));
    left_ = 0;
    const auto [rest, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), left_, 16);
    if (digits.empty() || error != std::errc() || rest != digits.data() + digits.size())
        return bad("malformed chunk size");
    state_ = left_ == 0 ? State::trailers : State::chunk_data;
    head_bytes_ = 0;
    return {};
}

Result<size_t> HttpResponse::feed(std::string_view bytes, const Body& body) {
    const size_t given = bytes.size();
    if (given > 0) begun_ = true;
    while (!bytes.empty() && state_ != State::done) {
        if (state_ == State::length || state_ == State::chunk_data) {
            const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
            body(bytes.substr(0, n));
            bytes.remove_prefix(n);
            left_ -= n;
            if (left_ == 0) state_ = state_ == State::length ? State::done : State::chunk_end;
            continue;
        }
        if (state_ == State::to_close) {
            body(bytes);
            bytes = {};
            continue;
        }
        const size_t end = bytes.find('\n');
        const size_t n = end == std::string_view::npos ? bytes.size() : end + 1;
        head_bytes_ += n;
        if (head_bytes_ > head_bytes_max_) return bad("response head too large");
        line_ += bytes.substr(0, n);
        bytes.remove_prefix(n);
        if (end == std::string_view::npos) break;
        if (!line_.ends_with("\r\n")) return bad("a line that does not end in CRLF");
        const std::string_view line = std::string_view(line_).substr(0, line_.size() - 2);
        Result<void> fine;
        switch (state_) {
            case State::status:
                fine = status_line(line);
                break;
            case State::headers:
                fine = line.empty() ? head_done() : header(line);
                break;
            case State::chunk_size:
                fine = chunk_line(line);
                break;
            case State::chunk_end:
                if (!line.empty()) fine = bad("no CRLF after a chunk");
                state_ = State::chunk_size;
                break;
            case State::trailers:
                if (line.empty()) state_ = State::done;
                break;
            default:
                break;
        }
        if (!fine) return base::fail(fine.error());
        line_.clear();
    }
    return given - bytes.size();
}

Result<void> HttpResponse::end_of_input() {
    if (state_ == State::to_close) state_ = State::done;
    if (state_ == State::done) return {};
    return base::fail(Errc::unavailable,
                      begun_ ? "closed in mid-response" : "closed without a response");
}

}  // namespace parley::load
