#include "idempotency.hpp"

#include <fmt/format.h>

#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "json_in.hpp"
#include "peers.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr int64_t kDoneWaitMs = 10'000;

ApiError other_body() {
    ApiError error = ApiError::of(ErrorType::conflict_error,
                                  "the idempotency key was used with another request");
    error.retryable = false;
    return error;
}

}  // namespace

std::string idempotency_key(const Exchange& exchange, const std::string& fingerprint) {
    if (const std::string* key = exchange.request.headers.find("idempotency-key");
        key && !key->empty())
        return *key;
    if (exchange.app.options.no_request_id_idempotency) return {};
    const std::string* id = exchange.request.headers.find("x-request-id");
    // Proxies pass it on to other requests too: another body is another key.
    return id && !id->empty() ? fmt::format("x:{}:{}", *id, fingerprint) : std::string();
}

tl::expected<std::optional<IdemKey>, ApiError> idem_key_of(const Exchange& exchange, bool stream) {
    const http::Headers& headers = exchange.request.headers;
    if (headers.get("idempotency-key").empty() &&
        (exchange.app.options.no_request_id_idempotency || headers.get("x-request-id").empty()))
        return std::optional<IdemKey>();
    IdemKey key;
    key.user = exchange.caller.user;
    key.stream = stream;
    key.openai = exchange.dialect == Dialect::openai;
    // The same bytes may be a request of either route.
    key.fingerprint = base::hex(
        base::sha256(key.openai ? "chat\n" + exchange.request.body : exchange.request.body));
    key.key = idempotency_key(exchange, key.fingerprint);
    if (key.key.empty()) return std::optional<IdemKey>();
    if (key.key.size() > kIdempotencyKeyMax)
        return tl::make_unexpected(
            ApiError::invalid("idempotency-key", "at most 500 bytes are possible"));
    return std::optional<IdemKey>(std::move(key));
}

// For an answer in another chatd: until it stands in the store, its key is free, or its chatd is dead.
class Idempotency::Wait final : public Call, public std::enable_shared_from_this<Wait> {
  public:
    Wait(Idempotency& idempotency, ExchangePtr exchange, IdemKey key, std::function<void()> fresh,
         std::string owner)
        : idempotency_(idempotency),
          exchange_(std::move(exchange)),
          key_(std::move(key)),
          fresh_(std::move(fresh)),
          owner_(std::move(owner)) {}

    void tick(int64_t now_ms) override {
        App& app = idempotency_.app_;
        if (exchange_->writer->closed()) {
            exchange_->gone();
            return app.let_go(shared_from_this());
        }
        if (now_ms < next_ms_) return;
        next_ms_ = now_ms + kWaitStepMs;
        if (until_ms_ == 0) until_ms_ = now_ms + kWaitMs;
        store::Reader* reader = app.store->reader();
        if (!reader) return;
        const auto row =
            reader->idempotency(key_.user, IdemKey::kScope, key_.key, app.clock.wall_ms());
        const bool same = row && !row->done && row->owner == owner_;
        if (same && now_ms < until_ms_ && (++steps_ % 10 != 0 || app.turns->owner_lives(owner_)))
            return;
        const auto self = shared_from_this();
        app.let_go(self);
        if (now_ms >= until_ms_)
            return exchange_->error(
                ApiError::unavailable("another server is producing this answer", 1));
        idempotency_.look(exchange_, key_, fresh_);
    }

  private:
    static constexpr int64_t kWaitStepMs = 100;
    static constexpr int64_t kWaitMs = 600'000;  // a client's own patience is no longer

    Idempotency& idempotency_;
    ExchangePtr exchange_;
    IdemKey key_;
    std::function<void()> fresh_;
    std::string owner_;
    int64_t next_ms_ = 0, until_ms_ = 0;
    uint64_t steps_ = 0;
};

