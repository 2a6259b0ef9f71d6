#include "dispatch/scheduler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace parley::dispatch {

namespace {

constexpr double kStep = 0.05;
constexpr double kRetryAfterMostS = 60;  // the front's own bound

std::string flow_name(const std::string& org, Level level) {
    return level == Level::batch ? org + "/batch" : org;
}

}  // namespace

ModelId Scheduler::model_id(const std::string& hash) {
    const auto [at, fresh] = ids_.try_emplace(hash, static_cast<ModelId>(hashes_.size()));
    if (fresh) hashes_.push_back(hash);
    return at->second;
}

// Its models may have room now.
void Scheduler::mark(WorkerId id) {
    if (const Worker* worker = workers_.find(id))
        for (const ModelId model : worker->model_ids)
            if (queue_.any_waiting(model)) open_.insert(model);
}

void Scheduler::worker_joined(WorkerId id, const pipe::HelloMeta& hello) {
    std::vector<ModelId> models;
    for (const auto& model : hello.models) models.push_back(model_id(model.hash));
    queue_.join(models);
    workers_.join(id, hello, models);
    mark(id);
}

void Scheduler::worker_serves(WorkerId id, const std::string& hash, bool does) {
    const ModelId model = model_id(hash);
    workers_.serves(id, model, does);
    if (does && queue_.any_waiting(model)) open_.insert(model);
}

void Scheduler::worker_status(WorkerId id, const pipe::StatusMeta& status) {
    workers_.report(id, status);
    const auto flights = flights_.find(id);
    if (flights == flights_.end()) return;
    double done = 0;
    for (const auto& charge : status.charges) {
        const auto flight = flights->second.find(charge.flow);
        if (flight == flights->second.end() || flight->second.empty()) continue;
        // The worker says it for the flow. What is new since the last report is divided evenly (who
        // has just begun has not used what the old ones have), and settled exactly by each END.
        double known = 0;
        for (const Ticket ticket : flight->second) known += running_.at(ticket).used_s;
        const double each = (charge.cost_s - known) / static_cast<double>(flight->second.size());
        if (each <= 0) continue;
        for (const Ticket ticket : flight->second) {
            Running& running = running_.at(ticket);
            const double used = running.used_s + each;
            done +=
                std::min(used, running.predicted_s) - std::min(running.used_s, running.predicted_s);
            running.used_s = used;
            queue_.progress(ticket, used);
        }
    }
    if (done > 0) workers_.progressed(id, done);
    for (const ModelId model : queue_.take_released()) open_.insert(model);
}

void Scheduler::worker_left(WorkerId id) {
    const Worker* worker = workers_.find(id);
    const std::string zone = worker == nullptr ? "" : worker->zone;
    const bool drained = worker != nullptr && worker->status.draining;
    workers_.leave(id);
    // The last of its zone, unasked, while others go on: what is left does not do for all.
    if (!zone.empty() && !drained && !workers_.all().empty() && !workers_.zones().contains(zone))
        admission_.zone_lost();
    flights_.erase(id);
}

double Scheduler::predicted_wait_ms(const std::string& org, pipe::Class cls, ModelId model,
                                    double each_s) const {
    const FairQueue::Place place = queue_.place(org, cls, model);
    const bool batch = cls == pipe::Class::batch;
    const bool waits = queue_.any_waiting(model);
    if (!waits && workers_.choose(model, Room::slot)) return 0;
    if (!batch && place.own_waiting == 0 && place.own_running == 0 &&
        place.ahead <= options_.fair.quantum_s && workers_.choose(model, Room::beside))
        return 0;
    const double workers = std::max<uint32_t>(workers_.count(model), 1);
    double share = 1;
    const size_t waiting_batch = queue_.waiting(pipe::Class::batch);
    const size_t waiting_online = queue_.waiting() - waiting_batch;
    const double online = options_.fair.online_share / (options_.fair.online_share + 1);
    if (batch && waiting_online > 0) share = 1 - online;
    if (!batch && waiting_batch > 0) share = online;
    // Those before it by what is known now, not by what was thought when they came: the first ones of
    // an organisation are guesses. Of those that run half is done, on average.
    const double own_s = each_s * (place.own_waiting + 0.5 * place.own_running) / place.weight;
    const double shared_s = (place.ahead + own_s) * place.weights / (workers * share);
    // Even the first in the queue waits for somebody to end.
    const double slot_ms = running_.empty() ? 0 : run_ms_ / static_cast<double>(running_.size());
    return std::max(shared_s * 1000, slot_ms) * admission_.factor();
}

