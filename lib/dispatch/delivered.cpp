#include "dispatch/delivered.hpp"

#include <utility>

#include "messages/events.hpp"

namespace parley::dispatch {

using messages::EventType;

Delivered::Delivered(const pipe::Envelope& envelope) {
    if (!envelope.continuation) return;
    ids_ = envelope.continuation->produced;
    block_ = envelope.continuation->block;
    bytes_ = envelope.continuation->released;
    begun_ = started_ = true;
}

std::vector<Delivered::Event> Delivered::add(Event event) {
    std::vector<Event> out;
    const auto read = messages::parse_event(event.body);
    // What is no event is the next stage's to refuse.
    const EventType type = read ? read->type : EventType::ping;
    if (type == EventType::message_start) {
        started_ = true;
        if (std::exchange(swallow_start_, false)) return out;
    }
    if (type == EventType::content_block_stop) {
        held_ = std::move(event);
        return out;
    }
    if (held_) {
        ids_.insert(ids_.end(), held_->meta.ids.begin(), held_->meta.ids.end());
        out.push_back(std::move(*held_));
        held_.reset();
    }
    if (type == EventType::content_block_start) {
        block_ = static_cast<int32_t>(read->index);
        bytes_ = 0;
    }
    if (type == EventType::content_block_delta) bytes_ += read->text.size();
    if (type == EventType::message_delta) complete_ = true;
    ids_.insert(ids_.end(), event.meta.ids.begin(), event.meta.ids.end());
    begun_ = true;
    out.push_back(std::move(event));
    return out;
}

void Delivered::cut() {
    held_.reset();
    swallow_start_ = started_ && block_ < 0;
}

std::optional<pipe::Continuation> Delivered::continuation() const {
    if (block_ < 0) return std::nullopt;
    pipe::Continuation out;
    out.produced = ids_;
    out.block = block_;
    out.released = bytes_;
    return out;
}

}  // namespace parley::dispatch
