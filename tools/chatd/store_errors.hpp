// What the store's refusals are over HTTP, and the small checks that all conversation routes share.
#pragma once

#include <functional>
#include <string>

#include "exchange.hpp"
#include "store/client.hpp"

namespace parley::chatd {

inline constexpr int64_t kCommandWaitMs = 10'000;

messages::ApiError store_away();       // 503
messages::ApiError no_conversation();  // 404
messages::ApiError api_error_of(const base::Error& error, std::string_view path);
messages::ApiError api_error_of(const store::CommandReply& reply);
// The query's `limit`, 1…most.
tl::expected<size_t, messages::ApiError> limit_of(const Exchange& exchange, size_t normal,
                                                  size_t most);
// Submits; `done` is called for a success only, every refusal is answered here. 503 at once while the
// store is away: a client had better know.
void submit_for(const ExchangePtr& exchange, std::string command,
                std::function<void(const store::CommandReply&)> done);

}  // namespace parley::chatd