double Scheduler::predicted_ttft_ms(const Arrival& a) const {
    const double each_s = predictor_.predict(a.org, a.model, a.bytes, 0, a.max_tokens).total_s;
    const double wait = predicted_wait_ms(a.org, a.cls, a.model, each_s);
    const auto found = prefixes_.find(a.blocks);
    const uint64_t cached = found.blocks * PrefixMap::kBlockBytes;
    return wait + 1000 * predictor_.prefill_s(a.model, a.bytes - std::min(cached, a.bytes));
}

uint32_t Scheduler::retry_after_s(ModelId model) const {
    const double each_s = predictor_.predict({}, model, 0, 0, 0).total_s;
    const double wait = predicted_wait_ms({}, pipe::Class::streaming, model, each_s) / 1000;
    return static_cast<uint32_t>(std::clamp(std::ceil(wait), 1.0, kRetryAfterMostS));
}

Refusal Scheduler::refused(const char* status, const char* reason, std::string message,
                           double wait_s) const {
    return {status, reason, std::move(message),
            static_cast<uint32_t>(std::clamp(std::ceil(wait_s), 1.0, kRetryAfterMostS))};
}

std::optional<Refusal> Scheduler::refusal(const Arrival& a, double predicted_s) const {
    const double own_wait_s = predicted_wait_ms(a.org, a.cls, a.model, predicted_s) / 1000;
    if (queue_.waiting() >= options_.waiting_max)
        return refused("overloaded_error", "queue_full", "Overloaded", own_wait_s);
    if (queue_.waiting(a.org) >= options_.flow_waiting_max)
        return refused(
            "rate_limit_error", "flow_full",
            fmt::format("{} requests of your organization wait already, no more are taken",
                        queue_.waiting(a.org)),
            own_wait_s / std::max<double>(1, static_cast<double>(queue_.waiting(a.org))));
    if (queue_.waiting(a.org) > 0 &&
        queue_.waiting_s(a.org) + predicted_s > options_.flow_waiting_s_max)
        return refused("rate_limit_error", "flow_full",
                       fmt::format("{:.0f} compute-seconds of your organization wait already",
                                   queue_.waiting_s(a.org)),
                       own_wait_s);
    if (a.goes_on) return std::nullopt;
    if (!admission_.takes(a.org, a.cls == pipe::Class::batch))
        return refused("overloaded_error", "shed", "Overloaded",
                       static_cast<double>(admission_.options().window_ms) / 1000);
    if (!admission_.options().predict || a.deadline_ms == 0 || !predictor_.known(a.model) ||
        workers_.count(a.model) == 0)
        return std::nullopt;
    const auto wanted_ms = static_cast<double>(a.deadline_ms - now_ms_);
    const double left_ms = wanted_ms * (1 - admission_.options().late_margin);
    const double ttft_ms = predicted_ttft_ms(a);
    if (ttft_ms <= left_ms) return std::nullopt;
    // Rather a moment too late than refused again: the prediction moves on meanwhile.
    const double late_s = 0.5 + 1.1 * (ttft_ms - left_ms) / 1000;
    // Would somebody who has nothing here be in time? Then it is this organization's own doing.
    Arrival other = a;
    other.org.clear();
    other.org.push_back('\0');
    other.blocks.clear();
    const bool own = predicted_ttft_ms(other) <= left_ms;
    if (own)
        return refused(
            "rate_limit_error", "late",
            fmt::format("your organization's own requests would delay the first token by "
                        "{:.1f} s or more, it is wanted within {:.1f} s",
                        ttft_ms / 1000, wanted_ms / 1000),
            late_s);
    return refused("overloaded_error", "late", "Overloaded", late_s);
}

