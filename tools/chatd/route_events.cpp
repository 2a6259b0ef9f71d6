// /v1/events and read marks: what a user's other devices do, as it happens.
#include <fmt/format.h>

#include <charconv>

#include "base/json.hpp"
#include "json_in.hpp"
#include "live.hpp"
#include "messages/events.hpp"
#include "presence.hpp"
#include "routes.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr size_t kReplayMax = 1000;  // events; beyond them a device had better read everything
constexpr size_t kRowsAtOnce = 100;
constexpr int64_t kCheckMs = 30'000;  // how often a listener's key or session is looked at again

// One device. It keeps no event: it reads the feed from its own place whenever it is woken.
class EventsCall final : public Call, public std::enable_shared_from_this<EventsCall> {
  public:
    explicit EventsCall(ExchangePtr exchange)
        : exchange_(std::move(exchange)), app_(exchange_->app) {}

    void start(std::optional<uint64_t> since) {
        const auto weak = weak_from_this();
        const auto wake = [weak] {
            if (const auto self = weak.lock()) self->pump();
        };
        // First listen, then look: what is committed between is seen.
        place_ = app_.live->hub().listen(exchange_->caller.user, wake);
        if (!place_)
            return exchange_->error(
                ApiError::of(ErrorType::rate_limit_error, "too many devices are connected", 10));
        store::Reader* reader = app_.store->reader();
        if (!reader) return exchange_->error(store_away());
        const auto found =
            live::place_of(*reader, exchange_->caller.user, since, app_.clock.wall_ms(),
                           app_.options.events_window_ms, kReplayMax);
        if (!found) return exchange_->error(api_error_of(found.error(), ""));
        after_ = found->after;
        device_ = app_.presence->enter(exchange_->caller.user);
        generation_ = app_.presence->generation();  // told from the next on: we are in it
        app_.keep(shared_from_this());
        exchange_->writer->on_drain(wake);
        exchange_->writer->on_close([weak] {
            if (const auto self = weak.lock()) self->leave();
        });
        exchange_->begin_sse();
        const bool resync = found->start == live::Start::resync;
        say(resync ? "resync" : "hello", resync ? "resync" : "hello");
        checked_ms_ = app_.clock.mono_ms();
        pump();
    }

    void tick(int64_t now_ms) override {
        if (over_) return;
        if (app_.draining) {
            over_ = true;
            exchange_->end();
            return drop();
        }
        if (now_ms - checked_ms_ >= kCheckMs) {
            checked_ms_ = now_ms;
            if (!app_.auth->check(exchange_->request, app_.store->reader()) &&
                app_.store->reader()) {
                over_ = true;
                exchange_->end();
                return drop();
            }
        }
        say_presence();
        if (now_ms - last_ms_ < app_.options.ping_ms) return;
        last_ms_ = now_ms;
        std::string frame;
        messages::sse_frame(frame, "", "ping", messages::EventWriter::ping());
        exchange_->writer->write(frame);
    }

  private:
    void say(std::string_view name, std::string_view type) {
        std::string json, frame;
        base::JsonWriter w(json);
        w.object().field("type", type).field("seq", after_).end();
        messages::sse_frame(frame, std::to_string(after_), name, json);
        exchange_->writer->write(frame);
        last_ms_ = app_.clock.mono_ms();
    }

    // Not of the log: it has no place in it, and says what is so now. One that is slow is told the last
    // count alone, once it reads on.
    void say_presence() {
        const uint64_t generation = app_.presence->generation();
        if (generation == generation_) return;
        if (exchange_->writer->pending_bytes() > app_.options.client_bytes_max) return;
        generation_ = generation;
        const uint32_t devices = app_.presence->devices(exchange_->caller.user);
        if (devices == devices_) return;
        devices_ = devices;
        std::string json, frame;
        base::JsonWriter w(json);
        w.object().field("type", "presence").field("devices", devices).end();
        messages::sse_frame(frame, "", "presence", json);
        exchange_->writer->write(frame);
        last_ms_ = app_.clock.mono_ms();
    }

    void pump() {
        if (over_ || pumping_) return;
        const auto self = shared_from_this();
        store::Reader* reader = app_.store->reader();
        if (!reader) return;
        pumping_ = true;
        const auto& writer = exchange_->writer;
        for (bool more = true; more && !writer->closed();) {
            if (writer->pending_bytes() > app_.options.client_bytes_max) break;
            const auto rows = reader->feed(exchange_->caller.user, after_, kRowsAtOnce);
            if (!rows) break;
            more = rows->size() == kRowsAtOnce;
            for (const store::Change& row : *rows) {
                after_ = row.seq;
                const auto event = live::event_of(row);
                if (!event) continue;
                std::string frame;
                messages::sse_frame(frame, std::to_string(event->seq), event->type, event->json);
                if (!writer->write(frame)) break;
                last_ms_ = app_.clock.mono_ms();
            }
        }
        pumping_ = false;
    }

    void leave() {
        if (over_) return;
        over_ = true;
        exchange_->gone();
        drop();
    }
    void drop() {
        place_.reset();
        device_.reset();
        app_.let_go(shared_from_this());
    }

    ExchangePtr exchange_;
    App& app_;
    std::shared_ptr<void> place_;
    std::shared_ptr<void> device_;  // as others see us
    uint64_t generation_ = 0;
    uint32_t devices_ = 0;
    uint64_t after_ = 0;
    int64_t last_ms_ = 0;
    int64_t checked_ms_ = 0;
    bool pumping_ = false;
    bool over_ = false;
};

}  // namespace

void get_events(const ExchangePtr& exchange) {
    std::string_view text = exchange->request.headers.get("last-event-id");
    if (text.empty()) text = exchange->request.query_value("since").value_or("");
    std::optional<uint64_t> since;
    if (!text.empty()) {
        uint64_t seq = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seq);
        // What is no place of ours is one that cannot be followed from.
        since = error == std::errc() && end == text.data() + text.size() ? seq : UINT64_MAX;
    }
    std::make_shared<EventsCall>(exchange)->start(since);
}

void mark_read(const ExchangePtr& exchange) {
    const auto conv = store::parse_id(store::kConv, exchange->request.segments[2]);
    if (!conv) return exchange->error(no_conversation());
    JsonIn in(exchange->request.body);
    const auto text = in.text("message_id");
    if (in.error()) return exchange->error(*in.error());
    if (!text) return exchange->error(ApiError::invalid("message_id", "Field required"));
    const auto message = store::parse_id(store::kMsg, *text);
    if (!message)
        return exchange->error(ApiError::of(ErrorType::not_found_error, "no such message"));
    const store::ReadMark command{exchange->caller.org, exchange->caller.user, *conv, *message};
    submit_for(exchange, command.json(), [exchange, conv](const store::CommandReply& reply) {
        std::string out;
        base::JsonWriter w(out);
        w.object()
            .field("type", "read")
            .field("conversation_id", store::show_id(store::kConv, *conv));
        w.key("unread_count").raw(member_json(reply.json, "unread")).end();
        exchange->reply(200, std::move(out));
    });
}

}  // namespace parley::chatd
