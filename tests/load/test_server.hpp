// A small HTTP server for tests of the load generator: one thread a connection, behaviour by script.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace parley::test {

class TestServer {
  public:
    struct Exchange {
        int fd;
        int request;  // 0, 1, … on this connection
        std::string head, body;
        const std::atomic<bool>& stopping;

        bool write(const std::string& bytes) const {
            size_t done = 0;
            while (done < bytes.size()) {
                const ssize_t n =
                    ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
                if (n <= 0) return false;
                done += static_cast<size_t>(n);
            }
            return true;
        }
        bool chunk(const std::string& bytes) const {
            return write(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes));
        }
        // Until the server is stopped or the client goes.
        void hang() const {
            char byte = 0;
            while (!stopping && ::recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0)
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    };
    // True: read the next request on this connection. False: close it.
    using Script = std::function<bool(const Exchange&)>;

    explicit TestServer(Script script) : script_(std::move(script)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof at;
        ::bind(listener_, reinterpret_cast<sockaddr*>(&at), size);
        ::listen(listener_, 512);
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
        port_ = ntohs(at.sin_port);
        acceptor_ = std::thread([this] { accept_all(); });
    }
    ~TestServer() { stop(); }

    void stop() {
        if (stopping_.exchange(true)) return;
        ::shutdown(listener_, SHUT_RDWR);
        acceptor_.join();
        ::close(listener_);
        {
            const std::lock_guard lock(mutex_);
            for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
        }
        for (auto& thread : threads_) thread.join();
    }
    std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
    int requests() const { return requests_; }
    int connections() const { return connections_; }

  private:
    void accept_all() {
        while (!stopping_) {
            const int fd = ::accept(listener_, nullptr, nullptr);
            if (fd < 0) return;
            const int on = 1;  // or Nagle and delayed acknowledgement hold a delta for 40 ms
            ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            const std::lock_guard lock(mutex_);
            open_.push_back(fd);
            threads_.emplace_back([this, fd] { serve(fd); });
        }
    }
    void serve(int fd) {
        std::string in;
        char buffer[8192];
        for (int request = 0;; ++request) {
            size_t end = 0;
            size_t want = std::string::npos;
            while (want == std::string::npos || in.size() < want) {
                if ((end = in.find("\r\n\r\n")) != std::string::npos) {
                    const size_t at = in.find("Content-Length: ");
                    want = end + 4 + std::stoul(in.substr(at + 16));
                    if (in.size() >= want) break;
                }
                const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
                if (n <= 0) return forget(fd);
                if (request == 0 && in.empty()) ++connections_;
                in.append(buffer, static_cast<size_t>(n));
            }
            ++requests_;
            const Exchange exchange{fd, request, in.substr(0, end),
                                    in.substr(end + 4, want - end - 4), stopping_};
            in.erase(0, want);
            if (!script_(exchange)) return forget(fd);
        }
    }
    void forget(int fd) {
        const std::lock_guard lock(mutex_);
        std::erase(open_, fd);
        ::close(fd);
    }

    Script script_;
    int listener_ = -1;
    uint16_t port_ = 0;
    std::atomic<bool> stopping_{false};
    std::atomic<int> requests_{0};
    std::atomic<int> connections_{0};
    std::mutex mutex_;
    std::vector<int> open_;
    std::vector<std::thread> threads_;
    std::thread acceptor_;
};

inline const char* kSseHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: "
    "chunked\r\n\r\n";
inline const char* kMessageStart =
    "event: message_start\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,"
    "\"output_tokens\":1}}}\n\n";
inline const char* kDelta =
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
    "{\"type\":\"text_delta\",\"text\":\"ab\"}}\n\n";
inline std::string message_end(int tokens) {
    return fmt::format(
        "event: message_delta\ndata: "
        "{{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},"
        "\"usage\":{{\"output_tokens\":{}}}}}\n\nevent: message_stop\ndata: "
        "{{\"type\":\"message_stop\"}}\n\n",
        tokens);
}

// A whole answer: `tokens` deltas, the first after `first_ms`, then one each `gap_ms`.
inline bool answer(const TestServer::Exchange& x, int tokens, int first_ms = 0, int gap_ms = 0) {
    if (!x.write(kSseHead) || !x.chunk(kMessageStart)) return false;
    for (int i = 0; i < tokens; ++i) {
        const int wait = i == 0 ? first_ms : gap_ms;
        if (wait) std::this_thread::sleep_for(std::chrono::milliseconds(wait));
        if (!x.chunk(kDelta)) return false;
    }
    return x.chunk(message_end(tokens)) && x.write("0\r\n\r\n");
}

}  // namespace parley::test
