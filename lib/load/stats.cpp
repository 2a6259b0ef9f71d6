#include "load/stats.hpp"

#include <algorithm>

namespace parley::load {
namespace {

constexpr size_t kErrorKindsMax = 64;
constexpr size_t kStopReasonsMax = 16;
constexpr int64_t kMs = 1'000'000;

template <class Map>
typename Map::mapped_type& bounded(Map& map, const std::string& key, size_t most) {
    const bool room = map.size() < most || map.count(key);
    return map[room ? key : std::string("other")];
}

}  // namespace

bool Slo::met_by(const Meter& meter) const {
    // An answer without text (refused input) has no first token: only its whole length can be judged.
    if (ttft_ms && meter.ttft_ns() > ttft_ms * kMs) return false;
    if (itl_ms && meter.itl_max_ns() > itl_ms * kMs) return false;
    if (tpot_ms && meter.tpot_ns() > static_cast<double>(tpot_ms * kMs)) return false;
    return !(e2el_ms && meter.e2el_ns() > e2el_ms * kMs);
}

Stats::Stats(telemetry::Registry& registry, Slo wanted)
    : slo(wanted),
      ttft_ns(registry.histogram("loadgen_ttft_seconds", "intended start to first text")),
      itl_ns(registry.histogram("loadgen_itl_seconds", "gap between two pieces of text")),
      tpot_ns(registry.histogram("loadgen_tpot_seconds", "(E2EL - TTFT) / (output tokens - 1)")),
      e2el_ns(registry.histogram("loadgen_e2el_seconds", "intended start to message_stop")),
      start_lag_ns(registry.histogram("loadgen_start_lag_seconds", "intended to actual start")),
      chain_overhead_ns(
          registry.histogram("loadgen_chain_overhead_seconds",
                             "receipt of the first delta minus the worker's stamp of it")),
      completions_metric_(
          registry.counter("loadgen_requests_total", "requests ended", {{"end", "completed"}})),
      failures_metric_(
          registry.counter("loadgen_requests_total", "requests ended", {{"end", "failed"}})),
      output_tokens_metric_(
          registry.counter("loadgen_output_tokens_total", "output tokens by usage")) {}

void Stats::started(int64_t lag_ns) {
    ++starts;
    start_lag_ns.record(lag_ns);
}

void Stats::completed(const Meter& meter, int status) {
    ++completions;
    completions_metric_.add();
    if (status) ++http_status[status];
    e2el_ns.record(meter.e2el_ns());
    if (meter.ttft_ns() >= 0) ttft_ns.record(meter.ttft_ns());
    if (meter.tpot_ns() >= 0) tpot_ns.record(static_cast<int64_t>(meter.tpot_ns()));
    input_tokens += meter.input_tokens();
    output_tokens += meter.output_tokens();
    output_tokens_metric_.add(meter.output_tokens());
    ++bounded(stop_reasons, meter.stop_reason(), kStopReasonsMax);
    if (slo.met_by(meter)) ++good;
}

void Stats::failed(const std::string& type, const std::string& detail, int status) {
    ++failures;
    failures_metric_.add();
    if (status) ++http_status[status];
    ErrorKind& kind = bounded(errors, type, kErrorKindsMax);
    if (++kind.count == 1) {
        kind.http_status = status;
        kind.detail = detail;
    }
}

}  // namespace parley::load
