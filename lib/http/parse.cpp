#include "http/parse.hpp"

#include <algorithm>

namespace parley::http {
namespace {

Refusal bad(std::string why) { return {400, std::move(why)}; }

bool token_char(unsigned char c) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
    return c != 0 &&
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}
bool token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return token_char(static_cast<unsigned char>(c));
    });
}
bool value_char(unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7F); }
bool digits(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}
int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}
std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
}
bool list_has(std::string_view list, std::string_view word) {
    while (true) {
        const size_t comma = list.find(',');
        if (equal_ignoring_case(trim(list.substr(0, comma)), word)) return true;
        if (comma == std::string_view::npos) return false;
        list.remove_prefix(comma + 1);
    }
}
bool host_ok(std::string_view host) {
    return std::all_of(host.begin(), host.end(), [](char c) {
        return token_char(static_cast<unsigned char>(c)) || c == ':' || c == '[' || c == ']';
    });
}

std::optional<Refusal> read_target(std::string_view target, Request& out) {
    const auto graphic = [](char c) { return c > 0x20 && c < 0x7F; };
    if (target.empty() || !std::all_of(target.begin(), target.end(), graphic))
        return bad("the request target holds characters that must be percent-encoded");
    out.target = target;
    if (target == "*") {
        if (out.method != "OPTIONS") return bad("the target '*' is for OPTIONS only");
        out.path = "*";
        return std::nullopt;
    }
    // Absolute form, which proxies send: the authority is Host's business.
    for (const std::string_view scheme : {"http://", "https://"}) {
        if (target.size() < scheme.size() ||
            !equal_ignoring_case(target.substr(0, scheme.size()), scheme))
            continue;
        target.remove_prefix(scheme.size());
        const size_t slash = target.find_first_of("/?");
        target = slash == std::string_view::npos ? "/" : target.substr(slash);
        break;
    }
    const size_t question = target.find('?');
    std::string_view path = target.substr(0, question);
    std::string_view query = question == std::string_view::npos ? "" : target.substr(question + 1);
    if (path.empty()) path = "/";
    if (path.front() != '/') return bad("the request target must begin with '/'");
    if (path.find('#') != std::string_view::npos) return bad("the request target holds a '#'");
    while (!path.empty()) {
        path.remove_prefix(1);  // the slash
        const size_t slash = path.find('/');
        const std::string_view piece = path.substr(0, slash);
        path = slash == std::string_view::npos ? "" : path.substr(slash);
        if (piece.empty() && path.empty()) break;  // "/" or a trailing slash
        auto decoded = percent_decode(piece, false);
        if (!decoded) return bad("the request path holds a broken percent escape");
        out.path += '/';
        out.path += *decoded;
        out.segments.push_back(std::move(*decoded));
    }
    if (out.path.empty()) out.path = "/";
    while (!query.empty()) {
        const size_t amp = query.find('&');
        const std::string_view pair = query.substr(0, amp);
        query = amp == std::string_view::npos ? "" : query.substr(amp + 1);
        if (pair.empty()) continue;
        const size_t equals = pair.find('=');
        auto name = percent_decode(pair.substr(0, equals), true);
        auto value =
            percent_decode(equals == std::string_view::npos ? "" : pair.substr(equals + 1), true);
        if (!name || !value) return bad("the query holds a broken percent escape");
        out.query.emplace_back(std::move(*name), std::move(*value));
    }
    return std::nullopt;
}

std::optional<Refusal> read_request_line(std::string_view line, Head& out) {
    const size_t first = line.find(' ');
    const size_t last = line.rfind(' ');
    if (first == std::string_view::npos || first == last)
        return bad("the request line is not METHOD TARGET VERSION");
    const std::string_view method = line.substr(0, first);
    const std::string_view version = line.substr(last + 1);
    if (!token(method)) return bad("the request method is not a token");
    if (version == "HTTP/1.0")
        out.http11 = false;
    else if (version != "HTTP/1.1")
        return bad("the protocol version must be HTTP/1.1 or HTTP/1.0");
    out.request.method = method;
    return read_target(line.substr(first + 1, last - first - 1), out.request);
}

