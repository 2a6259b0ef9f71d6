// Events: the stream events of an answer: writing, reading, their order, and folding them into the
// one object of a non-streaming answer.
//
// Grammar  message_start (content_block_start content_block_delta* content_block_stop)*
//          message_delta message_stop; `ping` anywhere after message_start; `error` ends the
//          stream.
// Text     UTF-8, whole characters: hold back an incomplete tail before writing a delta.
// Blocks   text and tool_use. thinking is recognised by parse_event and the order, and neither written nor
//          folded: no model here is asked to think.
// Calls    a tool_use block starts with an empty input; its deltas are pieces of one JSON object, cut on
//          whole characters. An answer cut in mid-call leaves a piece of one: Folder drops such a block.
// Threads  values and pure functions; parse_event keeps a small parser per thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "messages/error.hpp"

namespace parley::messages {

enum class StopReason {
    end_turn,
    max_tokens,
    stop_sequence,
    tool_use,
    model_context_window_exceeded,
    refusal,
    pause_turn,
};
std::string_view name(StopReason reason);
std::optional<StopReason> stop_reason(std::string_view name);

struct Usage {
    uint64_t input_tokens = 0;  // without the two below; the three together are the whole prompt
    uint64_t cache_creation_input_tokens = 0;
    uint64_t cache_creation_1h_input_tokens = 0;  // the part of it with a one-hour ttl
    uint64_t cache_read_input_tokens = 0;
    uint64_t output_tokens = 0;
    std::string service_tier = "standard";  // "batch" inside batches

    uint64_t prompt_tokens() const {
        return input_tokens + cache_creation_input_tokens + cache_read_input_tokens;
    }
    bool operator==(const Usage&) const = default;
};
std::string usage_json(const Usage& usage);

// How an answer ended.
struct Stop {
    StopReason reason = StopReason::end_turn;
    std::optional<std::string> sequence;  // the matched one, for stop_sequence
    std::string details_json;             // stop_details as JSON; "" is null
};
inline constexpr std::string_view kServerTimeoutDetails = R"({"type":"server_timeout"})";

enum class EventType {
    message_start,
    content_block_start,
    content_block_delta,
    content_block_stop,
    message_delta,
    message_stop,
    ping,
    error,
    message_accepted,  // conversations only, first
    snapshot,          // conversations only
};
std::string_view name(EventType type);
std::optional<EventType> event_type(std::string_view name);

enum class BlockType { text, tool_use, thinking };

// Each returns one line of JSON without a newline; `type` inside equals the event's name.
struct EventWriter {
    static std::string message_start(std::string_view message_id, std::string_view model,
                                     const Usage& usage);
    static std::string text_block_start(uint32_t index);
    // `offset`: bytes of this block's text before it (conversations carry it).
    static std::string text_delta(uint32_t index, std::string_view text,
                                  std::optional<uint64_t> offset = std::nullopt);
    static std::string tool_block_start(uint32_t index, std::string_view id, std::string_view name);
    static std::string input_delta(uint32_t index, std::string_view partial_json,
                                   std::optional<uint64_t> offset = std::nullopt);
    static std::string block_stop(uint32_t index);
    static std::string message_delta(const Stop& stop, const Usage& usage);
    static std::string message_stop();
    static std::string ping();
    static std::string error(const ApiError& error, std::string_view request_id);
};

// The whole answer to a request that the filter refused on input.
std::vector<std::string> refusal_events(std::string_view message_id, std::string_view model,
                                        const Usage& usage, std::string_view details_json = "");

// One event, read. Members beyond `type` are set as the type has them.
struct Event {
    EventType type = EventType::ping;
    uint32_t index = 0;                 // content_block_*
    BlockType block = BlockType::text;  // content_block_start, content_block_delta
    bool signature = false;             // a signature_delta of a thinking block
    std::string text;                   // delta: text, partial_json, thinking or signature
    std::string tool_id, tool_name;     // content_block_start of tool_use
    std::optional<uint64_t> offset;
    std::string message_id;      // message_start
    std::string model;           // message_start
    std::optional<Stop> stop;    // message_delta
    std::optional<Usage> usage;  // message_start, message_delta
    ApiError error;              // error
};
// Errc::invalid for what is not JSON, not an event, or lacks a member it must have.
base::Result<Event> parse_event(std::string_view json);

// Refuses an event that may not come next. Errc::invalid names both; the state is unchanged then.
// Of whole events also a delta of another kind than its block (after resumed(): than the first delta).
class EventOrder {
  public:
    EventOrder() = default;
    // Of a stream that is taken up in the middle: `next_index` blocks have begun; the last of them
    // is still open or not. message_start has been.
    static EventOrder resumed(uint32_t next_index, bool block_open);