std::variant<Ticket, Refusal> Scheduler::arrive(const Arrival& a, int64_t now_ms) {
    now_ms_ = now_ms;
    const auto found = prefixes_.find(a.blocks);
    const Prediction predicted = predictor_.predict(
        a.org, a.model, a.bytes, found.blocks * PrefixMap::kBlockBytes, a.max_tokens);
    if (auto no = refusal(a, predicted.total_s)) return std::move(*no);
    Waiting waiting;
    waiting.arrived_ms = now_ms;
    waiting.bytes = a.bytes;
    waiting.max_tokens = a.max_tokens;
    waiting.blocks = a.blocks;
    waiting.goes_on = a.goes_on;
    waiting.predicted_wait_ms = predicted_wait_ms(a.org, a.cls, a.model, predicted.total_s);
    waiting.predicted_ttft_ms = waiting.predicted_wait_ms + predicted.prefill_s * 1000;
    const Ticket ticket =
        queue_.add({a.org, a.cls, a.model, predicted.total_s, a.deadline_ms, a.goes_on});
    requests_[ticket] = std::move(waiting);
    open_.insert(a.model);
    return ticket;
}

// Where it runs: the worker with the least to do, prompt included; who has its beginning is
// preferred inside Q.
Scheduler::Choice Scheduler::place(Ticket ticket, ModelId model, Room room) const {
    const Waiting& waiting = requests_.at(ticket);
    const auto best = workers_.choose(model, room);
    const auto found = prefixes_.find(waiting.blocks);
    const Worker* owner = found.worker == 0 ? nullptr : workers_.find(found.worker);
    const bool serves = owner != nullptr && workers_.has_room(owner->id, room) &&
                        std::binary_search(owner->model_ids.begin(), owner->model_ids.end(), model);
    if (!serves) return {best.value_or(0), 0};
    const uint64_t cached = std::min(found.blocks * PrefixMap::kBlockBytes, waiting.bytes);
    const double saved_s = predictor_.prefill_s(model, cached);
    const bool near =
        !best || owner->load_s - saved_s <= workers_.find(*best)->load_s + options_.fair.quantum_s;
    if (near) return {owner->id, cached};
    return {best.value_or(0), best.value_or(0) == owner->id ? cached : 0};
}

std::optional<Started> Scheduler::next(int64_t now_ms) {
    now_ms_ = now_ms;
    std::vector<ModelId> models;
    std::vector<ModelId> roomy;
    while (!open_.empty()) {
        const uint32_t pool = queue_.pool_of(*open_.begin());
        models.clear();
        for (const ModelId model : open_)
            if (queue_.pool_of(model) == pool) models.push_back(model);
        std::optional<Ticket> picked;
        Room room = Room::slot;
        for (const Room each : {Room::slot, Room::online, Room::beside}) {
            room = each;
            roomy.clear();
            for (const ModelId model : models)
                if (workers_.choose(model, each)) roomy.push_back(model);
            if (roomy.empty()) continue;
            picked =
                queue_.pick(roomy, each == Room::beside,
                            each == Room::slot ? Level::batch : Level::online, [&](Ticket ticket) {
                                const Item& item = *queue_.item(ticket);
                                const Choice choice = place(ticket, item.model, each);
                                return predictor_.prefill_s(item.model, choice.cached_bytes);
                            });
            if (picked) break;
        }
        if (!picked) {
            for (const ModelId model : models) open_.erase(model);
            continue;
        }
        const Ticket ticket = *picked;
        const Item item = *queue_.item(ticket);
        const Choice choice = place(ticket, item.model, room);
        const Waiting& waiting = requests_.at(ticket);
        const Level level = level_of(item.cls);
        const double predicted_s = predictor_
                                       .predict(item.org, item.model, waiting.bytes,
                                                choice.cached_bytes, waiting.max_tokens)
                                       .total_s;
        Started out;
        const FlowView flow = queue_.flow(ticket);
        out.ticket = ticket;
        out.worker = choice.worker;
        out.flow = flow_name(item.org, level);
        out.weight = flow.weight;
        out.tag = flow.used_tag;
        out.waited_ms = now_ms - waiting.arrived_ms;
        queue_.start(ticket, predicted_s);
        workers_.started(choice.worker, level, predicted_s);
        prefixes_.note(waiting.blocks, choice.worker);
        flights_[choice.worker][out.flow].insert(ticket);
        running_[ticket] = Running{choice.worker, predicted_s, 0, now_ms, waiting.goes_on};
        if (!waiting.goes_on)
            admission_.waited(now_ms, out.waited_ms,
                              item.deadline_ms == 0 ? 0 : item.deadline_ms - waiting.arrived_ms,
                              waiting.predicted_wait_ms);
        return out;
    }
    return std::nullopt;
}

