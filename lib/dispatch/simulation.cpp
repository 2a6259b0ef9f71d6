#include "dispatch/simulation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <queue>
#include <random>

namespace parley::dispatch {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr double kChunkS = 0.04;  // of a prompt in one iteration beside rows that decode
constexpr int64_t kStatusMs = 250, kTickMs = 50;
constexpr double kStallS = 30;
constexpr double kEnd = 1e-9;

struct Run {
    Ticket ticket = 0;
    uint32_t request = 0;
    std::string flow;
    double weight = 1;
    bool batch = false;
    double prefill_s = 0;  // left
    double tokens = 0;     // left to decode
    double used_s = 0;
    double rate = 0;  // rows of an iteration that are its own, 0 to 1
};

struct SimWorker {
    WorkerId id = 0;
    const WorkerKind* kind = nullptr;
    bool up = true;
    std::vector<Run> runs;
    double at = 0;      // the state's time
    double period = 0;  // of an iteration, as things stand
    double rows = 0;
    size_t prefilling = SIZE_MAX;
    uint64_t version = 0;
    double busy_s = 0;
};

struct Request {
    uint32_t group = 0, org = 0;
    double prompt_tokens = 0, output_tokens = 0, produced = 0;
    uint64_t max_tokens = 0;
    double asked_s = 0, slo_ms = 0, first_s = -1;
    bool closed = false;
};

enum class What : uint8_t { open, closed, trace, worker, status, tick, happening };

struct Event {
    double at;
    uint64_t number;  // first come, first served at the same time
    What what;
    uint32_t index;
    uint64_t version;
    bool operator<(const Event& other) const {
        return at != other.at ? at > other.at : number > other.number;
    }
};

class Simulation {
  public:
    Simulation(const Scenario& scenario, const SchedulerOptions& options)
        : scenario_(scenario), scheduler_(options), random_(scenario.seed) {}
    Result<SimulationResult> run();

  private:
    struct Org {
        std::string name;
        uint32_t group;
        const OrgKind* kind;  // null: of the trace
        double weight = 1;
        double used_s = 0;  // since the warm-up
        uint32_t waited = 0;
    };
    double uniform() { return (static_cast<double>(random_() >> 11) + 0.5) / 9007199254740992.0; }
    double exponential(double mean) { return -mean * std::log(uniform()); }
    int64_t ms() const { return static_cast<int64_t>(now_ * 1000); }
    bool measured() const { return now_ >= scenario_.warmup_s; }
    size_t second() const { return static_cast<size_t>(now_ - scenario_.warmup_s); }

    void at(double when, What what, uint32_t index, uint64_t version = 0) {
        events_.push({when, next_event_++, what, index, version});
    }
    static void bump(std::vector<double>& series, size_t index, double by) {
        if (index >= series.size()) series.resize(index + 1);
        series[index] += by;
    }
    uint32_t org_of(const std::string& name, uint32_t group, const OrgKind* kind);
    void join(SimWorker& worker);
    void lose(SimWorker& worker);
    void ask(uint32_t org, const Request& request);
    void again(uint32_t org, double after_s);
    Request draw(uint32_t org);
    void pump();
    void settle_state(SimWorker& worker);
    void plan(SimWorker& worker);
    void advance(uint32_t index);
    void end(SimWorker& worker, size_t run);
    void finish(uint32_t request, bool done);
    void happen(const Happening& happening);
    void status(SimWorker& worker);

