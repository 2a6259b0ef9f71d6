// /v1/ws: the feed and any number of answer streams on one WebSocket. See chatd(8), WebSocket.
//
// Each request of a client becomes the HTTP request that it stands for, by the same head checks, routes,
// limits and errors; its answer comes back in messages that carry the client's `ref`. What is said here
// is framing only.
// Pace     all streams of a connection share its socket, and stop where --client-buffer waits for it.
// Bounds   --ws-message-max a message, --ws-streams requests at once, --ws-queue bytes that wait for the
//          client beyond what streams hold back (errors, answers): then it is cut.
#include <algorithm>
#include <map>

#include "base/json.hpp"
#include "http/websocket.hpp"
#include "json_in.hpp"
#include "routes.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr std::string_view kTypes =
    "Input should be 'send', 'regenerate', 'resume', 'cancel', 'read', 'subscribe' or 'leave'";
constexpr size_t kRefMax = 64;
constexpr size_t kIdMax = 256;
constexpr int64_t kCheckMs = 30'000;  // how often the key or session is looked at again
constexpr std::string_view kHeadersKept[] = {"x-api-key", "authorization", "cookie",
                                             "origin",    "host",          "x-user-id"};

class WsCall;

// One request's way back: an HTTP answer in messages.
class Channel final : public http::ResponseTarget, public std::enable_shared_from_this<Channel> {
  public:
    Channel(std::weak_ptr<WsCall> call, std::string ref)
        : call_(std::move(call)), ref_(std::move(ref)) {}
    http::Writer writer() {
        auto made = std::make_shared<http::ResponseWriter>(weak_from_this(), false);
        writer_ = made;
        return made;
    }
    void reply(http::ResponseWriter&, http::Response response) override;
    void start(http::ResponseWriter&, int status, const HeaderList& headers) override;
    bool write(http::ResponseWriter&, std::string_view bytes) override;
    void finish(http::ResponseWriter&) override { end(false); }
    void abort(http::ResponseWriter&) override { end(true); }
    void abandoned(const http::ResponseWriter&) override { end(true); }
    size_t pending() const override;
    // The client wants no more of it, or is gone.
    void leave() {
        const auto writer = writer_.lock();
        if (!writer) return;
        if (const auto callback = mark_closed(*writer)) callback();
    }
    void drained() {
        const auto writer = writer_.lock();
        if (!writer) return;
        if (const auto callback = drain_of(*writer)) callback();
    }

  private:
    void end(bool cut);
    std::weak_ptr<WsCall> call_;
    std::weak_ptr<http::ResponseWriter> writer_;
    std::string ref_;
};

void write_headers(base::JsonWriter& w, const HeaderList& headers) {
    w.key("headers").object();
    for (const auto& [name, value] : headers)
        if (name != "content-type" && name != "cache-control" && name != "x-accel-buffering")
            w.field(name, value);
    w.end();
}

class WsCall final : public Call, public std::enable_shared_from_this<WsCall> {
  public:
    explicit WsCall(ExchangePtr exchange)
        : exchange_(std::move(exchange)),
          app_(exchange_->app),
          reader_(app_.options.ws_message_max) {}

    void start(const std::string& accept) {
        const auto weak = weak_from_this();
        exchange_->writer->on_drain([weak] {
            if (const auto self = weak.lock()) self->drained();
        });
        exchange_->writer->on_close([weak] {
            if (const auto self = weak.lock()) self->gone();
        });
        const bool upgraded =
            exchange_->upgrade({{"upgrade", "websocket"}, {"sec-websocket-accept", accept}},
                               [weak](std::string_view bytes) {
                                   if (const auto self = weak.lock()) self->take(bytes);
                               });
        if (!upgraded) return exchange_->error(ApiError::invalid("a WebSocket needs HTTP/1.1"));
        heard_ms_ = said_ms_ = checked_ms_ = app_.clock.mono_ms();
        app_.keep(shared_from_this());
    }

    void tick(int64_t now_ms) override {
        if (over_) return;
        if (app_.draining && channels_.empty()) return close(1012, "this server is draining");
        if (now_ms - heard_ms_ > app_.options.ws_timeout_ms)
            return close(1001, "nothing was heard for too long");
        if (now_ms - checked_ms_ >= kCheckMs) {
            checked_ms_ = now_ms;
            if (app_.store->reader() && !app_.auth->check(exchange_->request, app_.store->reader()))
                return close(1008, "the key or session is over");
        }
        if (now_ms - said_ms_ < app_.options.ws_ping_ms) return;
        std::string frame;
        http::ws_ping(frame);
        send_frame(frame);
    }

