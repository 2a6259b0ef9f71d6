// Answers: the answers that this process is producing, by id; it hands them their events and the time.
//
// Bounds   answers_max at once: make() gives null beyond.
// Threads  one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "chat/answer.hpp"
#include "chat/upstream.hpp"

namespace parley::chat {

class Answers final : public UpstreamSink {
  public:
    explicit Answers(uint32_t answers_max) : answers_max_(answers_max) {}

    // False when full, or when this id is here already.
    bool add(const std::shared_ptr<Answer>& answer);
    std::shared_ptr<Answer> find(const std::string& id) const;
    // Answers that are over are dropped here, in tick().
    void tick();
    size_t live() const { return answers_.size(); }
    bool full() const { return answers_.size() >= answers_max_; }
    // Calls abandon() on all: the process ends.
    void abandon_all(const messages::ApiError& error);

    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override;
    void on_end(const std::string& id, const pipe::EndMeta& meta) override;

  private:
    uint32_t answers_max_;
    std::unordered_map<std::string, std::shared_ptr<Answer>> answers_;
};

}  // namespace parley::chat
