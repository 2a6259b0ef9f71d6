// Resume: following an answer of a conversation by its message id, whoever produces it, and taking up
// one that was interrupted.
//
// Running here     the exact suffix after the client's position, or one snapshot and what follows it.
// Running elsewhere  the same from the journal, which is read again every few milliseconds.
// Interrupted      a snapshot, then it goes on here in a new epoch, unless ?continue=false.
// Over             a snapshot and the closing events, for ever.
#pragma once

#include "exchange.hpp"
#include "store/rows.hpp"

namespace parley::chatd {

enum class Listen : uint8_t {
    from_start,  // message_accepted, then the answer
    snapshot,    // what is known first as one snapshot
    one_object,  // no stream
};

// An interrupted answer goes on in a new epoch, with the words it was asked with.
void continue_turn(const ExchangePtr& exchange, const store::MessageRow& user_message,
                   const store::StreamRow& stream, Listen listen);
// A finished answer, from its start, as it was streamed, or as one object.
void replay_finished(const ExchangePtr& exchange, const store::MessageRow& user_message,
                     const store::MessageRow& message, uint32_t epoch, bool stream);
void follow_message(const ExchangePtr& exchange, const store::MessageRow& message);

}  // namespace parley::chatd
