#include "store/client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <simdjson.h>

#include <algorithm>
#include <deque>
#include <map>

#include "base/clock.hpp"
#include "base/ulid.hpp"
#include "pipe/asker.hpp"

namespace parley::store {
namespace {

constexpr size_t kWindow = 1024;  // the writer keeps that many first replies

struct Pending {
    std::string json;
    Client::Done done;
    int64_t deadline_ms = 0;  // 0 = none
    int64_t sent_ms = 0;
    uint32_t attempt = 0;  // 0 = not on the wire
    std::string reply;     // the EVENT's body, once it came
};

base::Errc errc_of(std::string_view name) {
    for (int code = 0; code <= static_cast<int>(base::Errc::cancelled); ++code) {
        if (name == base::name(static_cast<base::Errc>(code))) return static_cast<base::Errc>(code);
    }
    return base::Errc::internal;
}

}  // namespace

struct Client::Impl final : pipe::AskerHandler {
    ClientOptions options;
    pipe::Context context;
    std::string boot = base::UlidSource().next().text();
    uint64_t next_seq = 1;
    uint64_t next_to_send = 1;
    int64_t hold_until_ms = 0;            // after a refusal of the link: no hot loop
    std::map<uint64_t, Pending> pending;  // by seq
    std::deque<std::pair<uint64_t, CommandReply>> ready;
    simdjson::dom::parser parser;
    std::unique_ptr<pipe::Asker> asker;  // the last member: it calls us until it is gone

    int64_t now() const { return base::system_clock().mono_ms(); }
    std::string id_of(uint64_t seq) const { return boot + "-" + std::to_string(seq); }
    std::map<uint64_t, Pending>::iterator find(const std::string& id) {
        if (!id.starts_with(boot) || id.size() <= boot.size() + 1) return pending.end();
        return pending.find(std::strtoull(id.c_str() + boot.size() + 1, nullptr, 10));
    }

    void on_event(const std::string& id, const pipe::EventMeta&, std::string body) override {
        if (auto it = find(id); it != pending.end()) it->second.reply = std::move(body);
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        auto it = find(id);
        if (it == pending.end()) return;
        // An END that is not the writer's own says nothing about the command: the same number goes out
        // again, and the writer knows whether it ran.
        if (!meta.ok() && meta.reason != "refused") it->second.reply.clear();
        if (it->second.reply.empty()) {
            it->second.sent_ms = 0;
            next_to_send = std::min(next_to_send, it->first);
            hold_until_ms = now() + 100;
            if (meta.status == "invalid_request_error" && meta.reason != "asked_twice") {
                CommandReply reply;
                reply.error = base::Error{base::Errc::invalid, meta.message};
                ready.emplace_back(it->first, std::move(reply));
            }
            return;
        }
        CommandReply reply;
        reply.json = std::move(it->second.reply);
        reply.change_seq = meta.change;
        simdjson::dom::element document, error;
        if (parser.parse(reply.json).get(document) != simdjson::SUCCESS) {
            reply.error = base::Error{base::Errc::internal, "the store's reply is not JSON"};
        } else if (document["error"].get(error) == simdjson::SUCCESS) {
            const auto text = [&](const char* name) -> std::string {
                std::string_view value;
                return error[name].get(value) == simdjson::SUCCESS ? std::string(value)
                                                                   : std::string{};
            };
            reply.error = base::Error{errc_of(text("code")), text("what")};
            reply.reason = text("reason");
        }
        ready.emplace_back(it->first, std::move(reply));
    }
    void on_peer_up(pipe::Peer, const pipe::HelloMeta&) override {
        hold_until_ms = 0;
        resend_all();
    }
    void on_peer_down(pipe::Peer, const std::string&) override { resend_all(); }

    void resend_all() {
        for (auto& [seq, one] : pending) one.sent_ms = 0;
        if (!pending.empty()) next_to_send = pending.begin()->first;
    }

