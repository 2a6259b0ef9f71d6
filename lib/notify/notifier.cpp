#include "notify/notifier.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/text.hpp"
#include "live/presence.hpp"
#include "notify/settings.hpp"
#include "notify/web_push.hpp"
#include "store/commands.hpp"

namespace parley::notify {

using base::Errc;
using base::fail;
using base::Result;
using store::Ulid;

namespace {

constexpr size_t kConversationsMax = 100;
constexpr int64_t kPresenceMs = 1000;
constexpr int64_t kForgetMs = 60'000;  // settings of users are read again after this

struct Batch {
    uint64_t first = 0, last = 0;  // changes
    std::set<Ulid> convs;
    bool any() const { return first != 0; }
    void add(uint64_t seq, const Ulid& conv) {
        if (first == 0) first = seq;
        last = seq;
        if (convs.size() < kConversationsMax) convs.insert(conv);
    }
};

struct Wait {
    Ulid org, user;
    std::string channel;
    Batch now, next;  // next: what came while `now` is on its way
    int64_t due_ms = 0;
    uint32_t attempts = 0;
    bool running = false;
};

struct Waiting {
    std::string id, title;
    uint64_t unread = 0;
};

std::string base64(std::string_view bytes) {
    static constexpr char kDigits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        uint32_t word = 0;
        for (size_t k = 0; k < 3; ++k)
            word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
        for (size_t k = 0; k < 4; ++k)
            out += i + k > bytes.size() ? '=' : kDigits[word >> (18 - 6 * k) & 63];
    }
    return out;
}

std::string headline(size_t count) {
    return count == 1 ? "An answer waits in one conversation"
                      : fmt::format("Answers wait in {} conversations", count);
}

}  // namespace

struct Notifier::Impl {
    store::Reader& reader;
    store::Client& client;
    NotifierOptions options;
    const base::Clock& clock;
    Outgoing outgoing;
    std::unique_ptr<store::Follower> follower;
    std::optional<VapidKey> vapid;
    std::map<std::pair<Ulid, std::string>, Wait> waits;
    std::map<std::pair<Ulid, std::string>, uint64_t> done;  // delivered, after the cursor
    std::map<Ulid, std::pair<int64_t, store::UserRow>> users;
    std::set<Ulid> present;
    int64_t present_ms = -kPresenceMs;
    bool dirty = false;
    uint64_t saved = 0;
    simdjson::dom::parser parser;

    Impl(store::Reader& r, store::Client& c, NotifierOptions o, const base::Clock& k)
        : reader(r), client(c), options(std::move(o)), clock(k), outgoing(options.outgoing) {}

    Result<uint64_t> load() {
        auto text = base::read_file(options.cursor_path, 64u << 20);
        if (!text && text.error().code == Errc::not_found) return reader.last_change();
        if (!text) return fail(text.error());
        uint64_t cursor = 0;
        bool first = true;
        for (size_t at = 0; at < text->size();) {
            const size_t end = std::min(text->find('\n', at), text->size());
            const std::string line = text->substr(at, end - at);
            at = end + 1;
            if (first) {
                cursor = std::strtoull(line.c_str(), nullptr, 10);
                first = false;
                continue;
            }
            const size_t user = line.find(' ');
            if (user == std::string::npos || line.size() < user + 28) continue;
            if (const auto id = Ulid::parse(std::string_view(line).substr(user + 1, 26)))
                done[{*id, line.substr(user + 28)}] = std::strtoull(line.c_str(), nullptr, 10);
        }
        return cursor;
    }

    uint64_t cursor() const {
        uint64_t out = follower->position();
        for (const auto& [key, wait] : waits) {
            if (wait.now.any()) out = std::min(out, wait.now.first - 1);
            if (wait.next.any()) out = std::min(out, wait.next.first - 1);
        }
        return out;
    }

