// Body: small changes to a request body that has been checked, without writing it anew.
//
// Threads  pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace parley::chat {

// `json` is a valid object without a key twice; its top-level "model" says `model` afterwards.
std::string with_model(std::string_view json, std::string_view model);

// "epoch-seq" → both; nullopt for anything else.
std::optional<std::pair<uint32_t, uint64_t>> parse_position(std::string_view text);

}  // namespace parley::chat
