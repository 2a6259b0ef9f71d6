// Answer: one answer being produced, over as many attempts as it takes.
//
// It asks the hop below, checks every event's stamp over the bytes as received, keeps the client's
// view in order, and hands out credit no faster than the slowest needed consumer reads. When an attempt
// breaks it asks again with what the client already has (recovery.hpp); the client sees a pause.
//
// Delivered  only events whose stamp was right (or any, without a key: --allow-unfiltered), re-framed:
//            message_start says our message id and the model name that the client used, deltas carry
//            their offset where `offsets` is set. content_block_stop waits for the event after it: a
//            continuation can go on inside an open block, never inside a closed one.
// Ending     on_outcome, exactly once, after everything but the closing event is in the stream. The
//            host then calls close() (message_stop, or for a cancelled answer its closing events) or
//            fail(): at once, or when the end is durable.
// Time       the host calls tick() every kAnswerTickMs or so. Times are milliseconds of its clock.
// Threads    one. Calls into the host come from within on_event, on_end, tick and cancel; the host may
//            call back, and must not destroy the answer from within them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "chat/stream.hpp"
#include "chat/upstream.hpp"
#include "messages/events.hpp"
#include "stamp/stamp.hpp"

namespace parley::chat {

inline constexpr int64_t kAnswerTickMs = 25;

// What an answer has already, when it is taken up again in a new epoch.
struct Resumed {
    std::string text;  // of block 0
    std::vector<int32_t> produced;
    messages::Usage usage;
};

struct AnswerOptions {
    std::string id;           // request id on the hop; the message id
    std::string model;        // as the client named it
    std::string body;         // the ASK's
    pipe::Envelope envelope;  // attempt, credit, times, continuation and unfiltered are set here
    uint32_t first_attempt = 1;
    std::optional<stamp::Key> key;  // none: unstamped events are taken (--allow-unfiltered)
    bool offsets = false;
    bool begun = false;  // the client has bytes before the first event (message_accepted)
    StreamOptions stream;
    // false: a slow reader of the stream lags, and does not slow the answer; the host's backlog() does.
    bool readers_hold = true;
    uint32_t credit = 64;         // events that may be under way or unread
    int64_t ttft_ms = 30'000;     // until the first event; 0: none
    int64_t total_ms = 0;         // of all attempts together, pauses not counted; 0: none
    int64_t stall_ms = 30'000;    // pause that recovery may take, after the first byte
    int64_t patience_ms = 2'000;  // the same before it
    uint64_t jitter_seed = 1;
    // Exact prompt tokens, asked for only where the chain does not say (refused before the model).
    std::function<uint64_t()> count_prompt;
    std::optional<Resumed> resumed;  // its events are pushed by start(), without on_checked
};

// What the host learns of an event, once it is in the stream.
struct Checked {
    uint64_t seq = 0;
    const messages::Event& event;
    const std::vector<int32_t>& ids;
    uint64_t offset = 0;  // content_block_delta: bytes of the block's text before it
};

struct Outcome {
    enum class Status : uint8_t {
        done,
        blocked,  // refused on input: nothing was produced
        cancelled,
        interrupted,  // recovery had to stop; may be continued
        failed,       // would fail again
    };
    Status status = Status::done;
    messages::ApiError error;  // interrupted, failed
    std::optional<messages::Stop> stop;
    messages::Usage usage;  // of the whole answer: replayed tokens count once
    messages::Usage told;   // the same, with the prompt counted as message_start counted it
    double cost_s = 0;      // of all attempts
    std::string version;    // hash of the model that answered, "" if nobody said
    uint32_t attempts = 0;
    std::string reason;  // a word for logs: of the last end
};
std::string_view name(Outcome::Status status);

class Answer;

class AnswerHost {
  public:
    virtual ~AnswerHost() = default;
    virtual void on_checked(Answer&, const Checked&) {}
    virtual void on_outcome(Answer&, const Outcome&) = 0;
    // Events that a needed consumer other than the readers has not taken (the journal).
    virtual size_t backlog(const Answer&) { return 0; }
    virtual void on_attempt_broken(Answer&, const pipe::EndMeta&) {}
};

class Answer : public std::enable_shared_from_this<Answer> {
  public:
    Answer(AnswerOptions options, Upstream& upstream, AnswerHost& host,
           const base::Clock& clock = base::system_clock());
    Answer(const Answer&) = delete;
    Answer& operator=(const Answer&) = delete;