    // The user's row, at most kForgetMs old; before something is sent it is read anew.
    const store::UserRow* user_of(const Ulid& id, bool anew) {
        const int64_t now = clock.mono_ms();
        auto known = users.find(id);
        if (known == users.end() || anew || now - known->second.first > kForgetMs) {
            auto row = reader.user(id);
            if (!row) return nullptr;
            if (users.size() >= options.pending_max) users.clear();
            known = users.insert_or_assign(id, std::make_pair(now, std::move(*row))).first;
        }
        return &known->second.second;
    }

    std::vector<std::string> channels(const Settings& settings) const {
        std::vector<std::string> out;
        if (settings.webhook) out.emplace_back("webhook");
        // Without a server for mail nobody waits for any.
        if (!settings.email.empty() && !options.outgoing.smtp_url.empty())
            out.emplace_back("email");
        for (const PushTarget& target : settings.push) out.push_back("push " + target.endpoint);
        return out;
    }

    void apply(const store::Change& change) {
        simdjson::dom::object object;
        if (!options.partition.has(change) || parser.parse(change.json).get(object)) return;
        const auto text = [&](const char* name) {
            std::string_view out;
            return object[name].get(out) ? std::string_view{} : out;
        };
        if (text("type") == "user.notifications") {
            if (const auto id = store::parse_id(store::kUser, text("of"))) users.erase(*id);
            return;
        }
        if (text("type") != "message.finished") return;
        const auto org = store::parse_id(store::kOrg, text("org"));
        const auto user = store::parse_id(store::kUser, text("user"));
        const auto conv = store::parse_id(store::kConv, text("conversation"));
        const std::string_view status = text("status");
        // What a person stopped himself he knows of; what is interrupted goes on.
        if (!org || !user || !conv || status == "cancelled" || status == "interrupted") return;
        const store::UserRow* row = user_of(*user, false);
        if (!row || row->notifications == "null") return;
        auto settings = Settings::parse(row->notifications);
        if (!settings) return;
        for (std::string& channel : channels(*settings)) {
            const auto key = std::make_pair(*user, channel);
            if (const auto sent = done.find(key); sent != done.end() && sent->second >= change.seq)
                continue;
            Wait& wait = waits[key];
            if (!wait.now.any()) {
                wait.org = *org;
                wait.user = *user;
                wait.channel = channel;
                wait.due_ms = clock.mono_ms() + delay_of(channel);
            }
            (wait.running || wait.attempts > 0 ? wait.next : wait.now).add(change.seq, *conv);
        }
    }

    int64_t delay_of(std::string_view channel) const {
        return channel == "email" ? options.email_delay_ms : options.delay_ms;
    }

    // What of it is unread now.
    std::vector<Waiting> unread_of(const Wait& wait) {
        std::vector<Waiting> out;
        for (const Ulid& id : wait.now.convs) {
            auto conv = reader.conversation(wait.org, wait.user, id);
            if (!conv) continue;
            auto unread = reader.unread(wait.user, *conv);
            if (unread && *unread > 0)
                out.push_back({store::show_id(store::kConv, id), conv->title, *unread});
        }
        return out;
    }

    void finish(const std::pair<Ulid, std::string>& key) {
        const auto at = waits.find(key);
        if (at == waits.end()) return;
        Wait& wait = at->second;
        done[key] = wait.now.last;
        dirty = true;
        if (!wait.next.any()) {
            waits.erase(at);
            return;
        }
        wait.now = std::exchange(wait.next, {});
        wait.attempts = 0;
        wait.running = false;
        wait.due_ms = clock.mono_ms() + delay_of(wait.channel);
    }

