// Turns: the answers of conversations: one Turn from the committed send to the durable end, whoever
// listens.
//
// A client that leaves changes nothing. message_stop, and the answer to stream:false, wait until the end
// is durable; text does not.
// Owners   a stream in the store belongs to a chatd's boot id; a chatd lives while it holds
//          run/chatd-BOOT.lock. What dead ones left running is taken over as interrupted.
// Threads  the loop's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app.hpp"
#include "asking.hpp"
#include "chat/journal.hpp"
#include "sse_pump.hpp"

namespace parley::chatd {

struct TurnStart {
    store::MessageRow user_message;
    store::MessageRow message;
    uint32_t epoch = 1;
    uint32_t truncated_messages = 0;
    chat::AnswerOptions answer;
    std::shared_ptr<Ticket> ticket;  // null: a continuation, which was admitted once
    std::string key_id;
    std::string request_id;
};

class Turn final : public Call, public chat::AnswerHost, public std::enable_shared_from_this<Turn> {
  public:
    Turn(App& app, TurnStart start);
    // message_accepted stands in the stream; clients may listen. Then start() or give_up().
    void prepare();
    void start();
    void give_up(const messages::ApiError& error);  // ends as interrupted, nothing was asked
    // Clients: the answer as a stream from its start; as one object; the message once it is stopped.
    void follow(const ExchangePtr& exchange);
    // What followed `after`, if it is of this epoch and still kept; else one snapshot, then live.
    void resume(const ExchangePtr& exchange,
                const std::optional<std::pair<uint32_t, uint64_t>>& after);
    void snapshot(const ExchangePtr& exchange);
    void answer_to(const ExchangePtr& exchange, bool stream) {
        stream ? follow(exchange) : reply_to(exchange);
    }
    void reply_to(const ExchangePtr& exchange) { wait({exchange, false}); }
    void cancel(const ExchangePtr& exchange);  // null: nobody waits

    const store::Ulid& conversation() const { return begin_.message.conv; }
    void tick(int64_t now_ms) override;
    void on_checked(chat::Answer& answer, const chat::Checked& checked) override;
    void on_attempt_broken(chat::Answer& answer, const pipe::EndMeta& end) override;
    size_t backlog(const chat::Answer& answer) override;
    void on_outcome(chat::Answer& answer, const chat::Outcome& outcome) override;

  private:
    struct Waiter {
        ExchangePtr exchange;
        bool cancel = false;
    };
    void wait(Waiter waiter);
    void answer(const Waiter& waiter);
    bool good() const;
    messages::ApiError why_fenced() const;
    void write_end(const chat::Outcome& outcome);
    void ended(const store::CommandReply& reply, const chat::Outcome& outcome);
    void tell(const store::MessageRow* row, const messages::ApiError& error);
    void leave_if_done();

    App& app_;
    TurnStart begin_;
    std::string id_;
    std::shared_ptr<chat::Answer> answer_;
    std::shared_ptr<chat::Journal> journal_;
    std::vector<std::shared_ptr<SsePump>> pumps_;
    std::vector<Waiter> waiters_;
    chat::Outcome outcome_;
    int64_t since_ns_ = 0;
    int64_t end_since_ms_ = 0;  // since when the end waits to be durable
    uint64_t content_seq_ = 1;  // the last event that changed what a snapshot says
    bool seen_first_ = false;
    bool told_ = false;
    std::optional<store::MessageRow> end_;  // the durable message, once told
    messages::ApiError error_;              // else
    bool durable_ = false;
};

class Turns {
  public:
    explicit Turns(App& app) : app_(app) {}
    void add(const std::string& id, const std::shared_ptr<Turn>& turn) { turns_[id] = turn; }
    void remove(const std::string& id) { turns_.erase(id); }
    std::shared_ptr<Turn> find(const std::string& id) const;
    void cancel_conversation(const store::Ulid& conv);
    size_t live() const { return turns_.size(); }
    // Each second or two: streams of dead owners.
    void take_over_dead();
    // The chatd of this boot id.
    bool owner_lives(const std::string& owner) const;

  private:
    App& app_;
    std::map<std::string, std::shared_ptr<Turn>> turns_;
    std::map<std::string, bool> asked_;  // take-overs under way, by message id
};

// message_accepted's data.
std::string accepted_json(const store::MessageRow& user_message, const store::MessageRow& message,
                          uint32_t truncated);
// A snapshot's data: the message with the content so far, and the bytes of its last block.
std::string snapshot_json(store::MessageRow message, std::string content, uint64_t offset);
// 200 of stream:false.
std::string sent_json(const store::MessageRow& user_message, const store::MessageRow& message,
                      uint32_t truncated);

}  // namespace parley::chatd
