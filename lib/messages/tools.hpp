// tools: how tools, and calls of them in the history, stand in the turns. Internal to lib/messages.
//
// All of it is text of the turns, in the format of Hermes 2 Pro (messages/calls.hpp), so the filter judges,
// the front counts and the worker reads the same bytes. Markers are spelled as text, whatever the model's
// vocabulary has.
//
// Tools    first in the system turn, before the `system` field: kToolsBefore, one line of JSON each, kToolsAfter
//          (Origin::system); without a tool that has defer_loading:true. Two of them may be all of a turn.
// Call     <tool_call>\n{"name": NAME, "arguments": INPUT}\n</tool_call> in the assistant's turn
//          (Origin::assistant)
// Result   <tool_response>\nTEXT\n</tool_response> in the user's turn, "Error: " before TEXT where is_error
//          (Origin::document). Which call it answers is told by the order, as ids are the client's.
//          Calls and results stand on lines of their own.
// JSON     the client's values with one space after each ':' and ',' and none elsewhere, as such models read
//          them: the prompt does not depend on how a client lays its JSON out.
//
// CallPairs is the rule that each call has its result in the next message, results first. Messages
// of one role in a row are one, as they are one turn; system messages in between do not count.
// Bounds   by the body. Threads  values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "messages/json_read.hpp"
#include "messages/request.hpp"

namespace parley::messages {

bool tool_name(std::string_view name);  // ^[a-zA-Z0-9_-]{1,128}$

extern const std::string_view kToolsBefore, kToolsAfter;
std::string tool_line(std::string_view name, std::string_view description,
                      json::dom::element schema);
std::string call_text(std::string_view name, json::dom::element input);
std::string result_text(std::string_view text, bool is_error);

class CallPairs {
  public:
    struct Offence {
        std::string path;
        std::string why;
    };
    // In the order of the body; a value is what is wrong with what came before, or with this.
    std::optional<Offence> message(Role role);
    std::optional<Offence> call(std::string_view id, const std::string& path);
    std::optional<Offence> result(std::string_view id, const std::string& path);
    void other_block() { results_over_ = role_ == Role::user; }
    std::optional<Offence> end();

  private:
    struct Call {
        std::string id;
        int64_t message = 0;
        bool answered = false;
    };
    std::optional<Offence> unanswered();

    Role role_ = Role::system;
    std::vector<Call> calls_;  // of the assistant's last turn
    std::unordered_set<std::string> ids_;
    bool results_over_ = false;
};

}  // namespace parley::messages
