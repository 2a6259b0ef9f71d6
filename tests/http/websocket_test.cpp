#include "http/websocket.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace parley::http;

namespace {

constexpr uint64_t kMax = 1000;

// A client's frame; `size_form`: 0 shortest, else 126 or 127.
std::string frame(int first, const std::string& payload, bool masked = true, int size_form = 0) {
    std::string out(1, static_cast<char>(first));
    const char bit = static_cast<char>(masked ? 0x80 : 0);
    if (size_form == 0) size_form = payload.size() < 126 ? 0 : payload.size() < 65536 ? 126 : 127;
    if (size_form == 0) {
        out += static_cast<char>(bit | static_cast<char>(payload.size()));
    } else {
        out += static_cast<char>(bit | static_cast<char>(size_form));
        for (int i = size_form == 126 ? 1 : 7; i >= 0; --i)
            out += static_cast<char>(static_cast<uint64_t>(payload.size()) >> (8 * i));
    }
    if (!masked) return out + payload;
    const std::string mask = "\x12\x34\x56\x78";
    out += mask;
    for (size_t i = 0; i < payload.size(); ++i) out += static_cast<char>(payload[i] ^ mask[i % 4]);
    return out;
}

struct Read {
    std::vector<WsEvent> events;
    int code = 0;  // of the failure
};
Read read(const std::string& bytes, size_t piece = SIZE_MAX, uint64_t max = kMax) {
    WsReader reader(max);
    Read out;
    for (size_t at = 0; at < bytes.size(); at += std::min(piece, bytes.size() - at))
        if (!reader.feed(std::string_view(bytes).substr(at, piece), out.events)) break;
    if (reader.failure()) out.code = reader.failure()->code;
    return out;
}
int code_of(const std::string& bytes) { return read(bytes).code; }
std::string close_payload(int code, const std::string& reason = "") {
    return std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)} + reason;
}

Request request(std::vector<std::pair<std::string, std::string>> headers) {
    Request out;
    out.method = "GET";
    for (const auto& [name, value] : headers) out.headers.add(name, value);
    return out;
}
const std::vector<std::pair<std::string, std::string>> kGood = {
    {"upgrade", "WebSocket"},
    {"connection", "keep-alive, Upgrade"},
    {"sec-websocket-version", "13"},
    {"sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="}};

}  // namespace

