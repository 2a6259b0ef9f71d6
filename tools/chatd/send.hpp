// Send: a new message of a conversation, from its body to a running Turn.
//
// The body is checked whole, and the prompt counted, before anything is stored: what can be refused is
// refused with its HTTP status. After the commit nothing fails but the answer.
#pragma once

#include "exchange.hpp"
#include "store/rows.hpp"

namespace parley::chatd {

void send_message(const ExchangePtr& exchange, const store::ConvRow& conv);
// One more answer to the question of `message`, which is that question or one of its answers.
void regenerate_message(const ExchangePtr& exchange, const store::ConvRow& conv,
                        const store::MessageRow& message);

}  // namespace parley::chatd
