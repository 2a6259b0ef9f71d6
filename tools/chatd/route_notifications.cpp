// GET, PUT /v1/notifications: where the caller is told of answers that wait while he is away.
#include "base/json.hpp"
#include "notify/settings.hpp"
#include "routes.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"

namespace parley::chatd {

using messages::ApiError;

namespace {

// What a client sees of it: no secret, but the one that was just made.
std::string shown(const App& app, const notify::Settings& settings,
                  const std::optional<std::string>& made) {
    std::string out = settings.json(false);
    out.pop_back();
    if (made) out += ",\"webhook_secret\":" + base::json_string(*made);
    // convstore notify has made it, where one runs; browsers subscribe with it.
    std::string key = base::read_file(app.places.state + "/notify/vapid.pem.pub", 256).value_or("");
    while (!key.empty() && key.back() == '\n') key.pop_back();
    out += ",\"vapid_public_key\":" + (key.empty() ? "null" : base::json_string(key));
    return out + "}";
}

}  // namespace

void notifications(const ExchangePtr& exchange) {
    App& app = exchange->app;
    store::Reader* reader = app.store->reader();
    if (!reader) return exchange->error(store_away());
    auto row = reader->user(exchange->caller.user);
    if (!row && row.error().code != base::Errc::not_found)
        return exchange->error(api_error_of(row.error(), ""));
    const std::string was = row ? row->notifications : "null";
    auto settings = notify::Settings::parse(was);
    if (!settings) return exchange->error(api_error_of(settings.error(), ""));
    if (exchange->request.method != "PUT")
        return exchange->reply(200, shown(app, *settings, {}));
    std::optional<std::string> made;
    if (auto put = settings->put(exchange->request.body, made); !put)
        return exchange->error(ApiError::invalid(put.error().what));
    store::NotificationsSet command;
    command.org = exchange->caller.org;
    command.user = exchange->caller.user;
    command.user_name = exchange->caller.user_name;
    command.notifications = settings->json(true);
    command.was = was;
    submit_for(exchange, command.json(),
               [exchange, settings = std::move(*settings), made](const store::CommandReply&) {
                   exchange->reply(200, shown(exchange->app, settings, made));
               });
}

}  // namespace parley::chatd
