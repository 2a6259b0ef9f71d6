// TestServer: a server on a free port, its loop in a thread of its own.
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <thread>

#include "http/server.hpp"

namespace http = parley::http;

struct TestServer {
    http::Loop loop;
    std::unique_ptr<http::Server> server;
    std::map<std::string, http::Writer> held;  // by path; the loop's
    std::map<std::string, std::unique_ptr<http::Timer>> timers;
    std::atomic<int> gone{0};
    std::atomic<int> drained{0};
    std::atomic<uint64_t> written{0};
    std::atomic<int> refused_write{0};
    uint16_t port = 0;
    std::thread thread;

    explicit TestServer(http::Options options = {},
                        std::shared_ptr<http::TlsContext> tls = nullptr) {
        server = std::make_unique<http::Server>(
            loop, std::move(options), [](const http::Request& head) { return decide(head); },
            [this](http::Request request, http::Writer writer) {
                serve(std::move(request), std::move(writer));
            });
        auto listening = server->listen("127.0.0.1:0", std::move(tls));
        if (listening) port = *listening;
        thread = std::thread([this] { loop.run(); });
    }
    ~TestServer() {
        call([this] {
            held.clear();
            timers.clear();
            server.reset();
        });
        loop.stop();
        thread.join();
    }
    // Runs in the loop, and waits for it.
    template <class Work>
    void call(Work work) {
        std::promise<void> done;
        loop.post([&] {
            work();
            done.set_value();
        });
        done.get_future().wait();
    }
    http::ServerStats stats() {
        http::ServerStats out;
        call([&] { out = server->stats(); });
        return out;
    }
    template <class Test>
    bool eventually(Test test, int timeout_ms = 3000) {
        for (int waited = 0; waited < timeout_ms; waited += 5) {
            if (test()) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return test();
    }

    static http::HeadDecision decide(const http::Request& head) {
        http::HeadDecision out;
        out.body_bytes_max = head.path == "/small" ? 10 : 40 << 20;
        if (head.path == "/forbidden") out.response = http::Response::text(403, "no");
        return out;
    }
    void serve(http::Request request, http::Writer writer) {
        const std::string path = request.path;
        if (path == "/drop") return;  // lets go of the writer
        if (path == "/hold") {
            writer->on_close([this, path] {
                ++gone;
                held.erase(path);
            });
            held[path] = std::move(writer);
            return;
        }
        if (path == "/stream") return stream(std::move(writer));
        if (path == "/flood") return flood(std::move(writer));
        if (path == "/overflow") {
            writer->start(200, {});
            const std::string block(1 << 20, 'x');
            writer->on_close([this] { ++gone; });
            while (writer->write(block)) written += block.size();
            ++refused_write;
            return;
        }
        if (path == "/abort") {
            writer->start(200, {});
            writer->write("half");
            writer->abort();
            return;
        }
        if (path == "/split") {
            http::Response response = http::Response::text(200, "x");
            response.header("x-evil", "a\r\nset-cookie: b");
            writer->reply(std::move(response));
            return;
        }
        std::string body = request.method + " " + path;
        for (const auto& [key, value] : request.query) body += " " + key + "=" + value;
        if (path == "/segments") {
            body = "";
            for (const auto& segment : request.segments) body += "[" + segment + "]";
        }
        if (!request.body.empty()) body += " " + std::to_string(request.body.size());
        if (request.body.size() < 100) body += ":" + request.body;
        writer->reply(http::Response::text(200, body));
    }
    // Three pieces, 10 ms apart.
    void stream(http::Writer writer) {
        writer->start(200, {{"content-type", "text/event-stream"}});
        auto& timer = timers["stream"];
        timer = std::make_unique<http::Timer>(loop);
        auto left = std::make_shared<int>(3);
        timer->every(10, [this, writer, left] {
            writer->write("data: " + std::to_string(*left) + "\n\n");
            if (--*left > 0) return;
            writer->finish();
            timers["stream"]->cancel();
        });
    }
    // 8 MiB in pieces, never more ahead than the bound; the rest when the client has read.
    void flood(http::Writer writer) {
        writer->start(200, {});
        auto pump = std::make_shared<std::function<void()>>();
        *pump = [this, writer] {
            const std::string block(16 * 1024, 'x');
            while (written < 8u << 20 && writer->pending_bytes() < 64 * 1024) {
                if (!writer->write(block)) return;
                written += block.size();
            }
            if (written >= 8u << 20) {
                writer->finish();
                held.erase("/flood");
            }
        };
        held["/flood"] = writer;
        writer->on_drain([this, pump] {
            ++drained;
            (*pump)();
        });
        (*pump)();
    }
};
