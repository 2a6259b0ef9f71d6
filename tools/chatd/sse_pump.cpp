#include "sse_pump.hpp"

#include <fmt/format.h>

#include <charconv>

#include "messages/events.hpp"

namespace parley::chatd {

using messages::EventType;

bool SsePump::attach(const std::shared_ptr<chat::Stream>& stream, std::optional<uint64_t> after) {
    const std::weak_ptr<SsePump> weak = weak_from_this();
    reader_ = stream->read(after, [weak] {
        if (const auto self = weak.lock()) self->pump();
    });
    if (!reader_) return false;
    started_ = started_ || after.value_or(0) > 0;
    exchange_->writer->on_drain([weak] {
        if (const auto self = weak.lock()) self->pump();
    });
    exchange_->writer->on_close([weak] {
        const auto self = weak.lock();
        if (!self || self->over_) return;
        self->over_ = true;
        self->reader_.reset();
        self->exchange_->gone();
        self->on_gone_();
    });
    pump();
    return true;
}

void SsePump::begin() {
    if (begun_ || over_) return;
    begun_ = true;
    exchange_->begin_sse();
    last_ms_ = exchange_->app.clock.mono_ms();
}

void SsePump::snapshot(uint32_t epoch, uint64_t seq, std::string_view json) {
    begin();
    std::string frame;
    messages::sse_frame(frame, fmt::format("{}-{}", epoch, seq), "snapshot", json);
    started_ = true;
    exchange_->writer->write(frame);
}

void SsePump::break_off() {
    say_error(messages::ApiError::overloaded(1));
    ended();
}

void SsePump::pump() {
    // A write may drain at once and call back.
    if (over_ || pumping_ || !reader_) return;
    const auto self = shared_from_this();
    pumping_ = true;
    const auto& writer = exchange_->writer;
    while (const chat::Frame* frame = reader_->peek()) {
        if (writer->closed() || writer->pending_bytes() > exchange_->app.options.client_bytes_max)
            break;
        begin();
        bool taken;
        if (exchange_->chunks) {
            out_.clear();
            dress(*exchange_->chunks, *frame, out_);
            taken = out_.empty() || writer->write(out_);
        } else if (timestamps_ && frame->stamp_ns > 0) {
            char number[24];
            const char* end = std::to_chars(number, number + sizeof number, frame->stamp_ns).ptr;
            out_.assign(": t=");
            out_.append(number, static_cast<size_t>(end - number));
            out_ += '\n';
            out_ += frame->sse;
            taken = writer->write(out_);
        } else {
            taken = writer->write(frame->sse);
        }
        started_ = started_ || frame->type == EventType::message_start ||
                   frame->type == EventType::message_accepted;
        last_ms_ = exchange_->app.clock.mono_ms();
        if (!taken || !reader_) break;
        reader_->pop();
    }
    pumping_ = false;
    if (over_ || !reader_ || writer->closed()) return;
    if (reader_->lagged()) {
        // Its place is gone; it comes back by snapshot.
        say_error(messages::ApiError::overloaded(1));
        return ended();
    }
    if (!reader_->at_end()) return;
    if (const auto& failure = reader_->failure())
        say_error(*failure);
    else
        begin();  // one who has it all already is told so: an empty stream
    ended();
}

void dress(openai::Chunks& chunks, const chat::Frame& frame, std::string& out) {
    constexpr std::string_view kData = "\ndata: ";
    const size_t at = frame.sse.find(kData) + kData.size();
    const auto event =
        messages::parse_event(std::string_view(frame.sse).substr(at, frame.sse.size() - at - 2));
    if (event) chunks.add(*event, out);
}

void SsePump::say_error(const messages::ApiError& error) {
    if (!begun_) return exchange_->error(error);
    std::string frame;
    if (exchange_->chunks) {
        messages::Event event;
        event.type = EventType::error;
        event.error = error;
        exchange_->chunks->add(event, frame);
        exchange_->writer->write(frame);
        return;
    }
    messages::sse_frame(frame, "", "error",
                        messages::EventWriter::error(error, exchange_->request_id));
    exchange_->writer->write(frame);
}

void SsePump::ended() {
    if (over_) return;
    over_ = true;
    reader_.reset();
    if (begun_) exchange_->end();
    on_end_();
}

void SsePump::tick(int64_t now_ms) {
    if (over_ || !started_ || now_ms - last_ms_ < exchange_->app.options.ping_ms) return;
    last_ms_ = now_ms;
    std::string frame;
    if (exchange_->chunks)
        frame = ": ping\n\n";
    else
        messages::sse_frame(frame, "", "ping", messages::EventWriter::ping());
    exchange_->writer->write(frame);
}

}  // namespace parley::chatd
