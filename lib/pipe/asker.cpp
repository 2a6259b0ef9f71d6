#include "pipe/asker.hpp"

#include <fmt/format.h>

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::Result;

Asker::Asker(AskerOptions options, AskerHandler& handler)
    : options_(std::move(options)), handler_(handler) {}
Asker::~Asker() = default;

Result<std::unique_ptr<Asker>> Asker::open(Context& context, AskerOptions options,
                                           AskerHandler& handler) {
    options.link.hello.role = Role::asker;
    LinkOptions link = options.link;
    std::unique_ptr<Asker> asker(new Asker(std::move(options), handler));
    auto opened = Link::open(context, std::move(link), *asker);
    if (!opened) return fail(opened.error());
    asker->link_ = std::move(*opened);
    return asker;
}

Result<void> Asker::ask(const std::string& id, const Envelope& envelope, std::string body) {
    const auto peers = link_->peers();
    if (peers.empty())
        return fail(Errc::unavailable, fmt::format("nobody answers at '{}'", link_->endpoint()));
    return ask(peers.front(), id, envelope, std::move(body));
}

Result<void> Asker::ask(Peer peer, const std::string& id, const Envelope& envelope,
                        std::string body) {
    return request(Verb::ask, peer, id, envelope, std::move(body));
}

Result<void> Asker::follow(const std::string& id, const Envelope& envelope, std::string body) {
    const auto peers = link_->peers();
    if (peers.empty())
        return fail(Errc::unavailable, fmt::format("nobody answers at '{}'", link_->endpoint()));
    return request(Verb::follow, peers.front(), id, envelope, std::move(body));
}

Result<void> Asker::request(Verb verb, Peer peer, const std::string& id, const Envelope& envelope,
                            std::string body) {
    if (const auto at = live_.find(id); at != live_.end()) {
        if (envelope.attempt <= at->second.attempt)
            return fail(Errc::conflict,
                        fmt::format("attempt {} of '{}' runs already", at->second.attempt, id));
        cancel(id, "replaced");
        EndMeta meta;
        meta.status = "cancelled";
        meta.reason = "replaced";
        finish(id, std::move(meta));
    }
    if (live_.size() >= options_.requests_max)
        return fail(Errc::again,
                    fmt::format("{} requests are in flight, no more are sent", live_.size()));
    if (auto sent = link_->send(peer, Message{verb, id, to_meta(envelope), std::move(body)}); !sent)
        return sent;
    live_[id] = Live{peer, envelope.attempt, 0, 0};
    return {};
}

void Asker::cancel(const std::string& id, const std::string& reason) {
    const auto at = live_.find(id);
    if (at == live_.end() || at->second.cancel_deadline_ms != 0) return;
    at->second.cancel_deadline_ms = options_.link.clock->mono_ms() + options_.cancel_timeout_ms;
    ++cancelled_;
    (void)link_->send(
        at->second.peer,
        Message{Verb::cancel, id, to_meta(CancelMeta{at->second.attempt, reason}), {}});
}

void Asker::grant(const std::string& id, uint32_t credit, std::optional<double> tag) {
    const auto at = live_.find(id);
    if (at == live_.end() || credit == 0) return;
    (void)link_->send(
        at->second.peer,
        Message{Verb::credit, id, to_meta(CreditMeta{at->second.attempt, credit, tag}), {}});
}

void Asker::finish(const std::string& id, EndMeta meta) {
    const auto at = live_.find(id);
    if (at == live_.end()) return;
    meta.attempt = at->second.attempt;
    if (at->second.cancel_deadline_ms != 0) --cancelled_;
    const std::string own = id;  // `id` may live in the row
    live_.erase(at);
    handler_.on_end(own, meta);
}

void Asker::break_off(const std::string& id, const std::string& reason, const std::string& what) {
    cancel(id, reason);
    EndMeta meta;
    meta.status = "api_error";
    meta.retryable = true;
    meta.reason = reason;
    meta.message = what;
    finish(id, std::move(meta));
}

void Asker::tick() {
    if (cancelled_ == 0) return;
    const int64_t now = options_.link.clock->mono_ms();
    std::vector<std::string> late;
    for (const auto& [id, live] : live_) {
        if (live.cancel_deadline_ms != 0 && live.cancel_deadline_ms <= now) late.push_back(id);
    }
    for (const auto& id : late) {
        EndMeta meta;
        meta.status = "cancelled";
        meta.reason = "cancel_timeout";
        finish(id, std::move(meta));
    }
}

void Asker::on_up(Peer peer, const HelloMeta& hello) { handler_.on_peer_up(peer, hello); }
void Asker::on_hello(Peer peer, const HelloMeta& hello, std::string body) {
    handler_.on_peer_hello(peer, hello, std::move(body));
}

void Asker::on_down(Peer peer, const std::string& why) {
    std::vector<std::string> lost;
    for (const auto& [id, live] : live_) {
        if (live.peer == peer) lost.push_back(id);
    }
    for (const auto& id : lost) {
        EndMeta meta;
        meta.status = "api_error";
        meta.retryable = true;
        meta.reason = "peer_gone";
        meta.message = fmt::format("the next stage went away: {}", why);
        finish(id, std::move(meta));
    }
    handler_.on_peer_down(peer, why);
}

void Asker::on_message(Peer peer, Message message) {
    switch (message.verb) {
        case Verb::event:
            return on_event(peer, message);
        case Verb::end:
            return on_end(peer, message);
        case Verb::status:
            if (auto meta = parse_status_meta(message.meta)) handler_.on_peer_status(peer, *meta);
            return;
        case Verb::bye:
            if (auto meta = parse_bye_meta(message.meta)) handler_.on_peer_bye(peer, *meta);
            return;
        default:
            return;  // an answerer asks nothing
    }
}

void Asker::on_event(Peer peer, Message& message) {
    const auto at = live_.find(message.id);
    if (at == live_.end() || at->second.peer != peer) return;  // over, or a lower attempt's
    auto meta = parse_event_meta(message.meta);
    if (!meta) return break_off(message.id, "malformed", meta.error().what);
    Live& live = at->second;
    if (meta->attempt != live.attempt) return;
    if (meta->seq != live.next_seq)
        return break_off(message.id, "gap",
                         fmt::format("event {} came where {} was due", meta->seq, live.next_seq));
    ++live.next_seq;
    handler_.on_event(message.id, *meta, std::move(message.body));
}

void Asker::on_end(Peer peer, Message& message) {
    const auto at = live_.find(message.id);
    if (at == live_.end() || at->second.peer != peer) return;
    auto meta = parse_end_meta(message.meta);
    if (!meta) return break_off(message.id, "malformed", meta.error().what);
    if (meta->attempt != at->second.attempt) return;
    if (meta->seq != at->second.next_seq)
        return break_off(
            message.id, "gap",
            fmt::format("END counts {} events, {} came", meta->seq, at->second.next_seq));
    finish(message.id, std::move(*meta));
}

}  // namespace parley::pipe
