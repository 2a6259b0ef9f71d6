// Stats: what a run has measured so far. Fixed memory, whatever the run's length.
//
// Only measured requests count, not those of the warm-up. Histograms hold nanoseconds and stand in the
// registry, so that --metrics shows them while the run goes on. Gaps (ITL) are recorded as they come,
// those of an answer that fails later among them; TTFT, TPOT and E2EL only of completed answers.
// Bounds   64 kinds of error, 16 stop reasons; further ones count as "other".
// Threads  one writer; the registry may be rendered by another.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "load/meter.hpp"
#include "load/transport.hpp"
#include "telemetry/registry.hpp"

namespace parley::load {

// Milliseconds; 0: no such objective. A completed request is good when it meets every one that is
// stated: itl means each of its gaps, tpot its mean.
struct Slo {
    int64_t ttft_ms = 0;
    int64_t itl_ms = 0;
    int64_t tpot_ms = 0;
    int64_t e2el_ms = 0;
    bool any() const { return ttft_ms || itl_ms || tpot_ms || e2el_ms; }
    bool met_by(const Meter& meter) const;
};

class Stats {
  public:
    struct ErrorKind {
        uint64_t count = 0;
        int http_status = 0;  // of the first one
        std::string detail;   // of the first one
    };

    Stats(telemetry::Registry& registry, Slo slo);

    void started(int64_t lag_ns);  // from intended to actual start
    void itl(int64_t ns) { itl_ns.record(ns); }
    void chain_overhead(int64_t ns) { chain_overhead_ns.record(ns); }
    void completed(const Meter& meter, int http_status);
    void failed(const std::string& type, const std::string& detail, int http_status);
    void cut_off() { ++cut_offs; }

    const Slo slo;
    telemetry::Histogram& ttft_ns;
    telemetry::Histogram& itl_ns;
    telemetry::Histogram& tpot_ns;
    telemetry::Histogram& e2el_ns;
    telemetry::Histogram& start_lag_ns;
    telemetry::Histogram& chain_overhead_ns;
    uint64_t starts = 0;
    uint64_t completions = 0;
    uint64_t failures = 0;
    uint64_t cut_offs = 0;  // running when the drain time was over
    uint64_t good = 0;      // completed within the objectives
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    std::map<std::string, ErrorKind> errors;
    std::map<std::string, uint64_t> stop_reasons;
    std::map<int, uint64_t> http_status;

  private:
    telemetry::Counter& completions_metric_;
    telemetry::Counter& failures_metric_;
    telemetry::Counter& output_tokens_metric_;
};

}  // namespace parley::load
