#include "engine/models.hpp"

#include <malloc.h>

#include <algorithm>

#include "messages/request.hpp"

namespace parley::engine {
namespace {

void add_to(ServiceCounters& sum, const ServiceCounters& one) {
    sum.asked += one.asked;
    sum.finished += one.finished;
    sum.cancelled += one.cancelled;
    sum.refused += one.refused;
    sum.failed += one.failed;
    sum.input_tokens += one.input_tokens;
    sum.output_tokens += one.output_tokens;
    sum.replayed_tokens += one.replayed_tokens;
}

// What only ever grows.
void add_totals(EngineStats& sum, const EngineStats& one) {
    sum.prefix_hit_tokens += one.prefix_hit_tokens;
    sum.prefix_sought_tokens += one.prefix_sought_tokens;
    sum.prefix_evicted += one.prefix_evicted;
    sum.prefix_copied += one.prefix_copied;
    sum.iterations += one.iterations;
    sum.decode_rows += one.decode_rows;
    sum.prefill_rows += one.prefill_rows;
    sum.preempted += one.preempted;
    sum.drafted_tokens += one.drafted_tokens;
    sum.accepted_tokens += one.accepted_tokens;
    sum.busy_s += one.busy_s;
}

}  // namespace

base::Result<void> Models::add(Model model) {
    for (const auto& entry : entries_) {
        if (entry->model.artifact->hash() != model.artifact->hash()) continue;
        if (!entry->retiring)
            return base::fail(base::Errc::conflict, "version " + model.artifact->hash() +
                                                        " is served already, as '" +
                                                        entry->model.name + "'");
        entry->retiring = false;
        entry->model.name = std::move(model.name);
        entry->model.source = std::move(model.source);
        return {};
    }
    auto entry = std::make_unique<Entry>();
    entry->model = std::move(model);
    entry->service = std::make_unique<Service>(*entry->model.forward, *entry->model.artifact,
                                               entry->model.options, outlet_, clock_);
    entries_.push_back(std::move(entry));
    return {};
}

base::Result<std::string> Models::hash_of(const std::string& name) const {
    std::string hash;
    for (const Model* model : serving()) {
        if (model->artifact->hash() == name) return name;
        if (model->name != name) continue;
        if (!hash.empty())
            return base::fail(base::Errc::conflict,
                              "'" + name + "' names several versions: give the hash");
        hash = model->artifact->hash();
    }
    if (hash.empty()) return base::fail(base::Errc::not_found, "'" + name + "' is not served here");
    return hash;
}

bool Models::retire(const std::string& hash) {
    for (const auto& entry : entries_) {
        if (entry->retiring || entry->model.artifact->hash() != hash) continue;
        entry->retiring = true;
        return true;
    }
    return false;
}

Models::Entry* Models::choose(const pipe::Envelope& envelope, const std::string& body) {
    std::string wanted = envelope.version;
    if (wanted.empty()) {
        Entry* only = nullptr;
        size_t serving = 0;
        for (const auto& entry : entries_) {
            if (entry->retiring) continue;
            if (++serving == 1) only = entry.get();
        }
        if (serving <= 1) return only;
        const auto request = messages::parse_request(body);
        if (!request) return only;  // any of them says what is wrong with it
        wanted = request->model;
    }
    Entry* newest = nullptr;  // of several with one name, as the router has it
    for (const auto& entry : entries_) {
        if (entry->retiring) continue;
        if (entry->model.artifact->hash() == wanted) return entry.get();
        if (envelope.version.empty() && entry->model.name == wanted) newest = entry.get();
    }
    return newest;
}

void Models::ask(const std::string& id, pipe::Envelope envelope, std::string body) {
    Entry* entry = choose(envelope, body);
    for (const auto& other : entries_)  // an earlier attempt may run on another model
        if (other.get() != entry) other->service->cancel(id, "replaced");
    if (entry != nullptr) return entry->service->ask(id, std::move(envelope), std::move(body));
    ++gone_counters_.asked;
    ++gone_counters_.refused;
    pipe::EndMeta meta;
    meta.attempt = envelope.attempt;
    meta.status = "not_found_error";
    meta.message = envelope.version.empty() ? "the model is not served here"
                                            : "version " + envelope.version + " is not served here";
    meta.reason = "no_worker";
    meta.retryable = true;
    outlet_.end(id, std::move(meta));
}

void Models::cancel(const std::string& id, const std::string& reason) {
    for (const auto& entry : entries_) entry->service->cancel(id, reason);
}

void Models::credit(const std::string& id, uint32_t available) {
    for (const auto& entry : entries_) entry->service->credit(id, available);
}

void Models::tag(const std::string& id, double tag) {
    for (const auto& entry : entries_) entry->service->tag(id, tag);
}

void Models::abandon(const std::string& why) {
    for (const auto& entry : entries_) entry->service->abandon(why);
}

bool Models::step() {
    std::vector<Entry*> turns;
    for (const auto& entry : entries_) {
        if (entry->service->empty())
            entry->idle = true;
        else
            turns.push_back(entry.get());
    }
    // Time that was not wanted is lost, else a model that wakes up would hold up all others.
    for (Entry* entry : turns)
        if (entry->idle) entry->used_ns = std::max(entry->used_ns, least_ns_);
    std::stable_sort(turns.begin(), turns.end(),
                     [](const Entry* a, const Entry* b) { return a->used_ns < b->used_ns; });
    bool worked = false;
    for (Entry* entry : turns) {
        const int64_t started_ns = clock_.mono_ns();
        worked = entry->service->step();
        entry->idle = !worked;
        if (!worked) continue;
        least_ns_ = std::max(least_ns_, entry->used_ns);
        entry->used_ns += clock_.mono_ns() - started_ns;
        break;
    }
    free_retired();
    return worked;
}

void Models::free_retired() {
    bool freed = false;
    for (size_t i = 0; i < entries_.size();) {
        Entry& entry = *entries_[i];
        if (!entry.retiring || !entry.service->empty()) {
            ++i;
            continue;
        }
        add_totals(gone_stats_, entry.service->engine().stats());
        add_to(gone_counters_, entry.service->counters());
        freed_.push_back(entry.model.artifact->hash());
        entry.service.reset();  // it refers to the model
        entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(i));
        freed = true;
    }
    if (freed) malloc_trim(0);  // vocabularies are many small pieces
}

