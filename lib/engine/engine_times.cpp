// The deadlines of the engine's sequences: who has to begin when, and who is ended.
#include <algorithm>
#include <limits>

#include "engine/engine.hpp"

namespace parley::engine {

// Which deadline `s` surely misses, in words; null: none. Says on the way when it has to begin.
const char* Engine::missed(Sequence& s, int64_t now_ns) {
    constexpr const char* kNoSlot = "no slot was free in time";
    constexpr const char* kNoTime = "the time for the answer ran out before any output";
    constexpr const char* kLongPrompt =
        "the prompt takes longer than the time that is left for its first token";
    const int64_t start_ns = s.admitted || s.text_seen ? 0 : s.job.start_deadline_ns;
    const int64_t total_ns = s.held() ? 0 : s.job.total_deadline_ns;
    s.begin_by_ns = INT64_MAX;
    if (start_ns == 0 && total_ns == 0) return nullptr;
    if (start_ns != 0 && now_ns >= start_ns) return kNoSlot;
    if (total_ns != 0 && now_ns >= total_ns) return s.admitted ? kNoTime : kNoSlot;
    int64_t due_ns = INT64_MAX;
    for (const int64_t deadline_ns : {start_ns, total_ns})
        if (deadline_ns != 0) due_ns = std::min(due_ns, deadline_ns);
    s.begin_by_ns = due_ns;
    if (s.text_seen || !cost_.prefill_known()) return nullptr;
    const auto takes_ns = [&](uint32_t from) {
        const auto rows = static_cast<uint32_t>(s.tokens.size()) - from;
        return static_cast<int64_t>(cost_.seconds_least(IterationLoad::of(from, rows, false)) *
                                    1e9);
    };
    const int64_t prompt_ns = takes_ns(s.computed);
    s.begin_by_ns = due_ns - prompt_ns;
    if (now_ns <= s.begin_by_ns || (s.running && !s.prefilling())) return nullptr;
    // Looked up only where it decides.
    const int64_t least_ns = s.running ? prompt_ns : takes_ns(scheduler_.would_find(s));
    return now_ns + least_ns > due_ns ? kLongPrompt : nullptr;
}

void Engine::check_times(int64_t now_ns) {
    std::vector<std::pair<Handle, const char*>>
        over;  // ending a sequence changes the lists; few do
    for (const auto& [handle, owner] : sequences_) {
        Sequence& s = *owner;
        if (s.held()) {
            if (s.held_since_ns == 0) s.held_since_ns = now_ns;
            s.parked = now_ns - s.held_since_ns >= options_.park_ms * 1'000'000;
        } else if (s.held_since_ns != 0) {
            // The reader's pauses are not the answer's time.
            if (s.job.total_deadline_ns != 0) s.job.total_deadline_ns += now_ns - s.held_since_ns;
            s.held_since_ns = 0;
            s.parked = false;
        }
        if (s.ended)
            over.emplace_back(handle, nullptr);
        else if (const char* why = missed(s, now_ns))
            over.emplace_back(handle, why);
    }
    std::sort(over.begin(), over.end());
    for (const auto& [handle, why] : over) {
        const auto found = sequences_.find(handle);
        if (found == sequences_.end()) continue;
        Sequence& s = *found->second;
        if (s.ended) {
            if (s.held()) continue;
            if (!s.admitted) {
                s.admitted = true;
                sink_.admitted(handle, s.prompt_tokens);
                if (sequences_.count(handle) == 0) continue;
            }
            finish(s, *s.ended, now_ns);
        } else if (s.text_seen) {
            finish(s, Finish::timeout, now_ns);
        } else {
            fail(s, {base::Errc::timeout, why});
        }
    }
}

int64_t Engine::next_deadline_ns() const {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (const auto& [handle, s] : sequences_) {
        if (!s->admitted && s->job.start_deadline_ns != 0)
            least = std::min(least, s->job.start_deadline_ns);
        if (!s->held() && s->job.total_deadline_ns != 0)
            least = std::min(least, s->job.total_deadline_ns);
    }
    return least;
}

}  // namespace parley::engine
