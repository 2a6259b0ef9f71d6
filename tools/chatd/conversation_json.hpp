// Conversations and messages as the wire shows them (conversations API).
#pragma once

#include <string>

#include "base/json.hpp"
#include "store/reader.hpp"

namespace parley::chatd {

// Missing parts (unread, last message) are looked up in `reader`.
void write_conversation(base::JsonWriter& w, const store::ConvRow& row, store::Reader& reader);
void write_message(base::JsonWriter& w, const store::MessageRow& row);
std::string message_json(const store::MessageRow& row);

}  // namespace parley::chatd
