#include "chat/stream.hpp"

#include <algorithm>
#include <charconv>

namespace parley::chat {

using messages::ApiError;
using messages::EventType;

namespace {
constexpr size_t kFrameBytes = 40;  // around name and data: id, two labels, line ends
}

StreamReader::~StreamReader() {
    // One reader fewer may make another the slowest: credit is counted anew.
    if (stream_->on_progress_) stream_->on_progress_();
}

const Frame* StreamReader::peek() const { return stream_->at(next_); }

void StreamReader::pop() {
    if (!stream_->at(next_)) return;
    ++next_;
    if (stream_->on_progress_) stream_->on_progress_();
}

bool StreamReader::lagged() const { return next_ < stream_->first_; }

bool StreamReader::at_end() const { return stream_->ended_ && next_ >= stream_->next_; }

const std::optional<ApiError>& StreamReader::failure() const { return stream_->failure_; }

void Stream::frame(std::string& out, EventType type, std::string_view json) const {
    char id[48];
    char* end = std::to_chars(id, id + 12, options_.epoch).ptr;
    *end++ = '-';
    end = std::to_chars(end, id + sizeof id, next_).ptr;
    messages::sse_frame(out, {id, static_cast<size_t>(end - id)}, messages::name(type), json);
}

void Stream::push(EventType type, std::string_view json, int64_t stamp_ns) {
    if (ended_) return;
    if (!options_.keep_frames) {
        first_ = ++next_;
        return;
    }
    Frame& frame = frames_.emplace_back();
    // Once, and no more than it needs: frames are kept.
    frame.sse.reserve(json.size() + messages::name(type).size() + kFrameBytes);
    this->frame(frame.sse, type, json);
    frame.seq = next_++;
    frame.type = type;
    frame.stamp_ns = stamp_ns;
    bytes_ += frame.sse.size();
    while (bytes_ > options_.bytes_max && frames_.size() > 1) {
        bytes_ -= frames_.front().sse.size();
        frames_.pop_front();
        ++first_;
    }
    wake_all();
}

void Stream::close() {
    if (ended_) return;
    ended_ = true;
    wake_all();
}

void Stream::settle() {
    on_progress_ = nullptr;
    frames_.shrink_to_fit();
}

void Stream::fail(ApiError error) {
    if (ended_) return;
    ended_ = true;
    failure_ = std::move(error);
    wake_all();
}

std::shared_ptr<StreamReader> Stream::read(std::optional<uint64_t> after,
                                           std::function<void()> wake) {
    const uint64_t from = after ? *after + 1 : options_.first_seq;
    if (from < first_ || from > next_) return nullptr;
    std::shared_ptr<StreamReader> reader(
        new StreamReader(shared_from_this(), from, std::move(wake)));
    std::erase_if(readers_, [](const auto& weak) { return weak.expired(); });
    readers_.push_back(reader);
    return reader;
}

std::optional<std::string> Stream::whole() const {
    if (first_ != options_.first_seq || !options_.keep_frames) return std::nullopt;
    std::string out;
    out.reserve(bytes_);
    for (const Frame& frame : frames_) out += frame.sse;
    return out;
}

size_t Stream::readers() const {
    return static_cast<size_t>(std::count_if(readers_.begin(), readers_.end(),
                                             [](const auto& weak) { return !weak.expired(); }));
}

size_t Stream::backlog() const {
    uint64_t slowest = next_;
    for (const auto& weak : readers_) {
        if (const auto reader = weak.lock()) slowest = std::min(slowest, reader->next_);
    }
    return static_cast<size_t>(next_ - slowest);
}

const Frame* Stream::at(uint64_t seq) const {
    if (seq < first_ || seq >= next_) return nullptr;
    return &frames_[static_cast<size_t>(seq - first_)];
}

void Stream::wake_all() {
    // A woken reader may leave, or another may come: walk a copy.
    const auto readers = readers_;
    for (const auto& weak : readers) {
        if (const auto reader = weak.lock(); reader && reader->wake_) reader->wake_();
    }
}

}  // namespace parley::chat