    void start();
    void on_event(const pipe::EventMeta& meta, const std::string& body);
    void on_end(const pipe::EndMeta& meta);
    void tick();
    // The answer is no longer wanted. Its outcome follows when the chain has stopped (2 s at most).
    void cancel(const std::string& reason);
    // Stops at once without asking anybody: another owner has it, or the process ends.
    void abandon(messages::ApiError error);

    // After on_outcome, once.
    void close();
    void fail(messages::ApiError error);

    const std::string& id() const { return options_.id; }
    const AnswerOptions& options() const { return options_; }
    const std::shared_ptr<Stream>& stream() const { return stream_; }
    const messages::Folder& folder() const { return folder_; }
    // The message object of a non-streaming answer, after the outcome.
    std::string message_json() const { return folder_.message_json(); }
    bool begun() const { return options_.begun || folder_.order().started(); }
    bool has_message_start() const { return folder_.order().started(); }
    bool over() const { return state_ == State::over; }
    bool waiting() const { return state_ == State::waiting; }  // between attempts
    uint32_t attempt() const { return attempt_; }
    uint32_t attempts() const { return attempt_ + 1 - options_.first_attempt; }
    const std::vector<int32_t>& produced() const { return produced_; }
    // A consumer moved, or the host's backlog() did.
    void grant();

  private:
    enum class State : uint8_t { fresh, waiting, asked, cancelling, over };

    void ask(int64_t now_ms);
    size_t untaken() const;  // events that somebody needed has not taken
    pipe::Envelope envelope(int64_t now_ms) const;
    void break_off(const std::string& reason, const std::string& what);
    void attempt_ended(const pipe::EndMeta& end);
    void deliver(const messages::Event& event, const pipe::EventMeta& meta);
    void push(const messages::Event& event, const std::vector<int32_t>& ids, int64_t stamp_ns);
    void release_held_stop();
    void take_up();
    messages::Usage counted(messages::Usage usage) const;
    messages::Usage as_said(messages::Usage usage) const;
    void stop_with(messages::Stop stop);
    void finish(Outcome::Status status, messages::ApiError error = {});
    void account(const pipe::EndMeta& end);
    void spend(int64_t now_ms);  // the running attempt's time leaves the total
    uint64_t random();

    AnswerOptions options_;
    Upstream& upstream_;
    AnswerHost& host_;
    const base::Clock& clock_;
    std::shared_ptr<Stream> stream_;
    messages::Folder folder_;  // of what is delivered
    std::optional<uint32_t> held_stop_;
    std::vector<int32_t> produced_;
    std::optional<stamp::Chain> chain_;
    State state_ = State::fresh;
    uint32_t attempt_ = 0;
    bool start_again_ = false;    // this attempt sends message_start once more: swallow it
    uint32_t failures_ = 0;       // in a row, without an event between
    uint64_t received_ = 0;       // events of this attempt
    uint64_t granted_ = 0;        // credit of this attempt
    int64_t begun_ms_ = 0;        // start()
    int64_t asked_ms_ = 0;        // of the running attempt
    int64_t due_ms_ = 0;          // waiting: when to ask
    int64_t stall_from_ms_ = -1;  // since when nothing came because a stage is away; -1: not so
    int64_t total_left_ms_ = 0;
    int64_t cancel_by_ms_ = 0;
    bool taking_up_ = false;
    bool timed_out_ = false;  // cancelling because the total has passed
    pipe::EndMeta last_end_;
    Outcome outcome_;
    uint64_t random_;
};

}  // namespace parley::chat
