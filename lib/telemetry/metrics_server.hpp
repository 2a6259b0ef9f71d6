// MetricsServer: GET /metrics and GET /healthz on a small HTTP address of its own.
//
// A page of plain sockets in one thread, apart from the tool's own loop: a tool that is stuck can
// still be looked at, and a slow scraper cannot slow the tool.
//
// Address  "127.0.0.1:9101", "[::1]:0", "localhost:0"; port 0 takes a free one, address() tells
// which.
//          Anything but loopback is refused unless remote_allowed: there is no key and no TLS here.
// Threads  one, started by start(), joined by the destructor (at most a few ms). All signals are
//          blocked in it. `healthy` is called on it.
// Owns     its sockets. The Registry must outlive it.
// Bounds   connections_max at once (more are closed at once), request_bytes_max, one deadline for a
//          whole exchange. One request per connection.
// Errors   start(): Errc::config for an address that is malformed or not loopback,
// Errc::unavailable
//          when it cannot be bound.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "telemetry/registry.hpp"

namespace parley::telemetry {

struct MetricsServerOptions {
    std::string address;  // the value of --metrics; empty: start() gives a null pointer
    bool remote_allowed = false;
    uint32_t connections_max = 16;
    uint32_t request_bytes_max = 8192;
    int64_t deadline_ms = 5000;
    // An error makes /healthz answer 503 with its text. Unset: always 200.
    std::function<base::Result<void>()> healthy = {};
};

class MetricsServer {
  public:
    static base::Result<std::unique_ptr<MetricsServer>> start(MetricsServerOptions options,
                                                              const Registry& registry);
    ~MetricsServer();
    MetricsServer(const MetricsServer&) = delete;
    MetricsServer& operator=(const MetricsServer&) = delete;

    const std::string& address() const;  // "127.0.0.1:41234", with the real port

  private:
    struct Impl;
    explicit MetricsServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::telemetry
