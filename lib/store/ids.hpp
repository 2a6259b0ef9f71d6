// Ids as the store shows them: a prefix and 26 characters of Crockford base 32.
//
// Form     org_ user_ conv_ msg_ key_ sess_ + 16 bytes in the text form of base::Ulid. Conversation,
// message,
//          org and key ids are ULIDs drawn by the writer. A user id is a hash of (org, name), so
//          that `x-user-id: alice` needs no lookup and no row before the first conversation.
// Stream   the stream of an answer has the id of its assistant message; there is no other stream
// id. Threads  pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/ulid.hpp"

namespace parley::store {

using base::Ulid;

inline constexpr std::string_view kOrg = "org_";
inline constexpr std::string_view kUser = "user_";
inline constexpr std::string_view kConv = "conv_";
inline constexpr std::string_view kMsg = "msg_";
inline constexpr std::string_view kKey = "key_";
inline constexpr std::string_view kSession = "sess_";

std::string show_id(std::string_view prefix, const Ulid& id);
// nullopt unless the prefix is this one and 26 valid characters follow.
std::optional<Ulid> parse_id(std::string_view prefix, std::string_view text);

// The user `name` (any bytes, at most 128) of an org: BLAKE2b-128 over both.
Ulid user_id(const Ulid& org, std::string_view name);

// The message partition: 10 days of ULID time.
uint32_t bucket_of(const Ulid& message);

}  // namespace parley::store
