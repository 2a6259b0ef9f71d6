#include "options.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "base/file.hpp"

namespace parley::loadgen {
namespace {

using base::Errc;
using base::Result;

constexpr const char* kBuiltInPrompt =
    "Tell me a short story about a lighthouse keeper who finds a message in a bottle.";

// What the flags say before it is checked.
struct Flags {
    std::string url, endpoint, key_file, prompts, prompt, model, arrival = "poisson",
                                                                 cls = "streaming", org = "loadgen";
    std::string metrics, histogram;
    double rate = 0, temperature = -1, fail_below = 0;
    int64_t max_tokens = -1;
    uint32_t concurrency = 1, inflight_max = 4096;
    uint64_t seed = 1, requests = 0, warmup_requests = 0;
    int64_t duration_ms = 0, warmup_ms = 0, drain_ms = 30'000, pause_ms = 100;
    int64_t connect_ms = 5000, read_ms = 60'000, request_ms = 600'000;
    bool slo_header = false;
    int64_t slo_ttft_ms = 0, slo_itl_ms = 0, slo_tpot_ms = 0, slo_e2el_ms = 0;
    bool shuffle = false, chain_overhead = false, json = false;
};

void declare(base::Verb verb, Flags& f) {
    verb.option("--url", f.url,
                "http://HOST:PORT of a Messages API (default http://127.0.0.1:8080); no TLS")
        .option("--endpoint", f.endpoint,
                "instead of --url: a stage's ZeroMQ endpoint, ipc://… or tcp://…")
        .option("--key-file", f.key_file,
                "file with the API key (0600); else PARLEY_API_KEY is used")
        .option("--org", f.org, "with --endpoint: the org in the envelope")
        .option("--class", f.cls, "with --endpoint: the class in the envelope")
        .choices({"interactive", "streaming", "batch"});
    verb.option("--prompts", f.prompts,
                "file of prompts, one a line (body, {\"prompt\":…} or text); - is stdin")
        .option("--prompt", f.prompt, "one prompt, instead of --prompts")
        .option("--model", f.model,
                "model of every request (default: the line's own, else 'default')")
        .option("--max-tokens", f.max_tokens,
                "max_tokens of every request (default: the line's own, else 128)")
        .option("--temperature", f.temperature,
                "temperature of every request, 0…1 (default: the line's own)")
        .flag("--shuffle", f.shuffle, "draw prompts by the seed instead of in turn");
    verb.option("--concurrency", f.concurrency, "closed loop: requests at any time")
        .range(1, 100'000)
        .option("--rate", f.rate, "open loop: starts per second, whatever the answers do")
        .option("--arrival", f.arrival, "open loop: gaps between starts")
        .choices({"poisson", "constant"})
        .option("--inflight-max", f.inflight_max,
                "open loop: at most this many at once; later starts wait, and count")
        .range(1, 100'000)
        .option("--seed", f.seed, "seed of arrivals and of --shuffle");
    verb.option("--requests", f.requests, "end after so many measured requests")
        .duration("--duration", f.duration_ms,
                  "end after so much measured time (default 10s without --requests)")
        .duration("--warmup", f.warmup_ms, "do not measure requests meant to start in this time")
        .option("--warmup-requests", f.warmup_requests, "do not measure the first so many requests")
        .duration("--drain-timeout", f.drain_ms, "at the end, time for what still runs")
        .duration("--error-pause", f.pause_ms, "closed loop: rest of a slot after an error")
        .duration("--connect-timeout", f.connect_ms, "until a connection stands")
        .duration("--read-timeout", f.read_ms, "longest silence within an answer")
        .duration("--request-timeout", f.request_ms, "longest answer");
    verb.duration("--slo-ttft", f.slo_ttft_ms, "objective: time to first token")
        .duration("--slo-itl", f.slo_itl_ms, "objective: every gap between two pieces of text")
        .duration("--slo-tpot", f.slo_tpot_ms,
                  "objective: mean time per output token after the first")
        .duration("--slo-e2el", f.slo_e2el_ms, "objective: whole answer")
        .flag("--slo-header", f.slo_header, "with --url: tell the server --slo-ttft, as x-slo-ttft-ms")
        .option("--fail-below", f.fail_below,
                "exit 1 when goodput (requests/s within the objectives) is lower");
    verb.flag("--chain-overhead", f.chain_overhead,
              "ask chatd for the worker's time stamps; measure receipt - stamp (same machine only)")
        .flag("--json", f.json, "one JSON object on stdout instead of the table")
        .option("--histogram", f.histogram, "write all histograms to this file (JSON Lines)")
        .option("--metrics", f.metrics, "serve Prometheus metrics on this loopback address");
}

Result<std::string> read_key(const std::string& path) {
    if (path.empty()) {
        const char* key = std::getenv("PARLEY_API_KEY");
        return std::string(key ? key : "");
    }
    auto text = base::read_file(path, 4096);
    if (!text) return base::fail(text.error());
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r' || text->back() == ' '))
        text->pop_back();
    if (text->empty())
        return base::fail(Errc::invalid, fmt::format("key file '{}' is empty", path));
    return *text;
}

Result<void> check(const Flags& f) {
    const auto usage = [](const std::string& what) -> Result<void> {
        return base::fail(Errc::usage, what);
    };
    if (!f.url.empty() && !f.endpoint.empty())
        return usage("--url and --endpoint exclude each other");
    if (!f.prompts.empty() && !f.prompt.empty())
        return usage("--prompts and --prompt exclude each other");
    if (!std::isfinite(f.rate) || f.rate < 0 || f.rate > 1e6)
        return usage("--rate: expected 0…1000000 starts per second");
    if (f.temperature > 1 || (f.temperature < 0 && f.temperature != -1))
        return usage("--temperature: range: 0..1");
    if (f.max_tokens < -1) return usage("--max-tokens: expected 0 or more");
    if (f.max_tokens == 0) return usage("--max-tokens: 0 cannot be streamed");
    if (f.connect_ms < 1 || f.read_ms < 1 || f.request_ms < 1)
        return usage("a timeout of 0 would fail every request");
    const bool slo = f.slo_ttft_ms || f.slo_itl_ms || f.slo_tpot_ms || f.slo_e2el_ms;
    if (f.slo_header && (f.slo_ttft_ms == 0 || !f.endpoint.empty()))
        return usage("--slo-header needs --slo-ttft, and --url");
    if (f.fail_below != 0 && !slo)
        return usage("--fail-below needs an objective: --slo-ttft, --slo-itl, …");
    if (!std::isfinite(f.fail_below) || f.fail_below < 0)
        return usage("--fail-below: expected requests per second");
    return {};
}

}  // namespace

Result<Options> parse_options(int argc, const char* const* argv) {
    Flags f;
    base::Cli cli("loadgen",
                  "open- and closed-loop load on the Messages API or on any stage of parley");
    declare(cli.verb("run", "send requests, measure answers, report"), f);
    auto parsed = cli.parse(argc, argv);
    if (!parsed) return base::fail(parsed.error());
    Options out;
    out.exit = parsed->exit;
    if (out.exit) return out;
    if (auto fine = check(f); !fine) return base::fail(fine.error());

    out.over_pipe = !f.endpoint.empty();
    out.target = out.over_pipe ? f.endpoint : f.url.empty() ? "http://127.0.0.1:8080" : f.url;
    out.run.open_loop = f.rate > 0;
    out.run.concurrency = f.concurrency;
    out.run.rate_per_s = f.rate;
    out.run.arrival = f.arrival == "constant" ? load::Arrival::constant : load::Arrival::poisson;
    out.run.inflight_max = f.inflight_max;
    out.run.seed = f.seed;
    out.run.shuffle = f.shuffle;
    out.run.requests = f.requests;
    out.run.duration_ms = f.duration_ms || f.requests ? f.duration_ms : 10'000;
    out.run.warmup_ms = f.warmup_ms;
    out.run.warmup_requests = f.warmup_requests;
    out.run.drain_timeout_ms = f.drain_ms;
    out.run.error_pause_ms = f.pause_ms;
    out.slo = {f.slo_ttft_ms, f.slo_itl_ms, f.slo_tpot_ms, f.slo_e2el_ms};
    out.goodput_least = f.fail_below;
    out.json = f.json;
    out.histogram_path = f.histogram;
    out.metrics.address = f.metrics;

    if (!out.over_pipe) {
        auto key = read_key(f.key_file);
        if (!key) return base::fail(key.error());
        out.http.url = out.target;
        out.http.api_key = *key;
        if (f.slo_header) out.http.ttft_deadline_ms = f.slo_ttft_ms;
        out.http.timestamps = f.chain_overhead;
        out.http.slots = out.run.slots();
        out.http.connect_timeout_ms = f.connect_ms;
        out.http.read_timeout_ms = f.read_ms;
        out.http.request_timeout_ms = f.request_ms;
    } else {
        out.pipe.endpoint = f.endpoint;
        out.pipe.org = f.org;
        out.pipe.cls = f.cls;
        out.pipe.slots = out.run.slots();
        out.pipe.connect_timeout_ms = f.connect_ms;
        out.pipe.read_timeout_ms = f.read_ms;
        out.pipe.request_timeout_ms = f.request_ms;
    }

    load::PromptOptions prompts;
    prompts.model = f.model;
    if (f.max_tokens > 0) prompts.max_tokens = static_cast<uint64_t>(f.max_tokens);
    if (f.temperature >= 0) prompts.temperature = f.temperature;
    Result<load::PromptSet> set = base::fail(Errc::internal, "");
    if (!f.prompts.empty()) {
        out.prompts_from = f.prompts == "-" ? "standard input" : f.prompts;
        set = load::PromptSet::read(f.prompts, prompts);
    } else {
        out.prompts_from = f.prompt.empty() ? "the built-in prompt" : "--prompt";
        set = load::PromptSet::parse(f.prompt.empty() ? kBuiltInPrompt : f.prompt, prompts);
    }
    if (!set) return base::fail(set.error());
    out.prompts = std::move(*set);
    return out;
}

}  // namespace parley::loadgen
