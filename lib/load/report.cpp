#include "load/report.hpp"

#include <fmt/format.h>

#include <vector>

#include "base/json.hpp"
#include "base/text.hpp"

namespace parley::load {
namespace {

struct Row {
    const char* name;   // as in JSON, with _ms behind it
    const char* title;  // as in the table
    const telemetry::Histogram& values;
};

std::vector<Row> rows(const Stats& s) {
    return {{"ttft", "TTFT", s.ttft_ns},
            {"itl", "ITL", s.itl_ns},
            {"tpot", "TPOT", s.tpot_ns},
            {"e2el", "E2EL", s.e2el_ns},
            {"start_lag", "start lag", s.start_lag_ns},
            {"chain_overhead", "chain overhead", s.chain_overhead_ns}};
}

double ms(int64_t ns) { return static_cast<double>(ns) * 1e-6; }

std::string show_ms(int64_t ns) {
    const double value = ms(ns);
    return fmt::format("{:.{}f}", value, value < 10 ? 3 : value < 1000 ? 1 : 0);
}

std::string show_slo(const Slo& slo) {
    std::string out;
    const auto add = [&out](const char* name, int64_t bound_ms) {
        if (!bound_ms) return;
        if (!out.empty()) out += ", ";
        out += fmt::format("{} <= {}", name, base::show_duration_ms(bound_ms));
    };
    add("TTFT", slo.ttft_ms);
    add("every ITL", slo.itl_ms);
    add("TPOT", slo.tpot_ms);
    add("E2EL", slo.e2el_ms);
    return out;
}

double share(uint64_t part, uint64_t whole) {
    return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

}  // namespace

std::string report_table(const ReportInput& in) {
    const Stats& s = in.stats;
    std::string out;
    const auto line = [&out](const std::string& text) { out += text + '\n'; };
    line(fmt::format("target      {}", in.target));
    if (in.options.open_loop)
        line(fmt::format("load        open loop, {} starts/s ({}, seed {}), at most {} at once",
                         in.options.rate_per_s,
                         in.options.arrival == Arrival::poisson ? "Poisson" : "constant",
                         in.options.seed, in.options.inflight_max));
    else
        line(fmt::format("load        closed loop, {} at once", in.options.concurrency));
    line(fmt::format("prompts     {} from {}", in.prompt_count, in.prompts));
    line(fmt::format("measured    {:.2f} s{}; {} requests of the warm-up not counted",
                     in.result.window_s, in.result.interrupted ? ", interrupted" : "",
                     in.result.warmups));
    line(
        fmt::format("requests    {} started, {} completed, {} failed, {} cut off, {} never started",
                    s.starts, s.completions, s.failures, s.cut_offs, in.result.unstarted));
    line("");
    line(fmt::format("{:<16}{:>11}{:>11}{:>11}{:>11}{:>11}", "milliseconds", "p50", "p90", "p99",
                     "max", "count"));
    for (const Row& row : rows(s)) {
        const auto& h = row.values;
        const bool lag = &h == &s.start_lag_ns;
        if (h.count() == 0 && (&h == &s.chain_overhead_ns || lag)) continue;
        if (lag && !in.options.open_loop) continue;
        if (h.count() == 0) {
            line(fmt::format("{:<16}{:>11}{:>11}{:>11}{:>11}{:>11}", row.title, "-", "-", "-", "-",
                             0));
            continue;
        }
        line(fmt::format("{:<16}{:>11}{:>11}{:>11}{:>11}{:>11}", row.title,
                         show_ms(h.percentile(0.5)), show_ms(h.percentile(0.9)),
                         show_ms(h.percentile(0.99)), show_ms(h.max()), h.count()));
    }
    line("");
    line(fmt::format("throughput  {:.2f} requests/s, {:.1f} output tokens/s, {:.1f} input tokens/s",
                     in.per_s(s.completions), in.per_s(s.output_tokens), in.per_s(s.input_tokens)));
    if (s.slo.any())
        line(fmt::format("goodput     {:.2f} requests/s, {:.1f} % of all, under {}",
                         in.goodput_per_s(), 100 * share(s.good, in.judged()), show_slo(s.slo)));
    std::string reasons;
    for (const auto& [reason, n] : s.stop_reasons)
        reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", reason, n);
    if (!reasons.empty()) line("stopped by  " + reasons);
    for (const auto& [type, kind] : s.errors)
        line(fmt::format("error       {} x {}{}{}", kind.count, type,
                         kind.http_status ? fmt::format(" (HTTP {})", kind.http_status) : "",
                         kind.detail.empty() ? "" : ": " + kind.detail));
    return out;
}

std::string report_json(const ReportInput& in) {
    const Stats& s = in.stats;
    std::string out;
    base::JsonWriter w(out);
    w.object().field("tool", "loadgen").field("version", PARLEY_VERSION).field("verb", "run");
    w.field("target", in.target).field("mode", in.options.open_loop ? "open" : "closed");
    if (in.options.open_loop) {
        w.field("rate_per_s", in.options.rate_per_s).field("inflight_max", in.options.inflight_max);
        w.field("arrival", in.options.arrival == Arrival::poisson ? "poisson" : "constant");
    } else {
        w.field("concurrency", in.options.concurrency);
    }
    w.field("seed", in.options.seed).field("prompts", in.prompt_count);
    w.field("window_s", in.result.window_s).field("interrupted", in.result.interrupted);
    w.key("requests").object();
    w.field("warmup", in.result.warmups)
        .field("started", s.starts)
        .field("completed", s.completions);
    w.field("failed", s.failures)
        .field("cut_off", s.cut_offs)
        .field("unstarted", in.result.unstarted);
    w.field("reconnects", in.reconnects).end();
    for (const Row& row : rows(s)) {
        const auto& h = row.values;
        w.key(std::string(row.name) + "_ms").object().field("count", h.count());
        if (h.count() > 0) {
            w.field("p50", ms(h.percentile(0.5))).field("p90", ms(h.percentile(0.9)));
            w.field("p99", ms(h.percentile(0.99)))
                .field("max", ms(h.max()))
                .field("mean", h.mean() * 1e-6);
        }
        w.end();
    }
    w.field("requests_per_s", in.per_s(s.completions));
    w.field("input_tokens", s.input_tokens).field("output_tokens", s.output_tokens);
    w.field("output_tokens_per_s", in.per_s(s.output_tokens));
    if (s.slo.any()) {
        w.key("slo").object();
        if (s.slo.ttft_ms) w.field("ttft_ms", s.slo.ttft_ms);
        if (s.slo.itl_ms) w.field("itl_ms", s.slo.itl_ms);
        if (s.slo.tpot_ms) w.field("tpot_ms", s.slo.tpot_ms);
        if (s.slo.e2el_ms) w.field("e2el_ms", s.slo.e2el_ms);
        w.field("met", s.good).field("share", share(s.good, in.judged())).end();
        w.field("goodput_per_s", in.goodput_per_s());
    }
    w.key("stop_reasons").object();
    for (const auto& [reason, n] : s.stop_reasons) w.field(reason, n);
    w.end().key("http_status").object();
    for (const auto& [status, n] : s.http_status) w.field(fmt::format("{}", status), n);
    w.end().key("errors").object();
    for (const auto& [type, kind] : s.errors) {
        w.key(type).object().field("count", kind.count);
        if (kind.http_status) w.field("http_status", kind.http_status);
        if (!kind.detail.empty()) w.field("first", kind.detail);
        w.end();
    }
    w.end().end();
    out += '\n';
    return out;
}

std::string report_histograms(const Stats& stats) {
    std::string out;
    for (const Row& row : rows(stats)) {
        base::JsonWriter w(out);
        w.object().field("name", row.name).field("unit", "ns").field("count", row.values.count());
        w.field("sum", row.values.sum())
            .field("min", row.values.min())
            .field("max", row.values.max());
        w.key("buckets").array();
        row.values.for_each([&w](int64_t low, int64_t high, uint64_t n) {
            w.array().number(low).number(high).number(n).end();
        });
        w.end().end();
        out += '\n';
    }
    return out;
}

}  // namespace parley::load
