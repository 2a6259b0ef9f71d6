// Answers: the answers that this process is producing, by id; it hands them their events and the time.
//
// Bounds   answers_max live at once: add() is false beyond; as many again may linger.
// Threads  one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/answer.hpp"
#include "chat/upstream.hpp"

namespace parley::chat {

class Answers final : public UpstreamSink {
  public:
    explicit Answers(uint32_t answers_max, const base::Clock& clock = base::system_clock())
        : answers_max_(answers_max), clock_(clock) {}

    // What of an answer can be read, and whose it is.
    struct Readable {
        std::shared_ptr<Stream> stream;
        std::string org, user;
        bool of_conversation = false;
    };
    // False when full, or when this id is here already. The host is kept as long as the answer is live. Of
    // one that is over only the stream is kept, for linger_ms, so that it is small; nothing where the
    // stream keeps no frames.
    bool add(const std::shared_ptr<Answer>& answer, std::shared_ptr<AnswerHost> host,
             int64_t linger_ms);
    std::shared_ptr<Answer> find(const std::string& id) const;  // a live one
    const Readable* readable(const std::string& id) const;      // live or lingering
    // Hands on the time; drops what is over and has lingered. Costs by the answers that are live: those
    // that linger, thousands at a high rate, are not looked at before their time.
    void tick();
    void clear();
    size_t live() const { return live_; }  // not over
    bool full() const { return live_ >= answers_max_; }
    // Calls abandon() on all: the process ends.
    void abandon_all(const messages::ApiError& error);

    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override;
    void on_end(const std::string& id, const pipe::EndMeta& meta) override;

  private:
    struct Entry {
        std::shared_ptr<Answer> answer;  // null once it lingers
        std::shared_ptr<AnswerHost> host;
        int64_t linger_ms = 0;
        Readable readable;
    };
    uint32_t answers_max_;
    const base::Clock& clock_;
    size_t live_ = 0;
    std::unordered_map<std::string, Entry> answers_;  // live and lingering
    std::vector<std::shared_ptr<Answer>> walk_;       // the live ones
    std::multimap<int64_t, std::string> lingering_;   // time to drop (mono ms) → id
};

}  // namespace parley::chat
