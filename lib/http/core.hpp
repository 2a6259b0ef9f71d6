// Core: what the connections of one server share. Internal to lib/http.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "http/server.hpp"

namespace parley::http {

struct Listener {
    int fd = -1;
    bool unix_socket = false;
    std::shared_ptr<TlsContext> tls;
    std::unique_ptr<FdWatch> watch;  // absent while accepting is paused
};

struct Server::Core : std::enable_shared_from_this<Server::Core> {
    Core(Loop& loop, Options options, OnHead on_head, OnRequest on_request);
    ~Core();

    base::Result<uint16_t> add_listener(int fd, std::shared_ptr<TlsContext> tls);
    void watch(Listener& listener);
    void accept_from(Listener& listener);
    void admit(int fd, const std::string& peer, const Listener& listener);
    void refuse_connection(int fd, const Listener& listener);
    void close_listeners();
    void tick();
    void drain(std::function<void()> callback, int64_t grace_ms);
    void close_all();
    void forget(Connection& connection);
    Response error_response(int status, std::string_view why, const Request* request) const;
    const std::string& date();  // of this second, as HTTP writes it
    static int64_t now_ms();

    Loop& loop;
    const Options options;
    const OnHead on_head;
    const OnRequest on_request;
    ServerStats stats;
    bool draining = false;
    std::function<void()> on_empty;
    std::vector<std::unique_ptr<Listener>> listeners;
    std::unordered_map<Connection*, std::shared_ptr<Connection>> connections;
    std::unordered_map<std::string, uint32_t> per_address;
    uint32_t excess = 0;  // refused connections that still linger
    std::unique_ptr<Timer> timer;
    std::vector<char> scratch;  // one read buffer for all: an idle connection holds none
    std::string date_text;
    int64_t date_second = 0;
};

}  // namespace parley::http
