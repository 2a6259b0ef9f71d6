#include "dispatch/router.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>

#include "base/json.hpp"
#include "dispatch/brownout.hpp"
#include "dispatch/probe.hpp"

namespace parley::dispatch {

using base::JsonWriter;

namespace {

struct Wanted {
    std::string model;
    uint64_t max_tokens = 0;
};

Wanted read_wanted(simdjson::dom::element document) {
    Wanted wanted;
    std::string_view text;
    if (document["model"].get(text) == simdjson::SUCCESS) wanted.model = text;
    if (document["max_tokens"].get(wanted.max_tokens) != simdjson::SUCCESS) wanted.max_tokens = 0;
    return wanted;
}

// Whom a rollout treats alike. One key may be all of an application, so a user alone is too coarse: the first
// message, which all turns have, tells conversations apart that have no id.
std::string unit_of(const pipe::Envelope& envelope, simdjson::dom::element document) {
    if (!envelope.conversation.empty()) return envelope.org + "/" + envelope.conversation;
    std::string out = envelope.org + "/" + envelope.user + "/";
    simdjson::dom::element first;
    if (document["messages"].at(0).get(first) == simdjson::SUCCESS) out += simdjson::minify(first);
    return out;
}

constexpr uint32_t kShadowCredit = 1024;
constexpr uint32_t kMoveBits = 8;  // of an attempt toward workers: moves_max stays below 256

}  // namespace

Router::Router(RouterOptions options, ModelSink& models)
    : options_(options),
      models_(models),
      asker_side_(*this),
      worker_side_(*this),
      scheduler_(options.scheduler),
      breakers_(options.breaker) {}
Router::~Router() = default;

void Router::connect(pipe::Answerer& askers, pipe::Asker& workers) {
    askers_ = &askers;
    workers_ = &workers;
    askers.set_status([this] { return status(); });
}

void Router::refuse(const std::string& id, const Refusal& refusal) {
    ++counters_.refused;
    pipe::EndMeta end;
    end.status = refusal.status;
    end.reason = refusal.reason;
    end.message = refusal.message;
    end.retry_after_s = refusal.retry_after_s;
    askers_->end(id, end);
}

void Router::on_ask(pipe::Ask ask) {
    ++counters_.asked;
    thread_local simdjson::dom::parser parser(256u << 20);
    Wanted wanted;
    simdjson::dom::element document;
    if (parser.parse(simdjson::padded_string(ask.body)).get(document) == simdjson::SUCCESS) {
        if (command(ask, document)) return;
        wanted = read_wanted(document);
    }
    if (wanted.model.empty())
        return refuse(ask.id, {"invalid_request_error", "no_model", "model: Field required", 0});
    auto route =
        rollouts_.route(catalogue_, wanted.model,
                        rollouts_.running() ? unit_of(ask.envelope, document) : std::string());
    if (const auto known = versions_.find(ask.id);
        route && known != versions_.end() && ask.envelope.continuation)
        route->hash = known->second;
    if (!route) {
        // No worker has ever said HELLO: it is too early to say that there is no such model.
        if (catalogue_.empty())
            return refuse(ask.id, {"overloaded_error", "no_worker", "Overloaded", 1});
        return refuse(ask.id, {"not_found_error", "unknown_model", "model: " + wanted.model, 0});
    }
    Job job;
    job.model = route->hash;
    job.alias = route->alias;
    job.assigned = route->assigned;
    job.delivered = Delivered(ask.envelope);
    job.max_tokens = wanted.max_tokens;
    job.ask = std::move(ask);
    if (rollout::Rollout* const rollout = rollouts_.find(job.alias)) {
        rollout->assigned(job.assigned);
        if (job.assigned.canary) remember(job.ask.id, job.model);
        if (rollout->copies(job.ask.id)) shadow(job);
    }
    const std::string id = job.ask.id;
    if (const auto refusal = admit(std::move(job))) return refuse(id, *refusal);
    pump();
}

std::optional<Refusal> Router::admit(Job job) {
    const int64_t now = options_.clock->mono_ms();
    const pipe::Envelope& e = job.ask.envelope;
    const uint64_t most = scheduler_.admission().batch_tokens_max();
    if (e.cls == pipe::Class::batch && most > 0) {
        if (auto less = with_max_tokens(job.ask.body, most)) {
            job.ask.body = std::move(*less);
            job.max_tokens = most;
            ++counters_.shortened;
        }
    }
    int64_t wait_ms = e.continuation && e.stall_ms > 0 ? e.stall_ms
                      : e.ttft_ms > 0                  ? e.ttft_ms
                                                       : options_.ttft_ms;
    if (e.cls == pipe::Class::batch && e.ttft_ms == 0) wait_ms = 0;
    if (job.arrived_ms == 0) job.arrived_ms = now;
    Arrival arrival;
    arrival.org = e.org;
    arrival.cls = e.cls;
    arrival.model = scheduler_.model_id(job.model);
    arrival.bytes = job.ask.body.size();
    arrival.max_tokens = job.max_tokens;
    arrival.blocks = PrefixMap::blocks_of(e.org, job.model, job.ask.body);
    arrival.deadline_ms = wait_ms == 0 ? 0 : job.arrived_ms + wait_ms;
    arrival.goes_on = e.continuation.has_value();
    if (waiting_bytes_ + job.bytes() > options_.bytes_max)
        return Refusal{"overloaded_error", "queue_full", "Overloaded",
                       scheduler_.retry_after_s(arrival.model)};
    auto admitted = scheduler_.arrive(arrival, now);
    if (const auto* refusal = std::get_if<Refusal>(&admitted)) return *refusal;
    job.ticket = std::get<Ticket>(admitted);
    const std::string id = job.ask.id;
    ids_[job.ticket] = id;
    waiting_bytes_ += job.bytes();
    waiting_[id] = std::move(job);
    return std::nullopt;
}

Router::Job Router::take_waiting(const std::string& id) {
    const auto at = waiting_.find(id);
    Job job = std::move(at->second);
    waiting_.erase(at);
    ids_.erase(job.ticket);
    waiting_bytes_ -= job.bytes();
    return job;
}

void Router::pump() {
    if (pumping_ || draining_) return;  // a start may end another run: the loop below sees it
    pumping_ = true;
    while (const auto started = scheduler_.next(options_.clock->mono_ms())) start(*started);
    pumping_ = false;
}

void Router::start(const Started& started) {
    const int64_t now = options_.clock->mono_ms();
    const std::string id = ids_.at(started.ticket);
    Job job = take_waiting(id);
    pipe::Envelope envelope = job.ask.envelope;
    envelope.attempt = (envelope.attempt << kMoveBits) + job.moves;
    envelope.version = job.model;
    envelope.flow = started.flow;
    envelope.weight = started.weight;
    envelope.tag = started.tag;
    envelope.credit = job.shadow ? kShadowCredit : askers_->credit(id);
    envelope.continuation = job.delivered.continuation();
    if (envelope.continuation && job.ask.envelope.continuation && job.moves == 0)
        envelope.continuation = job.ask.envelope.continuation;
    const int64_t waited = now - job.arrived_ms;
    const auto left = [waited](int64_t ms) {
        return ms == 0 ? 0 : std::max<int64_t>(ms - waited, 1);
    };
    // A stream that goes on has had its first event: only what is left of the whole counts.
    envelope.ttft_ms = job.moves > 0 && job.delivered.begun() ? 0 : left(envelope.ttft_ms);
    envelope.stall_ms = left(envelope.stall_ms);
    envelope.total_ms = left(envelope.total_ms);
    job.kept = kept_bytes_ + job.bytes() <= options_.kept_bytes_max;
    std::string body = job.kept ? job.ask.body : std::move(job.ask.body);
    Running running{std::move(job), started.worker, envelope.credit, false, now, 0, 0, 0};
    auto asked = workers_->ask(started.worker, id, envelope, std::move(body));
    if (asked) {
        ++counters_.dispatched;
        if (const Worker* worker = workers().find(started.worker);
            worker != nullptr && breakers_.started({worker->name, running.job.model}))
            obey(started.worker, running.job.model);
        if (running.job.kept) kept_bytes_ += running.job.bytes();
        running_[id] = std::move(running);
        return;
    }
    // It went away and nobody has told us yet; nothing goes there again.
    if (asked.error().code == base::Errc::unavailable) scheduler_.worker_drains(started.worker);
    ++counters_.lost;
    pipe::EndMeta end;
    end.status = "api_error";
    end.retryable = true;
    end.reason = "peer_gone";
    end.message = asked.error().what;
    if (move(id, running, end)) return;
    scheduler_.ended(started.ticket, 0, std::nullopt, false, now);
    if (running.job.shadow)
        --shadows_;
    else
        askers_->end(id, end);
}

bool Router::move(const std::string& id, Running& running, const pipe::EndMeta& end) {
    Job& job = running.job;
    const bool lost = end.reason == "peer_gone" || end.reason == "draining" ||
                      end.reason == "gap" || end.reason == "malformed" ||
                      (end.reason == "queue_full" && end.retryable);
    if (job.shadow || !lost || !end.retryable || running.gone || draining_ || !job.kept ||
        job.delivered.complete() || job.moves >= options_.moves_max)
        return false;
    const int64_t now = options_.clock->mono_ms();
    const bool begun = job.delivered.begun();
    if (!begun && !scheduler_.may_retry()) return false;
    if (begun)
        ++counters_.moved;
    else
        ++counters_.retried;
    job.delivered.cut();
    ++job.moves;
    const pipe::Envelope& e = job.ask.envelope;
    const int64_t stall = e.stall_ms > 0 ? e.stall_ms : options_.stall_ms;
    const int64_t ttft = e.ttft_ms > 0 ? e.ttft_ms : options_.ttft_ms;
    int64_t deadline = begun ? now + stall : job.arrived_ms + ttft;
    if (e.cls == pipe::Class::batch && !begun) deadline = 0;
    job.cost_s += scheduler_.requeue(job.ticket, deadline);
    ids_[job.ticket] = id;
    waiting_bytes_ += job.bytes();
    waiting_[id] = std::move(job);
    return true;
}

void Router::on_cancel(const std::string& id, pipe::Cancel why) {
    ++counters_.cancelled;
    const bool asked = why == pipe::Cancel::asked || why == pipe::Cancel::refused;
    pipe::EndMeta end;
    end.status = "cancelled";
    if (const auto at = waiting_.find(id); at != waiting_.end()) {
        const Job job = take_waiting(id);
        scheduler_.cancel(job.ticket);
        end.cost_s = job.cost_s;
        if (asked) askers_->end(id, end);
        return;
    }
    const auto at = running_.find(id);
    if (at == running_.end()) return;
    // Replaced or gone: the END that the worker still owes us is for accounts only.
    if (!asked) at->second.gone = true;
    if (why == pipe::Cancel::refused) at->second.job.filtered = true;
    workers_->cancel(id, asked                       ? "cancelled"
                         : why == pipe::Cancel::gone ? "asker_gone"
                                                     : "replaced");
}

void Router::on_credit(const std::string& id, uint32_t available) {
    const auto at = running_.find(id);
    if (at == running_.end() || at->second.gone || available <= at->second.outstanding) return;
    workers_->grant(id, available - at->second.outstanding,
                    scheduler_.correction(at->second.job.ticket));
    at->second.outstanding = available;
}

void Router::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    if (probe_ && id == probe_->id) return probe_->read(body);
    const auto at = running_.find(id);
    if (at == running_.end() || at->second.gone) return;
    Running& running = at->second;
    if (running.outstanding > 0) --running.outstanding;
    const int64_t now = options_.clock->mono_ms();
    scheduler_.first_event(running.job.ticket, now);
    if (running.first_ms == 0) running.first_ms = now;
    running.last_ms = now;
    ++running.events;
    if (running.job.shadow) return workers_->grant(id, 1);
    for (auto& event : running.job.delivered.add({meta, std::move(body)})) {
        // More than it had credit for, or the asker is gone.
        if (!askers_->event(id, event.meta, std::move(event.body)))
            return workers_->cancel(id, "no_credit");
    }
    // What was held back or swallowed took none of the asker's credit: the worker gets it again.
    const uint32_t credit = askers_->credit(id);
    if (credit > running.outstanding) on_credit(id, credit);
}