void Idempotency::look(const ExchangePtr& exchange, const IdemKey& key,
                       std::function<void()> fresh) {
    if (const auto taking = taking_.find(key.place()); taking != taking_.end()) {
        taking->second.push_back([this, exchange, key, fresh = std::move(fresh)] {
            if (!exchange->writer->closed()) look(exchange, key, fresh);
        });
        return;
    }
    store::Reader* reader = app_.store->reader();
    if (!reader) return exchange->error(store_away());
    auto row = reader->idempotency(key.user, IdemKey::kScope, key.key, app_.clock.wall_ms());
    if (!row && row.error().code == base::Errc::not_found) return fresh();
    if (!row) return exchange->error(api_error_of(row.error(), ""));
    if (row->fingerprint != key.fingerprint) return exchange->error(other_body());
    if (row->done) return replay(exchange, row->result);
    if (const auto known = running_.find(key.place()); known != running_.end())
        if (const auto answer = known->second.lock()) return answer->join(exchange);
    if (row->owner != app_.owner && app_.turns->owner_lives(row->owner)) {
        // What a stream has said so far is told by who makes it; what is not there any more is looked
        // for in the store, like the end of one object.
        const auto wait = [this, exchange, key, fresh, owner = row->owner] {
            app_.keep(std::make_shared<Wait>(*this, exchange, key, fresh, owner));
        };
        std::string id = row->result;
        // Chunks say accounts that only their own chatd has.
        if (!key.stream || key.openai || id.size() < 2 || id.front() != '"') return wait();
        id = id.substr(1, id.size() - 2);
        return app_.peers->follow(exchange, id, row->owner, std::nullopt, wait);
    }
    // Of a dead one; or ours, whose freeing is under way: commands keep their order.
    store::IdemFree command{key.user, IdemKey::kScope, key.key, row->owner};
    auto sent = app_.store->submit(
        command.json(),
        [fresh = std::move(fresh)](const store::CommandReply&) {
            // Whatever came of it: if another was faster, take() finds that out.
            fresh();
        },
        kCommandWaitMs);
    if (!sent) exchange->error(api_error_of(sent.error(), ""));
}

void Idempotency::take(const ExchangePtr& exchange, const IdemKey& key,
                       const std::string& message_id, std::function<void()> taken) {
    const auto asked_twice = [exchange] {
        exchange->error(ApiError::unavailable("this request was asked twice at once", 1));
    };
    if (taking_.count(key.place())) return look(exchange, key, asked_twice);
    store::IdemTake command;
    command.user = key.user;
    command.scope = IdemKey::kScope;
    command.key = key.key;
    command.fingerprint = key.fingerprint;
    command.result = base::json_string(message_id);
    command.owner = app_.owner;
    if (!app_.store->connected()) return exchange->error(store_away());
    auto sent = app_.store->submit(
        command.json(),
        [this, exchange, key, asked_twice,
         taken = std::move(taken)](const store::CommandReply& reply) {
            const auto waiting = std::move(taking_[key.place()]);
            taking_.erase(key.place());
            if (reply.reason == "idempotency")
                exchange->error(other_body());
            else if (!reply.ok())
                exchange->error(api_error_of(reply));
            else if (member_json(reply.json, "replayed") != "true")
                taken();
            else
                look(exchange, key, asked_twice);
            for (const auto& each : waiting) each();
        },
        kCommandWaitMs);
    if (!sent) return exchange->error(api_error_of(sent.error(), ""));
    taking_[key.place()];
}

void Idempotency::running(const IdemKey& key, const std::shared_ptr<Joinable>& answer) {
    running_[key.place()] = answer;
}

void Idempotency::keep(const IdemKey& key, bool stream, const std::string& bytes,
                       std::function<void()> done) {
    if (bytes.size() > kKeptMax) {
        base::log(base::Level::warn, "chatd.answer_not_kept", {{"bytes", bytes.size()}});
        free(key);
        return done();
    }
    store::IdemDone command;
    command.user = key.user;
    command.scope = IdemKey::kScope;
    command.key = key.key;
    base::JsonWriter(command.result).object().field("stream", stream).field("bytes", bytes).end();
    command.owner = app_.owner;
    const auto once = std::make_shared<std::function<void()>>(std::move(done));
    const auto call = [this, place = key.place(), once] {
        if (const auto done = std::exchange(*once, nullptr)) {
            running_.erase(place);
            done();
        }
    };
    // A client is not kept from its answer for longer than that: the command stays queued.
    auto sent = app_.store->submit(
        command.json(), [call](const store::CommandReply&) { call(); }, kDoneWaitMs);
    if (!sent) call();
}

void Idempotency::free(const IdemKey& key) {
    running_.erase(key.place());
    const store::IdemFree command{key.user, IdemKey::kScope, key.key, app_.owner};
    if (auto sent = app_.store->submit(
            command.json(), [](const store::CommandReply&) {}, 0);
        !sent)
        base::log(base::Level::warn, "chatd.key_not_freed", {{"error", sent.error().what}});
}

void Idempotency::replay(const ExchangePtr& exchange, const std::string& result) {
    JsonIn in(result);
    const auto bytes = in.text("bytes", SIZE_MAX);
    const auto stream = in.flag("stream");
    if (in.error() || !bytes || !stream)
        return exchange->error(
            ApiError::of(ErrorType::api_error, "the kept answer cannot be read"));
    exchange->note("replayed", 1);
    if (!*stream) return exchange->reply(200, *bytes);
    exchange->begin_sse();
    exchange->writer->write(*bytes);
    exchange->end();
}

}  // namespace parley::chatd
