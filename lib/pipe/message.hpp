// Message: one parley/1 message, and its two forms (man/parley-protocol.7): ZeroMQ frames and JSON
// Lines.
//
// Text     meta and body are JSON text as received: the bytes of an event's body are what its stamp
//          covers, so nothing here re-writes them. meta is always an object ("{}" at least).
// Errors   Errc::invalid for a line or meta that is malformed: says what and where.
// Threads  values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::pipe {

inline constexpr std::string_view kProtocol = "parley/1";

enum class Verb : uint8_t { hello, bye, ask, event, end, cancel, credit, status, follow };
std::string_view name(Verb verb);  // "ASK"
std::optional<Verb> parse_verb(std::string_view text);

struct Message {
    Verb verb = Verb::ask;
    std::string id;
    std::string meta = "{}";
    std::string body;  // empty: no body
};

// One line, without its newline. A body must be JSON or empty.
std::string to_line(const Message& message);
// A parley/1 line, or a bare Messages API body, which becomes ASK with id `bare_id`. The whole line
// is walked: trailing text, a second document, invalid UTF-8 are errors.
base::Result<Message> from_line(std::string_view line, std::string_view bare_id);

// The meta of each verb. to_meta() leaves out what stands at its default; parse_*() ignores unknown
// members and refuses known ones of the wrong type.
struct Sampling {
    double min_p = 0;               // 0 = off
    double repetition_penalty = 1;  // 1 = off
    double presence_penalty = 0;
    double frequency_penalty = 0;
    std::optional<double> temperature;  // above the body's: 0…2
    std::vector<std::string> stops;     // beside the body's: those of white space, which it cannot have
};

enum class Class : uint8_t { interactive, streaming, batch };
std::string_view name(Class value);

struct Continuation {
    std::vector<int32_t> produced;  // token ids whose text the client has
    int32_t block = -1;             // open content block; -1: none was started
    uint64_t released = 0;          // bytes of its text that the client has
    std::string text;               // what the client has of all blocks, joined: what was judged before
};

struct Envelope {
    uint32_t attempt = 1;
    uint32_t credit = 64;
    std::string org, user, key;
    Class cls = Class::streaming;
    std::string flow;
    double weight = 1;
    double tag = 0;
    std::string conversation, message;
    std::optional<uint64_t> seed;
    Sampling sampling;
    int64_t ttft_ms = 0, stall_ms = 0, total_ms = 0;  // left; 0 = none
    std::string trace;
    std::vector<std::string> blocks;
    double risk = 0;
    std::string version;
    std::optional<Continuation> continuation;
    bool unfiltered = false;
};
std::string to_meta(const Envelope& envelope);
base::Result<Envelope> parse_envelope(std::string_view meta);

struct EventMeta {
    uint32_t attempt = 1;
    uint64_t seq = 0;
    std::vector<int32_t> ids;
    int64_t stamp_ns = 0;
    std::string policy;
    std::string stamp;
};
std::string to_meta(const EventMeta& meta);
base::Result<EventMeta> parse_event_meta(std::string_view meta);

struct Usage {
    uint64_t input_tokens = 0;  // whole prompt
    uint64_t cache_read_input_tokens = 0;
    uint64_t output_tokens = 0;
};

struct EndMeta {
    uint32_t attempt = 1;
    uint64_t seq = 0;  // events sent before
    std::string status = "ok";
    std::string message;
    bool retryable = false;
    uint32_t retry_after_s = 0;
    std::string reason;
    std::optional<Usage> usage;
    double cost_s = 0;
    uint64_t drafted_tokens = 0, accepted_tokens = 0;  // guessed and computed; those that came true
    std::string model;
    uint64_t change = 0;
    bool ok() const { return status == "ok"; }
};
std::string to_meta(const EndMeta& meta);
base::Result<EndMeta> parse_end_meta(std::string_view meta);

struct CancelMeta {
    uint32_t attempt = 1;
    std::string reason;
};
std::string to_meta(const CancelMeta& meta);
base::Result<CancelMeta> parse_cancel_meta(std::string_view meta);

struct CreditMeta {
    uint32_t attempt = 1;
    uint32_t credit = 0;
    std::optional<double> tag;
};
std::string to_meta(const CreditMeta& meta);
base::Result<CreditMeta> parse_credit_meta(std::string_view meta);

struct Charge {
    std::string flow;
    double cost_s = 0;
};

struct StatusMeta {
    uint32_t running = 0, waiting = 0, slots = 0;
    uint32_t kv_free = 0, kv_total = 0;
    double queue_s = 0;
    double longest_ms = 0;
    uint64_t drafted_tokens = 0, accepted_tokens = 0;  // as in EndMeta, since the process began
    std::vector<Charge> charges;
    bool draining = false;
};
std::string to_meta(const StatusMeta& meta);
base::Result<StatusMeta> parse_status_meta(std::string_view meta);

struct ModelInfo {
    std::string hash, name, architecture;
    uint32_t context_tokens = 0, output_tokens_max = 0;
};

enum class Role : uint8_t { asker, answerer };

struct HelloMeta {
    Role role = Role::asker;
    std::string name;  // "chatd", "infer-worker-0"
    std::string boot;  // ULID of this process start
    std::string version = PARLEY_VERSION;
    uint32_t slots = 0, queue = 0;
    std::vector<ModelInfo> models;
    std::string policy;
    std::string zone;
    std::vector<std::string> need;  // hashes whose HASH.tok the sender lacks
    std::string tok;                // body holds this hash's file
};
std::string to_meta(const HelloMeta& meta);
base::Result<HelloMeta> parse_hello_meta(std::string_view meta);

struct ByeMeta {
    std::string reason = "drain";
    std::string message;
};
std::string to_meta(const ByeMeta& meta);
base::Result<ByeMeta> parse_bye_meta(std::string_view meta);

}  // namespace parley::pipe
