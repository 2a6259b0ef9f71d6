// loadgen: send requests to the Messages API or to a stage, and measure the answers. See loadgen(1).
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>

#include "base/file.hpp"
#include "base/signals.hpp"
#include "base/text.hpp"
#include "load/report.hpp"
#include "options.hpp"
#include "telemetry/metrics_server.hpp"

namespace {

using namespace parley;

constexpr const char* kTool = "loadgen";

// A descriptor per stream: the usual soft limit of 1024 is no bound that anybody chose.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

void show_progress(const load::Progress& p, const load::Stats& stats) {
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(p.share * kWidth);
    const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                            std::string(static_cast<size_t>(kWidth - filled), '-');
    fmt::print(stderr, "\r\033[K[{}] {:3.0f}% {:>6} {} done, {} failed, {} running", bar,
               p.share * 100,
               p.draining     ? "drain"
               : p.warming_up ? "warmup"
                              : base::show_duration_ms(p.elapsed_ms / 1000 * 1000),
               stats.completions, stats.failures, p.inflight);
    std::fflush(stderr);
}

base::Result<int> run(const base::SignalFd& signals, loadgen::Options options) {
    telemetry::Registry registry;
    load::Stats stats(registry, options.slo);
    auto metrics = telemetry::MetricsServer::start(options.metrics, registry);
    if (!metrics) return base::fail(metrics.error());
    auto loop = load::Loop::make();
    if (!loop) return base::fail(loop.error());
    load::Runner runner(**loop, options.run, options.prompts, stats);
    auto transport = options.over_pipe
                         ? load::make_pipe_transport(**loop, options.pipe, runner.sink())
                         : load::make_http_transport(**loop, options.http, runner.sink());
    if (!transport) return base::fail(transport.error());
    if (auto reached = (*transport)->probe(); !reached) return base::fail(reached.error());

    int signals_seen = 0;
    runner.watch(signals.fd(), [&] {
        while (signals.next()) ++signals_seen == 1 ? runner.stop() : runner.abort();
    });
    const bool terminal = ::isatty(STDERR_FILENO);
    if (terminal) runner.on_progress([&](const load::Progress& p) { show_progress(p, stats); });
    const load::RunResult result = runner.run(**transport);
    if (terminal) fmt::print(stderr, "\r\033[K");

    const load::ReportInput report{.target = options.target,
                                   .prompts = options.prompts_from,
                                   .prompt_count = options.prompts.size(),
                                   .options = options.run,
                                   .result = result,
                                   .stats = stats,
                                   .reconnects = (*transport)->reconnects()};
    const std::string text = options.json ? load::report_json(report) : load::report_table(report);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
        return base::fail(base::Errc::io, "cannot write the report to standard output");
    if (!options.histogram_path.empty()) {
        auto written = base::write_file(options.histogram_path, load::report_histograms(stats));
        if (!written) return base::fail(written.error());
    }
    const bool tried = stats.starts + result.warmups > 0;
    if (tried && !result.reached)
        return base::fail(base::Errc::unavailable,
                          fmt::format("nothing answered at '{}'", options.target));
    return report.goodput_per_s() < options.goodput_least ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    const auto signals = base::SignalFd::block({SIGINT, SIGTERM});  // before any thread
    raise_descriptor_limit();
    auto options = loadgen::parse_options(argc, argv);
    if (!options) return base::report(kTool, options.error());
    if (options->exit) return *options->exit;
    auto status = run(signals, std::move(*options));
    return status ? *status : base::report(kTool, status.error());
}
