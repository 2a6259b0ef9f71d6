#include "limits/limits.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/text.hpp"
#include "limits/table.hpp"

namespace parley::limits {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr __int128 kMinuteNs = 60'000'000'000;
constexpr int64_t kForeverNs = int64_t{1} << 60;
constexpr int kOpenTries = 100;  // of kLockWaitMs each

int64_t clamped(__int128 ns) { return static_cast<int64_t>(std::min<__int128>(ns, kForeverNs)); }

// What `amount` costs in time, rounded up: never too cheap.
int64_t cost_ns(const Rate& rate, uint64_t amount) {
    return clamped((static_cast<__int128>(amount) * kMinuteNs + rate.per_minute - 1) /
                   rate.per_minute);
}
// What a full bucket is worth. Rounded up as well, or a burst of one would never be admitted.
int64_t burst_ns(const Rate& rate) { return cost_ns(rate, rate.most()); }
const Rate& rate_of(const Limits& limits, size_t kind) {
    return kind == 0 ? limits.requests : kind == 1 ? limits.input_tokens : limits.output_tokens;
}
uint64_t amount_of(const Demand& demand, size_t kind) {
    return kind == 0 ? 1 : kind == 1 ? demand.input_tokens : demand.output_tokens;
}

// Time until the bucket would be full, were all that is held used now.
int64_t debt_ns(const Slot& slot, const Rate& rate, size_t kind, int64_t now, uint64_t more = 0) {
    const int64_t used = std::max<int64_t>(0, static_cast<int64_t>(slot.full_at[kind]) - now);
    const uint64_t held = kind == 0 ? 0 : slot.held[kind];
    return clamped(static_cast<__int128>(used) + cost_ns(rate, held + more));
}

constexpr size_t kAside = 0;  // of held[]: live, and no request at once
uint64_t at_once(const Slot& slot) { return slot.live - std::min(slot.live, slot.held[kAside]); }

}  // namespace

std::string_view name(Kind kind) {
    switch (kind) {
        case Kind::requests:
            return "requests";
        case Kind::input_tokens:
            return "input_tokens";
        case Kind::output_tokens:
            return "output_tokens";
        case Kind::concurrent:
            return "concurrent";
        case Kind::spend:
            return "spend";
    }
    return "limit";
}

SubjectId subject_id(std::string_view scope, std::string_view text) {
    std::string whole(scope);
    whole += '\0';
    whole += text;
    const std::string hash = base::sha256(whole);
    SubjectId id;
    std::memcpy(id.data(), hash.data(), sizeof id);
    return id;
}

uint32_t period_first_day(Period period, int64_t wall_ms) {
    const auto day = static_cast<int64_t>(wall_ms / 86'400'000);
    if (period == Period::day) return static_cast<uint32_t>(day);
    const std::string text = base::rfc3339(wall_ms);  // "2026-11-24T…"
    return static_cast<uint32_t>(day - (std::stoi(text.substr(8, 2)) - 1));
}

Limiter::Limiter(std::unique_ptr<Table> table, const base::Clock& clock)
    : table_(std::move(table)), clock_(clock), process_(0) {}

Result<std::unique_ptr<Limiter>> Limiter::open(const Options& options, const base::Clock& clock) {
    if (options.subjects_max == 0 || options.reservations_max == 0)
        return fail(Errc::config, "limits need a place for one subject and one reservation");
    auto table = Table::open(options);
    if (!table) return fail(table.error());
    std::unique_ptr<Limiter> limiter(new Limiter(std::move(*table), clock));
    limiter->reclaim();  // a crashed predecessor's place among the processes, too
    const auto pid = static_cast<uint64_t>(::getpid());
    const uint64_t start = start_of(pid);
    // Nobody waits for us yet: rather be patient with a busy table than not start.
    for (int tries = 0;; ++tries) {
        Table::Locked locked(*limiter->table_);
        if (!locked && tries < kOpenTries) continue;
        if (!locked)
            return fail(Errc::again,
                        fmt::format("a stopped process keeps '{}' locked", options.path));
        Header& h = limiter->table_->header();
        for (uint32_t i = 0; i < kProcessesMax; ++i) {
            if (h.processes[i].pid != 0) continue;
            limiter->table_->put(h.processes[i].pid, pid);
            limiter->table_->put(h.processes[i].start, start);
            limiter->process_ = i + 1;
            return limiter;
        }
        break;
    }
    return fail(Errc::again,
                fmt::format("{} processes share '{}' already", kProcessesMax, options.path));
}

