// Server: HTTP/1.1 with keep-alive, streaming answers and bounds on everything, plain or TLS.
//
// One request of a connection is handled at a time; what a client sends ahead waits, unparsed, up to
// Options::pipeline_bytes_max. What is refused, and why, is told by http/parse.hpp.
// Closing  after an answer that leaves unread input, the sending side is shut and the input read and
//          dropped for linger_ms, so that the client reads the answer and not a reset.
// Gone     a client that closes its connection (or only its sending side) while a request is being
//          answered is told of by ResponseWriter::on_close; what is written after it goes nowhere or
//          to the half that is still open.
// Errors   what the server itself refuses is answered through Options::error_response.
// Bounds   Options. Deadlines are looked at every 100 ms.
// Threads  the loop's only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "http/loop.hpp"
#include "http/tls.hpp"
#include "http/types.hpp"

namespace parley::http {

class Connection;
class ResponseWriter;

// Where the answer to a request goes: a connection of HTTP/1.1, or one of many exchanges that share a
// WebSocket. Each call is the writer's own, made once it may be.
class ResponseTarget {
  public:
    virtual ~ResponseTarget() = default;
    virtual void reply(ResponseWriter& writer, Response response) = 0;
    virtual void start(ResponseWriter& writer, int status,
                       const std::vector<std::pair<std::string, std::string>>& headers) = 0;
    virtual bool write(ResponseWriter& writer, std::string_view bytes) = 0;
    virtual void finish(ResponseWriter& writer) = 0;
    virtual void abort(ResponseWriter& writer) = 0;
    virtual void abandoned(const ResponseWriter& writer) = 0;
    virtual size_t pending() const = 0;
    // False: what cannot be upgraded.
    virtual bool upgrade(ResponseWriter&, const std::vector<std::pair<std::string, std::string>>&,
                         std::function<void(std::string_view)>) {
        return false;
    }

  protected:
    // The client is gone: marks it, and gives the callback that is to be told, once.
    static std::function<void()> mark_closed(ResponseWriter& writer);
    static std::function<void()> drain_of(const ResponseWriter& writer);
};

// The answer to one request: reply() once, or start(), write()… and finish(). A writer that is let go
// of without an answer answers 500 by itself. Copies of the shared_ptr are the same writer; it may
// outlive the connection and the server, and is inert then.
class ResponseWriter {
  public:
    explicit ResponseWriter(std::weak_ptr<ResponseTarget> target, bool head_only)
        : connection_(std::move(target)), head_only_(head_only) {}
    ~ResponseWriter();
    ResponseWriter(const ResponseWriter&) = delete;
    ResponseWriter& operator=(const ResponseWriter&) = delete;

    // Names in lower case. content-length, transfer-encoding, connection and date are ours.
    void reply(Response response);
    void start(int status, std::vector<std::pair<std::string, std::string>> headers);
    // Sent at once, as one chunk. false: the client is gone, or more than write_bytes_max wait for
    // it (the connection is then cut and on_close called): stop writing.
    bool write(std::string_view bytes);
    void finish();
    // 101, and from then on bytes as they are: `on_bytes` gets what comes, write() sends, finish()
    // closes once all is sent. The headers are the caller's but for connection and date. False where
    // an answer has begun, or the request is no connection's own.
    bool upgrade(std::vector<std::pair<std::string, std::string>> headers,
                 std::function<void(std::string_view)> on_bytes);
    // Cuts the connection in mid-answer, so that the client can tell.
    void abort();

    size_t pending_bytes() const;  // written and not yet taken by the socket
    // Called when pending_bytes() has fallen to write_low_bytes after it was above it. Stays set.
    void on_drain(std::function<void()> callback);
    // Called at most once, from the loop: the client is gone before the answer was finished. Set it
    // in the handler; set later, look at closed() first, since what has been is not told again.
    // Drop the writer then (or go on: a client that closed only its sending half still reads).
    void on_close(std::function<void()> callback);
    bool started() const { return started_; }
    bool finished() const { return finished_; }
    bool closed() const { return closed_; }  // the client is gone

