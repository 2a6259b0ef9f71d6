// index and search: the follower that keeps the search index, and a search from the command line.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>

#include "base/file.hpp"
#include "base/log.hpp"
#include "following.hpp"
#include "hand.hpp"
#include "options.hpp"
#include "search/indexer.hpp"
#include "search/searcher.hpp"
#include "telemetry/metrics_server.hpp"

namespace parley::convstore {

using base::Errc;
using base::fail;
using base::Level;
using base::Result;

namespace {

// The running indexer makes it; this waits for it.
Result<void> ask_for_rebuild(const Options& o, const base::SignalFd& signals) {
    const std::string wanted = search::rebuild_wanted_path(o.search_path());
    if (auto done = base::write_file(wanted, "asked\n", 0600); !done) return done;
    const int64_t until = base::system_clock().mono_ms() + o.wait_ms;
    while (::access(wanted.c_str(), F_OK) == 0) {
        if (base::system_clock().mono_ms() > until)
            return fail(Errc::timeout,
                        "the running indexer was asked, and is not done yet: it goes on by itself");
        if (told_to_stop(signals)) return {};
        nap(50);
    }
    return {};
}

Result<void> run_index(const Options& o) {
    const auto signals = base::SignalFd::block({SIGTERM, SIGINT, SIGHUP});
    base::log_level(*base::parse_level(o.daemon.log_level));
    if (auto made = base::make_dirs(o.search_path()); !made) return made;
    telemetry::Registry registry;
    auto metrics = telemetry::MetricsServer::start({o.daemon.metrics}, registry);
    if (!metrics) return fail(metrics.error());
    auto& documents = registry.gauge("convstore_index_documents", "messages in the search index");
    auto& lag = registry.gauge("convstore_index_change", "change up to which the index has come");
    auto& rebuilds = registry.counter("convstore_index_rebuilds_total", "indexes made anew");

    auto lease = stand_by(
        o.search_path() + "/lease", o.lease_ms, signals, [&](bool first) -> Result<bool> {
            if (o.rebuild) {
                if (auto asked = ask_for_rebuild(o, signals); !asked) return fail(asked.error());
                return false;
            }
            if (o.once)
                return fail(Errc::conflict,
                            fmt::format("another indexer follows into '{}'", o.search_path()));
            if (first) {
                base::log(Level::info, "index.standby", {{"dir", o.search_path()}});
                base::notify_ready();
            }
            return true;
        });
    if (!lease) return fail(lease.error());
    if (!*lease) return {};

    search::IndexerOptions options;
    options.dir = o.search_path();
    options.store_dir = o.store_path();
    options.commit_ms = o.commit_interval_ms;
    options.tell = [&](std::string_view event, const std::string& detail) {
        if (event == "index.rebuilt") rebuilds.add();
        base::log(event == "index.damaged" ? Level::error : Level::info, event,
                  {{"detail", detail}});
    };
    if (!o.once)
        options.changes_endpoint = o.server.changes_endpoint.empty() ? o.places().changes_endpoint()
                                                                     : o.server.changes_endpoint;
    auto indexer = search::Indexer::open(options);
    if (!indexer && !o.once && indexer.error().code == Errc::unavailable)
        base::log(Level::info, "index.waiting", {{"for", indexer.error().what}});
    // No store yet; or one who was overtaken still has the index open, for as long as a sync takes.
    while (!indexer && !o.once &&
           (indexer.error().code == Errc::unavailable || indexer.error().code == Errc::conflict)) {
        if (told_to_stop(signals)) return {};
        if (auto held = (*lease)->renew(); !held) return held;
        nap(200);
        indexer = search::Indexer::open(options);
    }
    if (!indexer) return fail(indexer.error());
    search::Indexer& it = **indexer;
    bool stop = false;
    const auto rebuild = [&]() -> Result<void> {
        auto done = it.rebuild([&] {
            // A rebuild may take longer than a lease.
            return !(stop |= told_to_stop(signals)) && (*lease)->renew().has_value();
        });
        return done || stop ? Result<void>{} : done;
    };
    if (o.rebuild)
        if (auto done = rebuild(); !done) return done;
    base::log(Level::info, "index.ready", {{"dir", o.search_path()}, {"change", it.seq()}});
    base::notify_ready();
    while (!stop) {
        if (it.wants_rebuild())
            if (auto done = rebuild(); !done) return done;
        auto more = it.step();
        if (!more) return fail(more.error());
        if (auto held = (*lease)->renew(); !held) return held;
        documents.set(static_cast<double>(it.documents()));
        lag.set(static_cast<double>(it.seq()));
        stop |= told_to_stop(signals);
        if (*more || stop) continue;
        if (o.once) break;
        it.wait(signals.fd());
    }
    base::notify_stopping();
    auto flushed = it.flush();
    base::log(Level::info, "index.stopped", {{"change", it.seq()}});
    return flushed;
}

Result<std::string> run_search(const Options& o) {
    auto query = search::Query::parse(o.query);
    if (!query) return fail(query.error());
    auto reader = store::open_reader(o.store_path());
    if (!reader) return fail(reader.error());
    auto org = org_id(**reader, o.org);
    if (!org) return fail(org.error());
    const store::Ulid user = store::user_id(*org, o.user);
    auto index = search::Index::open(o.search_path());
    if (!index) return fail(index.error());
    auto tail = search::gather(**reader, *org, user, (*index)->seq());
    if (!tail) return fail(tail.error());
    auto found = (*index)->find(user, *query, o.limit, o.search_cursor, *tail);
    if (!found) return fail(found.error());
    auto results = search::fetch(**reader, *org, user, found->hits);
    if (!results) return fail(results.error());
    search::show(*results, *query);
    return search::results_json(*results, *found);
}

}  // namespace

int index(const Options& o) {
    const auto done = run_index(o);
    return done ? 0 : base::report("convstore", done.error());
}

int search(const Options& o) {
    auto json = run_search(o);
    if (!json) return base::report("convstore", json.error());
    const auto put = put_out(*json + "\n");
    return put ? 0 : base::report("convstore", put.error());
}

}  // namespace parley::convstore
