#include "pipe/answerer.hpp"

#include <fmt/format.h>

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::Result;

namespace {

std::string pair_of(const std::string& id, uint32_t attempt) {
    return fmt::format("{}\n{}", attempt, id);
}

}  // namespace

Answerer::Answerer(AnswererOptions options, AnswererHandler& handler)
    : options_(std::move(options)), handler_(handler) {}
Answerer::~Answerer() = default;

Result<std::unique_ptr<Answerer>> Answerer::open(Context& context, AnswererOptions options,
                                                 AnswererHandler& handler) {
    options.link.hello.role = Role::answerer;
    LinkOptions link = options.link;
    std::unique_ptr<Answerer> answerer(new Answerer(std::move(options), handler));
    auto opened = Link::open(context, std::move(link), *answerer);
    if (!opened) return fail(opened.error());
    answerer->link_ = std::move(*opened);
    return answerer;
}

Result<uint64_t> Answerer::event(const std::string& id, EventMeta meta, std::string body) {
    const auto at = live_.find(id);
    if (at == live_.end()) return fail(Errc::not_found, fmt::format("request '{}' is over", id));
    Live& live = at->second;
    if (live.credit == 0) return fail(Errc::again, fmt::format("request '{}' has no credit", id));
    meta.attempt = live.attempt;
    meta.seq = live.next_seq;
    if (auto sent =
            link_->send(live.peer, Message{Verb::event, id, to_meta(meta), std::move(body)});
        !sent)
        return fail(sent.error());
    --live.credit;
    return live.next_seq++;
}

uint64_t Answerer::next_seq(const std::string& id) const {
    const auto at = live_.find(id);
    return at == live_.end() ? 0 : at->second.next_seq;
}

void Answerer::end(const std::string& id, EndMeta meta) {
    const auto at = live_.find(id);
    if (at == live_.end()) return;
    const Live live = at->second;
    live_.erase(at);
    remember(id, live.attempt);
    meta.attempt = live.attempt;
    meta.seq = live.next_seq;
    (void)link_->send(live.peer, Message{Verb::end, id, to_meta(meta), {}});
}

uint32_t Answerer::credit(const std::string& id) const {
    const auto at = live_.find(id);
    return at == live_.end() ? 0 : at->second.credit;
}

void Answerer::drain() {
    if (draining_) return;
    draining_ = true;
    for (Peer peer : link_->peers())
        (void)link_->send(peer, Message{Verb::bye, {}, to_meta(ByeMeta{}), {}});
}

void Answerer::refuse(Peer peer, const std::string& id, EndMeta meta) {
    (void)link_->send(peer, Message{Verb::end, id, to_meta(meta), {}});
}

void Answerer::remember(const std::string& id, uint32_t attempt) {
    std::string pair = pair_of(id, attempt);
    if (!remembered_.insert(pair).second) return;
    remembered_order_.push_back(std::move(pair));
    while (remembered_order_.size() > options_.remembered_max) {
        remembered_.erase(remembered_order_.front());
        remembered_order_.pop_front();
    }
}

void Answerer::on_up(Peer peer, const HelloMeta& hello) {
    handler_.on_peer_up(peer, hello);
    if (draining_) (void)link_->send(peer, Message{Verb::bye, {}, to_meta(ByeMeta{}), {}});
}
void Answerer::on_hello(Peer peer, const HelloMeta& hello, std::string body) {
    handler_.on_peer_hello(peer, hello, std::move(body));
}

void Answerer::on_down(Peer peer, const std::string& why) {
    std::vector<std::pair<std::string, uint32_t>> lost;
    for (const auto& [id, live] : live_) {
        if (live.peer == peer) lost.emplace_back(id, live.attempt);
    }
    for (const auto& [id, attempt] : lost) {
        live_.erase(id);
        remember(id, attempt);
        handler_.on_cancel(id, attempt, Cancel::gone);
    }
    handler_.on_peer_down(peer, why);
}

void Answerer::on_message(Peer peer, Message message) {
    switch (message.verb) {
        case Verb::ask:
            return on_ask(peer, message);
        case Verb::follow:
            if (options_.follows) on_ask(peer, message);
            return;
        case Verb::cancel: {
            const auto meta = parse_cancel_meta(message.meta);
            const auto at = live_.find(message.id);
            if (meta && at == live_.end() && meta->reason == "refused")
                return handler_.on_refused_late(message.id);
            if (!meta || at == live_.end() || at->second.attempt != meta->attempt ||
                at->second.cancelled)
                return;
            at->second.cancelled = true;
            return handler_.on_cancel(message.id, meta->attempt,
                                      meta->reason == "refused" ? Cancel::refused : Cancel::asked);
        }
        case Verb::credit: {
            const auto meta = parse_credit_meta(message.meta);
            const auto at = live_.find(message.id);
            if (!meta || at == live_.end() || at->second.attempt != meta->attempt) return;
            uint32_t& credit = at->second.credit;
            credit = static_cast<uint32_t>(
                std::min<uint64_t>(uint64_t{credit} + meta->credit, UINT32_MAX));
            if (meta->tag) handler_.on_tag(message.id, *meta->tag);
            if (meta->credit > 0) handler_.on_credit(message.id, credit);
            return;
        }
        default:
            return;
    }
}

void Answerer::on_ask(Peer peer, Message& message) {
    EndMeta refusal;
    auto envelope = parse_envelope(message.meta);
    if (!envelope) {
        refusal.status = "invalid_request_error";
        refusal.message = envelope.error().what;
        return refuse(peer, message.id, refusal);
    }
    refusal.attempt = envelope->attempt;
    const auto twice = [&] {
        refusal.status = "invalid_request_error";
        refusal.reason = "asked_twice";
        refusal.message =
            fmt::format("attempt {} of '{}' was asked twice", envelope->attempt, message.id);
    };
    if (const auto at = live_.find(message.id); at != live_.end()) {
        const Live live = at->second;
        if (envelope->attempt < live.attempt) {
            refusal.status = "cancelled";
            refusal.reason = "replaced";
            return refuse(peer, message.id, refusal);
        }
        if (envelope->attempt == live.attempt) {
            twice();  // one END for the pair: the running one stops here
            end(message.id, refusal);
            return handler_.on_cancel(message.id, live.attempt, Cancel::replaced);
        }
        EndMeta replaced;
        replaced.status = "cancelled";
        replaced.reason = "replaced";
        end(message.id, replaced);
        handler_.on_cancel(message.id, live.attempt, Cancel::replaced);
    } else if (remembered_.count(pair_of(message.id, envelope->attempt)) != 0) {
        twice();
        return refuse(peer, message.id, refusal);
    }
    if (draining_) {
        refusal.status = "overloaded_error";
        refusal.reason = "draining";
        refusal.message = "Overloaded";
        refusal.retryable = true;
        refusal.retry_after_s = 1;
        return refuse(peer, message.id, refusal);
    }
    if (live_.size() >= options_.requests_max) {
        refusal.status = "overloaded_error";
        refusal.reason = "queue_full";
        refusal.message = "Overloaded";
        refusal.retry_after_s = 1;
        return refuse(peer, message.id, refusal);
    }
    live_[message.id] = Live{peer, envelope->attempt, 0, envelope->credit, false};
    handler_.on_ask(Ask{message.verb, peer, std::move(message.id), std::move(*envelope),
                        std::move(message.body)});
}

}  // namespace parley::pipe