  private:
    friend class Connection;
    friend class ResponseTarget;
    std::weak_ptr<ResponseTarget> connection_;
    std::function<void()> drain_;
    std::function<void()> close_;
    bool head_only_;
    bool started_ = false;
    bool finished_ = false;
    bool closed_ = false;
};
using Writer = std::shared_ptr<ResponseWriter>;

// What to do with a request once its head is there, before its body is read. The body is bounded, or
// the request is answered already (404, 405, 401…), its body dropped.
struct HeadDecision {
    uint64_t body_bytes_max = 1 << 20;
    std::string body_folder;  // not empty: the body goes to a file there (Request::body_file)
    std::optional<Response> response;
};

struct Options {
    // Bounds
    uint32_t header_bytes_max = 32 * 1024;         // a longer head: 431
    uint32_t pipeline_bytes_max = 64 * 1024;       // read ahead while a request is answered
    uint64_t write_bytes_max = 8ull << 20;         // waiting for a client that reads slowly
    uint64_t write_low_bytes = 16 * 1024;          // on_drain
    uint32_t connections_max = 10'000;             // one more: 503 and closed
    uint32_t connections_per_address_max = 1'000;  // 0: no bound; sockets in the file system: none
    uint32_t requests_per_connection_max = 0;      // 0: no bound; then `connection: close`
    // Deadlines
    int64_t handshake_ms = 10'000;  // TLS
    int64_t header_ms = 10'000;  // from a head's first byte (or the connection's start) to its end
    int64_t body_ms = 30'000;    // for a body, and beyond it one second for each body_rate_bytes
    uint64_t body_rate_bytes = 1024;
    int64_t idle_ms = 75'000;         // keep-alive, between requests
    int64_t write_stall_ms = 60'000;  // a client takes not one byte
    int64_t linger_ms = 5'000;
    // Answers of the server itself: 400, 413, 417, 431, 500, 503. Without it: a line of text.
    // `request` is nullptr when there was none to read.
    std::function<Response(int status, std::string_view why, const Request* request)>
        error_response;
};

struct ServerStats {
    uint64_t connections = 0;      // now
    uint64_t requests_active = 0;  // being answered now
    uint64_t accepted_total = 0;
    uint64_t requests_total = 0;
    uint64_t refused_connections_total = 0;  // over a cap
    uint64_t refused_requests_total = 0;     // malformed, too large, too slow
    uint64_t gone_total = 0;                 // clients that left before their answer was finished
    uint64_t stalled_total = 0;              // cut: read too slowly
};

class Server {
  public:
    using OnHead = std::function<HeadDecision(const Request& head)>;
    using OnRequest = std::function<void(Request request, Writer writer)>;

    Server(Loop& loop, Options options, OnHead on_head, OnRequest on_request);
    ~Server();  // cuts what is left; never from inside a callback of its own
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // "127.0.0.1:8080", "[::1]:0", "unix:/path/to.sock" (made 0600; a stale file is replaced). With
    // `tls` every connection of it is TLS. Returns the port (0 for unix). May be called several
    // times. `reuse_port`: others may listen there too (SO_REUSEPORT), and the kernel spreads what
    // comes over all of them; TCP only.
    base::Result<uint16_t> listen(const std::string& address,
                                  std::shared_ptr<TlsContext> tls = nullptr,
                                  bool reuse_port = false);
    // A listening socket from elsewhere (systemd, a predecessor); owned from here on.
    base::Result<uint16_t> listen_fd(int fd, std::shared_ptr<TlsContext> tls = nullptr);

    // Stops accepting, closes idle connections, answers what runs with `connection: close`, and calls
    // back once when no connection is left. Give your own deadline, then close_all().
    // `grace_ms`: how long what has been accepted, and has asked nothing yet, may still ask.
    void drain(std::function<void()> on_empty, int64_t grace_ms = 0);
    // The sockets that are listened on, still owned here.
    std::vector<int> listening() const;
    void close_all();  // cuts every connection; on_close of what runs is called
    bool draining() const;
    const ServerStats& stats() const;

    struct Core;  // of lib/http

  private:
    std::shared_ptr<Core> core_;
};

}  // namespace parley::http
