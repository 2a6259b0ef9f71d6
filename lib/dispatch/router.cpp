#include "dispatch/router.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>

#include "base/json.hpp"

namespace parley::dispatch {

using base::JsonWriter;

namespace {

struct Wanted {
    std::string model;
    bool status = false;  // {"command":"status"}: an operator asks, not a client
};

Wanted read_wanted(const std::string& body) {
    thread_local simdjson::dom::parser parser(256u << 20);
    Wanted wanted;
    simdjson::dom::element document;
    if (parser.parse(simdjson::padded_string(body)).get(document) != simdjson::SUCCESS)
        return wanted;
    std::string_view text;
    if (document["model"].get(text) == simdjson::SUCCESS) wanted.model = text;
    wanted.status = document["command"].get(text) == simdjson::SUCCESS && text == "status";
    return wanted;
}

constexpr uint32_t kRetryAfterMostS = 60;

}  // namespace

void Router::connect(pipe::Answerer& askers, pipe::Asker& workers) {
    askers_ = &askers;
    workers_ = &workers;
    askers.set_status([this] { return status(); });
}

uint32_t Router::retry_after_s(const std::string& model) const {
    const double slots = std::max<uint32_t>(workers_table_.slots(model), 1);
    const double wait = static_cast<double>(queue_.size() + running_.size()) * service_s_ / slots;
    return static_cast<uint32_t>(
        std::clamp(std::ceil(wait), 1.0, static_cast<double>(kRetryAfterMostS)));
}

void Router::refuse(const std::string& id, const std::string& status, const std::string& reason,
                    const std::string& message) {
    ++counters_.refused;
    pipe::EndMeta end;
    end.status = status;
    end.reason = reason;
    end.message = message;
    if (status == "overloaded_error") end.retry_after_s = retry_after_s({});
    askers_->end(id, end);
}

void Router::on_ask(pipe::Ask ask) {
    ++counters_.asked;
    Wanted wanted = read_wanted(ask.body);
    if (wanted.status) {
        (void)askers_->event(ask.id, {}, status_json());
        askers_->end(ask.id, {});
        return;
    }
    if (wanted.model.empty())
        return refuse(ask.id, "invalid_request_error", "no_model", "model: Field required");
    const auto hash = catalogue_.resolve(wanted.model);
    if (!hash) {
        // No worker has ever said HELLO: it is too early to say that there is no such model.
        if (catalogue_.empty())
            return refuse(ask.id, "overloaded_error", "no_worker", "Overloaded");
        return refuse(ask.id, "not_found_error", "unknown_model", "model: " + wanted.model);
    }
    const int64_t now = options_.clock->mono_ms();
    const pipe::Envelope& e = ask.envelope;
    int64_t wait_ms = e.continuation && e.stall_ms > 0 ? e.stall_ms
                      : e.ttft_ms > 0                  ? e.ttft_ms
                                                       : options_.ttft_ms;
    if (e.cls == pipe::Class::batch && e.ttft_ms == 0) wait_ms = 0;
    const std::string id = ask.id;
    Job job{std::move(ask), *hash, now, wait_ms == 0 ? 0 : now + wait_ms};
    if (!queue_.push(std::move(job)))
        return refuse(id, "overloaded_error", "queue_full", "Overloaded");
    pump();
}

void Router::pump() {
    while (!draining_) {
        pipe::Peer worker = 0;
        auto job = queue_.take([&](const std::string& model) {
            const auto chosen = workers_table_.choose(model);
            worker = chosen.value_or(0);
            return chosen.has_value();
        });
        if (!job) return;
        start(std::move(*job), worker);
    }
}

void Router::start(Job job, pipe::Peer worker) {
    const int64_t now = options_.clock->mono_ms();
    const std::string id = job.ask.id;
    pipe::Envelope envelope = std::move(job.ask.envelope);
    envelope.version = job.model;
    envelope.credit = askers_->credit(id);
    const int64_t waited = now - job.arrived_ms;
    const auto left = [waited](int64_t ms) {
        return ms == 0 ? 0 : std::max<int64_t>(ms - waited, 1);
    };
    envelope.ttft_ms = left(envelope.ttft_ms);
    envelope.stall_ms = left(envelope.stall_ms);
    envelope.total_ms = left(envelope.total_ms);
    if (auto asked = workers_->ask(worker, id, envelope, std::move(job.ask.body)); !asked) {
        ++counters_.lost;
        pipe::EndMeta end;
        end.status = "api_error";
        end.retryable = true;
        end.reason = "peer_gone";
        end.message = asked.error().what;
        askers_->end(id, end);
        return;
    }
    ++counters_.dispatched;
    workers_table_.started(worker);
    running_[id] = Running{worker, job.model, envelope.cls, envelope.credit, false};
}

void Router::on_cancel(const std::string& id, pipe::Cancel why) {
    ++counters_.cancelled;
    pipe::EndMeta end;
    end.status = "cancelled";
    if (queue_.remove(id)) {
        if (why == pipe::Cancel::asked) askers_->end(id, end);
        return;
    }
    const auto at = running_.find(id);
    if (at == running_.end()) return;
    // Replaced or gone: the END that the worker still owes us is for accounts only.
    if (why != pipe::Cancel::asked) at->second.gone = true;
    workers_->cancel(id, why == pipe::Cancel::asked  ? "cancelled"
                         : why == pipe::Cancel::gone ? "asker_gone"
                                                     : "replaced");
}

void Router::on_credit(const std::string& id, uint32_t available) {
    const auto at = running_.find(id);
    if (at == running_.end() || at->second.gone || available <= at->second.outstanding) return;
    workers_->grant(id, available - at->second.outstanding);
    at->second.outstanding = available;
}

void Router::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    const auto at = running_.find(id);
    if (at == running_.end() || at->second.gone) return;
    if (at->second.outstanding > 0) --at->second.outstanding;
    if (!askers_->event(id, meta,
                        std::move(body)))  // more than it had credit for, or the asker is gone
        workers_->cancel(id, "no_credit");
}

