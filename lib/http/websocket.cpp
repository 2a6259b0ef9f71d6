#include "http/websocket.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "base/text.hpp"

namespace parley::http {
namespace {

constexpr uint8_t kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10;
constexpr uint8_t kFinal = 0x80, kReserved = 0x70, kOpcode = 0x0F, kMasked = 0x80;
constexpr uint64_t kControlMax = 125;
constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

std::string base64(const unsigned char* bytes, size_t size) {
    std::string out(4 * ((size + 2) / 3) + 1, '\0');
    const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes,
                                  static_cast<int>(size));
    out.resize(static_cast<size_t>(n));
    return out;
}

// 16 bytes in base64: 22 digits, of which the last has no bits to spare, and "==".
bool is_key(std::string_view key) {
    if (key.size() != 24 || !key.ends_with("==")) return false;
    unsigned char raw[18];
    if (EVP_DecodeBlock(raw, reinterpret_cast<const unsigned char*>(key.data()), 24) != 18)
        return false;
    return base64(raw, 16) == key;
}

bool lists(std::string_view value, std::string_view token) {
    while (!value.empty()) {
        const size_t comma = value.find(',');
        std::string_view item = value.substr(0, comma);
        while (!item.empty() && (item.front() == ' ' || item.front() == '\t'))
            item.remove_prefix(1);
        while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) item.remove_suffix(1);
        if (equal_ignoring_case(item, token)) return true;
        if (comma == std::string_view::npos) return false;
        value.remove_prefix(comma + 1);
    }
    return false;
}

void append_frame(std::string& out, uint8_t opcode, std::string_view payload) {
    out += static_cast<char>(kFinal | opcode);
    const size_t size = payload.size();
    if (size <= kControlMax) {
        out += static_cast<char>(size);
    } else if (size <= 0xFFFF) {
        out += static_cast<char>(126);
        out += static_cast<char>(size >> 8);
        out += static_cast<char>(size & 0xFF);
    } else {
        out += static_cast<char>(127);
        for (int shift = 56; shift >= 0; shift -= 8)
            out += static_cast<char>((static_cast<uint64_t>(size) >> shift) & 0xFF);
    }
    out += payload;
}

}  // namespace

WsHandshake ws_handshake(const Request& request) {
    const auto refuse = [](int status, std::string why) {
        WsHandshake out;
        out.refusal = Response::text(status, std::move(why));
        if (status == 426) out.refusal->header("upgrade", "websocket");
        out.refusal->header("sec-websocket-version", "13");
        return out;
    };
    const Headers& headers = request.headers;
    if (request.method != "GET") return refuse(400, "a WebSocket begins with GET");
    if (!lists(headers.joined("upgrade"), "websocket") ||
        !lists(headers.joined("connection"), "upgrade"))
        return refuse(426, "this path speaks WebSocket: send Upgrade: websocket");
    if (headers.count("sec-websocket-version") != 1 || headers.get("sec-websocket-version") != "13")
        return refuse(426, "sec-websocket-version: 13 is spoken here");
    const std::string_view key = headers.get("sec-websocket-key");
    if (headers.count("sec-websocket-key") != 1 || !is_key(key))
        return refuse(400, "sec-websocket-key: Input should be 16 bytes in base64");
    const std::string text = std::string(key) + std::string(kGuid);
    unsigned char digest[SHA_DIGEST_LENGTH];
    unsigned size = 0;
    if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha1(), nullptr) != 1)
        return refuse(400, "SHA-1 is not offered by this OpenSSL");
    WsHandshake out;
    out.accept = base64(digest, size);
    return out;
}

