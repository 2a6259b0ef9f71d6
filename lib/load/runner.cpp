#include "load/runner.hpp"

#include <algorithm>

#include "base/clock.hpp"

namespace parley::load {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kTickNs = 25 * kMs;
constexpr int64_t kProgressNs = 200 * kMs;

int64_t now_ns() { return base::system_clock().mono_ns(); }

}  // namespace

struct Runner::FdWatcher final : Watcher {
    std::function<void()> call;
    void ready() override { call(); }
};

Runner::Runner(Loop& loop, RunOptions options, const PromptSet& prompts, Stats& stats)
    : loop_(loop),
      options_(options),
      prompts_(prompts),
      stats_(stats),
      arrivals_(options.arrival, options.open_loop ? options.rate_per_s : 1, options.seed),
      shuffle_(options.seed ^ 0x5eed),
      slots_(options.slots()) {
    for (uint32_t slot = options_.slots(); slot-- > 0;) free_.push_back(slot);
}

Runner::~Runner() = default;

void Runner::watch(int fd, std::function<void()> readable) {
    auto watcher = std::make_unique<FdWatcher>();
    watcher->call = std::move(readable);
    if (loop_.add(fd, true, false, *watcher)) watchers_.push_back(std::move(watcher));
}

const std::string& Runner::next_prompt() {
    const uint64_t at = options_.shuffle ? shuffle_.next() : index_;
    return prompts_.body(static_cast<size_t>(at % prompts_.size()));
}

void Runner::start(uint32_t slot, int64_t intended_ns, int64_t now) {
    Slot& s = slots_[slot];
    const std::string& body = next_prompt();
    s.busy = true;
    s.measured =
        intended_ns >= begin_ns_ + options_.warmup_ms * kMs && index_ >= options_.warmup_requests;
    ++index_;
    ++inflight_;
    s.meter.begin(intended_ns);
    if (s.measured) {
        if (measure_begin_ns_ < 0) measure_begin_ns_ = intended_ns;
        stats_.started(now - intended_ns);
    } else {
        ++result_.warmups;
    }
    transport_->start(slot, body);
}

void Runner::start_due(int64_t now) {
    while (!resting_.empty() && resting_.front().first <= now) {
        free_.push_back(resting_.front().second);
        resting_.pop_front();
    }
    while (!free_.empty()) {
        // A start that was due before the end is made, even when we come to it just after.
        const int64_t intended = options_.open_loop ? begin_ns_ + arrivals_.next_ns() : now;
        if (intended > now || plan_is_over(intended)) return;
        if (options_.open_loop) arrivals_.advance();
        const uint32_t slot = free_.back();
        free_.pop_back();
        start(slot, intended, now);
    }
}

bool Runner::plan_is_over(int64_t at) const {
    if (options_.requests && stats_.starts >= options_.requests) return true;
    if (!options_.duration_ms) return false;
    int64_t from = measure_begin_ns_;
    if (options_.warmup_requests == 0) from = begin_ns_ + options_.warmup_ms * kMs;
    return from >= 0 && at >= from + options_.duration_ms * kMs;
}

int64_t Runner::next_due_ns() const {
    int64_t due = now_ns() + kTickNs;
    if (draining_) return due;
    if (!resting_.empty()) due = std::min(due, resting_.front().first);
    if (options_.open_loop && !free_.empty()) due = std::min(due, begin_ns_ + arrivals_.next_ns());
    return due;
}

void Runner::report_progress(int64_t now) {
    if (!progress_ || now < next_progress_ns_) return;
    next_progress_ns_ = now + kProgressNs;
    Progress p;
    p.elapsed_ms = (now - begin_ns_) / kMs;
    p.draining = draining_;
    p.inflight = inflight_;
    p.warming_up = measure_begin_ns_ < 0;
    if (options_.requests)
        p.share = static_cast<double>(stats_.completions + stats_.failures) /
                  static_cast<double>(options_.requests);
    if (options_.duration_ms) {
        const double time = static_cast<double>(now - begin_ns_) /
                            static_cast<double>((options_.duration_ms + options_.warmup_ms) * kMs);
        p.share = std::max(p.share, time);
    }
    p.share = std::clamp(p.share, 0.0, 1.0);
    progress_(p);
}

RunResult Runner::run(Transport& transport) {
    transport_ = &transport;
    begin_ns_ = now_ns();
    int64_t stopped_ns = 0;
    bool cut = false;
    while (true) {
        int64_t now = now_ns();
        if (!draining_ && !stop_asked_ && !abort_asked_) start_due(now);
        if (!draining_ && (stop_asked_ || abort_asked_ || plan_is_over(now))) {
            draining_ = true;
            stopped_ns = now;
            result_.interrupted = stop_asked_ || abort_asked_;
            // What was due by now and found no slot is not forgotten.
            const auto due = [this] { return begin_ns_ + arrivals_.next_ns(); };
            while (options_.open_loop && !options_.requests && due() < now &&
                   (result_.interrupted || !plan_is_over(due()))) {
                if (arrivals_.next_ns() >= options_.warmup_ms * kMs) ++result_.unstarted;
                arrivals_.advance();
            }
        }
        if (draining_ && inflight_ == 0) break;
        if (draining_ && !cut &&
            (abort_asked_ || now >= stopped_ns + options_.drain_timeout_ms * kMs)) {
            cut = true;
            for (uint32_t slot = 0; slot < slots_.size(); ++slot)
                if (slots_[slot].busy) transport.cancel(slot);
        } else {
            loop_.wait(transport.busy() ? now : next_due_ns());
        }
        now = now_ns();
        transport.tick(now);
        report_progress(now);
    }
    if (measure_begin_ns_ >= 0) {
        const int64_t end = options_.duration_ms || result_.interrupted
                                ? std::max(stopped_ns, last_end_ns_)
                                : last_end_ns_;
        result_.window_s =
            static_cast<double>(std::max<int64_t>(0, end - measure_begin_ns_)) * 1e-9;
    }
    return result_;
}

Verdict Runner::on_event(uint32_t slot, std::string_view json, int64_t stamp_ns, int64_t now) {
    Slot& s = slots_[slot];
    const MeterStep step = s.meter.event(reader_, json, stamp_ns, now);
    if (s.measured) {
        if (step.itl_ns >= 0) stats_.itl(step.itl_ns);
        if (step.chain_overhead_ns >= 0) stats_.chain_overhead(step.chain_overhead_ns);
    }
    return step.verdict;
}

void Runner::on_done(uint32_t slot, const Outcome& outcome) {
    Slot& s = slots_[slot];
    const int64_t now = now_ns();
    s.busy = false;
    --inflight_;
    result_.reached |= outcome.reached;
    const bool from_stream = !s.meter.error_type().empty();
    const bool failed = !outcome.error.empty() || from_stream;
    if (s.measured) {
        last_end_ns_ = std::max(last_end_ns_, now);
        if (outcome.error == "cancelled")
            stats_.cut_off();
        else if (from_stream)
            stats_.failed(s.meter.error_type(), s.meter.error_detail(), outcome.http_status);
        else if (failed)
            stats_.failed(outcome.error, outcome.detail, outcome.http_status);
        else
            stats_.completed(s.meter, outcome.http_status);
    }
    if (failed && !options_.open_loop && options_.error_pause_ms > 0)
        resting_.emplace_back(now + options_.error_pause_ms * kMs, slot);
    else
        free_.push_back(slot);
}

}  // namespace parley::load