    void pump() {
        if (!asker->up() || now() < hold_until_ms) return;
        // Numbers go out in order, and none while a lower one has yet to go.
        for (auto it = pending.lower_bound(next_to_send); it != pending.end(); ++it) {
            if (it->first >= pending.begin()->first + kWindow) return;
            next_to_send = it->first;
            if (it->second.sent_ms == 0) {
                pipe::Envelope envelope;
                envelope.attempt = ++it->second.attempt;
                auto sent = asker->ask(id_of(it->first), envelope, it->second.json);
                if (!sent) {
                    --it->second.attempt;
                    return;
                }
                it->second.sent_ms = now();
            }
            next_to_send = it->first + 1;
        }
    }

    void settle() {
        while (!ready.empty()) {
            auto [seq, reply] = std::move(ready.front());
            ready.pop_front();
            auto it = pending.find(seq);
            if (it == pending.end()) continue;
            Done done = std::move(it->second.done);
            pending.erase(it);
            if (done) done(reply);  // may submit()
        }
    }

    void expire() {
        const int64_t at = now();
        for (auto& [seq, one] : pending) {
            if (one.deadline_ms == 0 || one.deadline_ms > at) continue;
            CommandReply reply;
            reply.error = base::Error{
                base::Errc::timeout,
                "the store did not answer in time: whether the command ran is not known"};
            ready.emplace_back(seq, std::move(reply));
        }
    }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

base::Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
    auto impl = std::make_unique<Impl>();
    impl->options = std::move(options);
    pipe::AskerOptions asker;
    asker.link.endpoint = impl->options.endpoint;
    asker.link.hello.name = impl->options.name;
    asker.link.hello.boot = impl->boot;
    asker.link.message_bytes_max = impl->options.command_bytes_max + (1u << 20);
    auto opened = pipe::Asker::open(impl->context, asker, *impl);
    if (!opened) return base::fail(opened.error());
    impl->asker = std::move(*opened);
    return std::unique_ptr<Client>(new Client(std::move(impl)));
}

base::Result<void> Client::submit(std::string command_json, Done done, int64_t deadline_ms) {
    if (command_json.size() > impl_->options.command_bytes_max)
        return base::fail(base::Errc::too_large,
                          fmt::format("a command of {} bytes, {} at most", command_json.size(),
                                      impl_->options.command_bytes_max));
    if (impl_->pending.size() >= impl_->options.queue_max)
        return base::fail(base::Errc::again, fmt::format("{} commands wait for the store already",
                                                         impl_->options.queue_max));
    Pending one;
    one.json = std::move(command_json);
    one.done = std::move(done);
    one.deadline_ms = deadline_ms > 0 ? impl_->now() + deadline_ms : 0;
    impl_->pending.emplace(impl_->next_seq++, std::move(one));
    impl_->pump();
    return {};
}

int Client::fd() const { return impl_->asker->link().fd(); }
void Client::set_wake(std::function<void()> wake) {
    impl_->asker->link().set_wake(std::move(wake));
}
int64_t Client::wait_ms() const { return pipe::kTickMs; }

void Client::step() {
    for (int turn = 0; turn < 64; ++turn) {
        const bool more = impl_->asker->link().step();
        impl_->asker->tick();
        impl_->settle();
        impl_->pump();
        if (!more) break;
    }
    impl_->expire();
    impl_->settle();
}

bool Client::connected() const { return impl_->asker->up(); }
size_t Client::pending() const { return impl_->pending.size(); }

base::Result<CommandReply> Client::call(std::string command_json, int64_t wait_ms) {
    std::optional<CommandReply> got;
    auto queued = submit(
        std::move(command_json), [&](const CommandReply& reply) { got = reply; }, wait_ms);
    if (!queued) return base::fail(queued.error());
    const int64_t until = impl_->now() + wait_ms + 1000;
    while (!got && impl_->now() < until) {
        step();
        if (got) break;
        pollfd waiting{fd(), POLLIN, 0};
        ::poll(&waiting, 1, static_cast<int>(this->wait_ms()));
    }
    if (!got || (got->error && got->error->code == base::Errc::timeout))
        return base::fail(base::Errc::unavailable, fmt::format("convstore does not answer at '{}'",
                                                               impl_->options.endpoint));
    return std::move(*got);
}

}  // namespace parley::store
