// SsePump: carries the frames of one stream to one client, at the client's pace.
//
// It takes a frame only while less than client_bytes_max waits for the socket, so that the reader's
// place says how far the client is: credit follows it. The head goes out with the first frame; a stream
// that fails before it gives an HTTP error.
// Ends     on_end once: all was said. on_gone once: the client is away; the reader is let go of.
// Threads  the loop's.
#pragma once

#include <functional>
#include <memory>

#include "chat/stream.hpp"
#include "exchange.hpp"

namespace parley::chatd {

// Appends what a frame becomes in the words of /v1/chat/completions: nothing, or some lines.
void dress(openai::Chunks& chunks, const chat::Frame& frame, std::string& out);

class SsePump : public std::enable_shared_from_this<SsePump> {
  public:
    SsePump(ExchangePtr exchange, std::function<void()> on_end, std::function<void()> on_gone)
        : exchange_(std::move(exchange)),
          on_end_(std::move(on_end)),
          on_gone_(std::move(on_gone)),
          timestamps_(exchange_->request.headers.get("x-parley-timestamps") == "1") {}

    // After construction, once. False: `after` is not kept any more.
    bool attach(const std::shared_ptr<chat::Stream>& stream, std::optional<uint64_t> after);
    // One snapshot event, before attach(): all up to `seq` is in it.
    void snapshot(uint32_t epoch, uint64_t seq, std::string_view json);
    // The end of a client that cannot go on from here: it comes back by itself.
    void break_off();
    // The head alone, where the first frame may be far away.
    void begin();
    void tick(int64_t now_ms);  // pings
    bool over() const { return over_; }

  private:
    void pump();
    void say_error(const messages::ApiError& error);
    void ended();

    ExchangePtr exchange_;
    std::function<void()> on_end_;
    std::function<void()> on_gone_;
    bool timestamps_;
    std::shared_ptr<chat::StreamReader> reader_;
    std::string out_;
    bool begun_ = false;
    bool started_ = false;  // message_start or message_accepted went out: pings may follow
    bool over_ = false;
    bool pumping_ = false;
    int64_t last_ms_ = 0;
};

}  // namespace parley::chatd
