// WebSocket: RFC 6455, the server's side: the handshake, frames in and frames out. No extensions.
//
// Strict   what the RFC lets a server refuse is refused: a client's frame that is not masked, reserved
//          bits, unknown opcodes, a length that is not in its shortest form, control frames that are cut
//          or longer than 125 bytes, fragments out of order, close codes that must not be sent (1002);
//          text that is not UTF-8 (1007); a binary message (1003).
// Bounds   a message, over all its fragments: the caller's (1009). Nothing is buffered but the message.
// Threads  values; nothing shared. Pure: knows no socket.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/types.hpp"

namespace parley::http {

// sec-websocket-accept for a request that asks for version 13 properly; else the answer that refuses it
// (400, or 426 with the version that we speak).
struct WsHandshake {
    std::string accept;
    std::optional<Response> refusal;
};
WsHandshake ws_handshake(const Request& request);

enum class WsKind : uint8_t { text, ping, pong, close };
struct WsEvent {
    WsKind kind = WsKind::text;
    std::string payload;  // of a close: the reason
    uint16_t code = 0;    // of a close; 1005: the frame had none
    bool operator==(const WsEvent&) const = default;
};

struct WsFailure {
    uint16_t code = 1002;
    std::string_view why;
};

// Takes the bytes of one client apart.
class WsReader {
  public:
    explicit WsReader(uint64_t message_bytes_max) : message_max_(message_bytes_max) {}
    // Appends what became whole. False: the connection is to be closed with failure(); after that, and
    // after a close frame, nothing more is read.
    bool feed(std::string_view bytes, std::vector<WsEvent>& out);
    const std::optional<WsFailure>& failure() const { return failure_; }
    size_t buffered() const { return message_.size() + control_.size(); }

  private:
    bool fail(uint16_t code, std::string_view why);
    bool begin_frame();
    bool end_frame(std::vector<WsEvent>& out);
    bool end_close(std::vector<WsEvent>& out);

    const uint64_t message_max_;
    std::string message_;  // of the message that is under way, over its fragments
    std::string control_;
    std::optional<WsFailure> failure_;
    uint64_t left_ = 0;  // payload of this frame that is still to come
    uint64_t at_ = 0;    // payload of this frame so far: where the mask stands
    uint8_t head_[14] = {};
    uint8_t head_size_ = 0;
    uint8_t mask_[4] = {};
    bool in_payload_ = false;
    bool in_message_ = false;  // a fragment has come that was not the last
    bool closed_ = false;
};

// Appends one whole frame of a server.
void ws_text(std::string& out, std::string_view text);
void ws_ping(std::string& out, std::string_view payload = {});
void ws_pong(std::string& out, std::string_view payload);
void ws_close(std::string& out, uint16_t code, std::string_view reason);
// Whether a peer may send this code (RFC 6455 §7.4).
bool ws_code_valid(uint16_t code);

}  // namespace parley::http
