// HttpResponse: one HTTP/1.1 response from bytes that arrive in any pieces; head, framing, body.
//
// Strict where leniency would misread the next answer on the connection: CRLF line ends, no
// Transfer-Encoding but `chunked`, none together with Content-Length, no differing lengths. Interim
// 1xx responses are skipped.
// Bounds   head_bytes_max for status line and headers (trailers and a chunk's size line alike).
// Errors   Errc::invalid with what was wrong; the connection is then of no more use.
// Threads  one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::load {

class HttpResponse {
  public:
    explicit HttpResponse(size_t head_bytes_max = 64 << 10) : head_bytes_max_(head_bytes_max) {}

    // Takes bytes up to the end of this response and says how many that were: fewer than given only
    // when complete(). `body` is called with each piece of the decoded body.
    using Body = std::function<void(std::string_view)>;
    base::Result<size_t> feed(std::string_view bytes, const Body& body);
    // The peer closed. Completes a response that is delimited by that; an error for any other.
    base::Result<void> end_of_input();
    void reset();

    bool begun() const { return begun_; }  // a byte of it has been seen
    bool has_head() const { return state_ > State::headers; }
    bool complete() const { return state_ == State::done; }
    bool reusable() const { return complete() && keep_alive_; }  // the connection may carry another
    int status() const { return status_; }
    const std::string& content_type() const { return content_type_; }

  private:
    enum class State {
        status,
        headers,
        length,
        chunk_size,
        chunk_data,
        chunk_end,
        trailers,
        to_close,
        done
    };
    base::Result<void> status_line(std::string_view line);
    base::Result<void> header(std::string_view line);
    base::Result<void> head_done();
    base::Result<void> chunk_line(std::string_view line);

    size_t head_bytes_max_;
    State state_ = State::status;
    std::string line_;  // a line whose end has not come
    size_t head_bytes_ = 0;
    uint64_t left_ = 0;  // of the body, or of the chunk
    int status_ = 0;
    bool begun_ = false;
    bool chunked_ = false;
    bool has_length_ = false;
    bool keep_alive_ = true;
    std::string content_type_;
};

}  // namespace parley::load
