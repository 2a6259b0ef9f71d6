// Metrics of a worker. Set from the working loop, read by the metrics thread.
#pragma once

#include "engine/service.hpp"
#include "telemetry/registry.hpp"

namespace parley::infer_worker {

struct Metrics {
    telemetry::Registry registry;
    telemetry::Histogram& iteration =
        registry.histogram("infer_worker_iteration_seconds", "time of one iteration");

    void set(const engine::Service& service, const pipe::StatusMeta& status) {
        const engine::EngineStats stats = service.engine().stats();
        const engine::ServiceCounters& counters = service.counters();
        running_.set(status.running);
        waiting_.set(status.waiting);
        held_.set(stats.held);
        kv_free_.set(status.kv_free);
        kv_total_.set(status.kv_total);
        queue_s_.set(status.queue_s);
        busy_s_.set(stats.busy_s);
        preempted_.set(static_cast<double>(stats.preempted));
        decode_rows_.set(static_cast<double>(stats.decode_rows));
        prefill_rows_.set(static_cast<double>(stats.prefill_rows));
        asked_.set(static_cast<double>(counters.asked));
        finished_.set(static_cast<double>(counters.finished));
        cancelled_.set(static_cast<double>(counters.cancelled));
        refused_.set(static_cast<double>(counters.refused));
        failed_.set(static_cast<double>(counters.failed));
        input_.set(static_cast<double>(counters.input_tokens));
        output_.set(static_cast<double>(counters.output_tokens));
    }

  private:
    telemetry::Gauge& gauge(const char* name, const char* help,
                            const telemetry::Labels& labels = {}) {
        return registry.gauge(name, help, labels);
    }
    telemetry::Gauge& running_ = gauge("infer_worker_running", "sequences that run");
    telemetry::Gauge& waiting_ = gauge("infer_worker_waiting", "sequences that wait for a slot");
    telemetry::Gauge& held_ = gauge("infer_worker_held", "sequences without credit");
    telemetry::Gauge& kv_free_ = gauge("infer_worker_kv_blocks_free", "KV blocks that are free");
    telemetry::Gauge& kv_total_ = gauge("infer_worker_kv_blocks", "KV blocks");
    telemetry::Gauge& queue_s_ =
        gauge("infer_worker_queue_seconds", "compute-seconds of prefill that wait");
    telemetry::Gauge& busy_s_ = gauge("infer_worker_busy_seconds_total", "time spent computing");
    telemetry::Gauge& preempted_ =
        gauge("infer_worker_preempted_total", "sequences whose KV blocks were taken back");
    telemetry::Gauge& decode_rows_ =
        gauge("infer_worker_rows_total", "rows computed", {{"phase", "decode"}});
    telemetry::Gauge& prefill_rows_ =
        gauge("infer_worker_rows_total", "rows computed", {{"phase", "prefill"}});
    telemetry::Gauge& asked_ = gauge("infer_worker_requests_asked_total", "requests that came in");
    telemetry::Gauge& finished_ =
        gauge("infer_worker_requests_total", "requests that ended", {{"end", "ok"}});
    telemetry::Gauge& cancelled_ =
        gauge("infer_worker_requests_total", "requests that ended", {{"end", "cancelled"}});
    telemetry::Gauge& refused_ =
        gauge("infer_worker_requests_total", "requests that ended", {{"end", "refused"}});
    telemetry::Gauge& failed_ =
        gauge("infer_worker_requests_total", "requests that ended", {{"end", "failed"}});
    telemetry::Gauge& input_ =
        gauge("infer_worker_tokens_total", "tokens of prompts and answers", {{"kind", "input"}});
    telemetry::Gauge& output_ =
        gauge("infer_worker_tokens_total", "tokens of prompts and answers", {{"kind", "output"}});
};

}  // namespace parley::infer_worker
