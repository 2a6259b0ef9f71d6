#include "chat/answers.hpp"

#include <utility>

namespace parley::chat {

bool Answers::add(const std::shared_ptr<Answer>& answer, std::shared_ptr<AnswerHost> host,
                  int64_t linger_ms) {
    if (full()) return false;
    const pipe::Envelope& envelope = answer->options().envelope;
    Readable readable{answer->stream(), envelope.org, envelope.user,
                      !envelope.conversation.empty()};
    const bool added =
        answers_
            .emplace(answer->id(), Entry{answer, std::move(host), linger_ms, std::move(readable)})
            .second;
    if (added) walk_.push_back(answer);
    live_ += added;
    return added;
}

std::shared_ptr<Answer> Answers::find(const std::string& id) const {
    const auto found = answers_.find(id);
    return found == answers_.end() ? nullptr : found->second.answer;
}

const Answers::Readable* Answers::readable(const std::string& id) const {
    const auto found = answers_.find(id);
    return found == answers_.end() ? nullptr : &found->second.readable;
}

void Answers::tick() {
    const int64_t now = clock_.mono_ms();
    // An answer's end may lead to a new answer: add() puts it into the emptied list meanwhile.
    std::vector<std::shared_ptr<Answer>> walked;
    walked.swap(walk_);
    for (auto& answer : walked) {
        if (!answer->over()) answer->tick();
        if (!answer->over() || !answer->stream()->ended()) {
            walk_.push_back(std::move(answer));
            continue;
        }
        const auto found = answers_.find(answer->id());
        if (found == answers_.end() || found->second.answer != answer) continue;
        Entry& entry = found->second;
        // The last one may go with them, and its id.
        const std::shared_ptr<AnswerHost> host = std::move(entry.host);
        entry.answer.reset();
        if (!answer->options().stream.keep_frames) {
            answers_.erase(found);
            continue;
        }
        entry.readable.stream->settle();
        lingering_.emplace(now + entry.linger_ms, answer->id());
    }
    live_ = walk_.size();
    while (!lingering_.empty() &&
           (now >= lingering_.begin()->first || answers_.size() > 2 * size_t{answers_max_})) {
        answers_.erase(lingering_.begin()->second);
        lingering_.erase(lingering_.begin());
    }
}

void Answers::clear() {
    answers_.clear();
    walk_.clear();
    lingering_.clear();
}

void Answers::abandon_all(const messages::ApiError& error) {
    std::vector<std::shared_ptr<Answer>> all;
    for (const auto& [id, entry] : answers_)
        if (entry.answer) all.push_back(entry.answer);
    for (const auto& answer : all) answer->abandon(error);
}

void Answers::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    if (const auto answer = find(id)) answer->on_event(meta, body);
}

void Answers::on_end(const std::string& id, const pipe::EndMeta& meta) {
    if (const auto answer = find(id)) answer->on_end(meta);
}

}  // namespace parley::chat
