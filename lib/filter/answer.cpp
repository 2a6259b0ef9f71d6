#include "filter/answer.hpp"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "base/json.hpp"
#include "safety/decode.hpp"

namespace parley::filter {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

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

std::string JsonWords::feed(std::string_view piece) {
    std::string out;
    for (const char c : piece) {
        if (escape_.empty() && c != '\\') {
            if (std::exchange(high_, 0) != 0) out += kReplacement;
            out += c;
            continue;
        }
        escape_ += c;
        if (escape_.size() >= 2 && (escape_[1] != 'u' || escape_.size() == 6)) escape(out);
    }
    return out;
}

void JsonWords::escape(std::string& out) {
    const std::string escape = std::exchange(escape_, {});
    uint32_t code = 0;
    if (escape[1] == 'u') {
        const char* end = escape.data() + escape.size();
        if (std::from_chars(escape.data() + 2, end, code, 16).ptr != end) {
            out += escape;
            return;
        }
        const bool low = code >= 0xDC00 && code <= 0xDFFF;
        if (const uint32_t high = std::exchange(high_, 0); high != 0) {
            if (low)
                code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00);
            else
                out += kReplacement;
        }
        if (code >= 0xD800 && code <= 0xDBFF) {
            high_ = code;
            return;
        }
        if (code >= 0xDC00 && code <= 0xDFFF) code = 0xFFFD;
        safety::append_utf8(out, code);
        return;
    }
    if (std::exchange(high_, 0) != 0) out += kReplacement;
    constexpr std::string_view kFrom = "nrtbf\"\\/", kTo = "\n\r\t\b\f\"\\/";
    const size_t at = kFrom.find(escape[1]);
    if (at == std::string_view::npos)
        out += escape;
    else
        out += kTo[at];
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
