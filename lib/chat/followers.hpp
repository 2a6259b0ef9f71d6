// Followers: what other fronts read of the streams that this one makes (FOLLOW, parley-protocol(7)).
//
// A follower is a reader of the stream like a client's: it has its place, its credit is the peer's, and
// while it reads the stream has a reader. Nothing but what a client of the same org and user could read.
// Bounds   the answerer's requests_max; a follower that falls behind the stream's buffer is ended.
// Threads  one.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "chat/answers.hpp"
#include "pipe/answerer.hpp"

namespace parley::chat {

class Followers final : private pipe::AnswererHandler {
  public:
    // Binds. `answers` must live longer.
    static base::Result<std::unique_ptr<Followers>> open(pipe::Context& context,
                                                         pipe::AnswererOptions options,
                                                         const Answers& answers);
    ~Followers() override;
    pipe::Link& link() { return answerer_->link(); }
    size_t count() const { return readers_.size(); }

  private:
    explicit Followers(const Answers& answers) : answers_(answers) {}
    void on_ask(pipe::Ask ask) override;
    void on_cancel(const std::string& id, uint32_t attempt, pipe::Cancel why) override;
    void on_credit(const std::string& id, uint32_t available) override;
    void pump(const std::string& id);
    void finish(const std::string& id, pipe::EndMeta meta);

    const Answers& answers_;
    std::unique_ptr<pipe::Answerer> answerer_;
    std::map<std::string, std::shared_ptr<StreamReader>> readers_;
};

// The stream of `id` that a caller of this org and user may read, wherever the reader sits. Null: none.
std::shared_ptr<Stream> readable(const Answers& answers, const std::string& id,
                                 const std::string& org, const std::string& user);

}  // namespace parley::chat
