// Context: the request that a conversation's send becomes: the system text and the way from the root to
// the new message, shortened from the oldest turn on where the model's window is too small.
//
// Left out   messages whose status is `blocked`, with the question or answer that belongs to them;
//            answers without text. Neither counts as truncated.
// Counting   with the model's artifact when it is known; without it the whole path is sent, and the
//            worker has the last word.
// Room       the answer keeps min(max_tokens, a quarter of the window).
// Errors     prompt_too_long when system and the new message alone do not fit.
// Threads    pure; any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "messages/request.hpp"
#include "model/artifact.hpp"
#include "store/rows.hpp"

namespace parley::chat {

struct ContextOptions {
    std::string model;          // as the body names it
    uint64_t max_tokens = 0;    // of the answer
    std::string system;         // raw JSON: string or blocks; "" or null: none
    std::string extra_members;  // raw JSON members of the body: "\"temperature\":0,…", may be empty
    bool stream = true;
};

struct Context {
    std::string body;  // the ASK's
    uint32_t truncated_messages = 0;
    uint64_t prompt_tokens = 0;  // 0: not counted
    uint64_t max_tokens = 0;     // clamped to the window
};

// `path` is root first; its last row is the new user message. `artifact` may be null.
tl::expected<Context, messages::ApiError> build_context(const std::vector<store::MessageRow>& path,
                                                        const ContextOptions& options,
                                                        const model::Artifact* artifact);

// Tokens of a checked request's prompt.
uint64_t count_prompt(const messages::Request& request, const model::Artifact& artifact);

}  // namespace parley::chat