void Scheduler::first_event(Ticket ticket, int64_t now_ms) {
    const auto at = running_.find(ticket);
    if (at == running_.end() || at->second.first_seen) return;
    at->second.first_seen = true;
    const Waiting& waiting = requests_.at(ticket);
    admission_.first_event(static_cast<double>(now_ms - waiting.arrived_ms),
                           waiting.predicted_ttft_ms);
    now_ms_ = now_ms;
}

void Scheduler::ended(Ticket ticket, double cost_s, const std::optional<pipe::Usage>& usage,
                      bool ok, int64_t now_ms) {
    now_ms_ = now_ms;
    const auto at = running_.find(ticket);
    if (at == running_.end()) return;
    const Running running = at->second;
    running_.erase(at);
    const Item item = *queue_.item(ticket);
    const Level level = level_of(item.cls);
    const double left_s = std::max(0.0, running.predicted_s - running.used_s);
    if (const auto flights = flights_.find(running.worker); flights != flights_.end()) {
        const auto flight = flights->second.find(flow_name(item.org, level));
        if (flight != flights->second.end()) {
            flight->second.erase(ticket);
            if (flight->second.empty()) flights->second.erase(flight);
        }
    }
    // An END that says no cost (a worker's own death) leaves what was reported.
    const double used_s = cost_s > 0 ? cost_s : ok ? 0 : running.used_s;
    cost_s_ += used_s;
    queue_.settle(ticket, used_s);
    workers_.ended(running.worker, level, left_s, used_s);
    if (ok && usage && usage->output_tokens > 0) {
        predictor_.learn(
            item.org, item.model, requests_.at(ticket).bytes,
            {usage->input_tokens, usage->cache_read_input_tokens, usage->output_tokens, cost_s});
    }
    if (ok) {
        const double ran = static_cast<double>(now_ms - running.started_ms);
        run_ms_ += (run_ms_ == 0 ? 1 : kStep) * (ran - run_ms_);
    }
    requests_.erase(ticket);
    mark(running.worker);
    for (const ModelId model : queue_.take_released()) open_.insert(model);
}

double Scheduler::requeue(Ticket ticket, int64_t deadline_ms) {
    const auto at = running_.find(ticket);
    if (at == running_.end()) return 0;
    const Running running = at->second;
    running_.erase(at);
    const Item item = *queue_.item(ticket);
    const Level level = level_of(item.cls);
    if (const auto flights = flights_.find(running.worker); flights != flights_.end()) {
        const auto flight = flights->second.find(flow_name(item.org, level));
        if (flight != flights->second.end()) {
            flight->second.erase(ticket);
            if (flight->second.empty()) flights->second.erase(flight);
        }
    }
    cost_s_ += running.used_s;
    queue_.requeue(ticket, running.used_s, running.predicted_s, deadline_ms);
    workers_.ended(running.worker, level, std::max(0.0, running.predicted_s - running.used_s),
                   running.used_s);
    requests_.at(ticket).goes_on = true;
    open_.insert(item.model);
    mark(running.worker);
    for (const ModelId model : queue_.take_released()) open_.insert(model);
    return running.used_s;
}

std::optional<double> Scheduler::correction(Ticket ticket) const {
    const auto at = running_.find(ticket);
    if (at == running_.end() || flights_.size() < 2) return std::nullopt;
    const Item& item = *queue_.item(ticket);
    const std::string flow = flow_name(item.org, level_of(item.cls));
    for (const auto& [worker, flights] : flights_)
        if (worker != at->second.worker && flights.count(flow) != 0)
            return queue_.flow(ticket).used_tag;
    return std::nullopt;
}

bool Scheduler::cancel(Ticket ticket) {
    if (!queue_.remove(ticket)) return false;
    requests_.erase(ticket);
    return true;
}

std::vector<Ticket> Scheduler::expire(int64_t now_ms) {
    now_ms_ = now_ms;
    auto out = queue_.expire(now_ms);
    for (const Ticket ticket : out) requests_.erase(ticket);
    return out;
}

}  // namespace parley::dispatch
