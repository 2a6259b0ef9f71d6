#include "dispatch/queue.hpp"

#include <fmt/format.h>

#include <unordered_set>

namespace parley::dispatch {

using base::Errc;
using base::fail;
using base::Result;

namespace {

uint64_t bytes_of(const Job& job) { return job.ask.body.size() + job.ask.id.size() + 512; }

}  // namespace

Result<void> Queue::push(Job job) {
    if (by_id_.size() >= options_.requests_max)
        return fail(Errc::again, fmt::format("{} requests wait, no more are taken", by_id_.size()));
    if (bytes_ + bytes_of(job) > options_.bytes_max)
        return fail(Errc::again,
                    fmt::format("{} bytes of requests wait, no more are taken", bytes_));
    const auto cls = static_cast<size_t>(job.ask.envelope.cls);
    List& list = lists_[cls];
    const bool first = job.ask.envelope.continuation.has_value();
    bytes_ += bytes_of(job);
    const std::string id = job.ask.id;
    const auto at = list.insert(first ? list.begin() : list.end(), std::move(job));
    by_id_[id] = {cls, at};
    return {};
}

Job Queue::unlink(List& list, List::iterator at) {
    Job job = std::move(*at);
    list.erase(at);
    by_id_.erase(job.ask.id);
    bytes_ -= bytes_of(job);
    return job;
}

std::optional<Job> Queue::take(const std::function<bool(const std::string& model)>& fits) {
    std::unordered_set<std::string> full;
    for (List& list : lists_) {
        for (auto at = list.begin(); at != list.end(); ++at) {
            if (full.count(at->model) != 0) continue;
            if (fits(at->model)) return unlink(list, at);
            full.insert(at->model);
        }
    }
    return std::nullopt;
}

std::optional<Job> Queue::remove(const std::string& id) {
    const auto known = by_id_.find(id);
    if (known == by_id_.end()) return std::nullopt;
    const auto [cls, at] = known->second;
    return unlink(lists_[cls], at);
}

std::vector<Job> Queue::expire(int64_t now_ms) {
    std::vector<Job> out;
    for (List& list : lists_) {
        for (auto at = list.begin(); at != list.end();) {
            const auto next = std::next(at);
            if (at->deadline_ms != 0 && at->deadline_ms <= now_ms) out.push_back(unlink(list, at));
            at = next;
        }
    }
    return out;
}

std::vector<Job> Queue::clear() {
    std::vector<Job> out;
    for (List& list : lists_) {
        while (!list.empty()) out.push_back(unlink(list, list.begin()));
    }
    return out;
}

}  // namespace parley::dispatch
