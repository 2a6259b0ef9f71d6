// chat_answer: an answer in the words of POST /v1/chat/completions, from the Messages API's events.
//
// Threads  values and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.hpp"
#include "messages/error.hpp"
#include "messages/events.hpp"

namespace parley::openai {

std::string chat_id(std::string_view message_id);  // "msg_X" → "chatcmpl-X"
std::string call_id(std::string_view tool_id);     // "toolu_X" → "call_X"
// null for a stop that has no word there.
std::string_view finish_reason(messages::StopReason reason);

// Dresses the events of one stream, from its first, as data lines.
class Chunks {
  public:
    Chunks(bool include_usage, int64_t created_s)
        : include_usage_(include_usage), created_s_(created_s) {}

    // Appends the lines that this event becomes: none, one, or at message_stop the usage and [DONE].
    // An `error` event becomes the error's line; nothing may follow it.
    void add(const messages::Event& event, std::string& out);
    // The accounts' numbers, where they say more than message_delta did (reuse that nobody marked).
    void set_usage(const messages::Usage& usage) { usage_ = usage; }
    bool include_usage() const { return include_usage_; }

  private:
    void open(std::string& out, base::JsonWriter& w) const;
    void arguments(std::string& out, std::string_view piece);
    void chunk(std::string& out, std::string_view delta_json, std::string_view finish) const;

    bool include_usage_;
    int64_t created_s_;
    std::string id_, model_;
    uint32_t calls_ = 0;       // begun
    bool call_empty_ = false;  // a call is open of which no input came yet
    messages::Usage usage_;
};

// The object of a non-streaming answer; `usage` as accounted.
std::string completion_json(const messages::Folder& answer, const messages::Usage& usage,
                            int64_t created_s);

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_body(const messages::ApiError& error);
// The Messages API's body with error.param and error.code beside: both SDKs read it.
std::string error_body_for_both(const messages::ApiError& error, std::string_view request_id);
// As on this route: 529 is 503.
int http_status(const messages::ApiError& error);

}  // namespace parley::openai
