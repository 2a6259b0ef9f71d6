// tools: how tools, and calls of them in the history, stand in the turns. Internal to lib/messages.
//
// For models without a tool format of their own. All of it is text of the turns, so the filter
// judges, the front counts and the worker reads the same bytes.
//
// Tools    first in the system turn, before the `system` field, one line of JSON each:
//            # Tools\n{"name":…,"description":…,"parameters":SCHEMA}\n…     (Origin::system)
//          without one that has defer_loading:true. A turn with them may be all there is of it.
// Call     [Call NAME: INPUT]\n in the assistant's turn                       (Origin::assistant)
// Result   [Result]\nTEXT\n[End of result]\n, or [Error]… where is_error      (Origin::document)
//          in the user's turn. Which call it answers is told by the order, as ids are the client's.
// SCHEMA and INPUT are the client's JSON without white space between tokens: the prompt does not
// depend on how a client lays its JSON out.
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