    void send(const std::pair<Ulid, std::string>& key, Wait& wait) {
        const store::UserRow* row = user_of(wait.user, true);
        auto settings = row ? Settings::parse(row->notifications) : Settings{};
        const auto now_channels = settings ? channels(*settings) : std::vector<std::string>{};
        if (std::find(now_channels.begin(), now_channels.end(), wait.channel) == now_channels.end())
            return finish(key);  // not wanted any more
        const std::vector<Waiting> waiting = unread_of(wait);
        if (waiting.empty()) return finish(key);  // read elsewhere
        if (settings->quiet_while_connected && present.contains(wait.user)) {
            wait.due_ms = clock.mono_ms() + std::min<int64_t>(delay_of(wait.channel), 30'000);
            return;
        }
        const std::string id =
            "ntf_" + base::hex(base::sha256(fmt::format("{} {} {}", wait.user.text(), wait.channel,
                                                        wait.now.first)))
                         .substr(0, 26);
        const auto answered = [this, key](const Reply& reply) { take(key, reply); };
        // Before the sending: where the keys are bad the answer comes within, and `wait` may be gone.
        wait.running = true;
        ++wait.attempts;
        bool taken = true;
        if (wait.channel == "webhook")
            taken = send_webhook(*settings->webhook, *row, id, waiting, answered);
        else if (wait.channel == "email")
            taken = send_mail(settings->email, id, waiting, answered);
        else
            for (const PushTarget& target : settings->push)
                if (wait.channel == "push " + target.endpoint)
                    taken = send_push(target, id, waiting, answered);
        if (taken) return;
        wait.running = false;  // all places are busy: the next step tries again
        --wait.attempts;
    }

    static void write_waiting(base::JsonWriter& w, const std::vector<Waiting>& waiting,
                              size_t most) {
        w.key("conversations").array();
        for (size_t i = 0; i < std::min(most, waiting.size()); ++i)
            w.object()
                .field("conversation_id", waiting[i].id)
                .field("title", waiting[i].title)
                .field("unread_count", waiting[i].unread)
                .end();
        w.end();
    }

    bool send_webhook(const Webhook& hook, const store::UserRow& user, const std::string& id,
                      const std::vector<Waiting>& waiting, Outgoing::Done answered) {
        std::string body;
        base::JsonWriter w(body);
        w.object().field("id", id).field("type", "messages.waiting").field("user", user.name);
        w.field("created_at", base::rfc3339(clock.wall_ms()));
        write_waiting(w, waiting, kConversationsMax);
        w.end();
        const int64_t seconds = clock.wall_ms() / 1000;
        const std::string mark =
            base::hex(hmac_sha256(hook.secret, fmt::format("{}.{}", seconds, body)));
        const std::vector<std::string> headers = {
            "content-type: application/json", "parley-delivery: " + id,
            fmt::format("parley-signature: t={},v1={}", seconds, mark)};
        return outgoing.post(hook.url, headers, std::move(body), std::move(answered));
    }

    bool send_mail(const std::string& to, const std::string& id,
                   const std::vector<Waiting>& waiting, Outgoing::Done answered) {
        std::string text = headline(waiting.size()) + ".\r\n\r\n";
        for (const Waiting& one : waiting) {
            std::string title = one.title.empty() ? "Without a title" : one.title;
            for (char& c : title)
                if (static_cast<unsigned char>(c) < 0x20) c = ' ';
            text += fmt::format("- {} ({} unread)\r\n", title, one.unread);
        }
        text += "\r\nTo be told otherwise, change your notifications in parley.\r\n";
        const std::string encoded = base64(text);
        const std::string& from = options.outgoing.smtp_from;
        const std::string domain = from.substr(std::min(from.find('@') + 1, from.size()));
        char date[64];
        const time_t seconds = clock.wall_ms() / 1000;
        tm utc{};
        ::gmtime_r(&seconds, &utc);
        ::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", &utc);
        std::string message = fmt::format(
            "Date: {}\r\nFrom: parley <{}>\r\nTo: <{}>\r\nSubject: {}\r\nMessage-ID: <{}@{}>\r\n"
            "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            date, from, to, headline(waiting.size()), id, domain);
        for (size_t at = 0; at < encoded.size(); at += 76) message += encoded.substr(at, 76) + "\r\n";
        return outgoing.mail(to, std::move(message), std::move(answered));
    }

    bool send_push(const PushTarget& target, const std::string& id,
                   const std::vector<Waiting>& waiting, Outgoing::Done answered) {
        std::string payload;
        for (size_t most = 10;; most /= 2) {
            payload.clear();
            base::JsonWriter w(payload);
            w.object().field("id", id).field("type", "messages.waiting");
            w.field("text", headline(waiting.size()));
            write_waiting(w, waiting, most);
            w.end();
            if (payload.size() <= kPayloadMax || most == 0) break;
        }
        auto body = encrypt_push(payload, target.p256dh, target.auth);
        auto proof = vapid->authorization(target.endpoint, options.contact, clock.wall_ms());
        if (!body || !proof) {
            // Its keys are no keys: as good as gone.
            answered({410, 0, (body ? proof.error() : body.error()).what, false});
            return true;
        }
        const std::vector<std::string> headers = {
            "content-type: application/octet-stream", "content-encoding: aes128gcm", "ttl: 86400",
            "urgency: normal", "authorization: " + *proof};
        return outgoing.post(target.endpoint, headers, std::move(*body), std::move(answered));
    }

    void take(const std::pair<Ulid, std::string>& key, const Reply& reply) {
        const auto at = waits.find(key);
        if (at == waits.end()) return;
        Wait& wait = at->second;
        const std::string_view kind = std::string_view(wait.channel).substr(0, wait.channel.find(' '));
        wait.running = false;
        const std::string said = fmt::format("status {} after {} attempts: {}", reply.status,
                                             wait.attempts, reply.why);
        if (reply.ok()) {
            options.tell("notify.sent", kind, said);
            return finish(key);
        }
        const bool mail = wait.channel == "email";
        if (!mail && (reply.status == 404 || reply.status == 410)) {
            options.tell("notify.dropped", kind, said);
            drop(wait.user, wait.channel);
            return finish(key);
        }
        const bool final = mail ? reply.status >= 500
                                : reply.status >= 300 && reply.status < 500 &&
                                      reply.status != 408 && reply.status != 425 &&
                                      reply.status != 429;
        if (reply.refused || final || wait.attempts >= options.attempts_max) {
            options.tell(reply.refused ? "notify.refused" : "notify.failed", kind, said);
            return finish(key);
        }
        int64_t wait_ms = options.retry_ms;
        for (uint32_t i = 1; i < wait.attempts && wait_ms < options.retry_max_ms; ++i) wait_ms *= 2;
        wait_ms = std::min(std::max(wait_ms, reply.retry_after_ms), options.retry_max_ms);
        wait.due_ms = clock.mono_ms() + wait_ms;
        options.tell("notify.retry", kind, said);
    }

    // Takes a dead endpoint out of the settings; where they were changed meanwhile, out of the new ones.
    void drop(const Ulid& user, const std::string& channel, int tries = 5) {
        auto row = reader.user(user);
        if (!row) return;
        auto settings = Settings::parse(row->notifications);
        if (!settings) return;
        if (channel == "webhook") settings->webhook.reset();
        std::erase_if(settings->push, [&](const PushTarget& target) {
            return channel == "push " + target.endpoint;
        });
        store::NotificationsSet command;
        command.org = row->org;
        command.user = row->id;
        command.user_name = row->name;
        command.was = row->notifications;
        command.notifications = settings->json(true);
        // The client belongs to the same thread and is not stepped once this is gone.
        (void)client.submit(
            command.json(),
            [this, user, channel, tries](const store::CommandReply& reply) {
                users.erase(user);
                if (reply.reason == "changed" && tries > 1) drop(user, channel, tries - 1);
            },
            60'000);
    }
};

Notifier::Notifier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Notifier::~Notifier() = default;

Result<std::unique_ptr<Notifier>> Notifier::open(store::Reader& reader, store::Client& client,
                                                 NotifierOptions options,
                                                 const base::Clock& clock) {
    auto impl = std::make_unique<Impl>(reader, client, std::move(options), clock);
    auto vapid = VapidKey::open(impl->options.vapid_path);
    if (!vapid) return fail(vapid.error());
    impl->vapid.emplace(std::move(*vapid));
    auto cursor = impl->load();
    if (!cursor) return fail(cursor.error());
    store::FollowerOptions follow;
    follow.changes_endpoint = impl->options.changes_endpoint;
    follow.after = impl->saved = *cursor;
    auto follower = store::Follower::open(reader, follow);
    if (!follower) return fail(follower.error());
    impl->follower = std::move(*follower);
    impl->dirty = true;
    return std::unique_ptr<Notifier>(new Notifier(std::move(impl)));
}

Result<void> Notifier::step(int wait_ms, int extra_fd) {
    Impl& self = *impl_;
    bool more = false;
    if (self.waits.size() < self.options.pending_max) {
        auto changes = self.follower->next();
        if (!changes) return fail(changes.error());
        for (const store::Change& change : *changes) self.apply(change);
        more = !changes->empty();
    }
    const int64_t now = self.clock.mono_ms();
    if (now - self.present_ms >= kPresenceMs) {
        self.present_ms = now;
        self.present = live::present_users(self.options.run_dir);
    }
    for (auto at = self.waits.begin(); at != self.waits.end();) {
        const auto next = std::next(at);
        if (!at->second.running && at->second.due_ms <= now) {
            const auto key = at->first;
            self.send(key, at->second);
        }
        at = next;
    }
    self.outgoing.step(more ? 0 : wait_ms, extra_fd);
    self.client.step();
    return {};
}

Result<void> Notifier::save() {
    Impl& self = *impl_;
    const uint64_t cursor = self.cursor();
    if (!self.dirty && cursor == self.saved) return {};
    std::erase_if(self.done, [&](const auto& one) { return one.second <= cursor; });
    std::string text = fmt::format("{}\n", cursor);
    for (const auto& [key, seq] : self.done)
        text += fmt::format("{} {} {}\n", seq, key.first.text(), key.second);
    if (auto put = base::write_file(self.options.cursor_path, text, 0600); !put) return put;
    self.saved = cursor;
    self.dirty = false;
    return {};
}

size_t Notifier::pending() const { return impl_->waits.size(); }
size_t Notifier::running() const { return impl_->outgoing.running(); }

base::Result<void> check(const NotifierOptions& options) {
    const auto begins = [](const std::string& text, std::string_view with) {
        return text.size() > with.size() && text.starts_with(with);
    };
    const OutgoingOptions& o = options.outgoing;
    if (!begins(options.contact, "mailto:") && !begins(options.contact, "https://"))
        return base::fail(
            Errc::config,
            fmt::format("--contact is mailto:ADDRESS or https://URL, not '{}'", options.contact));
    if (!o.smtp_url.empty() && !begins(o.smtp_url, "smtp://") && !begins(o.smtp_url, "smtps://"))
        return base::fail(Errc::config,
                          fmt::format("--smtp-url is smtp://HOST[:PORT] or smtps://HOST[:PORT], "
                                      "not '{}'",
                                      o.smtp_url));
    if (o.smtp_url.empty() != o.smtp_from.empty())
        return base::fail(Errc::config, "--smtp-url and --smtp-from belong together");
    if (!o.smtp_from.empty() && (o.smtp_from.find('@') == std::string::npos ||
                                 o.smtp_from.find_first_of(" <>\r\n") != std::string::npos))
        return base::fail(Errc::config,
                          fmt::format("--smtp-from is NAME@HOST, not '{}'", o.smtp_from));
    if (!o.ca_file.empty() && ::access(o.ca_file.c_str(), R_OK) != 0)
        return base::fail(base::errno_error(errno, fmt::format("cannot read '{}'", o.ca_file)));
    if (options.retry_max_ms < options.retry_ms)
        return base::fail(Errc::config, "--retry-max is not shorter than --retry");
    return {};
}

}  // namespace parley::notify