    void say(std::string_view json) {
        std::string frame;
        http::ws_text(frame, json);
        send_frame(frame);
    }
    size_t pending() const { return exchange_->writer->pending_bytes(); }
    bool over() const { return over_; }
    void drop(const std::string& ref) { channels_.erase(ref); }

  private:
    void send_frame(std::string_view frame) {
        if (over_) return;
        said_ms_ = app_.clock.mono_ms();
        if (!exchange_->writer->write(frame)) return;  // on_close follows
        if (pending() > app_.options.ws_queue_max) close(1008, "answers are read too slowly");
    }

    void take(std::string_view bytes) {
        if (over_) return;
        const auto self = shared_from_this();
        heard_ms_ = app_.clock.mono_ms();
        std::vector<http::WsEvent> events;
        const bool good = reader_.feed(bytes, events);
        for (const http::WsEvent& event : events) {
            if (over_) return;
            std::string frame;
            switch (event.kind) {
                case http::WsKind::text:
                    request(event.payload);
                    break;
                case http::WsKind::ping:
                    http::ws_pong(frame, event.payload);
                    send_frame(frame);
                    break;
                case http::WsKind::pong:
                    break;
                case http::WsKind::close:
                    return close(event.code == 1005 ? 1000 : event.code, "");
            }
        }
        if (!good) close(reader_.failure()->code, reader_.failure()->why);
    }

    void refuse(const std::string& ref, const ApiError& error) {
        std::string out;
        base::JsonWriter w(out);
        w.object().field("type", "error").key("ref");
        ref.empty() ? w.null() : w.string(ref);
        const std::string id = new_request_id();
        w.field("status", error.status).key("headers").object().field("request-id", id);
        if (error.retry_after_s > 0) w.field("retry-after", std::to_string(error.retry_after_s));
        w.end().key("body").raw(messages::error_body(error, id)).end();
        say(out);
    }

    void request(const std::string& text) {
        JsonIn in(text);
        const std::string ref = in.text("ref", kRefMax).value_or("");
        const std::string type = in.text("type", kRefMax).value_or("");
        if (in.error()) return refuse("", *in.error());
        if (ref.empty()) return refuse("", ApiError::invalid("ref", "Field required"));
        const auto running = channels_.find(ref);
        if (type == "leave") {
            if (running == channels_.end())
                return refuse(ref, ApiError::of(ErrorType::not_found_error, "no such ref"));
            const auto channel = running->second;
            channels_.erase(running);
            channel->leave();
            std::string out;
            base::JsonWriter(out).object().field("type", "end").field("ref", ref).end();
            return say(out);
        }
        if (running != channels_.end())
            return refuse(ref, ApiError::invalid("ref", "this one is still running"));
        if (channels_.size() >= app_.options.ws_streams_max)
            return refuse(ref, ApiError::of(ErrorType::rate_limit_error,
                                            "too many requests run on this connection", 1));
        http::Request made;
        made.method = "POST";
        made.peer = exchange_->request.peer;
        made.tls = exchange_->request.tls;
        for (const std::string_view name : kHeadersKept)
            if (const std::string* value = exchange_->request.headers.find(name))
                made.headers.add(name, *value);
        if (!path(in, type, made))
            return refuse(ref, in.error() ? *in.error() : ApiError::invalid("type", kTypes));
        const auto channel = std::make_shared<Channel>(weak_from_this(), ref);
        channels_[ref] = channel;
        const http::Writer writer = channel->writer();
        http::HeadDecision decision = decide(app_, made);
        if (decision.response) return writer->reply(std::move(*decision.response));
        dispatch(app_, std::move(made), writer);
    }

    // The request that a message stands for; false: it is none, or in.error().
    static bool path(JsonIn& in, const std::string& type, http::Request& made) {
        const auto id = [&](std::string_view name) {
            auto text = in.text(name, kIdMax);
            if (!text && !in.error()) in.refuse(name, "Field required");
            return text.value_or("");
        };
        const auto header = [&](std::string_view member, std::string_view name) {
            if (const auto value = in.text(member, kIdMax)) made.headers.add(name, *value);
        };
        if (type == "subscribe") {
            made.method = "GET";
            made.segments = {"v1", "events"};
            header("since", "last-event-id");
        } else if (type == "send" || type == "read") {
            made.segments = {"v1", "conversations", id("conversation_id"),
                             type == "send" ? "messages" : "read"};
        } else if (type == "regenerate" || type == "resume" || type == "cancel") {
            made.segments = {"v1",       "conversations",  id("conversation_id"),
                             "messages", id("message_id"), type == "resume" ? "stream" : type};
        } else {
            return false;
        }
        if (type == "resume") {
            made.method = "GET";
            header("after", "last-event-id");
        }
        if (type == "send" || type == "regenerate") {
            header("idempotency_key", "idempotency-key");
            header("traceparent", "traceparent");
            made.body = in.raw("body").value_or(type == "send" ? "{}" : "");
        }
        if (type == "read") {
            base::JsonWriter w(made.body);
            w.object().field("message_id", id("message_id")).end();
        }
        for (const std::string& segment : made.segments) made.path += "/" + segment;
        made.target = made.path;
        return !in.error();
    }

