// Link: one ZeroMQ socket with the peers on it, their HELLO, their heartbeat and their end.
//
// Shapes   a link that binds (ROUTER) serves many peers; a link that connects (DEALER) has at most
// one
//          and finds it again by itself after a loss (50 ms … 1 s, with jitter).
// Peers    a handle is a number that is never used twice. on_up comes once per peer, after both
//          HELLOs; then messages; then on_down, exactly once. Nothing comes after on_down.
// Order    messages of one peer arrive as sent. CANCEL overtakes ASKs that wait in our own outbox.
// Errors   open(): Errc::config (tcp beyond loopback without CURVE, ipc folder open to others, path
//          over 107 bytes), Errc::conflict (the endpoint is held by a live process), Errc::io.
//          send(): Errc::unavailable when the peer is gone; never drops in silence.
// Bounds   LinkOptions; reached: see man/parley-protocol.7.
// Threads  one: the one that calls step(). Handlers run inside step() and may call send().
// Loops    call step() when fd() is readable, after any send() outside of step() (wake tells), and
// at
//          least every kTickMs. pipe::Loop does all of it for poll loops.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "pipe/context.hpp"
#include "pipe/message.hpp"

namespace parley::pipe {

using Peer = uint32_t;  // 0 is no peer

inline constexpr int kTickMs = 25;

struct LinkOptions {
    std::string endpoint;  // ipc:///path, tcp://127.0.0.1:port, inproc://name
    bool bind = false;
    HelloMeta hello;  // role and name must be set; boot is filled in when empty
    int64_t peer_timeout_ms = 1000;
    int64_t status_interval_ms = 100;
    uint64_t message_bytes_max = 80ull << 20;
    uint64_t outbox_bytes_max = 64ull << 20;  // per peer
    uint32_t outbox_messages_max = 65'536;    // per peer
    uint32_t peers_max = 1024;
    uint32_t hwm = 8192;  // messages inside ZeroMQ, each way
    CurveOptions curve;   // empty: none
    const base::Clock* clock = &base::system_clock();
};

class LinkHandler {
  public:
    virtual ~LinkHandler() = default;
    virtual void on_up(Peer peer, const HelloMeta& hello) = 0;
    // Another HELLO of a peer that is up (news, or a tokenizer file in `body`).
    virtual void on_hello(Peer, const HelloMeta&, std::string /*body*/) {}
    // Everything but HELLO: ASK … FOLLOW, STATUS and BYE too.
    virtual void on_message(Peer peer, Message message) = 0;
    virtual void on_down(Peer peer, const std::string& why) = 0;
};

struct LinkCounters {
    uint64_t received = 0, sent = 0, malformed = 0, refused = 0, peers_lost = 0;
};

class Link {
  public:
    static base::Result<std::unique_ptr<Link>> open(Context& context, LinkOptions options,
                                                    LinkHandler& handler);
    ~Link();  // waits up to 500 ms for what is still to be sent

    int fd() const;
    // Receives and dispatches up to `most` messages, sends what waits, keeps the time. True: there
    // is more to receive, call again soon.
    bool step(uint32_t most = 64);
    // True when step() has something to receive. Ask right before waiting on fd(): sends made since
    // the last step() may have consumed the descriptor's edge.
    bool readable() const;
    // Called (at most once until the next step()) when something outside of step() wants a step().
    void set_wake(std::function<void()> wake);

    base::Result<void> send(Peer peer, const Message& message);
    // STATUS to every peer each status_interval_ms, from step(): the provider is asked each time.
    void set_status(std::function<StatusMeta()> provider);
    // Changes what later HELLOs say, and says it to all peers that are up.
    void say_hello(const HelloMeta& hello);
    void say_hello(Peer peer, const HelloMeta& hello, std::string body = {});
    void drop(Peer peer, const ByeMeta& bye);  // says BYE, then on_down

    std::vector<Peer> peers() const;  // that are up
    bool up() const;                  // any peer up
    const HelloMeta* hello_of(Peer peer) const;
    const HelloMeta& self() const;
    uint64_t outbox_bytes(Peer peer) const;
    const LinkCounters& counters() const;
    std::string endpoint() const;  // the bound one: with the port that tcp://…:* got

  private:
    struct Impl;
    explicit Link(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::pipe