bool ws_code_valid(uint16_t code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

bool WsReader::fail(uint16_t code, std::string_view why) {
    failure_ = WsFailure{code, why};
    std::string().swap(message_);
    std::string().swap(control_);
    return false;
}

// The head is there as far as its second byte or further. True: go on.
bool WsReader::begin_frame() {
    const uint8_t opcode = head_[0] & kOpcode;
    const bool final = (head_[0] & kFinal) != 0;
    const uint8_t size7 = head_[1] & 0x7F;
    if (head_size_ == 2) {
        if (head_[0] & kReserved) return fail(1002, "reserved bits are set");
        if (!(head_[1] & kMasked)) return fail(1002, "the frame is not masked");
        if (opcode >= kClose) {
            if (opcode > kPong) return fail(1002, "unknown opcode");
            if (!final) return fail(1002, "a control frame is cut");
            if (size7 > kControlMax) return fail(1002, "a control frame is too long");
        } else if (opcode > kBinary) {
            return fail(1002, "unknown opcode");
        } else if (opcode == kContinuation ? !in_message_ : in_message_) {
            return fail(1002, "fragments are out of order");
        } else if (opcode == kBinary) {
            return fail(1003, "messages are text");
        }
    }
    const uint8_t extended = size7 == 126 ? 2 : size7 == 127 ? 8 : 0;
    if (head_size_ < 2 + extended + 4) return true;
    uint64_t size = size7;
    if (extended > 0) {
        size = 0;
        for (uint8_t i = 0; i < extended; ++i) size = size << 8 | head_[2 + i];
        if (size >> 63) return fail(1002, "a length has its first bit set");
        if (size < (extended == 2 ? 126u : 65536u))
            return fail(1002, "a length is not the shortest");
    }
    if (opcode < kClose && size > message_max_ - message_.size())
        return fail(1009, "the message is too large");
    std::copy(head_ + 2 + extended, head_ + 2 + extended + 4, mask_);
    left_ = size;
    at_ = 0;
    in_payload_ = true;
    return true;
}

bool WsReader::end_close(std::vector<WsEvent>& out) {
    WsEvent event;
    event.kind = WsKind::close;
    event.code = 1005;
    if (control_.size() == 1) return fail(1002, "a close code is cut");
    if (control_.size() >= 2) {
        event.code = static_cast<uint16_t>(static_cast<uint8_t>(control_[0]) << 8 |
                                           static_cast<uint8_t>(control_[1]));
        if (!ws_code_valid(event.code)) return fail(1002, "this close code must not be sent");
        event.payload = control_.substr(2);
        if (!base::utf8_valid(event.payload)) return fail(1007, "the reason is not UTF-8");
    }
    closed_ = true;
    out.push_back(std::move(event));
    return true;
}

bool WsReader::end_frame(std::vector<WsEvent>& out) {
    const uint8_t opcode = head_[0] & kOpcode;
    const bool final = (head_[0] & kFinal) != 0;
    head_size_ = 0;
    in_payload_ = false;
    if (opcode >= kClose) {
        if (opcode == kClose) {
            if (!end_close(out)) return false;
        } else {
            out.push_back({opcode == kPing ? WsKind::ping : WsKind::pong, std::move(control_), 0});
        }
        control_.clear();
        return true;
    }
    in_message_ = !final;
    if (!final) return true;
    if (!base::utf8_valid(message_)) return fail(1007, "the text is not UTF-8");
    out.push_back({WsKind::text, std::exchange(message_, std::string()), 0});
    return true;
}

bool WsReader::feed(std::string_view bytes, std::vector<WsEvent>& out) {
    while (!failure_ && !closed_) {
        if (in_payload_) {
            std::string& into = (head_[0] & kOpcode) >= kClose ? control_ : message_;
            const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
            const size_t from = into.size();
            into.append(bytes.substr(0, take));
            for (size_t i = 0; i < take; ++i)
                into[from + i] =
                    static_cast<char>(static_cast<uint8_t>(into[from + i]) ^ mask_[(at_ + i) & 3]);
            at_ += take;
            left_ -= take;
            bytes.remove_prefix(take);
            if (left_ > 0) return true;
            if (!end_frame(out)) return false;
            continue;
        }
        if (bytes.empty()) return true;
        head_[head_size_++] = static_cast<uint8_t>(bytes.front());
        bytes.remove_prefix(1);
        if (head_size_ >= 2 && !begin_frame()) return false;
    }
    return !failure_;
}

void ws_text(std::string& out, std::string_view text) { append_frame(out, kText, text); }
void ws_ping(std::string& out, std::string_view payload) {
    append_frame(out, kPing, payload.substr(0, kControlMax));
}
void ws_pong(std::string& out, std::string_view payload) {
    append_frame(out, kPong, payload.substr(0, kControlMax));
}
void ws_close(std::string& out, uint16_t code, std::string_view reason) {
    std::string payload{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)};
    const std::string_view fits = reason.substr(0, kControlMax - 2);
    payload += fits.substr(0, base::utf8_complete_prefix(fits));
    append_frame(out, kClose, payload);
}

}  // namespace parley::http