void Router::on_end(const std::string& id, const pipe::EndMeta& meta) {
    if (probe_ && id == probe_->id) return probe_ended(meta);
    const auto at = running_.find(id);
    if (at == running_.end()) return;
    Running running = std::move(at->second);
    running_.erase(at);
    if (running.job.kept) kept_bytes_ -= running.job.bytes();
    breaker_ended(running, meta);
    if (meta.reason == "peer_gone") {
        ++counters_.lost;
        scheduler_.worker_drains(running.worker);  // on_worker_down follows: no more goes there
    }
    if (move(id, running, meta)) return pump();
    ++counters_.ended;
    count(id, running, meta);
    scheduler_.ended(running.job.ticket, meta.cost_s, meta.usage, meta.ok(),
                     options_.clock->mono_ms());
    if (running.job.shadow)
        --shadows_;
    else if (!running.gone) {
        pipe::EndMeta end = meta;
        end.model = running.job.model;
        end.cost_s += running.job.cost_s;
        if (late(running, meta)) {
            ++counters_.refused;
            end.status = "overloaded_error";
            end.reason = "late";
            end.message = "Overloaded";
        }
        if (end.status == "overloaded_error" && end.retry_after_s == 0)
            end.retry_after_s = scheduler_.retry_after_s(scheduler_.model_id(running.job.model));
        askers_->end(id, end);
    }
    pump();
}

