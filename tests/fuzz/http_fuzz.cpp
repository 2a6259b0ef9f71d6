// Any bytes as an HTTP/1.1 request: a head is found at the same place whole or in pieces; an accepted one
// is framed one way only; its body comes out the same whole or byte by byte, within its bound.
#include <cstdlib>

#include "http/parse.hpp"
#include "replay_main.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace parley;
    constexpr uint64_t kBodyMax = 4096;
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const size_t at = http::head_size(bytes);
    size_t found = 0;
    for (size_t have = 1, seen = 0; have <= size && found == 0; seen = have++)
        found = http::head_size(bytes.substr(0, have), seen);
    if (found != at || at > size) std::abort();
    if (at == 0) return 0;
    http::Head head;
    if (http::parse_head(bytes.substr(0, at), head)) return 0;
    if (head.chunked && head.request.headers.has("content-length")) std::abort();
    if (head.request.headers.count("host") > 1) std::abort();
    for (const auto& field : head.request.headers.fields())
        if (field.value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos)
            std::abort();
    const std::string_view rest = bytes.substr(at);
    std::string whole, pieces;
    http::BodyReader one(head.chunked, head.content_length, kBodyMax);
    http::BodyReader many(head.chunked, head.content_length, kBodyMax);
    const size_t used = one.feed(rest, whole);
    size_t taken = 0;
    while (taken < rest.size() && !many.done() && !many.refusal())
        taken += many.feed(rest.substr(taken, 1), pieces);
    if (one.done() != many.done() || !one.refusal() != !many.refusal()) std::abort();
    if (whole.size() > kBodyMax) std::abort();
    if (one.done() && (whole != pieces || used != taken)) std::abort();
    return 0;
}
