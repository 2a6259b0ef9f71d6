// notify: the follower that tells users who are away that answers wait.
#include <fmt/format.h>

#include <csignal>

#include "base/file.hpp"
#include "base/log.hpp"
#include "following.hpp"
#include "notify/notifier.hpp"
#include "options.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::convstore {

using base::Errc;
using base::fail;
using base::Level;
using base::Result;

namespace {

Result<void> run_notify(const Options& o) {
    if (auto good = notify::check(o.notify); !good) return good;
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    const base::Places places = o.places();
    const std::string folder = places.state + "/notify";
    if (auto made = base::make_dirs(folder); !made) return made;
    notify::NotifierOptions options = o.notify;
    auto part = store::Partition::parse(o.partition);
    if (!part) return fail(part.error());
    options.partition = *part;
    if (!o.smtp_password_file.empty()) {
        auto password = base::read_file(o.smtp_password_file, 4096);
        if (!password) return fail(password.error());
        while (!password->empty() && password->back() == '\n') password->pop_back();
        options.outgoing.smtp_password = *password;
    }
    options.cursor_path = fmt::format("{}/cursor.{}-{}", folder, part->index, part->count);
    options.vapid_path = folder + "/vapid.pem";
    options.run_dir = places.run();
    options.changes_endpoint = o.server.changes_endpoint.empty() ? places.changes_endpoint()
                                                                 : o.server.changes_endpoint;
    telemetry::Registry registry;
    auto metrics = telemetry::MetricsServer::start({o.daemon.metrics}, registry);
    if (!metrics) return fail(metrics.error());
    auto& pending = registry.gauge("convstore_notify_pending", "notifications that wait");
    options.tell = [&](std::string_view event, std::string_view channel, const std::string& detail) {
        registry
            .counter("convstore_notify_total", "what became of notifications",
                     {{"channel", std::string(channel)}, {"outcome", std::string(event.substr(7))}})
            .add();
        base::log(event == "notify.sent" ? Level::debug : Level::warn, event,
                  {{"channel", channel}, {"detail", detail}});
    };

    auto taken = stand_by(
        options.cursor_path + ".lease", o.lease_ms, signals, [&](bool first) -> Result<bool> {
            if (first) {
                base::log(Level::info, "notify.standby", {{"cursor", options.cursor_path}});
                base::notify_ready();
            }
            return true;
        });
    if (!taken) return fail(taken.error());
    std::optional<store::Lease>& lease = *taken;
    if (!lease) return {};
    auto reader = store::open_reader(o.store_path());
    if (!reader && reader.error().code == Errc::unavailable)
        base::log(Level::info, "notify.waiting", {{"for", reader.error().what}});
    while (!reader && reader.error().code == Errc::unavailable) {
        if (told_to_stop(signals)) return {};
        if (auto held = lease->renew(); !held) return held;
        nap(200);
        reader = store::open_reader(o.store_path());
    }
    if (!reader) return fail(reader.error());
    store::ClientOptions client_options;
    client_options.endpoint = places.store_endpoint();
    client_options.name = "notify";
    auto client = store::Client::connect(client_options);
    if (!client) return fail(client.error());
    auto notifier =
        notify::Notifier::open(**reader, **client, options, base::system_clock());
    if (!notifier) return fail(notifier.error());
    base::log(Level::info, "notify.ready", {{"cursor", options.cursor_path}});
    base::notify_ready();
    bool stop = false;
    int64_t stop_ms = 0;
    // What is on its way at the end is waited for, as long as --drain-timeout says.
    while (!stop || ((*notifier)->running() > 0 && base::system_clock().mono_ms() < stop_ms)) {
        if (auto done = (*notifier)->step(200, signals.fd()); !done) return done;
        if (auto kept = lease->guard([&] { return (*notifier)->save(); }); !kept) return kept;
        pending.set(static_cast<double>((*notifier)->pending()));
        if (!stop && told_to_stop(signals)) {
            stop = true;
            stop_ms = base::system_clock().mono_ms() + o.daemon.drain_ms;
            base::notify_stopping();
        }
    }
    base::log(Level::info, "notify.stopped");
    return lease->guard([&] { return (*notifier)->save(); });
}

}  // namespace

int notify(const Options& o) {
    const auto done = run_notify(o);
    return done ? 0 : base::report("convstore", done.error());
}

}  // namespace parley::convstore
