#include "peers.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/log.hpp"
#include "messages/events.hpp"
#include "sse_pump.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr uint32_t kCredit = 64;
constexpr std::string_view kPrefix = "chatd-", kSuffix = ".lock";

std::string endpoint_of(const App& app, const std::string& boot) {
    return app.places.endpoint("chatd-" + boot);
}

// The boot ids of all chatd that have a lock file here, living or not.
std::vector<std::string> boots_in(const std::string& folder) {
    std::vector<std::string> boots;
    DIR* dir = ::opendir(folder.c_str());
    if (!dir) return boots;
    while (const dirent* entry = ::readdir(dir)) {
        const std::string_view name = entry->d_name;
        if (name.size() > kPrefix.size() + kSuffix.size() && name.starts_with(kPrefix) &&
            name.ends_with(kSuffix))
            boots.emplace_back(
                name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()));
    }
    ::closedir(dir);
    return boots;
}

}  // namespace

struct Peers::Peer final : pipe::AskerHandler {
    Peers& owner;
    std::unique_ptr<pipe::Asker> asker;
    std::shared_ptr<void> watch;
    explicit Peer(Peers& peers) : owner(peers) {}
    ~Peer() override { watch.reset(); }
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override {
        owner.on_event(id, meta, std::move(body));
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        owner.on_end(id, meta);
    }
};

// One client that reads another chatd's stream: the events come into a stream of our own, with the same
// numbers, and go out by the same pump as any.
class Peers::Following final : public Call, public std::enable_shared_from_this<Following> {
  public:
    Following(Peers& peers, ExchangePtr exchange, std::function<void()> none)
        : peers_(peers), exchange_(std::move(exchange)), none_(std::move(none)) {}

    void start(const std::string& id, const std::string& boot,
               std::optional<std::pair<uint32_t, uint64_t>> after) {
        App& app = peers_.app_;
        app.keep(shared_from_this());
        chat::StreamOptions options;
        options.epoch = after ? after->first : 1;
        options.first_seq = after ? after->second + 1 : 1;
        options.bytes_max = app.options.stream_bytes_max;
        stream_ = std::make_shared<chat::Stream>(options);
        pipe::Envelope envelope;
        envelope.org = exchange_->caller.org_text();
        envelope.user = exchange_->caller.user_text();
        envelope.message = id;
        envelope.credit = kCredit;
        const std::string body =
            after ? fmt::format(R"({{"epoch":{},"after":{}}})", after->first, after->second) : "";
        for (const auto& [name, peer] : peers_.peers_) {
            if (!boot.empty() && name != boot) continue;
            const std::string request = fmt::format("f{}", ++peers_.asked_);
            // The answer may come within the call.
            peers_.following_[request] = weak_from_this();
            waiting_[request] = peer->asker.get();
            if (!peer->asker->follow(request, envelope, body)) {
                peers_.following_.erase(request);
                waiting_.erase(request);
            }
        }
        nobody();
    }

    void tick(int64_t now_ms) override {
        if (pump_) pump_->tick(now_ms);
        if (since_ms_ == 0) since_ms_ = now_ms;
        if (!pump_ && !over_ && now_ms - since_ms_ > kAskMs) {
            // One that is stopped does not keep the client waiting.
            for (const auto& [request, asker] : std::map(waiting_)) asker->cancel(request, "late");
            waiting_.clear();
            nobody();
        }
    }

    void event(const std::string& request, const std::string& body) {
        const auto event = messages::parse_event(body);
        if (over_ || !event || (!chosen_.empty() && chosen_ != request)) return;
        if (!pump_) choose(request);
        ++received_;
        if (event->type != messages::EventType::ping) stream_->push(event->type, body);
        grant();
    }

    void end(const std::string& request, const pipe::EndMeta& meta) {
        waiting_.erase(request);
        if (over_) return;
        if (chosen_.empty()) return nobody();  // it has said no, or is gone
        if (chosen_ != request) return;
        if (meta.ok()) return stream_->close();
        if (meta.reason == "peer_gone")
            return stream_->fail(ApiError::overloaded(1));  // its chatd is dead, and so is it
        stream_->fail(ApiError::from_end(meta.status, meta.message, meta.retryable));
    }

  private:
    static constexpr int64_t kAskMs = 2000;

    void nobody() {
        if (over_ || !chosen_.empty() || !waiting_.empty()) return;
        over_ = true;
        const auto self = shared_from_this();
        peers_.app_.let_go(self);
        if (!exchange_->writer->closed()) none_();
    }

    void choose(const std::string& request) {
        if (!chosen_.empty()) return;
        chosen_ = request;
        for (const auto& [other, asker] : std::map(waiting_))
            if (other != request) asker->cancel(other, "found");
        asker_ = waiting_.count(request) ? waiting_[request] : nullptr;
        const std::weak_ptr<Following> weak = weak_from_this();
        const auto leave = [weak] {
            if (const auto self = weak.lock()) self->leave();
        };
        stream_->on_progress([weak] {
            if (const auto self = weak.lock()) self->grant();
        });
        pump_ = std::make_shared<SsePump>(exchange_, leave, leave);
        pump_->attach(stream_, std::nullopt);
        pump_->begin();
    }

