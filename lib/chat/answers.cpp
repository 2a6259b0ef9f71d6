#include "chat/answers.hpp"

#include <vector>

namespace parley::chat {

bool Answers::add(const std::shared_ptr<Answer>& answer) {
    if (full()) return false;
    return answers_.emplace(answer->id(), answer).second;
}

std::shared_ptr<Answer> Answers::find(const std::string& id) const {
    const auto found = answers_.find(id);
    return found == answers_.end() ? nullptr : found->second;
}

void Answers::tick() {
    if (answers_.empty()) return;
    // An answer's end may lead to a new answer: walk a copy.
    std::vector<std::shared_ptr<Answer>> all;
    all.reserve(answers_.size());
    for (const auto& [id, answer] : answers_) all.push_back(answer);
    for (const auto& answer : all) {
        if (!answer->over()) answer->tick();
        if (answer->over() && answer->stream()->ended()) answers_.erase(answer->id());
    }
}

void Answers::abandon_all(const messages::ApiError& error) {
    std::vector<std::shared_ptr<Answer>> all;
    for (const auto& [id, answer] : answers_) all.push_back(answer);
    for (const auto& answer : all) answer->abandon(error);
}

void Answers::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    if (const auto answer = find(id)) answer->on_event(meta, body);
}

void Answers::on_end(const std::string& id, const pipe::EndMeta& meta) {
    if (const auto answer = find(id)) answer->on_end(meta);
}

}  // namespace parley::chat
