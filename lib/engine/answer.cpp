#include "engine/answer.hpp"

#include <algorithm>
#include <utility>

namespace parley::engine {

Answer::Answer(AnswerStart start)
    : start_(std::move(start)), reader_(start_.calls, start_.tools, start_.parallel_calls) {
    if (start_.continued)
        writer_ = messages::AnswerWriter::resumed(start_.block, start_.released);
}

void Answer::begin(uint32_t prompt_tokens, const Reuse& reuse, std::vector<OutEvent>& out) {
    messages::Usage usage = prompt_usage(prompt_tokens, reuse, start_.marks);
    usage.service_tier = start_.service_tier;
    writer_.start(start_.message_id, start_.model, usage, lines_);
    for (std::string& line : lines_) out.push_back({std::move(line), {}, 0});
    lines_.clear();
}

void Answer::text(const Piece& piece, int64_t stamp_ns, std::vector<OutEvent>& out) {
    ids_.insert(ids_.end(), piece.ids.begin(), piece.ids.end());
    reader_.feed(piece.text, parts_);
    say(stamp_ns, out);
}

void Answer::say(int64_t stamp_ns, std::vector<OutEvent>& out) {
    using Kind = messages::AnswerPart::Kind;
    for (const messages::AnswerPart& part : parts_) {
        if (part.kind == Kind::text)
            writer_.text(part.text, lines_);
        else if (part.kind == Kind::input)
            writer_.input(part.text, lines_);
        else
            writer_.call(messages::tool_use_id(start_.call_key, start_.message_id,
                                               writer_.call_index()),
                         part.text, lines_);
    }
    parts_.clear();
    for (std::string& line : lines_) out.push_back({std::move(line), {}, stamp_ns});
    // The last of them: none before it is without its text if the reader goes on behind that one.
    if (!lines_.empty()) out.back().ids = std::exchange(ids_, {});
    lines_.clear();
}

void Answer::finish(const Finished& finished, int64_t stamp_ns, std::vector<OutEvent>& out) {
    const bool own_end = complete() || finished.reason == Finish::end_turn;
    reader_.finish(!own_end, parts_);
    say(stamp_ns, out);
    messages::Usage usage = prompt_usage(finished.prompt_tokens, finished.reuse, start_.marks);
    usage.output_tokens = finished.output_tokens;
    usage.service_tier = start_.service_tier;
    messages::Stop stop = stop_of(finished);
    if (own_end)
        stop = {reader_.calls() > 0 ? messages::StopReason::tool_use : messages::StopReason::end_turn,
                std::nullopt, {}};
    writer_.stop(stop, usage, lines_);
    for (std::string& line : lines_) out.push_back({std::move(line), {}, stamp_ns});
    lines_.clear();
}

messages::Usage prompt_usage(uint32_t prompt_tokens, const Reuse& reuse, const Marks& marks) {
    const uint32_t read = std::min(reuse.read_tokens, marks.tokens);
    const uint32_t stored = std::max(std::min(reuse.stored_tokens, marks.tokens), read);
    messages::Usage usage;
    usage.input_tokens = prompt_tokens - stored;
    usage.cache_read_input_tokens = read;
    usage.cache_creation_input_tokens = stored - read;
    usage.cache_creation_1h_input_tokens =
        std::min(stored, std::max(marks.hour_tokens, read)) - read;
    return usage;
}

messages::Stop stop_of(const Finished& finished) {
    using messages::StopReason;
    messages::Stop stop;
    switch (finished.reason) {
        case Finish::end_turn:
            stop.reason = StopReason::end_turn;
            break;
        case Finish::max_tokens:
            stop.reason = StopReason::max_tokens;
            break;
        case Finish::stop_sequence:
            stop.reason = StopReason::stop_sequence;
            stop.sequence = finished.stop_sequence;
            break;
        case Finish::context_full:
            stop.reason = StopReason::model_context_window_exceeded;
            break;
        case Finish::timeout:
            stop.reason = StopReason::max_tokens;
            stop.details_json = messages::kServerTimeoutDetails;
            break;
    }
    return stop;
}

}  // namespace parley::engine
