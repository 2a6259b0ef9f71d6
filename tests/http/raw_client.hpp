// RawClient: a blocking socket that sends exactly the bytes a test wants.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>

namespace raw {

inline int64_t now_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

struct Answer {
    int status = 0;
    std::string head;
    std::string body;
    bool complete = false;
    bool has(const std::string& line) const { return head.find(line) != std::string::npos; }
};

class RawClient {
  public:
    explicit RawClient(uint16_t port, int receive_bytes = 0)
        : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        if (receive_bytes)
            ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    }
    ~RawClient() { close(); }
    bool connected() const { return connected_; }
    int fd() const { return fd_; }
    void close() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }
    void half_close() { ::shutdown(fd_, SHUT_WR); }
    bool send(const std::string& bytes) {
        size_t at = 0;
        while (at < bytes.size()) {
            const ssize_t n = ::send(fd_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
            if (n <= 0) return false;
            at += static_cast<size_t>(n);
        }
        return true;
    }
    // What arrives until `done(buffer)`, the end, or the time is up. The buffer keeps the rest.
    template <class Done>
    bool read_until(Done done, int timeout_ms = 3000) {
        const int64_t until = now_ms() + timeout_ms;
        while (!done(buffer)) {
            pollfd p{fd_, POLLIN, 0};
            const int64_t left = until - now_ms();
            if (left <= 0 || ::poll(&p, 1, static_cast<int>(left)) <= 0) return false;
            char bytes[65536];
            const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
            if (n == 0) ended = true;
            if (n < 0) reset = ended = true;
            if (n <= 0) return done(buffer);
            buffer.append(bytes, static_cast<size_t>(n));
        }
        return true;
    }
    bool read_to_end(int timeout_ms = 3000) {
        read_until([](const std::string&) { return false; }, timeout_ms);
        return ended && !reset;
    }
    // One answer with its body, by content-length, chunks, or the end.
    Answer answer(bool head_only = false, int timeout_ms = 3000) {
        Answer out;
        if (!read_until(
                [](const std::string& b) { return b.find("\r\n\r\n") != std::string::npos; },
                timeout_ms))
            return out;
        const size_t end = buffer.find("\r\n\r\n") + 4;
        out.head = buffer.substr(0, end);
        buffer.erase(0, end);
        out.status = std::stoi(out.head.substr(9, 3));
        if (head_only || out.status == 100 || out.status == 204) {
            out.complete = true;
            return out;
        }
        const size_t length = out.head.find("content-length: ");
        if (length != std::string::npos) {
            const size_t bytes = std::stoul(out.head.substr(length + 16));
            out.complete =
                read_until([&](const std::string& b) { return b.size() >= bytes; }, timeout_ms);
            out.body = buffer.substr(0, bytes);
            buffer.erase(0, out.body.size());
        } else if (out.has("transfer-encoding: chunked")) {
            while (true) {
                if (!read_until(
                        [](const std::string& b) { return b.find("\r\n") != std::string::npos; },
                        timeout_ms))
                    return out;
                const size_t line = buffer.find("\r\n");
                const size_t bytes = std::stoul(buffer.substr(0, line), nullptr, 16);
                if (!read_until([&](const std::string& b) { return b.size() >= line + 4 + bytes; },
                                timeout_ms))
                    return out;
                out.body += buffer.substr(line + 2, bytes);
                buffer.erase(0, line + 4 + bytes);
                if (bytes == 0) break;
            }
            out.complete = true;
        } else {
            out.complete = read_to_end(timeout_ms);
            out.body = std::move(buffer);
            buffer.clear();
        }
        return out;
    }

    std::string buffer;
    bool ended = false;
    bool reset = false;

  private:
    int fd_;
    bool connected_ = false;
};

}  // namespace raw