void Router::on_end(const std::string& id, const pipe::EndMeta& meta) {
    const auto at = running_.find(id);
    if (at == running_.end()) return;
    const Running running = at->second;
    running_.erase(at);
    ++counters_.ended;
    if (meta.reason == "peer_gone") ++counters_.lost;
    workers_table_.ended(running.worker, meta.cost_s);
    if (meta.ok()) service_s_ += 0.1 * (meta.cost_s - service_s_);
    if (!running.gone) {
        pipe::EndMeta end = meta;
        end.model = running.model;
        if (end.status == "overloaded_error" && end.retry_after_s == 0)
            end.retry_after_s = retry_after_s(running.model);
        askers_->end(id, end);
    }
    pump();
}

void Router::on_worker_up(pipe::Peer peer, const pipe::HelloMeta& hello) {
    workers_table_.join(peer, hello);
    for (const auto& model : hello.models) catalogue_.add({model.hash, model.name});
    models_.on_worker(hello.name, true, {});
    models_.on_models(peer, hello);
    pump();
}

void Router::on_worker_down(pipe::Peer peer, const std::string& why) {
    const auto at = workers_table_.all().find(peer);
    const std::string name = at == workers_table_.all().end() ? "" : at->second.name;
    workers_table_.leave(peer);
    models_.on_worker(name, false, why);
    pump();
}

void Router::WorkerSide::on_peer_hello(pipe::Peer peer, const pipe::HelloMeta& hello,
                                       std::string body) {
    if (!hello.tok.empty()) return router.models_.on_tokenizer(peer, hello.tok, std::move(body));
    router.workers_table_.join(peer, hello);
    for (const auto& model : hello.models) router.catalogue_.add({model.hash, model.name});
    router.models_.on_models(peer, hello);
    router.pump();
}

void Router::WorkerSide::on_peer_status(pipe::Peer peer, const pipe::StatusMeta& status) {
    router.workers_table_.report(peer, status);
}

void Router::tick() {
    for (const Job& job : queue_.expire(options_.clock->mono_ms())) {
        ++counters_.expired;
        const bool served = workers_table_.has(job.model);
        refuse(job.ask.id, "overloaded_error", served ? "expired" : "no_worker", "Overloaded");
    }
    pump();
}

void Router::drain() {
    draining_ = true;
    askers_->drain();
    for (const Job& job : queue_.clear()) {
        pipe::EndMeta end;
        end.status = "overloaded_error";
        end.reason = "draining";
        end.message = "Overloaded";
        end.retryable = true;
        end.retry_after_s = 1;
        askers_->end(job.ask.id, end);
    }
}

pipe::StatusMeta Router::status() const {
    pipe::StatusMeta meta;
    meta.running = static_cast<uint32_t>(running_.size());
    meta.waiting = static_cast<uint32_t>(queue_.size());
    for (const auto& [peer, worker] : workers_table_.all())
        meta.slots += worker.draining ? 0 : worker.slots;
    meta.queue_s = static_cast<double>(queue_.size()) * service_s_;
    meta.draining = draining_;
    return meta;
}

std::string Router::status_json() const {
    std::string out;
    JsonWriter w(out);
    w.object().field("running", running_.size()).field("waiting", queue_.size());
    w.key("waiting_by_class").object();
    for (const auto cls : {pipe::Class::interactive, pipe::Class::streaming, pipe::Class::batch})
        w.field(pipe::name(cls), queue_.size_of(cls));
    w.end().field("draining", draining_);
    w.key("counters")
        .object()
        .field("asked", counters_.asked)
        .field("dispatched", counters_.dispatched);
    w.field("ended", counters_.ended)
        .field("refused", counters_.refused)
        .field("expired", counters_.expired);
    w.field("cancelled", counters_.cancelled).field("lost", counters_.lost).end();
    w.key("workers").array();
    for (const auto& [peer, worker] : workers_table_.all()) {
        w.object().field("name", worker.name).field("boot", worker.boot);
        w.key("models").array();
        for (const auto& model : worker.models) w.string(model);
        w.end().field("slots", worker.slots).field("in_flight", worker.in_flight);
        w.field("running", worker.status.running).field("kv_free", worker.status.kv_free);
        w.field("kv_total", worker.status.kv_total).field("longest_ms", worker.status.longest_ms);
        w.field("served", worker.served)
            .field("cost_s", worker.cost_s)
            .field("draining", worker.draining)
            .end();
    }
    w.end().end();
    return out;
}

}  // namespace parley::dispatch