std::optional<Refusal> read_framing(Head& out) {
    const Headers& headers = out.request.headers;
    const size_t hosts = headers.count("host");
    if (hosts > 1) return bad("more than one Host header");
    if (hosts == 0 && out.http11) return bad("no Host header");
    if (!host_ok(headers.get("host"))) return bad("the Host header is not a host");

    const size_t encodings = headers.count("transfer-encoding");
    const size_t lengths = headers.count("content-length");
    if (encodings > 0) {
        if (!out.http11) return bad("Transfer-Encoding is not part of HTTP/1.0");
        if (lengths > 0) return bad("both Transfer-Encoding and Content-Length");
        if (encodings > 1 || !equal_ignoring_case(headers.get("transfer-encoding"), "chunked"))
            return bad("the only Transfer-Encoding taken is 'chunked'");
        out.chunked = true;
    }
    if (lengths > 1) return bad("more than one Content-Length header");
    if (lengths == 1) {
        const std::string_view text = headers.get("content-length");
        if (!digits(text)) return bad("Content-Length is not a plain number");
        // 18 digits hold any size that could be meant; more must not overflow.
        if (text.size() > 18) return Refusal{413, "the request body is too large"};
        for (const char c : text)
            out.content_length = out.content_length * 10 + static_cast<uint64_t>(c - '0');
    }

    const std::string connection = headers.joined("connection");
    out.keep_alive =
        out.http11 ? !list_has(connection, "close") : list_has(connection, "keep-alive");
    if (const std::string* expect = headers.find("expect")) {
        if (!equal_ignoring_case(*expect, "100-continue"))
            return Refusal{417, "the only Expect taken is '100-continue'"};
        out.expect_continue = out.http11;
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text, bool plus) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '+' && plus) {
            out += ' ';
        } else if (text[i] != '%') {
            out += text[i];
        } else {
            if (i + 2 >= text.size()) return std::nullopt;
            const int high = hex_value(text[i + 1]);
            const int low = hex_value(text[i + 2]);
            if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
            out += static_cast<char>(high << 4 | low);
            i += 2;
        }
    }
    return out;
}

size_t head_size(std::string_view bytes, size_t from) {
    constexpr std::string_view kEnd = "\r\n\r\n";
    // A bare LF where the empty line should be ends a head too, to be refused at once and not by
    // the deadline.
    const size_t start = from < 3 ? 0 : from - 3;
    const size_t end = bytes.find(kEnd, start);
    const size_t bare = bytes.find("\n\n", start);
    const size_t ends = end == std::string_view::npos ? end : end + kEnd.size();
    const size_t bare_ends = bare == std::string_view::npos ? bare : bare + 2;
    const size_t size = std::min(ends, bare_ends);
    return size == std::string_view::npos ? 0 : size;
}

std::optional<Refusal> parse_head(std::string_view bytes, Head& out) {
    bool first = true;
    while (true) {
        const size_t lf = bytes.find('\n');
        if (lf == std::string_view::npos) return bad("the head does not end");
        if (lf == 0 || bytes[lf - 1] != '\r') return bad("a line ends in LF without CR");
        const std::string_view line = bytes.substr(0, lf - 1);
        bytes.remove_prefix(lf + 1);
        if (first) {
            if (auto refusal = read_request_line(line, out)) return refusal;
            first = false;
            continue;
        }
        if (line.empty()) break;
        if (line.front() == ' ' || line.front() == '\t') return bad("a header line is folded");
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos) return bad("a header line has no colon");
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = trim(line.substr(colon + 1));
        if (!token(name)) return bad("a header name is not a token");
        for (const char c : value)
            if (!value_char(static_cast<unsigned char>(c)))
                return bad("a header value holds a control character");
        out.request.headers.add(name, value);
    }
    if (!bytes.empty()) return bad("bytes after the head");
    return read_framing(out);
}

