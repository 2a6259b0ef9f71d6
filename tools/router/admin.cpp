// router status, model, alias: what an operator asks of a running router and its store.
#include "admin.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/json.hpp"
#include "pipe/asker.hpp"
#include "store/client.hpp"
#include "store/commands.hpp"
#include "store/reader.hpp"

namespace parley::router {
namespace {

constexpr int64_t kWaitMs = 3000;

void print(const std::string& line) { std::fwrite(line.data(), 1, line.size(), stdout); }

struct OneAnswer final : pipe::AskerHandler {
    std::string body;
    std::optional<pipe::EndMeta> end;
    void on_event(const std::string&, const pipe::EventMeta&, std::string text) override {
        body = std::move(text);
    }
    void on_end(const std::string&, const pipe::EndMeta& meta) override { end = meta; }
};

template <class Rows, class Json, class Row>
int list(const Options& o, Rows read, Json json, Row row) {
    auto reader = store::open_reader(o.daemon.places().store());
    if (!reader) return base::report("router", reader.error());
    auto rows = read(**reader);
    if (!rows) return base::report("router", rows.error());
    for (const auto& each : *rows) print((o.json ? json(each) : row(each)) + "\n");
    return 0;
}

}  // namespace

base::Result<std::string> ask_router(const Options& o, const std::string& command,
                                     int64_t wait_ms) {
    pipe::Context context;
    OneAnswer answer;
    pipe::AskerOptions options;
    options.link.endpoint = o.bind.empty() ? o.daemon.places().router_asker_endpoint() : o.bind;
    options.link.hello.name = "router-status";
    auto asker = pipe::Asker::open(context, options, answer);
    if (!asker) return base::fail(asker.error());
    // Whoever is to work long on it answers the door as soon as others.
    int64_t until = base::system_clock().mono_ms() + std::min(wait_ms, kWaitMs);
    bool asked = false;
    while (!answer.end && base::system_clock().mono_ms() < until) {
        (*asker)->link().step();
        if (!asked && (*asker)->up()) {
            asked = (*asker)->ask("status-" + base::random_id(""), {}, command).has_value();
            until = base::system_clock().mono_ms() + wait_ms;
        }
        ::usleep(1000);
    }
    if (answer.end && !answer.end->ok() && answer.end->reason == "rollout")
        return base::fail(base::Errc::invalid, answer.end->message);
    if (!answer.end || !answer.end->ok())
        return base::fail(
            base::Errc::unavailable,
            fmt::format("no router answers at '{}': is it running?", options.link.endpoint));
    return answer.body;
}

namespace {

constexpr size_t kFlowsShown = 20;

base::Result<std::string> table(const std::string& json) {
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    if (parser.parse(json).get(document) != simdjson::SUCCESS)
        return base::fail(base::Errc::corrupt, "the router's answer is not JSON");
    std::string out = fmt::format("waiting {:.0f} ({:.2f} compute-s)   running {:.0f}   ",
                                  number(document, "waiting"), number(document, "waiting_s"),
                                  number(document, "running"));
    simdjson::dom::element admission;
    if (document["admission"].get(admission) == simdjson::SUCCESS)
        out += fmt::format("admission level {:.0f}{}   TTFT error {:.0f} ms\n",
                           number(admission, "level"),
                           number(admission, "batch_tokens_max") > 0
                               ? fmt::format(" (batch cut to {:.0f} tokens)",
                                             number(admission, "batch_tokens_max"))
                               : "",
                           number(admission, "ttft_error_ms"));
    out += fmt::format("\n{:<34} {:>6} {:>6} {:>10} {:>10} {:>7} {:>7} {:>9} {:>10}\n", "FLOW",
                       "LEVEL", "WEIGHT", "TAG", "USED TAG", "WAITING", "RUNNING", "FLIGHT S",
                       "USED S");
    simdjson::dom::array flows;
    std::vector<simdjson::dom::element> rows;
    if (document["flows"].get(flows) == simdjson::SUCCESS)
        for (const auto flow : flows) rows.push_back(flow);
    // Those that wait or run most first.
    std::stable_sort(rows.begin(), rows.end(), [](auto a, auto b) {
        return number(a, "waiting") + number(a, "running") >
               number(b, "waiting") + number(b, "running");
    });
    for (size_t i = 0; i < std::min(rows.size(), kFlowsShown); ++i) {
        const auto flow = rows[i];
        out += fmt::format(
            "{:<34} {:>6} {:>6.6g} {:>10.3f} {:>10.3f} {:>7.0f} {:>7.0f} {:>9.3f} {:>10.3f}\n",
            text(flow, "org"), text(flow, "level"), number(flow, "weight"), number(flow, "tag"),
            number(flow, "used_tag"), number(flow, "waiting"), number(flow, "running"),
            number(flow, "flight_s"), number(flow, "used_s"));
    }
    if (rows.size() > kFlowsShown)
        out += fmt::format("… and {} more (--json shows all)\n", rows.size() - kFlowsShown);
    out += fmt::format("\n{:<24} {:<10} {:>6} {:>8} {:>8} {:>9} {:>12} {:>9} {:>9}\n", "WORKER",
                       "ZONE", "SLOTS", "RUNNING", "LOAD S", "KV FREE", "LONGEST MS", "SERVED",
                       "COST S");
    simdjson::dom::array workers;
    if (document["workers"].get(workers) != simdjson::SUCCESS) return out;
    for (const auto worker : workers)
        out += fmt::format(
            "{:<24} {:<10} {:>6.0f} {:>8.0f} {:>8.2f} {:>9.0f} {:>12.1f} {:>9.0f} {:>9.2f}\n",
            text(worker, "name"), text(worker, "zone"), number(worker, "slots"),
            number(worker, "in_flight"), number(worker, "load_s"), number(worker, "kv_free"),
            number(worker, "longest_ms"), number(worker, "served"), number(worker, "cost_s"));
    simdjson::dom::array breakers;
    bool first = true;
    if (document["breakers"].get(breakers) == simdjson::SUCCESS)
        for (const auto breaker : breakers) {
            if (text(breaker, "state") == "closed") continue;
            if (first)
                out += fmt::format("\n{:<24} {:<13} {:<10} {:>7}\n", "BREAKER", "VERSION", "STATE",
                                   "OPENED");
            first = false;
            out += fmt::format("{:<24} {:<13} {:<10} {:>7.0f}\n", text(breaker, "worker"),
                               text(breaker, "version").substr(0, 12), text(breaker, "state"),
                               number(breaker, "opened"));
        }
    if (const std::string rollouts = rollout_table(document, false, {}); !rollouts.empty())
        out += "\n" + rollouts;
    return out;
}

}  // namespace

int show_status(const Options& o) {
    for (;;) {
        auto json = ask_router(o, R"({"command":"status"})", kWaitMs);
        if (!json) return base::report("router", json.error());
        if (o.json) {
            print(*json + "\n");
        } else {
            auto shown = table(*json);
            if (!shown) return base::report("router", shown.error());
            if (o.watch && ::isatty(STDOUT_FILENO)) print("\x1b[H\x1b[2J");
            print(*shown);
        }
        if (!o.watch) return 0;
        std::fflush(stdout);
        ::sleep(1);
    }
}

int list_models(const Options& o) {
    return list(
        o, [](store::Reader& reader) { return reader.models(); },
        [](const store::ModelRow& row) {
            std::string out;
            base::JsonWriter w(out);
            w.object()
                .field("name", row.name)
                .field("hash", row.hash)
                .field("context_tokens", row.context);
            w.field("output_tokens_max", row.output_max)
                .field("created_at", base::rfc3339(row.created_ms))
                .end();
            return out;
        },
        [](const store::ModelRow& row) {
            return fmt::format("{:<40} {}  context {}", row.name, row.hash.substr(0, 12),
                               row.context);
        });
}

int list_aliases(const Options& o) {
    return list(
        o, [](store::Reader& reader) { return reader.aliases(); },
        [](const store::AliasRow& row) {
            std::string out;
            base::JsonWriter w(out);
            w.object().field("name", row.name).field("target", row.target);
            w.key("rule").raw(row.rule.empty() ? "{}" : row.rule);
            w.field("updated_at", base::rfc3339(row.updated_ms)).key("history").raw(row.history);
            w.end();
            return out;
        },
        [](const store::AliasRow& row) {
            return fmt::format("{:<40} -> {}", row.name, row.target);
        });
}

namespace {

int point(const Options& o, const std::string& target, const std::string& rule,
          const std::string& why) {
    store::ClientOptions options;
    options.endpoint = o.daemon.places().store_endpoint();
    options.name = "router-alias";
    auto client = store::Client::connect(options);
    if (!client) return base::report("router", client.error());
    store::AliasSet command;
    command.name = o.name;
    command.target = target;
    command.who = operator_name();
    command.why = why;
    command.rule = rule;
    auto reply = (*client)->call(command.json(), kWaitMs);
    if (!reply) return base::report("router", reply.error());
    if (!reply->ok()) return base::report("router", *reply->error);
    return 0;
}

// Refused here: a target that names no version, by itself or over aliases. Versions are never removed.
base::Result<void> points_somewhere(const Options& o, const std::string& target) {
    auto reader = store::open_reader(o.daemon.places().store());
    if (!reader) return base::fail(reader.error());
    auto models = (*reader)->models();
    auto aliases = (*reader)->aliases();
    if (!models) return base::fail(models.error());
    if (!aliases) return base::fail(aliases.error());
    std::vector<dispatch::Catalogue::Version> versions;
    std::vector<dispatch::Catalogue::Alias> names;
    for (const auto& row : *models) {
        if (row.name == o.name || row.hash == o.name)
            return base::fail(base::Errc::invalid,
                              fmt::format("'{}' is a model version: an alias would never be seen "
                                          "behind it; take another name",
                                          o.name));
        versions.push_back({row.hash, row.name});
    }
    for (const auto& row : *aliases)
        if (row.name != o.name) names.push_back({row.name, row.target});
    names.push_back({o.name, target});
    dispatch::Catalogue catalogue;
    catalogue.replace(versions, names);
    const auto way = catalogue.way(o.name);
    for (const auto& version : versions)
        if (way.back() == version.hash || way.back() == version.name) return {};
    return base::fail(base::Errc::invalid,
                      fmt::format("'{}' names no model version: see router model list", target));
}

}  // namespace

std::string operator_name() {
    const char* name = std::getenv("SUDO_USER");
    if (name == nullptr || *name == 0) name = std::getenv("USER");
    return name != nullptr && *name != 0 ? name : "uid " + std::to_string(::getuid());
}

int set_alias(const Options& o) {
    if (!o.target.empty())
        if (auto known = points_somewhere(o, o.target); !known)
            return base::report("router", known.error());
    std::string rule;
    base::JsonWriter w(rule);
    w.object();
    if (!o.small.empty()) {
        w.key("size").object().field("small", o.small);
        w.field("prompt_tokens", o.small_prompt_tokens).field("max_tokens", o.small_max_tokens);
        w.field("say", o.say).end();
    }
    w.end();
    return point(o, o.target, rule, o.why);
}

int rollback_alias(const Options& o) {
    auto reader = store::open_reader(o.daemon.places().store());
    if (!reader) return base::report("router", reader.error());
    auto rows = (*reader)->aliases();
    if (!rows) return base::report("router", rows.error());
    for (const auto& row : *rows) {
        if (row.name != o.name) continue;
        simdjson::dom::parser parser;
        simdjson::dom::array history;
        std::string before;
        if (parser.parse(simdjson::padded_string(row.history)).get(history) == simdjson::SUCCESS)
            for (const auto each : history)
                if (const std::string target = text(each, "target"); target != row.target)
                    before = target;
        if (before.empty())
            return base::report("router", {base::Errc::not_found,
                                           fmt::format("'{}' never pointed at anything but '{}'",
                                                       o.name, row.target)});
        if (auto known = points_somewhere(o, before); !known)
            return base::report("router", known.error());
        const int done = point(o, before, {}, o.why.empty() ? "rollback" : "rollback: " + o.why);
        if (done == 0) print(fmt::format("{} -> {}\n", o.name, before));
        return done;
    }
    return base::report("router",
                        {base::Errc::not_found, fmt::format("there is no alias '{}'", o.name)});
}

}  // namespace parley::router
