// Filter: the stage between askers (chatd) and a router. Requests are judged on the way down, answers
// on the way up; nothing passes unjudged.
//
// Life     ASK → judging (in Judges) → allowed: ASK to the router, its events held in an Answer until
//          judged, stamped, sent as credit allows; its END last. Blocked: the refusal answer, END ok,
//          and the router hears nothing of it. A blocked answer: the refusal ending, END ok, CANCEL
//          to the router.
// Closed   no verdict in time: END overloaded_error, reason filter_late, retryable; text that came and
//          was not judged in time: END api_error, filter_late, retryable; a malformed event: END
//          api_error, malformed, retryable. Never text without a verdict.
// Stamps   each event sent carries the policy and the next link of the chain (stamp.hpp); what stamps
//          came from below is dropped.
// Credit   upstream gets one back for each event received, as long as fewer than outbox_events_max
//          wait for the asker's credit; a reader that stops reading stops its own answer only.
// Policy   set_judge() holds for requests that come after it; answers that run keep theirs.
// Threads  the loop's. Only Judges works beside it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "filter/answer.hpp"
#include "filter/judges.hpp"
#include "pipe/answerer.hpp"
#include "pipe/asker.hpp"
#include "stamp/stamp.hpp"

namespace parley::filter {

struct FilterOptions {
    uint32_t threads = 2;
    uint32_t judging_max = 4096;       // requests that wait for a verdict
    uint32_t outbox_events_max = 256;  // judged events that wait for credit, before upstream waits
    uint32_t upstream_credit = 128;
};

// What happened, for log and metrics. No user text in it.
struct Notice {
    enum class Kind {
        judged,
        blocked_input,
        blocked_output,
        late,
        malformed,
        router_up,
        router_down
    } kind;
    std::string id;
    double score = 0;
    safety::Action action = safety::Action::allow;
    std::string rules;  // ids, comma between
    std::string policy;
    std::string what;
    int64_t took_ns = 0;
};

class Filter final : private pipe::AnswererHandler, private pipe::AskerHandler {
  public:
    Filter(std::shared_ptr<const safety::Judge> judge, stamp::Key key, FilterOptions options,
           std::function<void()> wake, std::function<void(const Notice&)> notice);
    ~Filter() override;

    pipe::AnswererHandler& asker_side() { return *this; }
    pipe::AskerHandler& router_side() { return *this; }
    void connect(pipe::Answerer& askers, pipe::Asker& router);

    void work();  // takes verdicts; call when woken
    void tick();  // ends what waits too long; every 20 ms or so
    void drain();
    bool idle() const { return live_.empty(); }
    void set_judge(std::shared_ptr<const safety::Judge> judge);
    std::shared_ptr<const safety::Judge> judge() const { return judges_.judge(); }
    size_t live() const { return live_.size(); }
    size_t judging() const { return judging_; }

  private:
    struct Live {
        uint64_t ticket = 0;
        uint32_t attempt = 1;
        int64_t asked_ms = 0, deadline_ms = 0;  // of the verdict
        bool judging = true;
        bool asked_router = false;
        bool cancelled = false;  // by the asker: wait for the END below
        pipe::Envelope envelope;
        std::string body;
        std::shared_ptr<const safety::Judge> judge;
        std::unique_ptr<Answer> answer;
        std::unique_ptr<stamp::Chain> chain;
        std::deque<OutEvent> outbox;
        std::optional<pipe::EndMeta> end;  // to be sent behind the outbox
        uint32_t owed = 0;                 // credit not yet given back upstream
    };
    using Row = std::unordered_map<std::string, Live>::iterator;

    void on_ask(pipe::Ask ask) override;
    void on_cancel(const std::string& id, uint32_t attempt, pipe::Cancel why) override;
    void on_credit(const std::string& id, uint32_t available) override;
    void on_tag(const std::string& id, double tag) override;
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override;
    void on_end(const std::string& id, const pipe::EndMeta& meta) override;
    void on_peer_up(pipe::Peer, const pipe::HelloMeta&) override;
    void on_peer_down(pipe::Peer, const std::string&) override;

    void outcome(Outcome outcome);
    void pass_on(Row row, Outcome& outcome);
    void refuse(Row row, const Outcome& outcome);
    void flush(Row row);
    void finish(Row row, pipe::EndMeta meta);
    void fail(Row row, std::string status, std::string reason, std::string what, bool retryable,
              uint32_t retry_after_s = 0);

    FilterOptions options_;
    stamp::Key key_;
    std::function<void(const Notice&)> notice_;
    pipe::Answerer* askers_ = nullptr;
    pipe::Asker* router_ = nullptr;
    std::unordered_map<std::string, Live> live_;
    std::unordered_map<uint64_t, std::string> tickets_;  // of what is being judged
    uint64_t last_ticket_ = 0;
    size_t judging_ = 0;
    Judges judges_;
};

}  // namespace parley::filter
