// Judge: a text, or a whole request, against one policy.
//
// Verdict  block if any part crosses a block threshold or matches a block rule, else flag, else allow.
//          score is the highest calibrated score of the heads that count for the part's voice.
// Requests every turn is judged by whose voice it is; documents and tool results apart from the user
//          who brought them, and once more together with the turn they stand in; the last user turn
//          also together with the user turns before it (policy: user_turns), so that a request cut in
//          pieces is seen whole.
// Cache    verdicts of parts by SHA-256 of voice and text: the history of a conversation is judged
//          once. Least recently used go first.
// Budget   CPU time of the calling thread for what is not in the cache, wall clock bounded at
//          wall_factor times it. Over it: Errc::timeout and no verdict. Looked at between views, so an
//          overrun is at most one view of one part.
// Errors   Errc::invalid (not UTF-8), Errc::too_large (policy limits), Errc::timeout.
// Threads  any; the cache has a lock, held for look-ups only.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "messages/request.hpp"
#include "safety/policy.hpp"

namespace parley::safety {

struct Verdict {
    Action action = Action::allow;
    double score = 0;
    HeadValues heads{};              // calibrated; 0 where a head was not asked
    std::vector<std::string> rules;  // ids, in the policy's order
    std::string hazard;              // MLCommons code that fits best, when flagged or blocked
    std::string reason;              // "score", "rule" or ""

    void merge(const Verdict& other);
};

// CPU and wall time left. A test gives its own readings.
class Meter {
  public:
    using Read = int64_t (*)();
    static Meter unlimited();
    Meter(const Budget& budget, int64_t most_wall_ms = 0, Read cpu_ns = &base::thread_cpu_ns,
          const base::Clock& clock = base::system_clock());
    // More text is judged: its share of the budget is added.
    void allow(size_t bytes);
    base::Result<void> check() const;

  private:
    Budget budget_;
    int64_t wall_most_ns_ = 0;  // 0: wall_factor times the CPU budget
    Read cpu_;
    const base::Clock* clock_;
    bool limited_ = true;
    size_t bytes_ = 0;
    int64_t cpu_start_ = 0, wall_start_ = 0;
};

class Judge {
  public:
    explicit Judge(std::shared_ptr<const Policy> policy, size_t cache_entries = 16'384);

    base::Result<Verdict> judge(Voice voice, std::string_view text, Meter& meter) const;
    // Time waited before judging counts against `most_wall_ms` (0: the policy's own bound).
    base::Result<Verdict> judge(const messages::Request& request, Meter& meter) const;
    const Policy& policy() const { return *policy_; }
    std::shared_ptr<const Policy> policy_ptr() const { return policy_; }

    // Errc::internal when canonical forms and weights cannot tell known-bad texts (plain and disguised)
    // from known-good ones. Takes a few milliseconds.
    base::Result<void> self_test() const;

  private:
    struct Cache {
        std::mutex mutex;
        std::list<std::pair<std::string, Verdict>> order;  // newest first
        std::unordered_map<std::string_view, decltype(order)::iterator> index;
    };
    base::Result<Verdict> judge_now(Voice voice, std::string_view text, Meter& meter) const;

    std::shared_ptr<const Policy> policy_;
    size_t cache_entries_;
    mutable std::unique_ptr<Cache> cache_;
};

// What one text's scores and rule hits amount to.
Verdict weigh(const Policy& policy, Voice voice, const HeadValues& calibrated,
              const std::vector<size_t>& rules, bool lifted);

}  // namespace parley::safety
