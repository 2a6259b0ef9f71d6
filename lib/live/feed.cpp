#include "live/feed.hpp"

#include <simdjson.h>

#include <array>
#include <vector>

#include "base/clock.hpp"
#include "base/json.hpp"

namespace parley::live {

namespace {

// The log's words and the API's.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kTypes = {{
    {"conversation.created", "conversation.created"},
    {"conversation.updated", "conversation.updated"},
    {"conversation.deleted", "conversation.deleted"},
    {"conversation.read", "conversation.read"},
    {"message.sent", "message.created"},
    {"message.regenerated", "message.created"},
    {"message.taken_over", "message.updated"},
    {"message.finished", "message.finished"},
}};

// Members that are told on, under the API's names.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kMembers = {{
    {"conversation", "conversation_id"},
    {"message", "message_id"},
    {"user_message", "user_message_id"},
    {"status", "status"},
    {"stop_reason", "stop_reason"},
}};

}  // namespace

std::optional<Event> event_of(const store::Change& change) {
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    std::string_view type;
    if (parser.parse(change.json).get(root) || root["type"].get(type)) return std::nullopt;
    for (const auto& [from, to] : kTypes) {
        if (from != type) continue;
        Event event;
        event.seq = change.seq;
        event.type = to;
        base::JsonWriter w(event.json);
        w.object().field("type", to).field("seq", change.seq);
        int64_t ms = 0;
        if (!root["ms"].get(ms)) w.field("at", base::rfc3339_ms(ms));
        for (const auto& [name, shown] : kMembers) {
            std::string_view text;
            if (!root[name].get(text) && !text.empty()) w.field(shown, text);
        }
        w.end();
        return event;
    }
    return std::nullopt;
}

Route route_of(const store::Change& change) {
    Route route;
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    std::string_view text;
    if (parser.parse(change.json).get(root)) return route;
    if (!root["user"].get(text)) route.user = store::parse_id(store::kUser, text);
    if (!root["type"].get(text)) route.type = text;
    if (!root["message"].get(text)) route.message = text;
    return route;
}

store::Result<Place> place_of(store::Reader& reader, const store::Ulid& user,
                              std::optional<uint64_t> since, int64_t now_ms, int64_t window_ms,
                              size_t events_max) {
    const auto last = reader.last_change();
    if (!last) return store::fail(last.error());
    if (!since) return Place{Start::follow, *last};
    const Place anew{Start::resync, *last};
    if (*since > *last) return anew;  // another store, or an older backup of this one
    if (*since == *last) return Place{Start::follow, *since};
    const auto next = reader.changes(*since, 1);
    if (!next) return store::fail(next.error());
    simdjson::dom::parser parser;
    int64_t ms = 0;
    if (next->empty() || parser.parse(next->front().json)["ms"].get(ms) || ms <= now_ms - window_ms)
        return anew;
    const auto waiting = reader.feed(user, *since, events_max + 1);
    if (!waiting) return store::fail(waiting.error());
    if (waiting->size() > events_max) return anew;
    return Place{Start::follow, *since};
}

std::shared_ptr<void> Hub::listen(const store::Ulid& user, std::function<void()> wake) {
    Wakes& wakes = (*users_)[user];
    if (wakes.size() >= per_user_max_) return nullptr;
    const uint64_t id = next_++;
    wakes[id] = std::make_shared<std::function<void()>>(std::move(wake));
    return std::shared_ptr<uint64_t>(new uint64_t(id),
                                     [users = std::weak_ptr(users_), user](uint64_t* mine) {
                                         const std::unique_ptr<uint64_t> owned(mine);
                                         const auto all = users.lock();
                                         if (!all) return;
                                         const auto found = all->find(user);
                                         if (found == all->end()) return;
                                         found->second.erase(*mine);
                                         if (found->second.empty()) all->erase(found);
                                     });
}

void Hub::wake(const store::Ulid& user) {
    const auto found = users_->find(user);
    if (found == users_->end()) return;
    // One that is woken may leave, or let others leave.
    std::vector<std::weak_ptr<std::function<void()>>> wakes;
    for (const auto& [id, call] : found->second) wakes.push_back(call);
    for (const auto& weak : wakes)
        if (const auto call = weak.lock()) (*call)();
}

size_t Hub::listeners() const {
    size_t count = 0;
    for (const auto& [user, wakes] : *users_) count += wakes.size();
    return count;
}

}  // namespace parley::live