// A worker that sees that the first token cannot come in time says so at once: to the caller that is the
// refusal which the queue would have given. Where the time for the whole answer is the shorter one it is not.
bool Router::late(const Running& running, const pipe::EndMeta& end) const {
    const pipe::Envelope& e = running.job.ask.envelope;
    return end.status == "timeout_error" && end.reason == "deadline" && running.first_ms == 0 &&
           !running.job.delivered.begun() && e.ttft_ms > 0 &&
           (e.total_ms == 0 || e.ttft_ms < e.total_ms);
}

void Router::on_worker_up(pipe::Peer peer, const pipe::HelloMeta& hello) {
    scheduler_.worker_joined(peer, hello);
    obey_all(peer, hello);
    for (const auto& model : hello.models) catalogue_.add({model.hash, model.name});
    models_.on_worker(hello.name, true, {});
    models_.on_models(peer, hello);
    pump();
}

void Router::on_worker_down(pipe::Peer peer, const std::string& why) {
    const Worker* worker = scheduler_.workers().find(peer);
    const std::string name = worker == nullptr ? "" : worker->name;
    if (said_bye_.erase(peer) == 0 && worker != nullptr && !draining_)
        for (const std::string& hash : worker->models)
            rollouts_.crashed(hash, name + ": " + why, options_.clock->wall_ms());
    scheduler_.worker_left(peer);
    models_.on_worker(name, false, why);
    pump();
}