    void drained() {
        // From where the last turn ended: who reads slowly still sees all of its streams go on.
        const auto channels = channels_;
        auto at = channels.upper_bound(served_);
        for (size_t i = 0; i < channels.size(); ++i, ++at) {
            if (over_ || pending() > app_.options.client_bytes_max) return;
            if (at == channels.end()) at = channels.begin();
            served_ = at->first;
            at->second->drained();
        }
    }

    void close(uint16_t code, std::string_view why) {
        if (over_) return;
        std::string frame;
        http::ws_close(frame, code, why);
        exchange_->writer->write(frame);
        exchange_->note("close", code);
        finish(true);
    }
    void gone() { finish(false); }
    void finish(bool ours) {
        if (over_) return;
        over_ = true;
        const auto self = shared_from_this();
        ours ? exchange_->end() : exchange_->gone();
        // Answers go on without their reader, as they do when any client leaves.
        const auto channels = std::exchange(channels_, {});
        for (const auto& [ref, channel] : channels) channel->leave();
        app_.let_go(self);
    }

    ExchangePtr exchange_;
    App& app_;
    http::WsReader reader_;
    std::map<std::string, std::shared_ptr<Channel>> channels_;
    std::string served_;
    int64_t heard_ms_ = 0, said_ms_ = 0, checked_ms_ = 0;
    bool over_ = false;
};

void Channel::reply(http::ResponseWriter&, http::Response response) {
    const auto call = call_.lock();
    if (!call) return;
    const auto self = shared_from_this();
    call->drop(ref_);
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", response.status >= 400 ? "error" : "response").field("ref", ref_);
    w.field("status", response.status);
    write_headers(w, response.headers);
    w.key("body");
    response.body.empty() ? w.null() : w.raw(response.body);
    w.end();
    call->say(out);
}

void Channel::start(http::ResponseWriter&, int status, const HeaderList& headers) {
    const auto call = call_.lock();
    if (!call) return;
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "begin").field("ref", ref_).field("status", status);
    write_headers(w, headers);
    w.end();
    call->say(out);
}

// Whole frames of an event stream: one message each.
bool Channel::write(http::ResponseWriter&, std::string_view bytes) {
    const auto call = call_.lock();
    if (!call || call->over()) return false;
    std::string_view id, name;
    while (!bytes.empty()) {
        const size_t eol = std::min(bytes.find('\n'), bytes.size());
        const std::string_view line = bytes.substr(0, eol);
        bytes.remove_prefix(std::min(eol + 1, bytes.size()));
        if (line.starts_with("id: ")) id = line.substr(4);
        if (line.starts_with("event: ")) name = line.substr(7);
        if (line.starts_with("data: ") && name != "ping") {
            std::string out;
            base::JsonWriter w(out);
            w.object().field("type", "event").field("ref", ref_);
            if (!id.empty()) w.field("id", id);
            w.field("event", name).key("data").raw(line.substr(6)).end();
            call->say(out);
        }
        if (line.empty()) id = name = {};
    }
    return !call->over();
}

void Channel::end(bool cut) {
    const auto call = call_.lock();
    if (!call) return;
    const auto self = shared_from_this();
    call->drop(ref_);
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "end").field("ref", ref_);
    if (cut) w.field("cut", true);
    w.end();
    call->say(out);
}

size_t Channel::pending() const {
    const auto call = call_.lock();
    return call && !call->over() ? call->pending() : 0;
}

}  // namespace

void get_ws(const ExchangePtr& exchange) {
    // A page of another site may begin a WebSocket without asking: what the cookie, or nothing, knows
    // must come from ours.
    const bool must = exchange->caller.by_cookie ||
                      (exchange->app.options.no_auth && exchange->request.headers.has("origin"));
    if (must && !exchange->app.auth->ours(exchange->request))
        return exchange->error(
            ApiError::of(ErrorType::permission_error, "the request comes from another site"));
    const http::WsHandshake hands = http::ws_handshake(exchange->request);
    if (hands.refusal) {
        ApiError error = ApiError::invalid(hands.refusal->body);
        error.status = hands.refusal->status;
        http::Response response = error_response(error, exchange->request_id);
        for (const auto& [name, value] : hands.refusal->headers)
            if (name != "content-type") response.header(name, value);
        return exchange->reply(std::move(response));
    }
    std::make_shared<WsCall>(exchange)->start(hands.accept);
}

}  // namespace parley::chatd