namespace {

void release(Table& table, uint64_t index) {
    Reservation& r = table.reservation(index);
    for (uint64_t i = 0; i < std::min<uint64_t>(r.count, kSubjectsMax); ++i) {
        Slot& slot = table.slot(r.slots[i]);
        for (size_t kind = 0; kind < kRates; ++kind) table.take(slot.held[kind], r.held[kind]);
        table.take(slot.spend_held, r.spend_held);
        table.take(slot.live, 1);
    }
    for (size_t kind = 0; kind < kRates; ++kind) table.put(r.held[kind], 0);
    table.put(r.spend_held, 0);
    table.put(r.count, 0);
    table.put(r.process, 0);
    table.put(r.next, table.header().free);
    table.put(table.header().free, index + 1);
    table.take(table.header().live, 1);
}

}  // namespace

Limiter::~Limiter() {
    if (process_ == 0) return;
    Table::Locked locked(*table_);
    if (!locked) return;  // reclaim() of another finds us gone
    Header& h = table_->header();
    for (uint64_t i = 0; i < h.reservations_count && h.live > 0; ++i) {
        if (table_->reservation(i).process != process_) continue;
        release(*table_, i);
        table_->done();
    }
    if (h.cold == 1 + process_) table_->put(h.cold, 1);
    table_->put(h.processes[process_ - 1].pid, 0);
    table_->put(h.processes[process_ - 1].start, 0);
}

tl::expected<Hold, Refusal> Limiter::admit(const Subject* subjects, size_t count,
                                           const Demand& demand) {
    Hold hold;
    if (count == 0) return hold;
    const auto refuse = [](Refusal::Why why, size_t subject = 0, Kind kind = Kind::requests) {
        Refusal refusal;
        refusal.why = why;
        refusal.subject = subject;
        refusal.kind = kind;
        return tl::make_unexpected(refusal);
    };
    Table::Locked locked(*table_);
    if (!locked) return refuse(Refusal::Why::busy);
    Header& h = table_->header();
    if (h.cold != 0) return refuse(Refusal::Why::cold);
    const int64_t now = clock_.mono_ns();
    const int64_t wall_ms = clock_.wall_ms();
    count = std::min(count, kSubjectsMax);
    std::array<Slot*, kSubjectsMax> slots{};
    // Fresh slots that are made on the way to a refusal stay: they are at rest.
    std::optional<Refusal> worst;
    const auto note = [&](const Refusal& refusal) {
        const bool worse = !worst || (refusal.never && !worst->never) ||
                           (refusal.never == worst->never && refusal.wait_ns > worst->wait_ns);
        if (worse) worst = refusal;
    };
    for (size_t i = 0; i < count; ++i) {
        const Limits& limits = subjects[i].limits;
        Slot* slot = slots[i] = table_->find(subjects[i].id, now, true);
        if (!slot) return refuse(Refusal::Why::full, i);
        for (size_t kind = 0; kind < kRates; ++kind) {
            const Rate& rate = rate_of(limits, kind);
            if (rate.per_minute == 0) continue;
            const uint64_t amount = amount_of(demand, kind);
            const int64_t over = debt_ns(*slot, rate, kind, now, amount) - burst_ns(rate);
            if (over <= 0) continue;
            Refusal refusal;
            refusal.subject = i;
            refusal.kind = static_cast<Kind>(kind);
            refusal.wait_ns = over;
            refusal.never = amount > rate.most();
            note(refusal);
        }
        if (limits.concurrent > 0 && demand.at_once && at_once(*slot) >= limits.concurrent) {
            Refusal refusal;
            refusal.subject = i;
            refusal.kind = Kind::concurrent;
            note(refusal);
        }
        if (limits.spend_micro == 0) continue;
        const uint64_t first_day = period_first_day(limits.period, wall_ms);
        if (slot->period != first_day + 1) {
            if (!subjects[i].spent_micro)
                return refuse(Refusal::Why::unknown_spend, i, Kind::spend);
            table_->put(slot->period, first_day + 1);
            table_->put(slot->spent, *subjects[i].spent_micro);
        }
        if (slot->spent + slot->spend_held + demand.spend_micro > limits.spend_micro ||
            slot->spent >= limits.spend_micro) {
            Refusal refusal;
            refusal.subject = i;
            refusal.kind = Kind::spend;
            refusal.wait_ns = kForeverNs;
            refusal.never = true;
            note(refusal);
        }
    }
    if (worst) return tl::make_unexpected(*worst);
    // In a full set the place made for one may have been the resting place of the one before.
    for (size_t i = 0; i < count; ++i)
        if (slots[i]->id[0] != subjects[i].id[0] || slots[i]->id[1] != subjects[i].id[1])
            return refuse(Refusal::Why::full, i);

    uint64_t place = h.free;
    if (place == 0) {
        if (h.live >= h.reservations_count) return refuse(Refusal::Why::full);
        place = h.live + 1;  // never chained yet: handed out in order
    }
    Reservation& r = table_->reservation(place - 1);
    if (place == h.free) table_->put(h.free, r.next);
    table_->put(r.process, process_);
    table_->put(r.count, count);
    table_->put(r.held[kAside], demand.at_once ? 0 : 1);
    table_->put(r.held[1], demand.input_tokens);
    table_->put(r.held[2], demand.output_tokens);
    table_->put(r.spend_held, demand.spend_micro);
    for (size_t i = 0; i < count; ++i) {
        Slot& slot = *slots[i];
        table_->put(r.slots[i], table_->index_of(slot));
        for (size_t kind = 0; kind < kRates; ++kind) table_->add(slot.held[kind], r.held[kind]);
        table_->add(slot.spend_held, r.spend_held);
        table_->add(slot.live, 1);
        table_->put(slot.used_at, static_cast<uint64_t>(now));
        if (const Rate& rate = subjects[i].limits.requests; rate.per_minute)
            table_->put(slot.full_at[0],
                        static_cast<uint64_t>(
                            std::max<int64_t>(static_cast<int64_t>(slot.full_at[0]), now) +
                            cost_ns(rate, 1)));
        hold.subjects[i] = subjects[i];
    }
    table_->add(h.live, 1);
    hold.place = static_cast<uint32_t>(place);
    hold.count = count;
    hold.at_ns = now;
    return hold;
}

