// Stream: bytes over a non-blocking socket, plain or TLS, behind one small interface, so that the
// connection is compiled once and knows nothing of either. Internal to lib/http.
//
// Owns     neither socket nor context of asio: it is told the descriptor.
// Threads  the loop's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "http/tls.hpp"

namespace parley::http {

enum class Io : uint8_t { ok, want_read, want_write, closed, failed };

struct IoResult {
    Io io = Io::ok;
    size_t bytes = 0;
};

class Stream {
  public:
    virtual ~Stream() = default;
    // Progresses the handshake; ok when there is none or it is done.
    virtual Io handshake() = 0;
    virtual IoResult read(char* into, size_t size) = 0;  // closed: the peer will send no more
    virtual IoResult write(std::string_view bytes) = 0;  // may take less than all
    virtual void shutdown() = 0;                         // no more will be written; never waits
    // Bytes that were read from the socket already: no readiness will tell of them.
    virtual bool buffered() const = 0;
};

std::unique_ptr<Stream> plain_stream(int fd);
// nullptr when OpenSSL cannot make one (memory).
std::unique_ptr<Stream> tls_stream(int fd, const TlsContext& context);

}  // namespace parley::http