void Router::WorkerSide::on_peer_hello(pipe::Peer peer, const pipe::HelloMeta& hello,
                                       std::string body) {
    if (!hello.tok.empty()) return router.models_.on_tokenizer(peer, hello.tok, std::move(body));
    router.scheduler_.worker_joined(peer, hello);
    router.obey_all(peer, hello);
    for (const auto& model : hello.models) router.catalogue_.add({model.hash, model.name});
    router.models_.on_models(peer, hello);
    router.pump();
}

void Router::WorkerSide::on_peer_status(pipe::Peer peer, const pipe::StatusMeta& status) {
    router.scheduler_.worker_status(peer, status);
    router.pump();
}

void Router::tick() {
    const int64_t now = options_.clock->mono_ms();
    scheduler_.tick(now);
    tick_breakers(now);
    for (const Ticket ticket : scheduler_.expire(now)) {
        const std::string id = ids_.at(ticket);
        const Job job = take_waiting(id);
        ++counters_.expired;
        ++counters_.refused;
        const ModelId model = scheduler_.model_id(job.model);
        pipe::EndMeta end;
        end.status = "overloaded_error";
        end.reason = scheduler_.workers().has(model) ? "expired" : "no_worker";
        end.message = "Overloaded";
        end.retry_after_s = scheduler_.retry_after_s(model);
        end.retryable = job.moves > 0;  // a stream was cut: another router may know a worker
        end.cost_s = job.cost_s;
        if (job.shadow)
            --shadows_;
        else
            askers_->end(id, end);
    }
    take_steps(options_.clock->wall_ms());
    pump();
}

void Router::drain() {
    draining_ = true;
    askers_->drain();
    while (!waiting_.empty()) {
        const Job job = take_waiting(waiting_.begin()->first);
        scheduler_.cancel(job.ticket);
        pipe::EndMeta end;
        end.status = "overloaded_error";
        end.reason = "draining";
        end.message = "Overloaded";
        end.retryable = true;
        end.retry_after_s = 1;
        end.cost_s = job.cost_s;
        if (!job.shadow) askers_->end(job.ask.id, end);
    }
}

void Router::hand_over() {
    drain();
    while (!running_.empty()) {
        const auto at = running_.begin();
        const std::string id = at->first;
        Running running = std::move(at->second);
        running_.erase(at);
        workers_->cancel(id, "asker_gone");
        if (running.job.kept) kept_bytes_ -= running.job.bytes();
        if (running.gone || running.job.shadow) continue;
        pipe::EndMeta end;
        end.status = "api_error";
        end.reason = "draining";
        end.message = "this router gives way to another";
        end.retryable = true;
        end.cost_s = running.job.cost_s;
        askers_->end(id, end);
    }
}

