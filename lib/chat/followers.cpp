#include "chat/followers.hpp"

#include <simdjson.h>

#include <vector>

namespace parley::chat {

std::shared_ptr<Stream> readable(const Answers& answers, const std::string& id,
                                 const std::string& org, const std::string& user) {
    const Answers::Readable* found = answers.readable(id);
    if (!found || found->org != org || found->user != user || found->of_conversation ||
        !found->stream->keeps_frames())
        return nullptr;
    return found->stream;
}

base::Result<std::unique_ptr<Followers>> Followers::open(pipe::Context& context,
                                                         pipe::AnswererOptions options,
                                                         const Answers& answers) {
    std::unique_ptr<Followers> followers(new Followers(answers));
    options.follows = true;
    auto answerer = pipe::Answerer::open(context, std::move(options), *followers);
    if (!answerer) return base::fail(answerer.error());
    followers->answerer_ = std::move(*answerer);
    return followers;
}

Followers::~Followers() = default;

void Followers::on_ask(pipe::Ask ask) {
    pipe::EndMeta refusal;
    refusal.status = "not_found_error";
    refusal.message = "no such stream, or it is gone";
    if (ask.verb != pipe::Verb::follow) {
        refusal.status = "invalid_request_error";
        refusal.message = "only FOLLOW is answered here";
        return answerer_->end(ask.id, refusal);
    }
    const auto stream =
        readable(answers_, ask.envelope.message, ask.envelope.org, ask.envelope.user);
    std::optional<uint64_t> after;
    bool fits = stream != nullptr;
    if (fits && !ask.body.empty()) {
        simdjson::dom::parser parser;
        simdjson::dom::element body;
        uint64_t epoch = 0, seq = 0;
        fits = !parser.parse(ask.body).get(body) && !body["epoch"].get(epoch) &&
               !body["after"].get(seq) && epoch == stream->epoch();
        after = seq;
    }
    const std::string id = ask.id;
    std::shared_ptr<StreamReader> reader;
    if (fits) reader = stream->read(after, [this, id] { pump(id); });
    if (!reader) return answerer_->end(id, refusal);
    readers_[id] = std::move(reader);
    // It is here, whenever its next event may come.
    (void)answerer_->event(id, {}, messages::EventWriter::ping());
    pump(id);
}

void Followers::on_cancel(const std::string& id, uint32_t, pipe::Cancel) {
    pipe::EndMeta meta;
    meta.status = "cancelled";
    finish(id, std::move(meta));
}

void Followers::on_credit(const std::string& id, uint32_t) { pump(id); }

void Followers::pump(const std::string& id) {
    const auto at = readers_.find(id);
    if (at == readers_.end()) return;
    const auto reader = at->second;  // a pop may wake others, and those end this one
    constexpr std::string_view kData = "\ndata: ";
    while (answerer_->credit(id) > 0) {
        const Frame* frame = reader->peek();
        if (!frame) break;
        const size_t data = frame->sse.find(kData) + kData.size();
        pipe::EventMeta meta;
        meta.stamp_ns = frame->stamp_ns;
        if (!answerer_->event(id, std::move(meta),
                              frame->sse.substr(data, frame->sse.size() - data - 2)))
            break;
        reader->pop();
    }
    pipe::EndMeta meta;
    if (reader->lagged()) {
        meta.status = "overloaded_error";
        meta.message = "Overloaded";
        meta.retryable = true;
        return finish(id, std::move(meta));
    }
    if (!reader->at_end()) return;
    if (const auto& failure = reader->failure()) {
        meta.status = std::string(messages::name(failure->type));
        meta.message = failure->message;
        meta.retryable = failure->retryable;
    }
    finish(id, std::move(meta));
}

void Followers::finish(const std::string& id, pipe::EndMeta meta) {
    if (readers_.erase(id) > 0 || meta.status == "cancelled") answerer_->end(id, std::move(meta));
}

}  // namespace parley::chat