    base::Result<void> next(EventType type, uint32_t index = 0);
    base::Result<void> next(const Event& event);
    bool started() const { return state_ != State::fresh; }
    bool block_open() const { return state_ == State::in_block; }
    uint32_t next_index() const { return next_index_; }  // of the next block to start
    bool delta_sent() const { return state_ == State::delta; }
    bool finished() const { return state_ == State::stopped || state_ == State::failed; }

  private:
    enum class State { fresh, between, in_block, delta, stopped, failed };
    State state_ = State::fresh;
    uint32_t next_index_ = 0;
    std::optional<BlockType> block_;  // of the block that is open; nullopt: not known
};

// A content block, folded.
struct Block {
    BlockType type = BlockType::text;
    std::string text;      // of tool_use: its input, as JSON text
    std::string id, name;  // tool_use
};

// Writes the events of an answer, one line of JSON each appended to `out`, in the one order there is:
// blocks are opened and closed by what is said, and an order that clients may not see cannot be asked for.
//
// Continuation  resumed(): the reader has message_start, every block before `block`, the start of `block` and
//          `released` bytes of it. All is said from the beginning again; what the reader has is not written.
// Use      start(), then text() and call() … input(), then stop(). input() belongs to the call before it;
//          what breaks that is a bug and asserted. Nothing may follow stop().
class AnswerWriter {
  public:
    using Out = std::vector<std::string>;
    AnswerWriter() = default;
    static AnswerWriter resumed(int32_t block, uint64_t released);  // block -1: none was started

    void start(std::string_view message_id, std::string_view model, const Usage& usage, Out& out);
    void text(std::string_view text, Out& out);  // empty: nothing
    // The index that a call begun now has: what its id may be made of.
    uint32_t call_index() const { return next_index_; }
    void call(std::string_view id, std::string_view name, Out& out);
    void input(std::string_view partial_json, Out& out);  // empty: nothing
    void end_block(Out& out);                             // if one is open
    void stop(const Stop& stop, const Usage& usage, Out& out);

  private:
    bool has_start(uint32_t index) const { return static_cast<int64_t>(index) <= had_block_; }
    std::string_view unseen(std::string_view text);

    uint32_t next_index_ = 0;
    std::optional<BlockType> open_;
    bool continued_ = false, stopped_ = false;
    int64_t had_block_ = -1;  // the reader's last
    uint64_t had_bytes_ = 0;  // what it has of it, as far as that is still to be said again
};

// Folds events into the message object of a non-streaming answer.
class Folder {
  public:
    Folder() = default;
    // Errc::invalid for an event out of order (see EventOrder), Errc::unsupported for a thinking block.
    // snapshot and message_accepted are not events of an answer: refused.
    base::Result<void> add(const Event& event);

    bool finished() const { return order_.finished(); }
    const EventOrder& order() const { return order_; }
    const std::optional<ApiError>& error() const { return error_; }  // set after an `error` event
    const std::string& message_id() const { return message_id_; }
    const std::string& model() const { return model_; }
    const std::optional<Stop>& stop() const { return stop_; }
    const Usage& usage() const { return usage_; }
    std::string text() const;   // of the text blocks, joined directly
    std::string words() const;  // all that the model wrote, inputs of calls too, joined directly
    const std::vector<Block>& blocks() const { return blocks_; }
    uint64_t text_bytes() const { return text_bytes_; }  // of all blocks
    // [{"type":"text","text":…},{"type":"tool_use",…,"input":{…}}…]; never an empty text block, nor a call
    // whose input is not one JSON object (a call without any input has {}, if stop_reason is tool_use);
    // "[]" when nothing was produced.
    std::string content_json() const;
    // The body of §5.1. Before message_stop: what there is, stop_reason null.
    std::string message_json() const;

  private:
    EventOrder order_;
    std::string message_id_;
    std::string model_;
    std::vector<Block> blocks_;
    uint64_t text_bytes_ = 0;
    std::optional<Stop> stop_;
    Usage usage_;
    std::optional<ApiError> error_;
};

// Appends "id: ID\nevent: NAME\ndata: JSON\n\n"; no id line when `id` is empty. `json` is one line.
void sse_frame(std::string& out, std::string_view id, std::string_view event_name,
               std::string_view json);

}  // namespace parley::messages
