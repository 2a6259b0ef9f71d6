#include "chat/journal.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace parley::chat {

using messages::EventType;

Journal::Journal(JournalOptions options, StoreCommands& store, const base::Clock& clock)
    : options_(std::move(options)), store_(store), clock_(clock) {}

void Journal::add(const Checked& checked) {
    if (fenced_ || finished_ || finish_done_) return;
    if (checked.event.type != EventType::content_block_delta) return;
    const messages::Event& event = checked.event;
    if (pieces_.empty()) since_ms_ = clock_.mono_ms();
    if (pieces_.empty() || pieces_.back().delta.block != static_cast<int64_t>(event.index) ||
        pieces_.back().bytes >= options_.piece_bytes_max) {
        Piece& fresh = pieces_.emplace_back();
        fresh.delta.epoch = options_.epoch;
        fresh.delta.first_seq = static_cast<uint32_t>(next_seq_);
        fresh.delta.block = event.index;
        fresh.delta.offset = checked.offset;
    }
    Piece& piece = pieces_.back();
    piece.delta.last_seq = static_cast<uint32_t>(checked.seq);
    piece.delta.text += event.text;
    piece.delta.ids.insert(piece.delta.ids.end(), checked.ids.begin(), checked.ids.end());
    piece.cuts += fmt::format("{}[{},{},{}]", piece.cuts.empty() ? "" : ",", checked.seq,
                              event.text.size(), checked.ids.size());
    next_seq_ = checked.seq + 1;
    const uint64_t bytes = event.text.size() + 8 * checked.ids.size() + 16;
    piece.bytes += bytes;
    gathered_bytes_ += bytes;
    if (piece.bytes >= options_.piece_bytes_max) flush();
}

void Journal::tick() {
    if (!pieces_.empty() && clock_.mono_ms() - since_ms_ >= options_.flush_ms) flush();
    if (finish_done_) try_finish();
}

void Journal::flush() {
    const bool was_full = gathered_bytes_ >= options_.bytes_max;
    while (!pieces_.empty() && !fenced_ && unconfirmed_ < options_.unconfirmed_max) {
        Piece& piece = pieces_.front();
        store::Append append;
        append.message = options_.message;
        append.owner = options_.owner;
        append.delta = piece.delta;
        append.delta.data = "[" + piece.cuts + "]";
        auto sent = store_.submit(
            append.json(),
            [weak = weak_from_this()](const store::CommandReply& reply) {
                if (const auto self = weak.lock()) self->confirmed(reply);
            },
            0);
        if (!sent) break;  // the client is full: tick() tries again
        ++unconfirmed_;
        gathered_bytes_ -= piece.bytes;
        pieces_.pop_front();
    }
    if (was_full && gathered_bytes_ < options_.bytes_max && on_progress_) on_progress_();
}

void Journal::confirmed(const store::CommandReply& reply) {
    if (unconfirmed_ > 0) --unconfirmed_;
    if (!reply.ok() && !fenced_ &&
        (reply.reason == "fenced" || reply.reason == "ended" ||
         reply.error->code == base::Errc::not_found)) {
        fenced_ = true;
        gone_ = reply.error->code == base::Errc::not_found;
        pieces_.clear();
        gathered_bytes_ = 0;
        if (on_fenced_) on_fenced_();
    }
}

void Journal::finish(store::Finish finish, std::function<void(const store::CommandReply&)> done) {
    finish.message = options_.message;
    finish.owner = options_.owner;
    finish.epoch = options_.epoch;
    finish_json_ = finish.json();
    finish_done_ = std::move(done);
    finish_since_ms_ = clock_.mono_ms();
    try_finish();
}

void Journal::try_finish() {
    if (finished_) return;
    if (!fenced_) flush();
    // A piece that still waits holds the end back, but not for ever: the end carries all the text.
    if (!fenced_ && !pieces_.empty() && clock_.mono_ms() - finish_since_ms_ < options_.hold_ms)
        return;
    auto sent = store_.submit(
        finish_json_,
        [self = shared_from_this()](const store::CommandReply& reply) {
            const auto done = std::move(self->finish_done_);
            self->finish_done_ = nullptr;
            if (done) done(reply);
        },
        0);
    if (sent) finished_ = true;  // else tick() tries again
}

}  // namespace parley::chat
