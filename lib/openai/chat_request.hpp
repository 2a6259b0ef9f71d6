// ChatRequest: a body of POST /v1/chat/completions, told again as a Messages API body.
//
// The stages below read one kind of body only (messages/request.hpp), so that a filter judges what a
// worker reads whichever route it came by. What the Messages API has no word for stands beside it.
//
// Turns    system and developer stay in place as system; tool becomes a tool_result; one message in, one
//          message out, so that indices in later errors are right. Blank content, legal here, becomes a
//          block that renders nothing. A trailing assistant message is history: an empty user turn follows.
// Errors   types at once, first offence in the order model, messages, the rest; what is not supported here
//          is kept in `semantic` for after the model was looked up.
// Bounds   the body's own size is the front's; depth 128. Threads  pure; any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "messages/error.hpp"

namespace parley::openai {

struct ChatRequest {
    std::string body;  // of POST /v1/messages
    bool include_usage = false;
    std::optional<double> temperature;  // 0…2
    double presence_penalty = 0;        // -2…2
    double frequency_penalty = 0;       // -2…2
    std::optional<uint64_t> seed;       // a negative one as its two's complement
    std::vector<std::string>
        blank_stops;  // stop strings of white space, which a Messages body cannot have
    std::optional<messages::ApiError> semantic;
};

// max_tokens of a request that gives none: more than any context.
inline constexpr uint64_t kNoLimit = uint64_t{1} << 31;

tl::expected<ChatRequest, messages::ApiError> read_chat(std::string_view json);

}  // namespace parley::openai
