#include "pipe/link.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <deque>
#include <random>
#include <unordered_map>

#include "base/ulid.hpp"
#include "pipe/context_impl.hpp"
#include "pipe/endpoint.hpp"

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr int64_t kBackoffLeastMs = 50;
constexpr int64_t kBackoffMostMs = 1000;
// A loop that comes round later than this was late itself: it reads first, and judges next time.
constexpr int64_t kLateMs = 8 * kTickMs;
constexpr size_t kFrames = 5;

enum class Sent { yes, full, gone };

struct Row {
    std::string routing;
    HelloMeta hello;
    int64_t heard_ms = 0;
    double longest_ms = 0;
    std::deque<Message> outbox;
    uint64_t outbox_bytes = 0;
    bool dead = false;
    std::string why;
};

uint64_t size_of(const Message& m) { return m.id.size() + m.meta.size() + m.body.size() + 64; }

}  // namespace

struct Link::Impl {
    Impl(Context& ctx, LinkOptions opts, LinkHandler& h)
        : context(ctx), options(std::move(opts)), handler(h) {}
    ~Impl() {
        close_socket();
        if (epoll >= 0) ::close(epoll);
    }

    Context& context;
    LinkOptions options;
    LinkHandler& handler;
    std::optional<base::LockFile> lock;
    std::unique_ptr<zmq::socket_t> socket;
    std::unique_ptr<zmq::socket_t> monitor;
    int epoll = -1;
    std::string bound;
    std::function<void()> wake;
    std::function<StatusMeta()> status;
    std::unordered_map<Peer, Row> rows;
    std::unordered_map<std::string, Peer> by_routing;
    Peer last_peer = 0;
    LinkCounters counters;
    bool stepping = false;
    bool woken = false;
    bool any_dead = false;
    bool connected = false;  // of a side that connects: there is somebody to say HELLO to
    int64_t next_tick_ms = 0, last_tick_ms = 0, next_status_ms = 0;
    int64_t next_hello_ms = 0, backoff_ms = kBackoffLeastMs;
    std::mt19937_64 random{std::random_device{}()};

    int64_t now() const { return options.clock->mono_ms(); }
    bool binds() const { return options.bind; }

    Result<void> open_socket();
    void close_socket();
    void reconnect(int64_t wait_ms);
    Sent put(const std::string& routing, const Message& message);
    void say_bye(const std::string& routing, const ByeMeta& bye);
    Result<void> send(Peer peer, const Message& message);
    void flush(Row& row);
    bool receive();
    void dispatch(const std::string& routing, Message message);
    void take_hello(const std::string& routing, Message message);
    void mark_dead(Peer peer, Row& row, std::string why);
    void bury();
    void tick(bool drained);
    void check_monitor();
    void touched() {
        if (stepping || woken || !wake) return;
        woken = true;
        wake();
    }
};