BodyReader::BodyReader(bool chunked, uint64_t content_length, uint64_t bytes_max)
    : state_(chunked              ? State::size
             : content_length > 0 ? State::fixed
                                  : State::done),
      left_(content_length),
      bytes_max_(bytes_max) {
    if (!chunked && content_length > bytes_max) refuse(413, "the request body is too large");
    if (chunked) left_ = 0;
}

size_t BodyReader::refuse(int status, std::string why) {
    refusal_ = Refusal{status, std::move(why)};
    state_ = State::done;
    return 0;
}

bool BodyReader::size_digit(char c) {
    const int value = hex_value(c);
    if (value < 0) {
        if (digits_ == 0 || (c != ';' && c != '\r')) {
            refuse(400, "a chunk size is not a hexadecimal number");
            return false;
        }
        if (left_ > bytes_max_ || total_ + left_ > bytes_max_) {
            refuse(413, "the request body is too large");
            return false;
        }
        state_ = c == ';' ? State::extension : State::size_lf;
        return true;
    }
    if (++digits_ > 15) {
        refuse(400, "a chunk size is too long");
        return false;
    }
    left_ = left_ << 4 | static_cast<uint64_t>(value);
    return true;
}

// Trailers are checked to be lines of text, and dropped.
bool BodyReader::trailer_byte(char c) {
    if (++overhead_ > kOverheadMax) {
        refuse(400, "the trailers are too long");
        return false;
    }
    if (c == '\r') {
        state_ = State::trailer_lf;
        return true;
    }
    if (!value_char(static_cast<unsigned char>(c)) || (line_empty_ && (c == ' ' || c == '\t'))) {
        refuse(400, "a trailer is not a header line");
        return false;
    }
    line_empty_ = false;
    return true;
}

size_t BodyReader::feed(std::string_view bytes, std::string& body) {
    size_t used = 0;
    while (used < bytes.size() && state_ != State::done) {
        const char c = bytes[used];
        switch (state_) {
            case State::fixed:
            case State::data: {
                const size_t take =
                    static_cast<size_t>(std::min<uint64_t>(left_, bytes.size() - used));
                body.append(bytes.substr(used, take));
                used += take;
                left_ -= take;
                total_ += take;
                if (left_ == 0) state_ = state_ == State::fixed ? State::done : State::data_cr;
                continue;
            }
            case State::size:
                if (!size_digit(c)) return used;
                break;
            case State::extension:
                if (++overhead_ > kOverheadMax) {
                    refuse(400, "the chunk extensions are too long");
                    return used;
                }
                if (c == '\r') {
                    state_ = State::size_lf;
                } else if (!value_char(static_cast<unsigned char>(c))) {
                    refuse(400, "a chunk extension holds a control character");
                    return used;
                }
                break;
            case State::size_lf:
                if (c != '\n') {
                    refuse(400, "a chunk size line does not end in CRLF");
                    return used;
                }
                digits_ = 0;
                state_ = left_ == 0 ? State::trailer : State::data;
                break;
            case State::data_cr:
            case State::data_lf: {
                const bool cr = state_ == State::data_cr;
                if (c != (cr ? '\r' : '\n')) {
                    refuse(400, "a chunk does not end in CRLF");
                    return used;
                }
                state_ = cr ? State::data_lf : State::size;
                break;
            }
            case State::trailer:
                if (!trailer_byte(c)) return used;
                break;
            case State::trailer_lf:
                if (c != '\n') {
                    refuse(400, "a trailer line does not end in CRLF");
                    return used;
                }
                state_ = line_empty_ ? State::done : State::trailer;
                line_empty_ = true;
                break;
            case State::done:
                break;
        }
        ++used;
    }
    return used;
}

}  // namespace parley::http