    const Scenario& scenario_;
    Scheduler scheduler_;
    std::mt19937_64 random_;
    std::priority_queue<Event> events_;
    uint64_t next_event_ = 0;
    double now_ = 0, load_ = 1;
    std::vector<std::unique_ptr<SimWorker>> workers_;
    std::map<WorkerId, uint32_t> by_id_;
    WorkerId next_worker_ = 1;
    std::vector<Org> orgs_;
    std::unordered_map<std::string, uint32_t> org_index_;
    std::vector<Request> requests_;
    std::vector<uint32_t> free_;
    std::unordered_map<Ticket, uint32_t> by_ticket_;
    SimulationResult result_;
    uint32_t samples_ = 0;
};

uint32_t Simulation::org_of(const std::string& name, uint32_t group, const OrgKind* kind) {
    const auto [at, fresh] = org_index_.try_emplace(name, static_cast<uint32_t>(orgs_.size()));
    if (fresh) {
        orgs_.push_back({name, group, kind, kind ? kind->weight : 1.0, 0, 0});
        if (kind) scheduler_.set_weight(name, kind->weight);
        ++result_.groups[group].orgs;
    }
    return at->second;
}

void Simulation::join(SimWorker& worker) {
    worker.id = next_worker_++;
    worker.up = true;
    worker.at = now_;
    by_id_[worker.id] =
        static_cast<uint32_t>(std::find_if(workers_.begin(), workers_.end(),
                                           [&](const auto& w) { return w.get() == &worker; }) -
                              workers_.begin());
    pipe::HelloMeta hello;
    hello.name = fmt::format("worker-{}", by_id_[worker.id]);
    hello.zone = worker.kind->zone;
    hello.slots = worker.kind->slots;
    hello.queue = worker.kind->queue;
    for (const auto& model : worker.kind->models) hello.models.push_back({model, model, "", 0, 0});
    scheduler_.worker_joined(worker.id, hello);
}

void Simulation::lose(SimWorker& worker) {
    if (!worker.up) return;
    settle_state(worker);
    worker.up = false;
    ++worker.version;
    scheduler_.worker_drains(worker.id);
    for (Run& run : worker.runs) {
        Request& request = requests_[run.request];
        request.produced = request.output_tokens - run.tokens;
        const bool begun = request.first_s >= 0;
        if (!begun && !scheduler_.may_retry()) {
            scheduler_.ended(run.ticket, run.used_s, std::nullopt, false, ms());
            by_ticket_.erase(run.ticket);
            ++result_.groups[request.group].broken;
            finish(run.request, false);
            continue;
        }
        // What its last STATUS had not said yet is lost to the accounts, as in the router.
        ++result_.groups[request.group].moved;
        scheduler_.requeue(run.ticket, static_cast<int64_t>((now_ + kStallS) * 1000));
    }
    worker.runs.clear();
    scheduler_.worker_left(worker.id);
    by_id_.erase(worker.id);
}

Request Simulation::draw(uint32_t index) {
    const OrgKind& kind = *orgs_[index].kind;
    Request request;
    request.group = orgs_[index].group;
    request.org = index;
    request.prompt_tokens = std::max(1.0, kind.prompt_tokens * (0.5 + uniform()));
    request.max_tokens =
        kind.max_tokens > 0 ? kind.max_tokens : static_cast<uint64_t>(4 * kind.output_tokens);
    request.output_tokens = std::clamp(std::ceil(exponential(kind.output_tokens)), 1.0,
                                       static_cast<double>(request.max_tokens));
    request.slo_ms = kind.ttft_ms;
    request.closed = kind.streams > 0;
    return request;
}

void Simulation::again(uint32_t org, double after_s) {
    const OrgKind& kind = *orgs_[org].kind;
    const double to = kind.to_s > 0 ? kind.to_s : scenario_.seconds;
    if (now_ + after_s < to) at(now_ + after_s, What::closed, org);
}

void Simulation::ask(uint32_t org, const Request& drawn) {
    GroupResult& group = result_.groups[drawn.group];
    if (measured()) ++group.asked;
    Arrival arrival;
    arrival.org = orgs_[org].name;
    arrival.cls = orgs_[org].kind ? orgs_[org].kind->cls : pipe::Class::streaming;
    arrival.model = scheduler_.model_id(orgs_[org].kind ? orgs_[org].kind->model : "model");
    arrival.bytes = static_cast<uint64_t>(drawn.prompt_tokens * 4);
    arrival.max_tokens = drawn.max_tokens;
    arrival.deadline_ms = drawn.slo_ms > 0 ? static_cast<int64_t>(now_ * 1000 + drawn.slo_ms) : 0;
    const auto admitted = scheduler_.arrive(arrival, ms());
    if (const auto* refusal = std::get_if<Refusal>(&admitted)) {
        if (measured()) {
            ++(refusal->status == "rate_limit_error" ? group.rate_limited : group.overloaded);
            bump(group.refused_by_second, second(), 1);
        }
        if (drawn.closed) again(org, refusal->retry_after_s);
        return;
    }
    uint32_t index = 0;
    if (free_.empty()) {
        index = static_cast<uint32_t>(requests_.size());
        requests_.emplace_back();
    } else {
        index = free_.back();
        free_.pop_back();
    }
    requests_[index] = drawn;
    requests_[index].asked_s = now_;
    by_ticket_[std::get<Ticket>(admitted)] = index;
}

void Simulation::pump() {
    while (const auto started = scheduler_.next(ms())) {
        ++result_.decisions;
        const uint32_t index = by_ticket_.at(started->ticket);
        Request& request = requests_[index];
        const uint32_t at = by_id_.at(started->worker);
        SimWorker& worker = *workers_[at];
        settle_state(worker);
        Run run;
        run.ticket = started->ticket;
        run.request = index;
        run.flow = started->flow;
        run.weight = started->weight;
        run.batch = orgs_[request.org].kind && orgs_[request.org].kind->cls == pipe::Class::batch;
        // What had been produced is computed again, as a prompt.
        run.prefill_s = (request.prompt_tokens + request.produced) * worker.kind->prefill_us /
                        worker.kind->speed * 1e-6;
        run.tokens = request.output_tokens - request.produced;
        worker.runs.push_back(std::move(run));
        plan(worker);
    }
}

// Brings the worker's state to now_: what was computed since, and what it is charged to.
void Simulation::settle_state(SimWorker& worker) {
    const double dt = now_ - worker.at;
    worker.at = now_;
    if (dt <= 0 || worker.runs.empty() || worker.period <= 0) return;
    worker.busy_s += dt;
    if (measured()) result_.busy_s += dt;
    const double iterations = dt / worker.period;
    const double step = worker.kind->step_us / worker.kind->speed * 1e-6;
    const double row = worker.kind->row_us / worker.kind->speed * 1e-6;
    for (size_t i = 0; i < worker.runs.size(); ++i) {
        Run& run = worker.runs[i];
        double used = 0;
        if (i == worker.prefilling) {
            used = worker.rows > 0 ? iterations * kChunkS : dt;
            run.prefill_s -= used;
        } else if (run.rate > 0) {
            used = iterations * run.rate * (step / worker.rows + row);
            run.tokens -= iterations * run.rate;
        }
        run.used_s += used;
        const Request& request = requests_[run.request];
        if (measured()) {
            orgs_[request.org].used_s += used;
            result_.groups[request.group].used_s += used;
            bump(result_.groups[request.group].used_by_second, second(), used);
        }
    }
}

// Who computes what in the next iterations, and when the first of them is through.
void Simulation::plan(SimWorker& worker) {
    ++worker.version;
    worker.prefilling = SIZE_MAX;
    worker.rows = 0;
    struct Flow {
        double weight = 0, want = 0, got = 0;
    };
    std::map<std::string, Flow> flows[2];
    for (size_t i = 0; i < worker.runs.size(); ++i) {
        Run& run = worker.runs[i];
        run.rate = 0;
        if (run.prefill_s > kEnd) {
            if (worker.prefilling == SIZE_MAX) worker.prefilling = i;
            continue;
        }
        if (Request& request = requests_[run.request]; request.first_s < 0) {
            request.first_s = now_;
            scheduler_.first_event(run.ticket, ms());
        }
        Flow& flow = flows[run.batch ? 1 : 0][run.flow];
        flow.weight = run.weight;
        flow.want += 1;
    }
    double left = worker.kind->slots;
    for (auto& tier : flows) {
        // By weight, no flow more than it wants: what one leaves goes to the others.
        double wanted = 0;
        for (const auto& [name, flow] : tier) wanted += flow.want;
        double give = std::min(left, wanted);
        left -= give;
        while (give > kEnd) {
            double weights = 0;
            for (const auto& [name, flow] : tier)
                if (flow.got < flow.want - kEnd) weights += flow.weight;
            if (weights <= 0) break;
            double rest = 0;
            for (auto& [name, flow] : tier) {
                if (flow.got >= flow.want - kEnd) continue;
                const double share = give * flow.weight / weights;
                const double taken = std::min(share, flow.want - flow.got);
                flow.got += taken;
                rest += share - taken;
            }
            give = rest;
        }
    }
    for (Run& run : worker.runs) {
        if (run.prefill_s > kEnd) continue;
        const Flow& flow = flows[run.batch ? 1 : 0][run.flow];
        run.rate = flow.got / flow.want;
        worker.rows += run.rate;
    }
    const double speed = worker.kind->speed * 1e6;
    const bool prefills = worker.prefilling != SIZE_MAX;
    worker.period = (worker.kind->step_us + worker.kind->row_us * worker.rows) / speed;
    if (worker.rows <= 0)
        worker.period = kChunkS;
    else if (prefills)
        worker.period += kChunkS;
    double next = 1e18;
    for (size_t i = 0; i < worker.runs.size(); ++i) {
        const Run& run = worker.runs[i];
        if (i == worker.prefilling)
            next = std::min(next, run.prefill_s * (worker.rows > 0 ? worker.period / kChunkS : 1));
        else if (run.rate > 0)
            next = std::min(next, run.tokens * worker.period / run.rate);
    }
    const auto index = by_id_.at(worker.id);
    if (next < 1e18) at(now_ + std::max(next, 0.0), What::worker, index, worker.version);
}

void Simulation::advance(uint32_t index) {
    SimWorker& worker = *workers_[index];
    settle_state(worker);
    plan(worker);  // notes first tokens
    for (size_t i = worker.runs.size(); i-- > 0;)
        if (worker.runs[i].prefill_s <= kEnd && worker.runs[i].tokens <= 1e-6) end(worker, i);
    plan(worker);
    pump();
}

void Simulation::end(SimWorker& worker, size_t at) {
    const Run run = worker.runs[at];
    worker.runs.erase(worker.runs.begin() + static_cast<ptrdiff_t>(at));
    const Request& request = requests_[run.request];
    pipe::Usage usage;
    usage.input_tokens = static_cast<uint64_t>(request.prompt_tokens + request.produced);
    usage.output_tokens = static_cast<uint64_t>(request.output_tokens - request.produced);
    scheduler_.ended(run.ticket, run.used_s, usage, true, ms());
    by_ticket_.erase(run.ticket);
    finish(run.request, true);
}

void Simulation::finish(uint32_t index, bool done) {
    const Request request = requests_[index];
    free_.push_back(index);
    GroupResult& group = result_.groups[request.group];
    if (done && request.asked_s >= scenario_.warmup_s) {
        ++group.done;
        const double ttft = (request.first_s - request.asked_s) * 1000;
        group.ttft_ms.push_back(static_cast<float>(ttft));
        if (request.slo_ms <= 0 || ttft <= request.slo_ms) {
            ++group.good;
            bump(group.good_by_second, second(), 1);
        }
    }
    if (request.closed) again(request.org, orgs_[request.org].kind->think_s);
}

void Simulation::status(SimWorker& worker) {
    settle_state(worker);
    pipe::StatusMeta meta;
    meta.running = static_cast<uint32_t>(worker.runs.size());
    meta.slots = worker.kind->slots;
    std::map<std::string, double> charges;
    for (const Run& run : worker.runs) charges[run.flow] += run.used_s;
    for (const auto& [flow, cost] : charges) meta.charges.push_back({flow, cost});
    scheduler_.worker_status(worker.id, meta);
}

void Simulation::happen(const Happening& happening) {
    if (happening.load > 0) load_ = happening.load;
    uint32_t to_kill = happening.kill;
    for (auto& worker : workers_) {
        const bool zone = !happening.lose_zone.empty() && worker->kind->zone == happening.lose_zone;
        if (worker->up && (zone || to_kill > 0)) {
            if (!zone) --to_kill;
            lose(*worker);
        } else if (!worker->up && !happening.restore_zone.empty() &&
                   worker->kind->zone == happening.restore_zone) {
            join(*worker);
        }
    }
    pump();
}

Result<SimulationResult> Simulation::run() {
    for (const auto& kind : scenario_.orgs) {
        GroupResult group;
        group.name = kind.name;
        result_.groups.push_back(group);
    }
    const auto trace_group = static_cast<uint32_t>(result_.groups.size());
    if (!scenario_.trace.empty()) {
        result_.groups.emplace_back();
        result_.groups.back().name = "trace";
    }
    for (const auto& kind : scenario_.workers)
        for (uint32_t i = 0; i < kind.count; ++i) {
            workers_.push_back(std::make_unique<SimWorker>());
            workers_.back()->kind = &kind;
            join(*workers_.back());
            at(static_cast<double>(kStatusMs) / 1000 * uniform(), What::status,
               static_cast<uint32_t>(workers_.size() - 1));
        }
    for (uint32_t g = 0; g < scenario_.orgs.size(); ++g) {
        const OrgKind& kind = scenario_.orgs[g];
        for (uint32_t i = 0; i < kind.count; ++i) {
            const uint32_t org =
                org_of(kind.count == 1 ? kind.name : fmt::format("{}-{}", kind.name, i), g, &kind);
            if (kind.rate > 0) at(kind.from_s + exponential(1 / kind.rate), What::open, org);
            for (uint32_t s = 0; s < kind.streams; ++s)
                at(kind.from_s + 0.1 * uniform(), What::closed, org);
        }
    }
    for (uint32_t i = 0; i < scenario_.trace.size(); ++i)
        at(scenario_.trace[i].at_s, What::trace, i);
    for (uint32_t i = 0; i < scenario_.happenings.size(); ++i)
        at(scenario_.happenings[i].at_s, What::happening, i);
    at(0, What::tick, 0);
    std::vector<OrgKind> traced;  // one for each organisation and kind of request of the trace
    traced.reserve(scenario_.trace.size());
    double last_sample = -1;
    while (!events_.empty() && events_.top().at <= scenario_.seconds) {
        const Event event = events_.top();
        events_.pop();
        now_ = event.at;
        switch (event.what) {
            case What::open: {
                const OrgKind& kind = *orgs_[event.index].kind;
                const double to = kind.to_s > 0 ? kind.to_s : scenario_.seconds;
                if (now_ > to) break;
                at(now_ + exponential(1 / (kind.rate * load_)), What::open, event.index);
                ask(event.index, draw(event.index));
                pump();
                break;
            }
            case What::closed:
                ask(event.index, draw(event.index));
                pump();
                break;
            case What::trace: {
                const TraceRequest& t = scenario_.trace[event.index];
                OrgKind kind;
                kind.cls = t.cls;
                kind.model = t.model;
                traced.push_back(kind);
                const uint32_t org = org_of(t.org.empty() ? "trace" : t.org, trace_group, nullptr);
                if (orgs_[org].group == trace_group) orgs_[org].kind = &traced.back();
                Request request;
                request.group = trace_group;
                request.org = org;
                request.prompt_tokens = t.prompt_tokens;
                request.output_tokens = t.output_tokens;
                request.slo_ms = t.ttft_ms;
                ask(org, request);
                pump();
                break;
            }
            case What::worker:
                if (workers_[event.index]->version == event.version && workers_[event.index]->up)
                    advance(event.index);
                break;
            case What::status:
                at(now_ + static_cast<double>(kStatusMs) / 1000, What::status, event.index);
                if (workers_[event.index]->up) status(*workers_[event.index]);
                pump();
                break;
            case What::tick: {
                at(now_ + static_cast<double>(kTickMs) / 1000, What::tick, 0);
                scheduler_.tick(ms());
                for (const Ticket ticket : scheduler_.expire(ms())) {
                    const uint32_t index = by_ticket_.at(ticket);
                    by_ticket_.erase(ticket);
                    if (measured()) ++result_.groups[requests_[index].group].expired;
                    finish(index, false);
                }
                if (measured()) {
                    double up = 0;
                    for (const auto& worker : workers_) up += worker->up ? 1 : 0;
                    result_.capacity_s += up * static_cast<double>(kTickMs) / 1000;
                    if (now_ - last_sample >= 0.5) {
                        last_sample = now_;
                        ++samples_;
                        for (Org& org : orgs_)
                            if (scheduler_.queue().waiting(org.name) > 0) ++org.waited;
                    }
                }
                pump();
                break;
            }
            case What::happening:
                happen(scenario_.happenings[event.index]);
                break;
        }
    }
    now_ = scenario_.seconds;
    double busy = 0, running = 0;
    for (auto& worker : workers_) {
        if (worker->up) settle_state(*worker);
        busy += worker->busy_s;
        for (const Run& run : worker->runs) running += run.used_s;
    }
    result_.seconds = scenario_.seconds - scenario_.warmup_s;
    result_.charged_error = busy > 0 ? std::abs(scheduler_.cost_s() + running - busy) / busy : 0;
    double sum = 0, squares = 0, good = 0;
    for (const Org& org : orgs_) {
        if (samples_ == 0 || org.waited < 0.9 * samples_) continue;
        const double share = org.used_s / org.weight;
        ++result_.backlogged;
        sum += share;
        squares += share * share;
    }
    result_.jain = squares > 0 ? sum * sum / (result_.backlogged * squares) : 0;
    for (auto& group : result_.groups) {
        std::sort(group.ttft_ms.begin(), group.ttft_ms.end());
        good += static_cast<double>(group.good);
    }
    result_.goodput = good / result_.seconds;
    return std::move(result_);
}

}  // namespace

double GroupResult::ttft(double quantile) const {
    if (ttft_ms.empty()) return 0;
    const double rank = std::ceil(quantile * static_cast<double>(ttft_ms.size())) - 1;
    return ttft_ms[static_cast<size_t>(std::max(rank, 0.0))];
}

Result<SimulationResult> simulate(const Scenario& scenario, const SchedulerOptions& options) {
    std::set<std::string> served;
    for (const auto& kind : scenario.workers) served.insert(kind.models.begin(), kind.models.end());
    for (const auto& kind : scenario.orgs)
        if (served.count(kind.model) == 0)
            return fail(Errc::invalid, fmt::format("no worker serves '{}', which '{}' asks",
                                                   kind.model, kind.name));
    return Simulation(scenario, options).run();
}

}  // namespace parley::dispatch
