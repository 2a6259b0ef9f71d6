// Stream: the numbered events of one answer, kept for those who read them.
//
// Numbers  epoch-seq, dense from `first_seq`; they are chatd's own and do not change with attempts.
// Readers  each has its own place. push() wakes all readers before it returns; a reader takes frames
//          at its own pace (peek, pop). `on_progress` is told when the slowest one moved.
// Bounds   bytes_max of framed text: past it the oldest frames go. A reader that stands before them has
//          lagged: it gets nothing more and comes back by snapshot. bytes_kept() is what credit looks at.
// Ending   close() after the last frame, or fail(): both once, the first counts.
// Threads  one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "messages/error.hpp"
#include "messages/events.hpp"

namespace parley::chat {

struct StreamOptions {
    uint32_t epoch = 1;
    uint64_t first_seq = 1;
    uint64_t bytes_max = 4u << 20;
    bool keep_frames =
        true;  // false: nobody will read (a non-streaming answer); only the end matters
};

struct Frame {
    uint64_t seq = 0;
    messages::EventType type = messages::EventType::ping;
    int64_t stamp_ns = 0;  // when the worker chose its last token; 0: not said
    std::string sse;       // "id: …\nevent: …\ndata: …\n\n"
};

class Stream;

// A place in a stream. Destroying it is how a reader leaves.
class StreamReader {
  public:
    ~StreamReader();
    const Frame* peek() const;  // null: nothing to read now
    void pop();
    bool lagged() const;
    // Everything was read and nothing will come.
    bool at_end() const;
    const std::optional<messages::ApiError>& failure() const;  // of the stream, once at_end()
    const Stream& stream() const { return *stream_; }

  private:
    friend class Stream;
    StreamReader(std::shared_ptr<Stream> stream, uint64_t next, std::function<void()> wake)
        : stream_(std::move(stream)), next_(next), wake_(std::move(wake)) {}
    std::shared_ptr<Stream> stream_;
    uint64_t next_;
    std::function<void()> wake_;
};

class Stream : public std::enable_shared_from_this<Stream> {
  public:
    explicit Stream(StreamOptions options)
        : options_(options), first_(options.first_seq), next_(options.first_seq) {}

    // Appends what push() would make of the next event.
    void frame(std::string& out, messages::EventType type, std::string_view json) const;
    // `json` is one line.
    void push(messages::EventType type, std::string_view json, int64_t stamp_ns = 0);
    void close();
    void fail(messages::ApiError error);
    bool ended() const { return ended_; }
    const std::optional<messages::ApiError>& failure() const { return failure_; }

    // From the event after `after` on (nullopt: from the first). Null when that is no longer kept, or
    // lies ahead of what there is.
    std::shared_ptr<StreamReader> read(std::optional<uint64_t> after, std::function<void()> wake);
    size_t readers() const;
    // Frames that the slowest reader has not taken; 0 without readers.
    size_t backlog() const;
    uint64_t bytes_kept() const { return bytes_; }
    // All frames from the first on, as text; nullopt when some are kept no longer.
    std::optional<std::string> whole() const;
    bool full() const { return bytes_ >= options_.bytes_max; }
    uint32_t epoch() const { return options_.epoch; }
    uint64_t next_seq() const { return next_; }
    void on_progress(std::function<void()> call) { on_progress_ = std::move(call); }
    bool keeps_frames() const { return options_.keep_frames; }
    // It has ended and is only kept: gives back what reading does not need.
    void settle();

  private:
    friend class StreamReader;
    const Frame* at(uint64_t seq) const;
    void wake_all();

    StreamOptions options_;
    std::deque<Frame> frames_;  // first_ … next_ - 1
    uint64_t first_;
    uint64_t next_;
    uint64_t bytes_ = 0;
    bool ended_ = false;
    std::optional<messages::ApiError> failure_;
    std::vector<std::weak_ptr<StreamReader>> readers_;
    std::function<void()> on_progress_;
};

}  // namespace parley::chat
