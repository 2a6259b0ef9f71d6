// Transport: how a request reaches a stage and its events come back; HTTP, or parley/1 on ZeroMQ.
//
// Slots    0 … slots-1, one request at a time on each. start() on a slot is followed by events and
//          then exactly one done(), also after cancel(); never from inside start() or cancel().
// Threads  one, that of the Loop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "load/loop.hpp"
#include "load/meter.hpp"

namespace parley::load {

struct Outcome {
    // Empty: fine. Else what went wrong: a word of ours (connect_refused, connect_timeout,
    // connect_failed, no_descriptor, read_timeout, request_timeout, reset, closed_early, bad_http,
    // not_sse, too_large, peer_gone, cancelled) or an error type of the Messages API.
    std::string error = {};
    std::string detail = {};
    int http_status = 0;   // 0: none came
    bool reached = false;  // something answered: the target is there
};

class TransportSink {
  public:
    virtual ~TransportSink() = default;
    // One event of the slot's answer. complete or failed: no further one is wanted.
    virtual Verdict on_event(uint32_t slot, std::string_view json, int64_t stamp_ns,
                             int64_t now_ns) = 0;
    virtual void on_done(uint32_t slot, const Outcome& outcome) = 0;
};

class Transport {
  public:
    virtual ~Transport() = default;
    // Whether the target can be reached at all; waits for at most its connect timeout.
    virtual base::Result<void> probe() = 0;
    // `body` must live until done().
    virtual void start(uint32_t slot, const std::string& body) = 0;
    virtual void cancel(uint32_t slot) = 0;
    // After every Loop::wait(), at least every 25 ms: delivers done() for all that ended, and keeps the
    // deadlines.
    virtual void tick(int64_t now_ns) = 0;
    // Something is left to do that no descriptor tells of: tick() again without waiting.
    virtual bool busy() const { return false; }
    virtual uint64_t reconnects() const {
        return 0;
    }  // requests sent again after a stale keep-alive
};

struct HttpOptions {
    std::string url = {};      // http://HOST:PORT[/base]
    std::string api_key = {};  // empty: none is sent
    int64_t ttft_deadline_ms = 0;  // sent as x-slo-ttft-ms; 0: none is
    bool timestamps = false;   // ask chatd for the worker's time stamps (comment lines)
    uint32_t slots = 1;
    int64_t connect_timeout_ms = 5000;
    int64_t read_timeout_ms = 60'000;      // no byte for so long
    int64_t request_timeout_ms = 600'000;  // the whole of it
    uint64_t event_bytes_max = 1 << 20;
};
// Errc::usage for a URL that is malformed, https, or a key that cannot stand in a header;
// Errc::unavailable when the host has no address.
base::Result<std::unique_ptr<Transport>> make_http_transport(Loop& loop, HttpOptions options,
                                                             TransportSink& sink);

struct PipeOptions {
    std::string endpoint = {};  // ipc://…, tcp://…
    std::string org = "loadgen";
    std::string cls = "streaming";  // interactive, streaming, batch
    uint32_t slots = 1;
    int64_t connect_timeout_ms = 5000;
    int64_t read_timeout_ms = 60'000;
    int64_t request_timeout_ms = 600'000;
};
base::Result<std::unique_ptr<Transport>> make_pipe_transport(Loop& loop, PipeOptions options,
                                                             TransportSink& sink);

}  // namespace parley::load