    void leave() {
        if (over_) return;
        over_ = true;
        const auto self = shared_from_this();
        if (asker_ && waiting_.count(chosen_)) asker_->cancel(chosen_, "client_gone");
        peers_.app_.let_go(self);
    }

    // As the client reads.
    void grant() {
        if (!asker_ || over_ || !waiting_.count(chosen_)) return;
        const uint64_t under_way = granted_ - std::min<uint64_t>(granted_, received_);
        const uint64_t used = stream_->backlog() + under_way;
        if (used + kCredit / 4 > kCredit) return;
        granted_ += kCredit - used;
        asker_->grant(chosen_, static_cast<uint32_t>(kCredit - used));
    }

    Peers& peers_;
    ExchangePtr exchange_;
    std::function<void()> none_;
    std::shared_ptr<chat::Stream> stream_;
    std::shared_ptr<SsePump> pump_;
    std::map<std::string, pipe::Asker*> waiting_;  // without END, by request id
    std::string chosen_;
    pipe::Asker* asker_ = nullptr;
    uint64_t received_ = 0, granted_ = kCredit;
    int64_t since_ms_ = 0;
    bool over_ = false;
};

Peers::Peers(App& app, pipe::Context& context) : app_(app), context_(context) {}

base::Result<std::unique_ptr<Peers>> Peers::open(App& app, pipe::Context& context) {
    std::unique_ptr<Peers> peers(new Peers(app, context));
    pipe::AnswererOptions options;
    options.link.endpoint = endpoint_of(app, app.owner);
    options.link.bind = true;
    options.link.hello.role = pipe::Role::answerer;
    options.link.hello.name = "chatd";
    options.link.hello.boot = app.boot;
    options.requests_max = app.options.answers_max;
    auto followers = chat::Followers::open(context, std::move(options), app.answers);
    if (!followers) return base::fail(followers.error());
    peers->followers_ = std::move(*followers);
    peers->followers_watch_ = app.watch(peers->followers_->link());
    return peers;
}

Peers::~Peers() {
    peers_.clear();
    followers_watch_.reset();
    followers_.reset();
    ::unlink((app_.places.run() + "/chatd-" + app_.owner + ".sock").c_str());
}

void Peers::follow(const ExchangePtr& exchange, const std::string& id, const std::string& boot,
                   std::optional<std::pair<uint32_t, uint64_t>> after, std::function<void()> none) {
    std::make_shared<Following>(*this, exchange, std::move(none))->start(id, boot, after);
}

void Peers::on_event(const std::string& id, const pipe::EventMeta&, std::string body) {
    const auto found = following_.find(id);
    if (found == following_.end()) return;
    if (const auto following = found->second.lock()) following->event(id, body);
}

void Peers::on_end(const std::string& id, const pipe::EndMeta& meta) {
    const auto found = following_.find(id);
    if (found == following_.end()) return;
    const auto following = found->second.lock();
    following_.erase(found);
    if (following) following->end(id, meta);
}

void Peers::tick() {
    followers_->link().step();
    for (const auto& [boot, peer] : peers_) {
        peer->asker->link().step();
        peer->asker->tick();
    }
}

void Peers::each_second() {
    std::set<std::string> live;
    for (const std::string& boot : boots_in(app_.places.run())) {
        if (boot == app_.owner || !app_.turns->owner_lives(boot)) continue;
        live.insert(boot);
        if (peers_.count(boot) || peers_.size() >= kPeersMax) continue;
        auto peer = std::make_unique<Peer>(*this);
        pipe::AskerOptions options;
        options.link.endpoint = endpoint_of(app_, boot);
        options.link.hello.role = pipe::Role::asker;
        options.link.hello.name = "chatd";
        options.link.hello.boot = app_.boot;
        auto asker = pipe::Asker::open(context_, std::move(options), *peer);
        if (!asker) {
            base::log(base::Level::warn, "chatd.peer",
                      {{"boot", boot}, {"error", asker.error().what}});
            continue;
        }
        peer->asker = std::move(*asker);
        peer->watch = app_.watch(peer->asker->link());
        peers_[boot] = std::move(peer);
    }
    for (auto at = peers_.begin(); at != peers_.end();) {
        const bool gone = !live.count(at->first);
        if (gone) ::unlink((app_.places.run() + "/chatd-" + at->first + ".sock").c_str());
        // A dead one's link has ended what it had; what is left would wait for ever.
        if (gone && at->second->asker->live() == 0)
            at = peers_.erase(at);
        else
            ++at;
    }
}

}  // namespace parley::chatd
