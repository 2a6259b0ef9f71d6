#include "login.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "json_in.hpp"
#include "operator_view.hpp"
#include "routes.hpp"
#include "store/commands.hpp"
#include "store/secret.hpp"
#include "store_errors.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr int64_t kRenewGraceMs = 60'000;  // for requests under way with the old token

ApiError wrong() {
    return ApiError::of(ErrorType::authentication_error, "user or password is wrong");
}

ApiError too_often(int64_t wait_ms) {
    const int64_t seconds = (wait_ms + 999) / 1000;
    ApiError error =
        ApiError::of(ErrorType::rate_limit_error,
                     fmt::format("too many failed logins: try again in {} s", seconds));
    error.retry_after_s = static_cast<int>(std::min<int64_t>(seconds, 60));
    return error;
}

std::string hash_of(const std::string& token, store::Reader& reader) {
    return base::hex(store::api_key_hash(token, reader.pepper()));
}

}  // namespace

Login::Login(App& app) : app_(app), passwords_(app.loop, kWaitingMax) {}

Login::~Login() {
    if (link_.open(app_.clock.mono_ms())) ::unlink(link_path().c_str());
}

std::string Login::link_path() const { return app_.places.run() + "/login.link"; }

void Login::renew_link(const std::string& url) {
    if (app_.options.login_link_ms == 0) return;
    // In the fragment: it never travels in a request line, nor into another site's logs.
    const std::string link =
        url + "/#login=" + link_.renew(app_.clock.mono_ms(), app_.options.login_link_ms);
    if (auto written = base::write_file(link_path(), link + "\n", 0600); !written)
        base::log(base::Level::warn, "chatd.login_link_failed", {{"error", written.error().what}});
    base::log(base::Level::info, "chatd.login_link", {{"url", link}});
}

void Login::create(const ExchangePtr& exchange) {
    // A browser always says it: another site may not log a person in as somebody else.
    if (exchange->request.headers.has("origin") && !app_.auth->ours(exchange->request))
        return exchange->error(
            ApiError::of(ErrorType::permission_error, "the request comes from another site"));
    JsonIn in(exchange->request.body);
    const auto link = in.text("link");
    const auto user = in.text("user", Auth::kUserNameMax);
    const auto password = in.text("password");
    const auto org = in.text("org", Auth::kUserNameMax);
    if (in.error()) return exchange->error(*in.error());
    if (link) return by_link(exchange, *link);
    if (!user || user->empty()) return exchange->error(ApiError::invalid("user", "Field required"));
    if (!password) return exchange->error(ApiError::invalid("password", "Field required"));
    by_password(exchange, org.value_or(""), *user, *password);
}

void Login::by_link(const ExchangePtr& exchange, const std::string& secret) {
    const std::string name = "the login link";
    const std::string& peer = exchange->request.peer;
    const int64_t now = app_.clock.mono_ms();
    if (const int64_t wait = guard_.wait_ms(name, peer, now); wait > 0)
        return exchange->error(too_often(wait));
    store::Reader* reader = app_.store->reader();
    if (!reader) return exchange->error(store_away());
    const auto orgs = reader->orgs();
    if (!orgs || orgs->empty())
        return exchange->error(ApiError::unavailable("there is no organisation yet", 1));
    if (!link_.take(secret, now)) {
        guard_.attempt(name, peer, now);
        return exchange->error(
            ApiError::of(ErrorType::authentication_error, "this link was used, or is too old"));
    }
    ::unlink(link_path().c_str());
    const store::Ulid org = orgs->front().id;
    open_session(exchange, {org, store::user_id(org, "default"), "default"});
}

void Login::by_password(const ExchangePtr& exchange, const std::string& org,
                        const std::string& name, std::string password) {
    const std::string who = org + '/' + name;
    const std::string& peer = exchange->request.peer;
    const int64_t now = app_.clock.mono_ms();
    if (const int64_t wait = guard_.wait_ms(who, peer, now); wait > 0)
        return exchange->error(too_often(wait));
    store::Reader* reader = app_.store->reader();
    if (!reader) return exchange->error(store_away());

    // Without an org: the one that has such a user, if there is one alone.
    std::vector<store::OrgRow> orgs;
    if (org.empty()) {
        auto all = reader->orgs();
        if (!all) return exchange->error(store_away());
        orgs = std::move(*all);
    } else {
        const auto id = store::parse_id(store::kOrg, org);
        if (auto row = id ? reader->org(*id) : reader->org_by_name(org)) orgs.push_back(*row);
    }
    std::vector<store::UserRow> found;
    for (const store::OrgRow& row : orgs) {
        if (row.disabled) continue;
        auto user = reader->user(store::user_id(row.id, name));
        if (user && !user->password_hash.empty()) found.push_back(std::move(*user));
    }
    struct Check {
        std::string stored, password;
        bool good = false;
    };
    const auto check = std::make_shared<Check>();
    const bool known = found.size() == 1;
    if (known) check->stored = found.front().password_hash;
    check->password = std::move(password);
    const auto nobody = std::make_shared<std::string>(nobody_);
    Person person;
    if (known) person = {found.front().org, found.front().id, name};
    const bool begun = passwords_.run(
        [check, known, nobody] {
            if (!known && nobody->empty())
                *nobody = store::hash_password(session::new_token()).value_or("");
            check->good =
                store::verify_password(known ? check->stored : *nobody, check->password) && known;
        },
        [this, exchange, check, nobody, person, who] {
            if (nobody_.empty()) nobody_ = *nobody;
            if (!check->good) {
                base::log(base::Level::warn, "chatd.login_refused",
                          {{"peer", exchange->request.peer}});
                return exchange->error(wrong());
            }
            guard_.succeeded(who, exchange->request.peer);
            open_session(exchange, person);
        });
    if (!begun) return exchange->error(ApiError::overloaded(1));
    guard_.attempt(who, peer, now);
}