pipe::StatusMeta Router::status() const {
    pipe::StatusMeta meta;
    meta.running = static_cast<uint32_t>(running_.size());
    meta.waiting = static_cast<uint32_t>(waiting_.size());
    for (const auto& [peer, worker] : workers().all())
        meta.slots += worker.draining ? 0 : worker.slots;
    meta.queue_s = scheduler_.queue().waiting_s();
    meta.draining = draining_;
    return meta;
}

// Little's law: what is in the system, over what one worker holds.
double Router::workers_wanted() const {
    double slots = 0;
    for (const auto& [peer, worker] : workers().all()) slots += worker.slots;
    if (workers().all().empty()) return waiting_.empty() ? 0 : 1;
    slots /= static_cast<double>(workers().all().size());
    return std::ceil(static_cast<double>(waiting_.size() + running_.size()) / slots);
}

std::string Router::status_json() const {
    std::string out;
    JsonWriter w(out);
    w.object().field("running", running_.size()).field("waiting", waiting_.size());
    w.key("waiting_by_class").object();
    for (const auto cls : {pipe::Class::interactive, pipe::Class::streaming, pipe::Class::batch})
        w.field(pipe::name(cls), scheduler_.queue().waiting(cls));
    w.end().field("draining", draining_);
    w.key("counters")
        .object()
        .field("asked", counters_.asked)
        .field("dispatched", counters_.dispatched);
    w.field("ended", counters_.ended)
        .field("refused", counters_.refused)
        .field("expired", counters_.expired);
    w.field("cancelled", counters_.cancelled).field("lost", counters_.lost);
    w.field("moved", counters_.moved).field("retried", counters_.retried);
    w.field("shortened", counters_.shortened).end();
    const Admission& admission = scheduler_.admission();
    w.key("admission").object().field("level", admission.level());
    w.field("brownout", admission.brownout()).field("ttft_error_ms", admission.error_ms());
    w.field("ttft_bias_ms", admission.bias_ms());
    w.field("batch_tokens_max", admission.batch_tokens_max());
    w.field("retries_left", admission.retries_left());
    w.field("cost_error", scheduler_.predictor().error()).end();
    w.field("waiting_s", scheduler_.queue().waiting_s()).field("cost_s", scheduler_.cost_s());
    w.field("workers_wanted", workers_wanted());
    w.key("flows").array();
    for (const FlowView& flow : scheduler_.queue().flows()) {
        w.object()
            .field("org", flow.org)
            .field("level", flow.level == Level::batch ? "batch" : "online");
        w.field("pool", flow.pool).field("weight", flow.weight);
        w.field("tag", flow.tag).field("used_tag", flow.used_tag);
        w.field("waiting", flow.waiting).field("waiting_s", flow.waiting_s);
        w.field("running", flow.running).field("flight_s", flow.flight_s);
        w.field("used_s", flow.used_s).field("capped", flow.capped).end();
    }
    w.end();
    w.key("workers").array();
    for (const auto& [peer, worker] : workers().all()) {
        w.object().field("name", worker.name).field("boot", worker.boot);
        w.key("models").array();
        for (const auto& model : worker.models) w.string(model);
        w.end().field("slots", worker.slots).field("in_flight", worker.in_flight);
        w.field("load_s", worker.load_s).field("zone", worker.zone);
        w.field("running", worker.status.running).field("kv_free", worker.status.kv_free);
        w.field("kv_total", worker.status.kv_total).field("longest_ms", worker.status.longest_ms);
        w.field("drafted_tokens", worker.status.drafted_tokens);
        w.field("accepted_tokens", worker.status.accepted_tokens);
        w.field("served", worker.served)
            .field("cost_s", worker.cost_s)
            .field("draining", worker.draining)
            .end();
    }
    w.end().key("breakers").array();
    for (const auto& [key, breaker] : breakers_.all())
        w.object()
            .field("worker", key.first)
            .field("version", key.second)
            .field("state", name(breaker.state))
            .field("opened", breaker.opened)
            .end();
    w.end().key("rollouts").array();
    for (const auto& [alias, rollout] : rollouts_.all()) w.raw(rollout.report_json());
    w.end().end();
    return out;
}

}  // namespace parley::dispatch
