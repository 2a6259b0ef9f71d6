// Brownout: a request made smaller before any is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace parley::dispatch {

// The body with max_tokens at most `most`, all other bytes as they were; nullopt where it asks for no more than
// that, says no number, or is not JSON.
std::optional<std::string> with_max_tokens(const std::string& body, uint64_t most);

}  // namespace parley::dispatch