void Login::open_session(const ExchangePtr& exchange, const Person& person) {
    store::Reader* reader = app_.store->reader();
    if (!reader) return exchange->error(store_away());
    const std::string token = session::new_token();
    const store::SessionCreate command{person.org, person.user, person.name,
                                       hash_of(token, *reader), app_.options.session_ms};
    submit_for(exchange, command.json(), [exchange, person, token](const store::CommandReply&) {
        const int64_t ttl_ms = exchange->app.options.session_ms;
        std::string out;
        base::JsonWriter w(out);
        w.object().field("token", token);
        w.field("expires_at", base::rfc3339_ms(exchange->app.clock.wall_ms() + ttl_ms));
        w.field("user", person.name).end();
        http::Response response = json_response(200, std::move(out), exchange->request_id);
        response.header("set-cookie",
                        session::set_cookie(token, ttl_ms / 1000, exchange->request.tls));
        response.header("cache-control", "no-store");
        exchange->reply(std::move(response));
    });
}

void create_session(const ExchangePtr& exchange) { exchange->app.login->create(exchange); }

namespace {

void say_ended(const ExchangePtr& exchange) {
    exchange->app.auth->forget();
    http::Response response =
        json_response(200, R"({"type":"session_ended"})", exchange->request_id);
    response.header("set-cookie", session::set_cookie("", 0, exchange->request.tls));
    exchange->reply(std::move(response));
}

void say_me(const ExchangePtr& exchange, const std::string& fresh) {
    const Caller& caller = exchange->caller;
    std::string org_name;
    if (store::Reader* reader = exchange->app.store->reader())
        if (auto org = reader->org(caller.org)) org_name = org->name;
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "me").field("user", caller.user_name);
    w.field("user_id", caller.user_text())
        .field("org", org_name)
        .field("org_id", caller.org_text());
    w.field("operator", exchange->app.operator_view->may_look(caller));
    w.field("auth", !caller.session.empty() ? "session" : caller.key_id.empty() ? "none" : "key");
    w.key("expires_at");
    if (caller.session_expires_ms > 0)
        w.string(base::rfc3339_ms(caller.session_expires_ms));
    else
        w.null();
    w.end();
    http::Response response = json_response(200, std::move(out), exchange->request_id);
    response.header("cache-control", "no-store");
    if (!fresh.empty()) {
        const int64_t left_s = (caller.session_expires_ms - exchange->app.clock.wall_ms()) / 1000;
        response.header("set-cookie", session::set_cookie(fresh, std::max<int64_t>(left_s, 0),
                                                          exchange->request.tls));
    }
    exchange->reply(std::move(response));
}

}  // namespace

void end_session(const ExchangePtr& exchange) {
    if (exchange->caller.session.empty())
        return exchange->error(ApiError::invalid("this is no session: a key is not logged in"));
    submit_for(exchange, store::SessionEnd{exchange->caller.session}.json(),
               [exchange](const store::CommandReply&) { say_ended(exchange); });
}

void end_all_sessions(const ExchangePtr& exchange) {
    const store::SessionEndAll command{exchange->caller.org, exchange->caller.user};
    submit_for(exchange, command.json(),
               [exchange](const store::CommandReply&) { say_ended(exchange); });
}

void get_me(const ExchangePtr& exchange) {
    App& app = exchange->app;
    const Caller& caller = exchange->caller;
    store::Reader* reader = app.store->reader();
    const bool old =
        caller.by_cookie && !caller.session.empty() && reader && app.store->connected() &&
        app.clock.wall_ms() - caller.session_renewed_ms >= app.options.session_renew_ms;
    if (!old) return say_me(exchange, "");
    const std::string token = session::new_token();
    const store::SessionRenew command{caller.session, hash_of(token, *reader), kRenewGraceMs};
    auto sent = app.store->submit(
        command.json(),
        [exchange, token](const store::CommandReply& reply) {
            // Another tab was first: its answer has the new cookie.
            say_me(exchange, reply.ok() ? token : "");
        },
        kCommandWaitMs);
    if (!sent) say_me(exchange, "");
}

}  // namespace parley::chatd