Result<void> Link::Impl::open_socket() {
    try {
        socket = std::make_unique<zmq::socket_t>(
            context.impl().zmq, binds() ? zmq::socket_type::router : zmq::socket_type::dealer);
        auto& s = *socket;
        s.set(zmq::sockopt::linger, 500);
        s.set(zmq::sockopt::sndhwm, static_cast<int>(options.hwm));
        s.set(zmq::sockopt::rcvhwm, static_cast<int>(options.hwm));
        s.set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(options.message_bytes_max));
        s.set(zmq::sockopt::heartbeat_ivl, 300);
        s.set(zmq::sockopt::heartbeat_timeout,
              static_cast<int>(std::max<int64_t>(options.peer_timeout_ms, 1000)));
        s.set(zmq::sockopt::ipv6, true);
        if (!options.curve.empty() && takes_curve(options.endpoint)) {
            s.set(zmq::sockopt::curve_secretkey, options.curve.secret_key);
            s.set(zmq::sockopt::curve_publickey, options.curve.public_key);
            if (binds()) {
                context.impl().allow(options.curve.allowed);
                s.set(zmq::sockopt::curve_server, true);
                s.set(zmq::sockopt::zap_domain, std::string("parley"));
            } else {
                s.set(zmq::sockopt::curve_serverkey, options.curve.server_key);
            }
        }
        if (binds()) {
            s.set(zmq::sockopt::router_mandatory, true);
            s.bind(options.endpoint);
            bound = s.get(zmq::sockopt::last_endpoint);
        } else {
            // Never twice the same: a ROUTER ignores a second peer with a known id in silence.
            s.set(zmq::sockopt::routing_id,
                  base::random_id(options.hello.name.substr(0, 40) + "-"));
            // Not ZMQ_IMMEDIATE, though it would keep HELLO back until there is a connection: when one
            // breaks it takes the pipe away in the midst of a message that is being read, and libzmq
            // aborts (fq.cpp: !_more). HELLO waits for the monitor instead; what is queued for a
            // connection that broke goes with the socket, in reconnect().
            s.set(zmq::sockopt::reconnect_ivl, static_cast<int>(kBackoffLeastMs));
            s.set(zmq::sockopt::reconnect_ivl_max, static_cast<int>(kBackoffMostMs));
            const std::string watch = "inproc://" + base::random_id("monitor-");
            connected = true;  // inproc connects at once, and no monitor hears of it
            if (options.endpoint.rfind("inproc:", 0) != 0 &&
                zmq_socket_monitor(s.handle(), watch.c_str(),
                                   ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED) == 0) {
                connected = false;
                monitor =
                    std::make_unique<zmq::socket_t>(context.impl().zmq, zmq::socket_type::pair);
                monitor->set(zmq::sockopt::linger, 0);
                monitor->connect(watch);
            }
            s.connect(options.endpoint);
            bound = options.endpoint;
        }
        for (auto* each : {socket.get(), monitor.get()}) {
            if (!each) continue;
            epoll_event event{};
            event.events = EPOLLIN;
            ::epoll_ctl(epoll, EPOLL_CTL_ADD, each->get(zmq::sockopt::fd), &event);
        }
    } catch (const zmq::error_t& error) {
        return fail(error.num() == EADDRINUSE ? Errc::conflict : Errc::io,
                    fmt::format("cannot {} '{}': {}", binds() ? "bind" : "connect to",
                                options.endpoint, error.what()));
    }
    return {};
}

void Link::Impl::close_socket() {
    for (auto* each : {socket.get(), monitor.get()}) {
        if (each) ::epoll_ctl(epoll, EPOLL_CTL_DEL, each->get(zmq::sockopt::fd), nullptr);
    }
    if (monitor) {
        zmq_socket_monitor(socket->handle(), nullptr, 0);
        monitor.reset();
    }
    socket.reset();
}

void Link::Impl::reconnect(int64_t wait_ms) {
    // What the old socket still holds is for a peer that is given up: its linger would deliver an
    // ASK whose END has been made here already.
    socket->set(zmq::sockopt::linger, 0);
    close_socket();
    if (auto opened = open_socket(); !opened) std::abort();  // the same call has worked before
    next_hello_ms = now() + wait_ms;
    backoff_ms = kBackoffLeastMs;
}

Sent Link::Impl::put(const std::string& routing, const Message& message) {
    const auto flags = [](bool more) {
        return zmq::send_flags::dontwait |
               (more ? zmq::send_flags::sndmore : zmq::send_flags::none);
    };
    try {
        // The verdict comes on the first frame; the rest of a message is never refused.
        if (binds() && !socket->send(zmq::buffer(routing), flags(true))) return Sent::full;
        if (!socket->send(zmq::buffer(kProtocol), flags(true))) return Sent::full;
        socket->send(zmq::buffer(name(message.verb)), flags(true));
        socket->send(zmq::buffer(message.id), flags(true));
        socket->send(zmq::buffer(message.meta), flags(true));
        socket->send(zmq::buffer(message.body), flags(false));
    } catch (const zmq::error_t&) {
        return Sent::gone;  // EHOSTUNREACH
    }
    ++counters.sent;
    return Sent::yes;
}

void Link::Impl::say_bye(const std::string& routing, const ByeMeta& bye) {
    ++counters.refused;
    put(routing, Message{Verb::bye, {}, to_meta(bye), {}});
}

