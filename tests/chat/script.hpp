// A scripted hop below and a host that remembers, for the tests of chat.
#pragma once

#include <string>
#include <vector>

#include "chat/answer.hpp"
#include "messages/events.hpp"

namespace parley::chat::test {

using messages::EventWriter;

inline stamp::Key test_key() {
    std::array<uint8_t, 32> bytes{};
    bytes.fill(7);
    return stamp::Key::from_bytes(bytes);
}

struct ScriptUpstream final : Upstream {
    struct Asked {
        std::string id;
        pipe::Envelope envelope;
        std::string body;
    };
    std::vector<Asked> asked;
    std::vector<std::string> cancels;
    uint64_t granted = 0;
    bool is_up = true;

    base::Result<void> ask(const std::string& id, const pipe::Envelope& envelope,
                           std::string body) override {
        if (!is_up) return base::fail(base::Errc::unavailable, "nobody");
        asked.push_back({id, envelope, std::move(body)});
        granted = envelope.credit;
        return {};
    }
    void cancel(const std::string&, const std::string& reason) override {
        cancels.push_back(reason);
    }
    void grant(const std::string&, uint32_t credit) override { granted += credit; }
    bool up() const override { return is_up; }
};

struct Host final : AnswerHost {
    std::vector<Outcome> outcomes;
    std::vector<std::pair<uint64_t, uint64_t>> deltas;  // seq, offset
    size_t behind = 0;
    bool close_at_once = true;

    void on_checked(Answer&, const Checked& checked) override {
        if (checked.event.type == messages::EventType::content_block_delta)
            deltas.emplace_back(checked.seq, checked.offset);
    }
    void on_outcome(Answer& answer, const Outcome& outcome) override {
        outcomes.push_back(outcome);
        if (!close_at_once) return;
        if (outcome.status == Outcome::Status::interrupted ||
            outcome.status == Outcome::Status::failed)
            answer.fail(outcome.error);
        else
            answer.close();
    }
    size_t backlog(const Answer&) override { return behind; }
};

// Says an attempt's events to an answer, with the stamps a filter would set.
class Teller {
  public:
    Teller(Answer& answer, uint32_t attempt)
        : answer_(answer), attempt_(attempt), chain_(test_key(), answer.id(), attempt) {}
    void say(const std::string& json, std::vector<int32_t> ids = {}) {
        pipe::EventMeta meta;
        meta.attempt = attempt_;
        meta.seq = seq_++;
        meta.ids = std::move(ids);
        meta.policy = "p1";
        meta.stamp = chain_.next(meta.seq, meta.policy, json);
        answer_.on_event(meta, json);
    }
    void start() {
        messages::Usage usage;
        usage.input_tokens = 5;
        say(EventWriter::message_start("below", "below", usage));
    }
    void block(uint32_t index = 0) { say(EventWriter::text_block_start(index)); }
    void text(const std::string& text, std::vector<int32_t> ids) {
        say(EventWriter::text_delta(0, text), std::move(ids));
    }
    void stop(uint64_t output_tokens,
              messages::StopReason reason = messages::StopReason::end_turn) {
        say(EventWriter::block_stop(0));
        messages::Usage usage;
        usage.input_tokens = 5;
        usage.output_tokens = output_tokens;
        say(EventWriter::message_delta({reason, std::nullopt, ""}, usage));
        say(EventWriter::message_stop());
    }
    void end(const std::string& status = "ok", bool retryable = false,
             const std::string& reason = "") {
        pipe::EndMeta meta;
        meta.attempt = attempt_;
        meta.seq = seq_;
        meta.status = status;
        meta.retryable = retryable;
        meta.reason = reason;
        answer_.on_end(meta);
    }

  private:
    Answer& answer_;
    uint32_t attempt_;
    stamp::Chain chain_;
    uint64_t seq_ = 0;
};

// All frames of a stream, without ids: "event: …\ndata: …\n\n" …
inline std::vector<std::string> names(Stream& stream, uint64_t after = 0) {
    std::vector<std::string> out;
    const auto reader = stream.read(after, nullptr);
    if (!reader) return {"gone"};
    while (const Frame* frame = reader->peek()) {
        out.emplace_back(messages::name(frame->type));
        reader->pop();
    }
    return out;
}

}  // namespace parley::chat::test
