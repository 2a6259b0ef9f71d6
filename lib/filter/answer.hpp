// Answer: one answer on its way up through the filter: its events are held until judged, and where the
// answer must stop, the rest is replaced by a refusal.
//
// Order    events in, events out in the same order; what goes out is a prefix of what came in, followed
//          after a block by content_block_stop (if a block is open), message_delta with stop_reason
//          refusal, message_stop. Usage there: what message_start said, output tokens as released.
// Errors   event(), Errc::invalid for an event that is malformed, out of order, or not for this hop;
//          and what OutputJudge returns. After an error nothing more goes out: end the attempt.
// Judged   text of text blocks as it is; of the input of a call what its JSON says: an escape hides nothing from
//          rules and scores (JsonWords).
// Threads  one.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "filter/json_words.hpp"
#include "messages/events.hpp"
#include "pipe/message.hpp"
#include "safety/stream.hpp"

namespace parley::filter {

struct OutEvent {
    pipe::EventMeta meta;  // attempt, seq, policy and stamp are the sender's to set
    std::string body;
};

class Answer {
  public:
    Answer(std::shared_ptr<const safety::Policy> policy, std::string_view question,
           const std::optional<pipe::Continuation>& continuation);

    // Appends to `out` what may go now.
    base::Result<void> event(pipe::EventMeta meta, std::string body, std::vector<OutEvent>& out);
    // Ends the answer here and now with a refusal. details "": the policy's message for answers.
    void refuse_now(std::string details, std::vector<OutEvent>& out);
    bool finished() const { return finished_; }  // message_stop has gone out
    bool refused() const { return refused_; }    // and it was the filter that ended the answer
    const safety::Verdict& verdict() const { return judge_.verdict(); }
    // What the reader got, by the events that have gone out.
    uint64_t output_tokens() const { return released_tokens_; }
    uint64_t input_tokens() const { return usage_.prompt_tokens(); }
    size_t held() const { return held_.size(); }

  private:
    struct Held {
        OutEvent event;
        messages::EventType type;
        uint32_t index;
        uint32_t tokens;
    };
    void release(size_t count, std::vector<OutEvent>& out);

    safety::OutputJudge judge_;
    JsonWords words_;
    std::deque<Held> held_;
    size_t released_items_ = 0;
    messages::EventOrder order_;  // of what came in
    messages::EventOrder sent_;   // of what went out
    messages::Usage usage_;
    uint64_t released_tokens_ = 0;
    bool finished_ = false, refused_ = false;
    std::string message_;
};

// stop_details of an answer that the filter ended or refused.
std::string refusal_details(std::string_view explanation, std::string_view hazard);
// The text of the last turn that the user wrote, as the answer's question.
std::string question_of(const messages::Request& request);

}  // namespace parley::filter
