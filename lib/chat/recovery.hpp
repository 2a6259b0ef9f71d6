// Recovery: what follows when an attempt of an answer ends. Pure decisions; Answer carries them out.
//
// Rule     a retryable end, or a peer that is gone, is asked again with attempt + 1 after a back-off
//          (50 ms doubling to 1 s, with jitter). Before the client has a byte this goes on for
//          `patience_ms` only: a client that has seen nothing is better served by a quick 529, which
//          it retries by itself. After the first byte it goes on for `stall_ms`.
// Refused  what the chain says on purpose (queue full, verdict late, deadline) is not asked again
//          while the client has nothing: it is the answer.
// Threads  values and pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "messages/error.hpp"
#include "pipe/message.hpp"

namespace parley::chat {

enum class Verdict : uint8_t {
    done,        // the answer is whole
    again,       // ask once more, if time is left
    fail,        // tell the client; the error is error_of(end)
    out_of_time  // the chain's deadline passed: 504, or max_tokens after some output
};

// `whole`: message_delta was received. `begun`: the client has at least one byte.
Verdict judge(const pipe::EndMeta& end, bool whole, bool begun);

// What the client is told, with status, type and retry-after.
messages::ApiError error_of(const pipe::EndMeta& end);

// Delay before attempt `failures` + 1 (failures ≥ 1 in a row). `random` is any 64 bits.
int64_t backoff_ms(uint32_t failures, uint64_t random);

}  // namespace parley::chat
