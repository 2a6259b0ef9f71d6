// OutputJudge: one answer as it is produced: what may leave now, and whether it must be stopped.
//
// Items    whatever the caller sends on in order (events, lines). push() takes the text that one item
//          adds and the tokens that end in it; an item without text waits behind those before it.
//          Step::release says how many of all items pushed may have left by now; it only grows.
// Hold     an item leaves when all of these hold:
//          - it lies `tokens` (while the score is at or above `watch`: `watch_tokens`) behind the last
//            finished word; a word of more than 64 bytes counts as finished;
//          - no byte of it belongs to what may still become a match of a block rule. That is exact
//            for matches up to part_match_bytes (4 KiB): no byte of such a match ever leaves, wherever
//            tokens are cut. Of a longer one the bytes before the last part_match_bytes may have left;
//          - its end is not inside a grapheme. At the end of all text so far that is not knowable: a
//            last character beyond ASCII waits, an ASCII one is taken for whole;
//          - the policy does not hold the whole answer.
// Rules    looked for in the text as it is and in its folded form (canonicalise.hpp: fold_append), at
//          every push. A match of a block rule stops the answer at once; one that reaches the end of
//          the text so far waits for the next text, for it may turn out longer or not to be one.
// Scores   n-gram sums grow with every byte. Every `every_tokens` tokens, at the end of a sentence and
//          at finish() there is a judgement: the window of the last 300 to 600 bytes, the whole answer,
//          and their canonical views. The score is smoothed over judgements (half old, half new);
//          `windows` in a row at or above the threshold stop the answer, at finish() one does. The
//          question counts toward `watch` only: an answer is stopped for what it says itself.
// Errors   push(), finish(): Errc::timeout over the budget (first_ms of CPU a push), Errc::invalid for
//          text that is not UTF-8, Errc::too_large over text_bytes_max. After an error or a block the
//          judge is finished: nothing more is released.
// Threads  one.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "safety/judge.hpp"

namespace parley::safety {

struct Step {
    size_t release = 0;
    bool block = false;
};

class OutputJudge {
  public:
    // `released`: text of this answer that has left before (a continuation); it is judged, not held.
    OutputJudge(std::shared_ptr<const Policy> policy, std::string_view question,
                std::string_view released = {}, Meter::Read cpu_ns = &base::thread_cpu_ns,
                const base::Clock& clock = base::system_clock());

    base::Result<Step> push(std::string_view text, uint32_t tokens);
    base::Result<Step> finish();

    // Of all that was judged so far; action block after a block.
    const Verdict& verdict() const { return verdict_; }
    size_t items() const { return items_pushed_; }
    size_t released() const { return items_released_; }
    double score() const { return smoothed_; }

  private:
    struct Item {
        size_t end = 0;       // byte of text_ behind it
        uint64_t tokens = 0;  // tokens up to and with it
    };

    base::Result<void> append(std::string_view text);
    bool find_rules(bool at_end);
    void judge_now(bool at_end);
    Step advance(bool at_end);
    size_t match_frontier() const;
    bool grapheme_boundary(size_t at) const;
    base::Result<Step> stopped(base::Error error);

    std::shared_ptr<const Policy> policy_;
    Meter::Read cpu_;
    const base::Clock* clock_;
    std::string text_;
    Folded folded_;
    std::deque<Item> held_;
    size_t items_pushed_ = 0, items_released_ = 0;
    size_t text_released_ = 0;  // bytes of text_ that have left
    uint64_t tokens_ = 0, judged_at_ = 0;
    size_t word_end_ = 0;       // byte behind the last finished word
    uint64_t word_tokens_ = 0;  // tokens of the items up to there

    FeatureStream features_;
    Recent recent_;
    Sums sums_, question_;
    std::vector<Sums> marks_;  // sums after each stride
    size_t scored_bytes_ = 0;
    HeadValues smoothed_heads_{};
    double smoothed_ = 0;  // the highest of them
    uint32_t judgements_ = 0;
    uint32_t over_ = 0;  // judgements in a row over the threshold
    bool watching_ = false;
    bool blocked_ = false;
    base::Error error_;
    bool failed_ = false;
    Verdict verdict_;
};

}  // namespace parley::safety
