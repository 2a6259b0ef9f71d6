// Parse: HTTP/1.1 requests, read strictly.
//
// Source   RFC 9112. Where it lets a server be lenient, this one is not: whatever two readers could
//          understand differently is refused, since the next reader may be a proxy (request
//          smuggling). Refused with 400: bare LF, folded header lines, white space around a header's
//          name, no Host or two, Content-Length repeated or listed, Transfer-Encoding other than
//          exactly "chunked", with Content-Length, or on HTTP/1.0, chunk sizes that are not plain
//          hexadecimal, control characters anywhere in the head.
// Bounds   of the head: the caller's, by bytes; of chunk extensions and trailers: kOverheadMax a body.
// Threads  values; nothing shared. Pure: knows no socket.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http/types.hpp"

namespace parley::http {

struct Refusal {
    int status = 400;
    std::string why;
};

// Where a head ends: the size of the first block up to and including its empty line, 0 while it is
// not whole. `from` is how many bytes an earlier call has looked at.
size_t head_size(std::string_view bytes, size_t from = 0);

struct Head {
    Request request;
    bool http11 = true;
    bool keep_alive = true;
    bool expect_continue = false;
    bool chunked = false;
    uint64_t content_length = 0;
    bool has_body() const { return chunked || content_length > 0; }
};

// `bytes` is exactly one head, its empty line included.
std::optional<Refusal> parse_head(std::string_view bytes, Head& out);

// Takes the bytes of one body apart.
class BodyReader {
  public:
    static constexpr uint64_t kOverheadMax = 16 * 1024;

    BodyReader() = default;
    BodyReader(bool chunked, uint64_t content_length, uint64_t bytes_max);

    // Appends body bytes to `body`; returns how many bytes of `bytes` it has used. Takes all it is
    // given unless the body ends within it or something is wrong: see done() and refusal().
    size_t feed(std::string_view bytes, std::string& body);
    bool done() const { return state_ == State::done; }
    uint64_t bytes() const { return total_; }  // of the body so far
    const std::optional<Refusal>& refusal() const { return refusal_; }  // 400 or 413

  private:
    enum class State {
        fixed,
        size,
        extension,
        size_lf,
        data,
        data_cr,
        data_lf,
        trailer,
        trailer_lf,
        done
    };
    size_t refuse(int status, std::string why);
    bool size_digit(char c);
    bool trailer_byte(char c);

    State state_ = State::done;
    uint64_t left_ = 0;  // of the fixed body, or of the chunk
    uint64_t total_ = 0;
    uint64_t bytes_max_ = 0;
    uint64_t overhead_ = 0;
    int digits_ = 0;
    bool line_empty_ = true;  // of the trailer
    std::optional<Refusal> refusal_;
};

// "%41b" → "Ab"; nullopt for a broken escape or one that means NUL. `plus`: '+' is a space (queries).
std::optional<std::string> percent_decode(std::string_view text, bool plus);

}  // namespace parley::http
