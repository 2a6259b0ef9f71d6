// Metrics of a worker. Set from the working loop, read by the metrics thread.
#pragma once

#include "engine/models.hpp"
#include "telemetry/registry.hpp"

namespace parley::infer_worker {

struct Metrics {
    telemetry::Registry registry;
    telemetry::Histogram& iteration =
        registry.histogram("infer_worker_iteration_seconds", "time of one iteration");

    void set(const engine::Models& models, const pipe::StatusMeta& status) {
        const engine::EngineStats stats = models.stats();
        const engine::ServiceCounters counters = models.counters();
        models_.set(static_cast<double>(models.serving().size()));
        running_.set(status.running);
        waiting_.set(status.waiting);
        held_.set(stats.held);
        resting_.set(stats.resting);
        kv_free_.set(status.kv_free);
        kv_total_.set(status.kv_total);
        queue_s_.set(status.queue_s);
        busy_s_.set(stats.busy_s);
        raise(preempted_, stats.preempted);
        prefix_blocks_.set(stats.prefix_blocks);
        prefix_unused_.set(stats.prefix_blocks_unused);
        raise(prefix_hits_, stats.prefix_hit_tokens);
        raise(prefix_sought_, stats.prefix_sought_tokens);
        raise(prefix_evicted_, stats.prefix_evicted);
        raise(prefix_copied_, stats.prefix_copied);
        raise(decode_rows_, stats.decode_rows);
        raise(prefill_rows_, stats.prefill_rows);
        raise(draft_rows_, stats.drafted_tokens);
        raise(accepted_, stats.accepted_tokens);
        raise(asked_, counters.asked);
        raise(finished_, counters.finished);
        raise(cancelled_, counters.cancelled);
        raise(refused_, counters.refused);
        raise(failed_, counters.failed);
        raise(input_, counters.input_tokens);
        raise(output_, counters.output_tokens);
    }

  private:
    static void raise(telemetry::Counter& counter, uint64_t to) {
        counter.add(to - counter.value());
    }
    telemetry::Counter& counter(const char* name, const char* help,
                                const telemetry::Labels& labels = {}) {
        return registry.counter(name, help, labels);
    }
    telemetry::Gauge& gauge(const char* name, const char* help,
                            const telemetry::Labels& labels = {}) {
        return registry.gauge(name, help, labels);
    }
    telemetry::Gauge& models_ = gauge("infer_worker_models", "models that take requests");
    telemetry::Gauge& running_ = gauge("infer_worker_running", "sequences that run");
    telemetry::Gauge& waiting_ = gauge("infer_worker_waiting", "sequences that wait for a slot");
    telemetry::Gauge& held_ = gauge("infer_worker_held", "sequences without credit");
    telemetry::Gauge& resting_ =
        gauge("infer_worker_resting", "running sequences that it was not the turn of");
    telemetry::Gauge& kv_free_ =
        gauge("infer_worker_kv_blocks_free", "KV blocks that are free or evictable");
    telemetry::Gauge& kv_total_ = gauge("infer_worker_kv_blocks", "KV blocks");
    telemetry::Gauge& queue_s_ =
        gauge("infer_worker_queue_seconds", "compute-seconds of prefill that wait");
    telemetry::Gauge& busy_s_ = gauge("infer_worker_busy_seconds", "time spent computing");
    telemetry::Counter& preempted_ =
        counter("infer_worker_preempted_total", "sequences whose KV blocks were taken back");
    telemetry::Gauge& prefix_blocks_ =
        gauge("infer_worker_prefix_blocks", "full KV blocks that can be found by their text");
    telemetry::Gauge& prefix_unused_ =
        gauge("infer_worker_prefix_blocks_unused", "of these, read by no request: evictable");
    telemetry::Counter& prefix_hits_ = counter("infer_worker_prefix_hit_tokens_total",
                                               "tokens whose KV was found when they were admitted");
    telemetry::Counter& prefix_sought_ = counter("infer_worker_prefix_sought_tokens_total",
                                                 "tokens of all that were admitted, found or not");
    telemetry::Counter& prefix_evicted_ =
        counter("infer_worker_prefix_evicted_total", "kept KV blocks that gave way");
    telemetry::Counter& prefix_copied_ = counter("infer_worker_prefix_copied_total",
                                                 "KV blocks copied since a prompt began alike within them");
    telemetry::Counter& decode_rows_ =
        counter("infer_worker_rows_total", "rows computed", {{"phase", "decode"}});
    telemetry::Counter& prefill_rows_ =
        counter("infer_worker_rows_total", "rows computed", {{"phase", "prefill"}});
    telemetry::Counter& draft_rows_ =
        counter("infer_worker_rows_total", "rows computed", {{"phase", "draft"}});
    telemetry::Counter& accepted_ = counter("infer_worker_drafts_accepted_total",
                                            "guessed tokens that came true, of the draft rows");
    telemetry::Counter& asked_ =
        counter("infer_worker_requests_asked_total", "requests that came in");
    telemetry::Counter& finished_ =
        counter("infer_worker_requests_total", "requests that ended", {{"end", "ok"}});
    telemetry::Counter& cancelled_ =
        counter("infer_worker_requests_total", "requests that ended", {{"end", "cancelled"}});
    telemetry::Counter& refused_ =
        counter("infer_worker_requests_total", "requests that ended", {{"end", "refused"}});
    telemetry::Counter& failed_ =
        counter("infer_worker_requests_total", "requests that ended", {{"end", "failed"}});
    telemetry::Counter& input_ =
        counter("infer_worker_tokens_total", "tokens of prompts and answers", {{"kind", "input"}});
    telemetry::Counter& output_ =
        counter("infer_worker_tokens_total", "tokens of prompts and answers", {{"kind", "output"}});
};

}  // namespace parley::infer_worker
