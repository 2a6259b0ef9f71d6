#include "filter/judges.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "filter/answer.hpp"

namespace parley::filter {
namespace {

int64_t wall_bound_ms(const safety::Budget& budget, size_t bytes) {
    const auto units = static_cast<int64_t>(bytes <= 4096 ? 0 : (bytes - 1) / 4096);
    return std::min<int64_t>(budget.most_ms, budget.first_ms + units * budget.more_ms) *
           budget.wall_factor;
}

}  // namespace

Judges::Judges(std::shared_ptr<const safety::Judge> judge, uint32_t threads, uint32_t jobs_max,
               std::function<void()> ready)
    : jobs_max_(jobs_max), ready_(std::move(ready)), judge_(std::move(judge)) {
    for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Judges::~Judges() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        jobs_.clear();
    }
    changed_.notify_all();
    threads_.clear();  // joins
}

int64_t Judges::bound_ms(size_t body_bytes) const {
    return wall_bound_ms(judge()->policy().budget(), body_bytes);
}

base::Result<void> Judges::submit(uint64_t ticket, std::string body) {
    {
        const std::lock_guard lock(mutex_);
        if (jobs_.size() + running_ >= jobs_max_)
            return base::fail(base::Errc::again,
                              fmt::format("{} requests wait to be judged", jobs_max_));
        jobs_.push_back(Job{ticket, std::move(body), base::system_clock().mono_ns()});
    }
    changed_.notify_one();
    return {};
}

std::vector<Outcome> Judges::take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(done_, {});
}

void Judges::set_judge(std::shared_ptr<const safety::Judge> judge) {
    const std::lock_guard lock(mutex_);
    judge_ = std::move(judge);
}

std::shared_ptr<const safety::Judge> Judges::judge() const {
    const std::lock_guard lock(mutex_);
    return judge_;
}

void Judges::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
        if (stopping_) return;
        Job job = std::move(jobs_.front());
        jobs_.pop_front();
        ++running_;
        auto judge = judge_;
        lock.unlock();
        Outcome outcome;
        try {
            outcome = judge_one(job, judge);
        } catch (const std::exception& e) {
            outcome = Outcome{};
            outcome.error =
                base::Error{base::Errc::internal, fmt::format("judging failed: {}", e.what())};
        }
        outcome.ticket = job.ticket;
        outcome.judge = std::move(judge);
        lock.lock();
        --running_;
        done_.push_back(std::move(outcome));
        // Under the lock: the destructor must not pass by while the loop is being woken.
        ready_();
    }
}

Outcome Judges::judge_one(const Job& job, std::shared_ptr<const safety::Judge> judge) const {
    Outcome out;
    const int64_t start = base::system_clock().mono_ns();
    const int64_t left_ms = wall_bound_ms(judge->policy().budget(), job.body.size()) -
                            (start - job.submitted_ns) / 1'000'000;
    if (left_ms <= 0) {
        out.error = base::Error{base::Errc::timeout, "the request waited too long to be judged"};
        return out;
    }
    auto request = messages::parse_request(job.body);
    if (!request) {
        out.refused = request.error();
        return out;
    }
    out.question = question_of(*request);
    out.model = request->model;
    safety::Meter meter(judge->policy().budget(), left_ms);
    auto verdict = judge->judge(*request, meter);
    if (verdict)
        out.verdict = std::move(*verdict);
    else
        out.error = verdict.error();
    out.took_ns = base::system_clock().mono_ns() - start;
    return out;
}

}  // namespace parley::filter
