// SseParser: server-sent events from bytes that arrive in any pieces (WHATWG HTML, 9.2.6).
//
// Lines end in LF, CRLF or CR. Fields other than `event` and `data` are skipped; an event without
// data is not dispatched. Comment lines are handed on: chatd tells its workers' time stamps there.
// Bounds   event_bytes_max over the data of one event, and over one line.
// Errors   Errc::too_large. After an error the parser stays broken until reset().
// Threads  one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::load {

class SseHandler {
  public:
    virtual ~SseHandler() = default;
    // The views die when the call returns. False: stop here, the rest of the bytes is not looked at.
    virtual bool on_event(std::string_view name, std::string_view data) = 0;
    virtual void on_comment(std::string_view text) = 0;  // without the colon
};

class SseParser {
  public:
    explicit SseParser(size_t event_bytes_max = 1 << 20) : event_bytes_max_(event_bytes_max) {}
    base::Result<void> feed(std::string_view bytes, SseHandler& handler);
    void reset();

  private:
    bool line(std::string_view text, SseHandler& handler);  // false: the handler said stop

    size_t event_bytes_max_;
    std::string partial_;  // a line whose end has not come
    std::string name_;
    std::string data_;
    bool has_data_ = false;
    bool after_cr_ = false;  // an LF that comes now belongs to the CR before it
    bool at_start_ = true;   // a byte order mark may stand here
    bool stopped_ = false;
    bool broken_ = false;
};

// ": t=123" (the comment's text is " t=123") → 123, the worker's CLOCK_MONOTONIC in nanoseconds; -1
// for any other comment.
int64_t stamp_of_comment(std::string_view text);

}  // namespace parley::load
