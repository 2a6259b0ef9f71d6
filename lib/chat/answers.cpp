#include "chat/answers.hpp"

#include <vector>

namespace parley::chat {

bool Answers::add(const std::shared_ptr<Answer>& answer, std::shared_ptr<AnswerHost> host,
                  int64_t linger_ms) {
    if (full()) return false;
    const bool added =
        answers_.emplace(answer->id(), Entry{answer, std::move(host), linger_ms, 0}).second;
    live_ += added;
    return added;
}

std::shared_ptr<Answer> Answers::find(const std::string& id) const {
    const auto found = answers_.find(id);
    return found == answers_.end() ? nullptr : found->second.answer;
}

void Answers::tick() {
    if (answers_.empty()) {
        live_ = 0;
        return;
    }
    const int64_t now = clock_.mono_ms();
    // An answer's end may lead to a new answer: walk a copy.
    std::vector<std::shared_ptr<Answer>> all;
    all.reserve(answers_.size());
    for (const auto& [id, entry] : answers_) all.push_back(entry.answer);
    size_t live = 0;
    for (const auto& answer : all) {
        if (!answer->over()) answer->tick();
        const bool done = answer->over() && answer->stream()->ended();
        live += !done;
        const auto found = answers_.find(answer->id());
        if (!done || found == answers_.end()) continue;
        if (found->second.drop_ms == 0) found->second.drop_ms = now + found->second.linger_ms;
        if (now >= found->second.drop_ms || answers_.size() > 2 * size_t{answers_max_})
            answers_.erase(found);
    }
    live_ = live;
}

void Answers::abandon_all(const messages::ApiError& error) {
    std::vector<std::shared_ptr<Answer>> all;
    for (const auto& [id, entry] : answers_) all.push_back(entry.answer);
    for (const auto& answer : all) answer->abandon(error);
}

void Answers::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    if (const auto answer = find(id)) answer->on_event(meta, body);
}

void Answers::on_end(const std::string& id, const pipe::EndMeta& meta) {
    if (const auto answer = find(id)) answer->on_end(meta);
}

}  // namespace parley::chat