void Link::Impl::mark_dead(Peer, Row& row, std::string why) {
    if (row.dead) return;
    row.dead = true;
    row.why = std::move(why);
    any_dead = true;
    touched();
}

Result<void> Link::Impl::send(Peer peer, const Message& message) {
    const auto at = rows.find(peer);
    if (at == rows.end() || at->second.dead) return fail(Errc::unavailable, "peer is gone");
    Row& row = at->second;
    touched();  // a send consumes the descriptor's edge
    if (row.outbox.empty()) {
        switch (put(row.routing, message)) {
            case Sent::yes:
                return {};
            case Sent::gone:
                mark_dead(peer, row, "connection lost");
                return fail(Errc::unavailable, "peer is gone");
            case Sent::full:
                break;
        }
    }
    const uint64_t bytes = size_of(message);
    if (row.outbox_bytes + bytes > options.outbox_bytes_max ||
        row.outbox.size() >= options.outbox_messages_max) {
        mark_dead(peer, row, "does not read: its queue is full");
        return fail(Errc::unavailable, "peer does not read");
    }
    row.outbox_bytes += bytes;
    auto place = row.outbox.end();
    if (message.verb == Verb::cancel)  // ahead of queued ASKs, behind other CANCELs
        place = std::find_if(row.outbox.begin(), row.outbox.end(),
                             [](const Message& m) { return m.verb == Verb::ask; });
    row.outbox.insert(place, message);
    return {};
}

void Link::Impl::flush(Row& row) {
    while (!row.outbox.empty()) {
        const Message& first = row.outbox.front();
        const Sent sent = put(row.routing, first);
        if (sent == Sent::full) return;
        if (sent == Sent::gone) {
            mark_dead(0, row, "connection lost");
            return;
        }
        row.outbox_bytes -= size_of(first);
        row.outbox.pop_front();
    }
}

bool Link::Impl::receive() {
    std::string routing;
    std::vector<std::string> frames;
    size_t count = 0;
    zmq::message_t frame;
    try {
        do {
            if (!socket->recv(frame, zmq::recv_flags::dontwait)) return false;
            if (binds() && count == 0)
                routing = frame.to_string();
            else if (frames.size() <= kFrames)
                frames.push_back(frame.to_string());
            ++count;
        } while (frame.more());
    } catch (const zmq::error_t&) {
        return false;
    }
    ++counters.received;
    if (frames.empty() || frames[0] != kProtocol) {
        ++counters.malformed;
        say_bye(routing, {"version", "this side speaks parley/1"});
        return true;
    }
    const auto verb = frames.size() == kFrames ? parse_verb(frames[1]) : std::nullopt;
    if (!verb) {
        ++counters.malformed;
        say_bye(routing, {"malformed", "a message is parley/1, verb, id, meta, body"});
        return true;
    }
    Message message{*verb, std::move(frames[2]), std::move(frames[3]), std::move(frames[4])};
    if (message.meta.empty()) message.meta = "{}";
    dispatch(routing, std::move(message));
    return true;
}

void Link::Impl::dispatch(const std::string& routing, Message message) {
    if (message.verb == Verb::hello) return take_hello(routing, std::move(message));
    const auto known = by_routing.find(routing);
    if (known == by_routing.end()) {
        if (binds() && message.verb != Verb::bye) say_bye(routing, {"hello", "say HELLO first"});
        // A binder that has forgotten us, or refuses us: begin anew, slowly.
        if (!binds() && message.verb == Verb::bye) next_hello_ms = now() + kBackoffMostMs;
        return;
    }
    const Peer peer = known->second;
    Row& row = rows.at(peer);
    if (row.dead) return;
    row.heard_ms = now();
    if (message.verb == Verb::status) {
        if (auto meta = parse_status_meta(message.meta)) row.longest_ms = meta->longest_ms;
    }
    if (message.verb == Verb::bye) {
        const auto bye = parse_bye_meta(message.meta);
        if (!bye || bye->reason != "drain") {
            mark_dead(peer, row, fmt::format("said BYE: {}", bye ? bye->reason : "malformed"));
            return;
        }
    }
    handler.on_message(peer, std::move(message));
}