std::optional<uint64_t> Limiter::consume(const Hold& hold, const Demand& used) {
    if (hold.place == 0) return 0;
    Table::Locked locked(*table_);
    if (!locked) return std::nullopt;
    return use(hold, used);
}

uint64_t Limiter::use(const Hold& hold, const Demand& used) {
    const int64_t now = clock_.mono_ns();
    const int64_t wall_ms = clock_.wall_ms();
    Reservation& r = table_->reservation(hold.place - 1);
    uint64_t overshoot = 0;
    for (size_t i = 0; i < hold.count; ++i) {
        Slot& slot = table_->slot(r.slots[i]);
        const Limits& limits = hold.subjects[i].limits;
        for (size_t kind = 1; kind < kRates; ++kind) {
            const uint64_t amount = amount_of(used, kind);
            if (amount == 0) continue;
            const Rate& rate = rate_of(limits, kind);
            const int64_t before = rate.per_minute ? debt_ns(slot, rate, kind, now) : 0;
            table_->take(slot.held[kind], std::min(amount, r.held[kind]));
            if (rate.per_minute == 0) continue;
            const int64_t from = std::max<int64_t>(static_cast<int64_t>(slot.full_at[kind]), now);
            table_->put(slot.full_at[kind],
                        static_cast<uint64_t>(
                            clamped(static_cast<__int128>(from) + cost_ns(rate, amount))));
            if (amount <= r.held[kind]) continue;
            const int64_t most = burst_ns(rate);
            const int64_t past =
                debt_ns(slot, rate, kind, now) - most - std::max<int64_t>(0, before - most);
            if (past > 0)
                overshoot = std::max<uint64_t>(
                    overshoot, static_cast<uint64_t>(static_cast<__int128>(past) * rate.per_minute /
                                                     kMinuteNs));
        }
        table_->take(slot.spend_held, std::min(used.spend_micro, r.spend_held));
        // What belongs to a period that is over is in the store's totals of it.
        if (limits.spend_micro > 0 && slot.period == period_first_day(limits.period, wall_ms) + 1u)
            table_->add(slot.spent, used.spend_micro);
        table_->put(slot.used_at, static_cast<uint64_t>(now));
    }
    table_->take(r.held[1], used.input_tokens);
    table_->take(r.held[2], used.output_tokens);
    table_->take(r.spend_held, used.spend_micro);
    return overshoot;
}

uint64_t Limiter::finish(const Hold& hold, const Demand& used, bool undo) {
    const uint64_t overshoot = use(hold, used);
    Reservation& r = table_->reservation(hold.place - 1);
    for (size_t i = 0; undo && i < hold.count; ++i) {
        Slot& slot = table_->slot(r.slots[i]);
        if (const Rate& rate = hold.subjects[i].limits.requests; rate.per_minute)
            table_->take(slot.full_at[0], static_cast<uint64_t>(cost_ns(rate, 1)));
    }
    release(*table_, hold.place - 1);
    return overshoot;
}

