// Meter: what one streamed answer shows of itself: times, tokens, how it ended. Fixed size.
//
// Times    all from the intended start, so that a sender that is late cannot hide a slow server
//          (coordinated omission). TTFT: to the first delta that carries text (or thinking, or tool
//          input). ITL: the gap between two such deltas, each measured where the bytes were received.
//          E2EL: to message_stop. TPOT: (E2EL − TTFT) / (output tokens − 1).
// Tokens   from `usage` of the stream, cumulative: the last word wins.
// Errors   a stream that breaks the grammar of messages-api.md is reported, not guessed at.
// Threads  one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace parley::load {

enum class Verdict {
    go_on,
    complete,  // message_stop: the answer is whole
    failed,    // an `error` event, or a broken stream: see error_type(), error_detail()
};

struct MeterStep {
    Verdict verdict = Verdict::go_on;
    int64_t itl_ns = -1;             // this event ended such a gap
    int64_t chain_overhead_ns = -1;  // receipt of the first delta − the worker's stamp of its token
};

// Reads event JSON; one serves all meters of a thread.
class EventReader;

class Meter {
  public:
    void begin(int64_t intended_ns);
    // `stamp_ns`: the worker's CLOCK_MONOTONIC for this event, -1 if not told.
    MeterStep event(EventReader& reader, std::string_view json, int64_t stamp_ns, int64_t now_ns);

    int64_t intended_ns() const { return intended_ns_; }
    int64_t ttft_ns() const { return first_ns_ < 0 ? -1 : first_ns_ - intended_ns_; }
    int64_t e2el_ns() const { return end_ns_ < 0 ? -1 : end_ns_ - intended_ns_; }
    double tpot_ns() const;                             // -1 with fewer than two output tokens
    int64_t itl_max_ns() const { return itl_max_ns_; }  // -1 with fewer than two deltas
    uint64_t input_tokens() const { return input_tokens_; }
    uint64_t output_tokens() const { return output_tokens_; }
    const std::string& stop_reason() const { return stop_reason_; }
    const std::string& error_type() const { return error_type_; }
    const std::string& error_detail() const { return error_detail_; }

  private:
    MeterStep broken(const char* what);

    int64_t intended_ns_ = 0;
    int64_t first_ns_ = -1;
    int64_t last_ns_ = -1;
    int64_t end_ns_ = -1;
    int64_t itl_max_ns_ = -1;
    uint64_t input_tokens_ = 0;
    uint64_t output_tokens_ = 0;
    bool started_ = false;
    bool has_usage_ = false;
    std::string stop_reason_;
    std::string error_type_;
    std::string error_detail_;
};

class EventReader {
  public:
    EventReader();
    ~EventReader();
    EventReader(const EventReader&) = delete;
    EventReader& operator=(const EventReader&) = delete;

    enum class Kind { start, delta, stop_delta, stop, error, other, bad };
    struct Event {
        Kind kind = Kind::bad;
        bool has_text = false;
        int64_t input_tokens = -1;  // with what caches gave
        int64_t output_tokens = -1;
        std::string_view text;    // stop_reason, or the error's type
        std::string_view detail;  // the error's message
    };
    // The views live until the next call.
    Event read(std::string_view json);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// A name from outside as a key of ours: [A-Za-z0-9_.-], at most 48 bytes, else "other".
std::string safe_name(std::string_view name);
// Text from outside for a report: at most 200 bytes, control characters as spaces, valid UTF-8.
std::string safe_detail(std::string_view text);

}  // namespace parley::load