void Link::Impl::take_hello(const std::string& routing, Message message) {
    auto hello = parse_hello_meta(message.meta);
    if (!hello) {
        ++counters.malformed;
        return say_bye(routing, {"malformed", hello.error().what});
    }
    if (hello->role == options.hello.role)
        return say_bye(routing, {"role", "both sides play the same role"});
    if (const auto known = by_routing.find(routing); known != by_routing.end()) {
        Row& row = rows.at(known->second);
        if (row.dead) return;
        row.heard_ms = now();
        if (row.hello.boot != hello->boot) return mark_dead(known->second, row, "started anew");
        row.hello = *hello;
        if (binds()) put(routing, Message{Verb::hello, {}, to_meta(options.hello), {}});
        return handler.on_hello(known->second, *hello, std::move(message.body));
    }
    if (rows.size() >= options.peers_max)
        return say_bye(routing, {"peers", fmt::format("{} peers are connected, no more are taken",
                                                      rows.size())});
    if (binds() && put(routing, Message{Verb::hello, {}, to_meta(options.hello), {}}) != Sent::yes)
        return;
    const Peer peer = ++last_peer;
    Row& row = rows[peer];
    row.routing = routing;
    row.hello = *hello;
    row.heard_ms = now();
    by_routing[routing] = peer;
    backoff_ms = kBackoffLeastMs;
    handler.on_up(peer, *hello);
    if (!hello->tok.empty()) handler.on_hello(peer, *hello, std::move(message.body));
}

void Link::Impl::bury() {
    while (any_dead) {
        any_dead = false;
        std::vector<std::pair<Peer, std::string>> dead;
        for (auto& [peer, row] : rows) {
            if (row.dead) dead.emplace_back(peer, row.why);
        }
        for (const auto& [peer, why] : dead) {
            by_routing.erase(rows.at(peer).routing);
            rows.erase(peer);
            ++counters.peers_lost;
            // Before on_down: what the handler sends from there must go to a fresh connection.
            if (!binds()) reconnect(0);
            handler.on_down(peer, why);
        }
    }
}

void Link::Impl::check_monitor() {
    if (!monitor) return;
    bool lost = false;
    zmq::message_t frame;
    try {
        while (monitor->recv(frame, zmq::recv_flags::dontwait)) {
            uint16_t event = 0;
            if (frame.size() >= 2) {
                std::memcpy(&event, frame.data(), 2);
                connected = event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
                lost = lost || event == ZMQ_EVENT_DISCONNECTED;
            }
            while (frame.more() && monitor->recv(frame, zmq::recv_flags::dontwait)) {
            }
        }
    } catch (const zmq::error_t&) {
        return;
    }
    if (!lost) return;
    for (auto& [peer, row] : rows) mark_dead(peer, row, "connection lost");
}

void Link::Impl::tick(bool drained) {
    const int64_t at = now();
    if (at < next_tick_ms) return;
    const bool late = last_tick_ms != 0 && at - last_tick_ms > kLateMs;
    last_tick_ms = at;
    next_tick_ms = at + kTickMs;
    if (!binds() && connected && rows.empty() && at >= next_hello_ms) {
        if (put({}, Message{Verb::hello, {}, to_meta(options.hello), {}}) == Sent::yes) {
            next_hello_ms = at + backoff_ms +
                            static_cast<int64_t>(random() % static_cast<uint64_t>(backoff_ms));
            backoff_ms = std::min(backoff_ms * 2, kBackoffMostMs);
        }
    }
    if (options.hello.role == Role::answerer && at >= next_status_ms) {
        next_status_ms = at + options.status_interval_ms;
        const Message message{Verb::status, {}, to_meta(status ? status() : StatusMeta{}), {}};
        for (auto& [peer, row] : rows) {
            // A peer with a queue has messages on the way already: STATUS would only lengthen it.
            if (row.dead || !row.outbox.empty()) continue;
            if (put(row.routing, message) == Sent::gone) mark_dead(peer, row, "connection lost");
        }
    }
    if (options.hello.role == Role::asker && !late && drained) {
        for (auto& [peer, row] : rows) {
            const auto allowed = std::max<int64_t>(options.peer_timeout_ms,
                                                   static_cast<int64_t>(5 * row.longest_ms));
            if (at - row.heard_ms > allowed)
                mark_dead(peer, row, fmt::format("no STATUS for {} ms", at - row.heard_ms));
        }
    }
}

