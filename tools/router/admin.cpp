// router status, model, alias: what an operator asks of a running router and its store.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <cstdio>

#include "base/json.hpp"
#include "options.hpp"
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

base::Result<std::string> ask_status(const Options& o) {
    pipe::Context context;
    OneAnswer answer;
    pipe::AskerOptions options;
    options.link.endpoint = o.bind.empty() ? o.daemon.places().router_asker_endpoint() : o.bind;
    options.link.hello.name = "router-status";
    auto asker = pipe::Asker::open(context, options, answer);
    if (!asker) return base::fail(asker.error());
    const int64_t until = base::system_clock().mono_ms() + kWaitMs;
    bool asked = false;
    while (!answer.end && base::system_clock().mono_ms() < until) {
        (*asker)->link().step();
        if (!asked && (*asker)->up())
            asked = (*asker)
                        ->ask("status-" + base::random_id(""), {}, R"({"command":"status"})")
                        .has_value();
        ::usleep(1000);
    }
    if (!answer.end || !answer.end->ok())
        return base::fail(
            base::Errc::unavailable,
            fmt::format("no router answers at '{}': is it running?", options.link.endpoint));
    return answer.body;
}

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

int show_status(const Options& o) {
    auto json = ask_status(o);
    if (!json) return base::report("router", json.error());
    if (o.json) {
        print(*json + "\n");
        return 0;
    }
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    if (parser.parse(*json).get(document) != simdjson::SUCCESS)
        return base::report("router", {base::Errc::corrupt, "the router's answer is not JSON"});
    const auto number = [](simdjson::dom::element at, const char* key) {
        double value = 0;
        if (at[key].get(value) != simdjson::SUCCESS) value = 0;
        return value;
    };
    print(fmt::format(
        "waiting {:.0f}   running {:.0f}\n\n{:<24} {:>6} {:>8} {:>9} {:>12} {:>9} {:>9}\n",
        number(document, "waiting"), number(document, "running"), "WORKER", "SLOTS", "RUNNING",
        "KV FREE", "LONGEST MS", "SERVED", "COST S"));
    simdjson::dom::array workers;
    if (document["workers"].get(workers) != simdjson::SUCCESS) return 0;
    for (const auto worker : workers) {
        std::string_view name;
        if (worker["name"].get(name) != simdjson::SUCCESS) name = "?";
        print(fmt::format("{:<24} {:>6.0f} {:>8.0f} {:>9.0f} {:>12.1f} {:>9.0f} {:>9.2f}\n", name,
                          number(worker, "slots"), number(worker, "in_flight"),
                          number(worker, "kv_free"), number(worker, "longest_ms"),
                          number(worker, "served"), number(worker, "cost_s")));
    }
    return 0;
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
            w.field("updated_at", base::rfc3339(row.updated_ms)).end();
            return out;
        },
        [](const store::AliasRow& row) {
            return fmt::format("{:<40} -> {}", row.name, row.target);
        });
}

int set_alias(const Options& o) {
    store::ClientOptions options;
    options.endpoint = o.daemon.places().store_endpoint();
    options.name = "router-alias";
    auto client = store::Client::connect(options);
    if (!client) return base::report("router", client.error());
    store::AliasSet command;
    command.name = o.name;
    command.target = o.target;
    auto reply = (*client)->call(command.json(), kWaitMs);
    if (!reply) return base::report("router", reply.error());
    if (!reply->ok()) return base::report("router", *reply->error);
    return 0;
}

}  // namespace parley::router
