#include "filter/answer.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/json.hpp"

namespace parley::filter {
namespace {

messages::EventOrder order_of(const std::optional<pipe::Continuation>& continuation) {
    if (!continuation) return {};
    if (continuation->block < 0 && continuation->produced.empty() && continuation->released == 0)
        return {};
    return messages::EventOrder::resumed(static_cast<uint32_t>(continuation->block + 1),
                                         continuation->block >= 0);
}

}  // namespace

std::string question_of(const messages::Request& request) {
    for (size_t t = request.turns.size(); t > 0; --t)
        if (request.turns[t - 1].role == messages::Role::user) return request.turns[t - 1].text;
    return {};
}

std::string refusal_details(std::string_view explanation, std::string_view hazard) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "refusal");
    if (hazard.empty())
        w.key("category").null();
    else
        w.field("category", hazard);
    w.field("explanation", explanation).end();
    return out;
}

Answer::Answer(std::shared_ptr<const safety::Policy> policy, std::string_view question,
               const std::optional<pipe::Continuation>& continuation)
    : judge_(policy, question,
             continuation ? std::string_view(continuation->text) : std::string_view{}),
      order_(order_of(continuation)),
      sent_(order_),
      message_(policy->output_message()) {
    if (continuation) released_tokens_ = continuation->produced.size();
}

void Answer::release(size_t count, std::vector<OutEvent>& out) {
    while (released_items_ < count && !held_.empty()) {
        Held& held = held_.front();
        // It was checked on its way in, so it fits on its way out.
        (void)sent_.next(held.type, held.index).has_value();
        released_tokens_ += held.tokens;
        out.push_back(std::move(held.event));
        held_.pop_front();
        ++released_items_;
    }
    if (sent_.finished()) finished_ = true;
}

void Answer::refuse_now(std::string details, std::vector<OutEvent>& out) {
    if (details.empty()) details = refusal_details(message_, verdict().hazard);
    held_.clear();
    refused_ = true;
    finished_ = true;
    using messages::EventWriter;
    auto add = [&](std::string body) { out.push_back(OutEvent{{}, std::move(body)}); };
    if (!sent_.started()) add(EventWriter::message_start("msg_refused", "", usage_));
    if (sent_.block_open()) add(EventWriter::block_stop(sent_.next_index() - 1));
    messages::Usage usage = usage_;
    usage.output_tokens = released_tokens_;
    if (!sent_.delta_sent())
        add(EventWriter::message_delta(
            {messages::StopReason::refusal, std::nullopt, std::move(details)}, usage));
    add(EventWriter::message_stop());
}

base::Result<void> Answer::event(pipe::EventMeta meta, std::string body,
                                 std::vector<OutEvent>& out) {
    if (finished_) return base::fail(base::Errc::invalid, "an event after the end of its answer");
    auto event = messages::parse_event(body);
    if (!event) return base::fail(event.error());
    using messages::EventType;
    if (event->type == EventType::error || event->type == EventType::message_accepted ||
        event->type == EventType::snapshot)
        return base::fail(base::Errc::invalid, fmt::format("event '{}' does not belong on this hop",
                                                           messages::name(event->type)));
    if (event->type != EventType::ping)
        if (auto fits = order_.next(*event); !fits) return fits;
    if (event->usage) {
        const uint64_t output = event->usage->output_tokens;
        if (event->type == EventType::message_start) usage_ = *event->usage;
        usage_.output_tokens = output;
    }
    std::string text;
    if (event->type == EventType::content_block_start) words_ = {};
    if (event->type == EventType::content_block_delta && !event->signature)
        text = event->block == messages::BlockType::tool_use ? words_.feed(event->text)
                                                             : std::move(event->text);
    const auto tokens = static_cast<uint32_t>(meta.ids.size());
    // A worker that does not say its tokens has sent one at least.
    const uint32_t counted = tokens == 0 && !text.empty() ? 1 : tokens;
    const EventType type = event->type;
    const uint32_t index = event->index;
    held_.push_back(Held{OutEvent{std::move(meta), std::move(body)}, type, index, tokens});
    auto step = judge_.push(text, counted);
    if (!step) return base::fail(step.error());
    if (!step->block && order_.finished()) {
        step = judge_.finish();
        if (!step) return base::fail(step.error());
    }
    release(step->release, out);
    if (step->block) refuse_now("", out);
    return {};
}

}  // namespace parley::filter