Result<std::unique_ptr<Link>> Link::open(Context& context, LinkOptions options,
                                         LinkHandler& handler) {
    if (auto good = check_endpoint(options.endpoint, !options.curve.empty()); !good)
        return fail(good.error());
    if (options.hello.boot.empty()) options.hello.boot = base::UlidSource().next().text();
    auto impl = std::make_unique<Impl>(context, std::move(options), handler);
    if (impl->binds()) {
        auto lock = prepare_bind(impl->options.endpoint);
        if (!lock) return fail(lock.error());
        impl->lock = std::move(*lock);
    }
    impl->epoll = ::epoll_create1(EPOLL_CLOEXEC);
    if (impl->epoll < 0) return fail(base::errno_error(errno, "cannot create an epoll descriptor"));
    if (auto opened = impl->open_socket(); !opened) return fail(opened.error());
    return std::unique_ptr<Link>(new Link(std::move(impl)));
}

Link::Link(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Link::~Link() {
    for (auto& [peer, row] : impl_->rows) {
        if (!row.dead) impl_->flush(row);
    }
}

int Link::fd() const { return impl_->epoll; }

bool Link::step(uint32_t most) {
    Impl& l = *impl_;
    l.stepping = true;
    l.woken = false;
    uint32_t count = 0;
    while (count < most && l.receive()) ++count;
    const bool drained = count < most;
    for (auto& [peer, row] : l.rows) {
        if (!row.dead && !row.outbox.empty()) l.flush(row);
    }
    l.check_monitor();
    l.tick(drained);
    l.bury();
    l.stepping = false;
    return !drained || readable();
}

bool Link::readable() const { return (impl_->socket->get(zmq::sockopt::events) & ZMQ_POLLIN) != 0; }

void Link::set_wake(std::function<void()> wake) { impl_->wake = std::move(wake); }
Result<void> Link::send(Peer peer, const Message& message) { return impl_->send(peer, message); }
void Link::set_status(std::function<StatusMeta()> provider) { impl_->status = std::move(provider); }

void Link::say_hello(const HelloMeta& hello) {
    auto kept = impl_->options.hello;
    impl_->options.hello = hello;
    impl_->options.hello.boot = kept.boot;
    impl_->options.hello.role = kept.role;
    for (Peer peer : peers()) say_hello(peer, impl_->options.hello);
}

void Link::say_hello(Peer peer, const HelloMeta& hello, std::string body) {
    HelloMeta own = hello;
    own.boot = impl_->options.hello.boot;
    own.role = impl_->options.hello.role;
    (void)send(peer, Message{Verb::hello, {}, to_meta(own), std::move(body)});
}

void Link::drop(Peer peer, const ByeMeta& bye) {
    const auto at = impl_->rows.find(peer);
    if (at == impl_->rows.end() || at->second.dead) return;
    impl_->say_bye(at->second.routing, bye);
    impl_->mark_dead(peer, at->second, "dropped: " + bye.reason);
}

std::vector<Peer> Link::peers() const {
    std::vector<Peer> out;
    for (const auto& [peer, row] : impl_->rows) {
        if (!row.dead) out.push_back(peer);
    }
    std::sort(out.begin(), out.end());
    return out;
}

bool Link::up() const {
    for (const auto& [peer, row] : impl_->rows) {
        if (!row.dead) return true;
    }
    return false;
}

const HelloMeta* Link::hello_of(Peer peer) const {
    const auto at = impl_->rows.find(peer);
    return at == impl_->rows.end() ? nullptr : &at->second.hello;
}

const HelloMeta& Link::self() const { return impl_->options.hello; }

uint64_t Link::outbox_bytes(Peer peer) const {
    const auto at = impl_->rows.find(peer);
    return at == impl_->rows.end() ? 0 : at->second.outbox_bytes;
}

const LinkCounters& Link::counters() const { return impl_->counters; }
std::string Link::endpoint() const { return impl_->bound; }

}  // namespace parley::pipe