TEST_CASE("the handshake of the RFC's example is answered with its digest", "[websocket]") {
    const auto done = ws_handshake(request(kGood));
    REQUIRE_FALSE(done.refusal);
    CHECK(done.accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST_CASE("a handshake that lacks or doubles something is refused", "[websocket]") {
    const auto with = [](size_t at, const char* value) {
        auto headers = kGood;
        if (value)
            headers[at].second = value;
        else
            headers.erase(headers.begin() + static_cast<long>(at));
        const auto done = ws_handshake(request(headers));
        return done.refusal ? done.refusal->status : 101;
    };
    CHECK(with(0, nullptr) == 426);
    CHECK(with(0, "h2c") == 426);
    CHECK(with(1, "keep-alive") == 426);
    CHECK(with(1, "xupgrade") == 426);
    CHECK(with(2, "8") == 426);
    CHECK(with(2, nullptr) == 426);
    CHECK(with(3, nullptr) == 400);
    CHECK(with(3, "dGhlIHNhbXBsZSBub25jZQ=") == 400);
    CHECK(with(3, "dGhlIHNhbXBsZSBub25jZR==") == 400);  // bits to spare
    CHECK(with(3, "dGhlIHNhbXBsZSBub25j!Q==") == 400);
    auto twice = kGood;
    twice.push_back(kGood[3]);
    CHECK(ws_handshake(request(twice)).refusal->status == 400);
    Request post = request(kGood);
    post.method = "POST";
    CHECK(ws_handshake(post).refusal->status == 400);
}

TEST_CASE("messages come whole, whatever the pieces and fragments", "[websocket]") {
    const std::string big(kMax, 'x');
    const std::string bytes = frame(0x81, "a") + frame(0x01, "h\xC3") +
                              frame(0x89, "still there?") + frame(0x00, "") + frame(0x80, "\xA9!") +
                              frame(0x8A, "") + frame(0x81, big) + frame(0x81, "") +
                              frame(0x88, close_payload(1000, "bye")) + "rest is not read";
    const std::vector<WsEvent> expected = {
        {WsKind::text, "a", 0},          {WsKind::ping, "still there?", 0},
        {WsKind::text, "h\xC3\xA9!", 0}, {WsKind::pong, "", 0},
        {WsKind::text, big, 0},          {WsKind::text, "", 0},
        {WsKind::close, "bye", 1000}};
    for (const size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{64}, SIZE_MAX}) {
        const Read got = read(bytes, piece);
        CHECK(got.code == 0);
        CHECK(got.events == expected);
    }
}

TEST_CASE("what the RFC forbids closes the connection with its code", "[websocket]") {
    CHECK(code_of(frame(0x81, "a", false)) == 1002);  // not masked
    for (const int reserved : {0xC1, 0xA1, 0x91}) CHECK(code_of(frame(reserved, "a")) == 1002);
    for (const int opcode : {0x83, 0x87, 0x8B, 0x8F}) CHECK(code_of(frame(opcode, "")) == 1002);
    CHECK(code_of(frame(0x82, "a")) == 1003);
    CHECK(code_of(frame(0x80, "a")) == 1002);                     // continues nothing
    CHECK(code_of(frame(0x01, "a") + frame(0x81, "b")) == 1002);  // begins within
    CHECK(code_of(frame(0x09, "a")) == 1002);                     // a control frame in pieces
    CHECK(code_of(frame(0x89, std::string(126, 'a'))) == 1002);
    CHECK(code_of(frame(0x81, "a", true, 126)) == 1002);  // not the shortest length
    CHECK(code_of(frame(0x81, std::string(200, 'a'), true, 127)) == 1002);
    CHECK(code_of(std::string("\x81\xFF\x80\0\0\0\0\0\0\0mask", 14)) == 1002);
    CHECK(code_of(frame(0x81, "\xFF")) == 1007);
    CHECK(code_of(frame(0x81, "\xC3")) == 1007);
    CHECK(code_of(frame(0x81, "\xED\xA0\x80")) == 1007);
    CHECK(code_of(frame(0x88, "x")) == 1002);
    CHECK(code_of(frame(0x88, close_payload(1000, "\xFF"))) == 1007);
    for (const int code : {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535})
        CHECK(code_of(frame(0x88, close_payload(code))) == 1002);
    for (const int code : {1000, 1001, 1011, 1014, 3000, 4999})
        CHECK(code_of(frame(0x88, close_payload(code))) == 0);
    CHECK(read(frame(0x88, "")).events.at(0).code == 1005);
}

TEST_CASE("a message is bounded over its fragments, before its bytes are taken", "[websocket]") {
    CHECK(code_of(frame(0x81, std::string(kMax + 1, 'x'))) == 1009);
    std::string pieces = frame(0x01, std::string(600, 'x'));
    CHECK(code_of(pieces + frame(0x80, std::string(400, 'x'))) == 0);
    CHECK(code_of(pieces + frame(0x80, std::string(401, 'x'))) == 1009);
    // What is only claimed: 2^62 bytes.
    WsReader reader(kMax);
    std::vector<WsEvent> events;
    CHECK_FALSE(reader.feed(std::string("\x81\xFF\x40\0\0\0\0\0\0\0mask", 14), events));
    CHECK(reader.failure()->code == 1009);
    CHECK(reader.buffered() == 0);
    CHECK_FALSE(reader.feed(frame(0x81, "a"), events));  // nothing after a failure
    CHECK(events.empty());
}

TEST_CASE("a server's frames have the shortest length and no mask", "[websocket]") {
    for (const size_t size : {0, 125, 126, 65535, 65536}) {
        std::string out;
        ws_text(out, std::string(size, 'x'));
        const size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10;
        CHECK(out.size() == head + size);
        CHECK(static_cast<uint8_t>(out[0]) == 0x81);
        CHECK((static_cast<uint8_t>(out[1]) & 0x80) == 0);
    }
    std::string out;
    ws_close(out, 1009, std::string(122, 'a') + "\xC3\xA9");  // the reason is cut on a character
    CHECK(out.size() == 2 + 2 + 122);
    CHECK(static_cast<uint8_t>(out[0]) == 0x88);
}

TEST_CASE("random bytes never crash, and buffer no more than a message", "[websocket]") {
    std::mt19937 random(7);
    for (int round = 0; round < 3000; ++round) {
        std::string bytes = frame(0x01, "abc");
        for (int i = 0; i < 60; ++i) bytes += static_cast<char>(random());
        WsReader reader(64);
        std::vector<WsEvent> events;
        reader.feed(bytes, events);
        CHECK(reader.buffered() <= 64 + 125);
    }
}
