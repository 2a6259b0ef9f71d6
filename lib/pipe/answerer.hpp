// Answerer: requests that others ask of us on one link, each answered exactly once.
//
// Promise  on_ask once per (id, attempt); what the handler sends with event() is numbered here;
// end()
//          sends the one END. on_cancel says that the answer is no longer wanted: the handler then
//          calls end() (status cancelled) as soon as it has stopped. When the asker is gone
//          (Cancel::gone) or a higher attempt came (Cancel::replaced) the request is already over
//          here and end() does nothing.
// Refusals made here, without troubling the handler: malformed envelope (invalid_request_error),
// the
//          same (id, attempt) twice (invalid_request_error; the pair ends), a lower attempt than
//          the live one (cancelled), over requests_max (overloaded_error, queue_full), draining
//          (overloaded_error, draining, retryable).
// Credit   event() takes one; at 0 it is Errc::again and nothing is sent: hold that stream.
// Threads  the link's.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "pipe/link.hpp"

namespace parley::pipe {

struct Ask {
    Verb verb = Verb::ask;  // or follow
    Peer peer = 0;
    std::string id;
    Envelope envelope;
    std::string body;
};

// asked: CANCEL; refused: the same, by a filter that stopped the answer; gone: the asker is.
enum class Cancel : uint8_t { asked, refused, gone, replaced };

class AnswererHandler {
  public:
    virtual ~AnswererHandler() = default;
    virtual void on_ask(Ask ask) = 0;
    virtual void on_cancel(const std::string& id, uint32_t attempt, Cancel why) = 0;
    // The asker, a filter, stopped an answer whose END was sent already.
    virtual void on_refused_late(const std::string& /*id*/) {}
    virtual void on_credit(const std::string& /*id*/, uint32_t /*available*/) {}
    virtual void on_tag(const std::string& /*id*/, double /*tag*/) {}
    virtual void on_peer_up(Peer, const HelloMeta&) {}
    virtual void on_peer_hello(Peer, const HelloMeta&, std::string /*body*/) {}
    virtual void on_peer_down(Peer, const std::string& /*why*/) {}
};

struct AnswererOptions {
    LinkOptions link;                // hello.role is set to answerer
    bool follows = false;            // FOLLOW comes to on_ask() like an ASK; else it is passed over
    uint32_t requests_max = 4096;    // live at once, over all askers
    uint32_t remembered_max = 8192;  // ended pairs that are remembered, to know a pair asked twice
};

class Answerer final : private LinkHandler {
  public:
    static base::Result<std::unique_ptr<Answerer>> open(Context& context, AnswererOptions options,
                                                        AnswererHandler& handler);
    ~Answerer() override;

    // meta.seq and meta.attempt are set here. Returns the seq. Errc::again without credit,
    // Errc::not_found when the request is over.
    base::Result<uint64_t> event(const std::string& id, EventMeta meta, std::string body);
    // The seq that the next event() of this request will get: what a stamp is computed over.
    uint64_t next_seq(const std::string& id) const;
    void end(const std::string& id, EndMeta meta);
    uint32_t credit(const std::string& id) const;  // 0 when the request is over
    bool live(const std::string& id) const { return live_.count(id) != 0; }
    size_t live() const { return live_.size(); }

    void set_status(std::function<StatusMeta()> provider) {
        link_->set_status(std::move(provider));
    }
    // BYE to all; new ASKs are refused; what runs goes on.
    void drain();
    bool draining() const { return draining_; }
    Link& link() { return *link_; }

  private:
    struct Live {
        Peer peer = 0;
        uint32_t attempt = 1;
        uint64_t next_seq = 0;
        uint32_t credit = 0;
        bool cancelled = false;
    };
    Answerer(AnswererOptions options, AnswererHandler& handler);
    void on_up(Peer peer, const HelloMeta& hello) override;
    void on_hello(Peer peer, const HelloMeta& hello, std::string body) override;
    void on_message(Peer peer, Message message) override;
    void on_down(Peer peer, const std::string& why) override;
    void on_ask(Peer peer, Message& message);
    void refuse(Peer peer, const std::string& id, EndMeta meta);
    void remember(const std::string& id, uint32_t attempt);

    AnswererOptions options_;
    AnswererHandler& handler_;
    std::unique_ptr<Link> link_;
    std::unordered_map<std::string, Live> live_;
    std::deque<std::string> remembered_order_;
    std::unordered_set<std::string> remembered_;
    bool draining_ = false;
};

}  // namespace parley::pipe