uint64_t Limiter::settle(Hold& hold, const Demand& used, bool undo) {
    if (hold.place == 0) return 0;
    uint64_t overshoot = 0;
    {
        Table::Locked locked(*table_);
        if (locked) {
            overshoot = finish(hold, used, undo);
        } else {
            const std::lock_guard lock(late_lock_);
            late_.push_back({hold, used, undo});
        }
    }
    hold = {};
    return overshoot;
}

std::optional<State> Limiter::state(const Subject& subject, Kind kind) {
    const auto index = static_cast<size_t>(kind);
    if (index >= kRates) return std::nullopt;
    const Rate& rate = rate_of(subject.limits, index);
    if (rate.per_minute == 0) return std::nullopt;
    Table::Locked locked(*table_);
    if (!locked) return std::nullopt;
    const int64_t now = clock_.mono_ns();
    State state;
    state.limit = rate.per_minute;
    state.remaining = rate.most();
    const Slot* slot = table_->find(subject.id, now, false);
    if (!slot) return state;
    state.reset_ns = debt_ns(*slot, rate, index, now);
    const int64_t left = burst_ns(rate) - state.reset_ns;
    if (left <= 0)
        state.remaining = 0;
    else
        state.remaining = std::min<uint64_t>(
            rate.most(),
            static_cast<uint64_t>(static_cast<__int128>(left) * rate.per_minute / kMinuteNs));
    return state;
}

uint64_t Limiter::concurrent(const Subject& subject) {
    Table::Locked locked(*table_);
    if (!locked) return 0;
    const Slot* slot = table_->find(subject.id, clock_.mono_ns(), false);
    return slot ? at_once(*slot) : 0;
}

uint64_t Limiter::reservations() {
    Table::Locked locked(*table_);
    return locked ? table_->header().live : 0;
}

size_t Limiter::reclaim() {
    {
        const std::lock_guard lock(late_lock_);
        while (!late_.empty()) {
            Table::Locked locked(*table_);
            if (!locked) return 0;
            finish(late_.back().hold, late_.back().used, late_.back().undo);
            late_.pop_back();
        }
    }
    Header& h = table_->header();
    size_t count = 0;
    for (uint32_t i = 0; i < kProcessesMax; ++i) {
        const uint64_t pid = std::atomic_ref(h.processes[i].pid).load();
        const uint64_t start = std::atomic_ref(h.processes[i].start).load();
        if (pid == 0 || i + 1 == process_) continue;
        if (start_of(pid) == start && start != 0) continue;
        Table::Locked locked(*table_);
        if (!locked) return count;
        if (h.processes[i].pid != pid || h.processes[i].start != start) continue;
        for (uint64_t at = 0; at < h.reservations_count && h.live > 0; ++at) {
            if (table_->reservation(at).process != i + 1) continue;
            release(*table_, at);
            table_->done();
            ++count;
        }
        if (h.cold == 2 + i) table_->put(h.cold, 1);
        table_->put(h.processes[i].pid, 0);
        table_->put(h.processes[i].start, 0);
    }
    return count;
}

bool Limiter::cold() { return std::atomic_ref(table_->header().cold).load() != 0; }

bool Limiter::begin_refill() {
    Table::Locked locked(*table_);
    if (!locked || table_->header().cold != 1) return false;
    table_->put(table_->header().cold, 1 + process_);
    return true;
}

void Limiter::replay(const Subject* subjects, size_t count, const Demand& used, int64_t at_ns) {
    Table::Locked locked(*table_);
    if (!locked || table_->header().cold != 1 + process_) return;
    const int64_t at = std::max<int64_t>(0, at_ns);
    for (size_t i = 0; i < std::min(count, kSubjectsMax); ++i) {
        Slot* slot = table_->find(subjects[i].id, at, true);
        if (!slot) continue;
        for (size_t kind = 0; kind < kRates; ++kind) {
            const Rate& rate = rate_of(subjects[i].limits, kind);
            if (rate.per_minute == 0) continue;
            const int64_t from = std::max<int64_t>(static_cast<int64_t>(slot->full_at[kind]), at);
            table_->put(slot->full_at[kind],
                        static_cast<uint64_t>(clamped(static_cast<__int128>(from) +
                                                      cost_ns(rate, amount_of(used, kind)))));
        }
    }
}

void Limiter::end_refill() {
    Table::Locked locked(*table_);
    if (locked && table_->header().cold == 1 + process_) table_->put(table_->header().cold, 0);
}

}  // namespace parley::limits
