#include "engine/answer.hpp"

#include <algorithm>

namespace parley::engine {

using messages::EventWriter;

Answer::Answer(AnswerStart start) : start_(std::move(start)) {
    if (start_.block >= 0) {
        index_ = static_cast<uint32_t>(start_.block);
        block_open_ = true;
    }
}

void Answer::begin(uint32_t prompt_tokens, const Reuse& reuse, std::vector<OutEvent>& out) {
    if (start_.continued) return;
    messages::Usage usage = prompt_usage(prompt_tokens, reuse, start_.marks);
    usage.service_tier = start_.service_tier;
    out.push_back({EventWriter::message_start(start_.message_id, start_.model, usage), {}, 0});
}

void Answer::text(const Piece& piece, int64_t stamp_ns, std::vector<OutEvent>& out) {
    if (!block_open_) {
        block_open_ = true;
        out.push_back({EventWriter::text_block_start(index_), {}, stamp_ns});
    }
    out.push_back({EventWriter::text_delta(index_, piece.text), piece.ids, stamp_ns});
}

void Answer::finish(const Finished& finished, int64_t stamp_ns, std::vector<OutEvent>& out) {
    if (block_open_) out.push_back({EventWriter::block_stop(index_), {}, stamp_ns});
    block_open_ = false;
    messages::Usage usage = prompt_usage(finished.prompt_tokens, finished.reuse, start_.marks);
    usage.output_tokens = finished.output_tokens;
    usage.service_tier = start_.service_tier;
    out.push_back({EventWriter::message_delta(stop_of(finished), usage), {}, stamp_ns});
    out.push_back({EventWriter::message_stop(), {}, stamp_ns});
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
