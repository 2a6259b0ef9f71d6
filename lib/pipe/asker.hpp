// Asker: our requests on one link, each ending exactly once.
//
// Promise  every ask() that returned a value is followed by events with dense seq and then exactly
// one
//          on_end, whatever becomes of the peer: where it is gone, late, or breaks a rule, the END
//          is made here (status api_error, retryable, reason peer_gone | gap | malformed |
//          replaced).
// Order    after cancel() events may still come until the END; after on_end nothing.
// Attempts ask() with a higher attempt of a live id ends the lower one here (cancelled, replaced),
// and
//          drops its events. The same or a lower attempt is Errc::conflict.
// Credit   the envelope's credit is the first grant; call grant() as events are used up.
// Errors   ask(): Errc::unavailable when no peer is up, Errc::again over requests_max,
//          Errc::conflict as above.
// Threads  the link's. Handlers run inside Link::step(), or inside ask() for a replaced attempt.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "pipe/link.hpp"

namespace parley::pipe {

class AskerHandler {
  public:
    virtual ~AskerHandler() = default;
    virtual void on_event(const std::string& id, const EventMeta& meta, std::string body) = 0;
    virtual void on_end(const std::string& id, const EndMeta& meta) = 0;
    // The link's own news, for those who choose among peers.
    virtual void on_peer_up(Peer, const HelloMeta&) {}
    virtual void on_peer_hello(Peer, const HelloMeta&, std::string /*body*/) {}
    virtual void on_peer_down(Peer, const std::string& /*why*/) {}
    virtual void on_peer_status(Peer, const StatusMeta&) {}
    virtual void on_peer_bye(Peer, const ByeMeta&) {}
};

struct AskerOptions {
    LinkOptions link;  // hello.role is set to asker
    uint32_t requests_max = 65'536;
    int64_t cancel_timeout_ms = 2000;  // a cancelled request without END by then is ended here
};

class Asker final : private LinkHandler {
  public:
    static base::Result<std::unique_ptr<Asker>> open(Context& context, AskerOptions options,
                                                     AskerHandler& handler);
    ~Asker() override;

    // The only peer of a connecting link, or the given one.
    base::Result<void> ask(const std::string& id, const Envelope& envelope, std::string body);
    base::Result<void> ask(Peer peer, const std::string& id, const Envelope& envelope,
                           std::string body);
    // A FOLLOW, with an envelope like an ASK's: its events and its END are those of an ask().
    base::Result<void> follow(const std::string& id, const Envelope& envelope, std::string body);
    void cancel(const std::string& id,
                const std::string& reason);  // of the live attempt; else nothing
    // `tag`: the flow's as we have it now, where the peer cannot know it.
    void grant(const std::string& id, uint32_t credit, std::optional<double> tag = {});
    size_t live() const { return live_.size(); }
    bool up() const { return link_->up(); }
    Link& link() { return *link_; }
    // Call with the link's step(): ends what waits too long for its END after cancel().
    void tick();

  private:
    base::Result<void> request(Verb verb, Peer peer, const std::string& id,
                               const Envelope& envelope, std::string body);
    struct Live {
        Peer peer = 0;
        uint32_t attempt = 1;
        uint64_t next_seq = 0;
        int64_t cancel_deadline_ms = 0;  // 0: not cancelled
    };
    Asker(AskerOptions options, AskerHandler& handler);
    void on_up(Peer peer, const HelloMeta& hello) override;
    void on_hello(Peer peer, const HelloMeta& hello, std::string body) override;
    void on_message(Peer peer, Message message) override;
    void on_down(Peer peer, const std::string& why) override;
    void finish(const std::string& id, EndMeta meta);
    void break_off(const std::string& id, const std::string& reason, const std::string& what);
    void on_event(Peer peer, Message& message);
    void on_end(Peer peer, Message& message);

    AskerOptions options_;
    AskerHandler& handler_;
    std::unique_ptr<Link> link_;
    std::unordered_map<std::string, Live> live_;
    size_t cancelled_ = 0;
};

}  // namespace parley::pipe
