#include "filter/stages.hpp"

#include <fmt/format.h>

#include "messages/events.hpp"

namespace parley::filter {
namespace {

std::string event_line(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    return pipe::to_line(
        pipe::Message{pipe::Verb::event, id, pipe::to_meta(meta), std::move(body)});
}

std::string end_line(const std::string& id, const pipe::EndMeta& meta) {
    return pipe::to_line(pipe::Message{pipe::Verb::end, id, pipe::to_meta(meta), ""});
}

std::string error_end(const std::string& id, uint32_t attempt, std::string_view status,
                      std::string_view why, bool retryable = false) {
    pipe::EndMeta meta;
    meta.attempt = attempt;
    meta.status = status;
    meta.message = why;
    meta.retryable = retryable;
    return end_line(id, meta);
}

}  // namespace

InputStage::InputStage(std::shared_ptr<const safety::Policy> policy, PutLine put)
    : judge_(std::move(policy)), put_(std::move(put)) {}

void InputStage::line(const std::string& line, uint64_t number) {
    const std::string bare_id = fmt::format("line-{}", number);
    auto message = pipe::from_line(line, bare_id);
    if (!message) {
        bad_ = true;
        put_(error_end(bare_id, 1, "invalid_request_error", message.error().what));
        return;
    }
    if (message->verb != pipe::Verb::ask) return put_(line);
    auto envelope = pipe::parse_envelope(message->meta);
    if (!envelope) {
        bad_ = true;
        return put_(error_end(message->id, 1, "invalid_request_error", envelope.error().what));
    }
    auto request = messages::parse_request(message->body);
    if (!request) {
        bad_ = true;
        return put_(error_end(message->id, envelope->attempt, messages::name(request.error().type),
                              request.error().message));
    }
    auto meter = safety::Meter::unlimited();
    auto verdict = judge_.judge(*request, meter);
    if (!verdict) {
        bad_ = true;
        const bool size = verdict.error().code == base::Errc::too_large;
        return put_(error_end(message->id, envelope->attempt,
                              size ? "request_too_large" : "invalid_request_error",
                              verdict.error().what));
    }
    if (verdict->action != safety::Action::block) return put_(line);
    blocked_ = true;
    pipe::EventMeta meta;
    meta.attempt = envelope->attempt;
    for (std::string& body : messages::refusal_events(
             "msg_" + message->id, request->model, {},
             refusal_details(judge_.policy().input_message(), verdict->hazard))) {
        put_(event_line(message->id, meta, std::move(body)));
        ++meta.seq;
    }
    pipe::EndMeta end;
    end.attempt = envelope->attempt;
    end.seq = meta.seq;
    put_(end_line(message->id, end));
}

OutputStage::OutputStage(std::shared_ptr<const safety::Policy> policy, PutLine put)
    : policy_(std::move(policy)), put_(std::move(put)) {}

void OutputStage::send(const std::string& id, Stream& stream, std::vector<OutEvent>& events) {
    for (OutEvent& event : events) {
        event.meta.attempt = stream.attempt;
        event.meta.seq = stream.seq++;
        put_(event_line(id, event.meta, std::move(event.body)));
    }
    events.clear();
}

void OutputStage::end(const std::string& id, Stream& stream, pipe::EndMeta meta) {
    meta.attempt = stream.attempt;
    meta.seq = stream.seq;
    put_(end_line(id, meta));
    stream.over = true;
    stream.answer.reset();
}

void OutputStage::fail_line(const std::string& id, std::string_view status, std::string_view why) {
    bad_ = true;
    Stream& stream = streams_[id];
    if (stream.over) return;
    pipe::EndMeta meta;
    meta.status = status;
    meta.message = why;
    meta.retryable = status == "api_error";
    end(id, stream, meta);
}

void OutputStage::line(const std::string& line, uint64_t number) {
    auto message = pipe::from_line(line, fmt::format("line-{}", number));
    if (!message)
        return fail_line(fmt::format("line-{}", number), "invalid_request_error",
                         message.error().what);
    const std::string& id = message->id;
    if (message->verb == pipe::Verb::ask) {
        auto envelope = pipe::parse_envelope(message->meta);
        if (!envelope) return fail_line(id, "invalid_request_error", envelope.error().what);
        auto request = messages::parse_request(message->body);
        if (!request)
            return fail_line(id, messages::name(request.error().type), request.error().message);
        Stream stream;
        stream.attempt = envelope->attempt;
        stream.answer =
            std::make_unique<Answer>(policy_, question_of(*request), envelope->continuation);
        streams_[id] = std::move(stream);
        return;
    }
    if (message->verb == pipe::Verb::event) {
        auto meta = pipe::parse_event_meta(message->meta);
        if (!meta) return fail_line(id, "api_error", meta.error().what);
        Stream& stream = streams_[id];
        if (stream.over) return;
        if (!stream.answer) {
            // A refusal made by the input stage has no ASK before it.
            stream.attempt = meta->attempt;
            stream.answer = std::make_unique<Answer>(policy_, "", std::nullopt);
        }
        std::vector<OutEvent> out;
        auto done = stream.answer->event(std::move(*meta), std::move(message->body), out);
        if (!done) return fail_line(id, "api_error", done.error().what);
        send(id, stream, out);
        if (stream.answer->refused()) {
            blocked_ = true;
            pipe::EndMeta end_meta;
            end_meta.usage =
                pipe::Usage{stream.answer->input_tokens(), 0, stream.answer->output_tokens()};
            end(id, stream, end_meta);
        }
        return;
    }
    if (message->verb == pipe::Verb::end) {
        auto meta = pipe::parse_end_meta(message->meta);
        if (!meta) return fail_line(id, "api_error", meta.error().what);
        Stream& stream = streams_[id];
        if (stream.over) {
            streams_.erase(id);
            return;
        }
        // An END "ok" before message_stop would let an unfinished answer pass for a whole one.
        if (meta->ok() && stream.answer && !stream.answer->finished())
            return fail_line(id, "api_error", "the answer ended before message_stop");
        end(id, stream, *meta);
        streams_.erase(id);
        return;
    }
    put_(line);
}

void OutputStage::finish() {
    for (auto& [id, stream] : streams_) {
        if (stream.over || !stream.answer) continue;
        bad_ = true;
        pipe::EndMeta meta;
        meta.status = "api_error";
        meta.message = "the input ended before the answer did";
        meta.retryable = true;
        end(id, stream, meta);
    }
    streams_.clear();
}

}  // namespace parley::filter