size_t Models::live() const {
    size_t sum = 0;
    for (const auto& entry : entries_) sum += entry->service->live();
    return sum;
}

std::vector<const Model*> Models::serving() const {
    std::vector<const Model*> out;
    for (const auto& entry : entries_)
        if (!entry->retiring) out.push_back(&entry->model);
    return out;
}

const Model* Models::find(const std::string& hash) const {
    for (const auto& entry : entries_)
        if (entry->model.artifact->hash() == hash) return &entry->model;
    return nullptr;
}

size_t Models::retiring() const { return entries_.size() - serving().size(); }

std::vector<std::string> Models::take_freed() { return std::exchange(freed_, {}); }

pipe::StatusMeta Models::status() {
    pipe::StatusMeta sum;
    sum.drafted_tokens = gone_stats_.drafted_tokens;
    sum.accepted_tokens = gone_stats_.accepted_tokens;
    for (const auto& entry : entries_) {
        const pipe::StatusMeta one = entry->service->status();
        sum.running += one.running;
        sum.waiting += one.waiting;
        sum.slots = std::max(sum.slots, one.slots);
        sum.kv_free += one.kv_free;
        sum.kv_total += one.kv_total;
        sum.queue_s += one.queue_s;
        sum.longest_ms = std::max(sum.longest_ms, one.longest_ms);
        sum.drafted_tokens += one.drafted_tokens;
        sum.accepted_tokens += one.accepted_tokens;
        for (const pipe::Charge& charge : one.charges) {
            const auto same =
                std::find_if(sum.charges.begin(), sum.charges.end(),
                             [&](const pipe::Charge& c) { return c.flow == charge.flow; });
            if (same == sum.charges.end())
                sum.charges.push_back(charge);
            else
                same->cost_s += charge.cost_s;
        }
    }
    return sum;
}

EngineStats Models::stats() const {
    EngineStats sum = gone_stats_;
    for (const auto& entry : entries_) {
        const EngineStats one = entry->service->engine().stats();
        add_totals(sum, one);
        sum.running += one.running;
        sum.waiting += one.waiting;
        sum.held += one.held;
        sum.resting += one.resting;
        sum.kv_blocks += one.kv_blocks;
        sum.kv_blocks_free += one.kv_blocks_free;
        sum.prefix_blocks += one.prefix_blocks;
        sum.prefix_blocks_unused += one.prefix_blocks_unused;
        sum.waiting_tokens += one.waiting_tokens;
    }
    return sum;
}

ServiceCounters Models::counters() const {
    ServiceCounters sum = gone_counters_;
    for (const auto& entry : entries_) add_to(sum, entry->service->counters());
    return sum;
}

}  // namespace parley::engine
