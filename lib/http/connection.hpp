// Connection: one client's socket: requests in, one at a time, answers out. Internal to lib/http.
//
//   handshake → idle ⇄ head → body → answering → idle …
//   answering → upgraded (bytes as they are, until finish())
//        any of them → closing (the last answer is flushed) → lingering → dead
//
// Owns     the socket. Lives while the server knows it or a wait or a posted call holds it.
// Threads  the loop's.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <string>

#include "http/core.hpp"
#include "http/parse.hpp"
#include "http/stream.hpp"

namespace parley::http {

class Connection final : public ResponseTarget, public std::enable_shared_from_this<Connection> {
  public:
    Connection(Server::Core& core, int fd, std::unique_ptr<Stream> stream, std::string peer,
               bool tls);
    ~Connection() override;

    void begin();
    void begin_excess(const Response& response);  // over a cap: this answer, then the end
    // Idle: closed now, or in `grace_ms` where it asks nothing till then; else after the answer.
    void drain(int64_t grace_ms);
    void check_deadline(int64_t now_ms);
    bool overdue(int64_t now_ms) const;
    void kill();
    const std::string& peer() const { return peer_; }
    bool excess() const { return excess_; }

    // For ResponseWriter.
    void reply(ResponseWriter& writer, Response response) override;
    void start(ResponseWriter& writer, int status,
               const std::vector<std::pair<std::string, std::string>>& headers) override;
    bool write(ResponseWriter& writer, std::string_view bytes) override;
    void finish(ResponseWriter& writer) override;
    void abort(ResponseWriter& writer) override;
    void abandoned(const ResponseWriter& writer) override;
    bool upgrade(ResponseWriter& writer,
                 const std::vector<std::pair<std::string, std::string>>& headers,
                 std::function<void(std::string_view)> on_bytes) override;
    size_t pending() const override { return out_.size() - out_at_; }
    void tell_closed(const Writer& writer);

  private:
    enum class State : uint8_t {
        handshake,
        idle,
        head,
        body,
        answering,
        upgraded,
        closing,
        lingering,
        dead
    };
    enum class Body : uint8_t { whole, chunked, until_close };

    void enter(State state, int64_t deadline_in_ms);
    bool wants_input() const;
    void arm_read();
    void arm_write();
    void on_readable();
    void on_writable();
    void read_some();
    void discard_input();
    void process();
    bool step();  // false: needs more input, or an answer
    bool take_head();
    bool take_body();
    void dispatch();
    void respond(const Response& response, bool head_only);
    void append_head(int status, const std::vector<std::pair<std::string, std::string>>& headers,
                     std::optional<size_t> length);
    void answered();
    void refuse(int status, const std::string& why, bool from_client = true);
    void peer_closed();
    void peer_gone();
    void flush();
    void flush_soon();
    void linger();
    void output_begins();
    bool backlogged() const;
    bool serving() const { return state_ == State::answering || state_ == State::upgraded; }
    void resume();

    Server::Core* core_;  // nullptr once dead
    boost::asio::posix::stream_descriptor socket_;
    std::unique_ptr<Stream> stream_;
    std::string peer_;
    std::string in_;
    std::string out_;
    std::unique_ptr<std::function<void(std::string_view)>> on_bytes_;  // upgraded
    size_t out_at_ = 0;
    Head head_;
    BodyReader body_;
    std::weak_ptr<ResponseWriter> writer_;
    int64_t deadline_ms_ = 0;    // 0: none
    int64_t written_at_ms_ = 0;  // when output last moved, or began to wait
    uint64_t requests_ = 0;
    size_t scanned_ = 0;  // of in_, for the end of a head
    State state_ = State::idle;
    Body body_form_ = Body::whole;
    bool tls_;
    bool keep_alive_ = true;
    bool read_armed_ = false;
    bool write_armed_ = false;
    bool read_closed_ = false;
    bool write_wants_read_ = false;  // TLS
    bool read_wants_write_ = false;  // TLS
    bool in_process_ = false;
    bool flush_posted_ = false;
    bool above_low_ = false;
    bool skipped_crlf_ = false;
    bool has_request_ = false;  // head_ holds a parsed request
    bool excess_ = false;
};

std::string_view reason_phrase(int status);
// Empties a buffer, and gives it back where it is large: what is idle holds nothing.
void release(std::string& buffer);

}  // namespace parley::http
