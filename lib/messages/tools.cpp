#include "messages/tools.hpp"

#include <algorithm>

#include "base/json.hpp"
#include "messages/calls.hpp"

namespace parley::messages {

bool tool_name(std::string_view name) {
    return !name.empty() && name.size() <= 128 &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-';
           });
}

const std::string_view kToolsBefore =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
const std::string_view kToolsAfter =
    "</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

namespace {

std::string spaced(json::dom::element value) {
    const std::string compact = simdjson::minify(value);
    std::string out;
    out.reserve(compact.size() + compact.size() / 8);
    bool string = false;
    for (size_t i = 0; i < compact.size(); ++i) {
        const char c = compact[i];
        out += c;
        if (string && c == '\\')
            out += compact[++i];
        else if (c == '"')
            string = !string;
        else if (!string && (c == ':' || c == ','))
            out += ' ';
    }
    return out;
}

}  // namespace

std::string tool_line(std::string_view name, std::string_view description,
                      json::dom::element schema) {
    std::string out = "{\"type\": \"function\", \"function\": {\"name\": ";
    base::append_json_string(out, name);
    if (!description.empty()) {
        out += ", \"description\": ";
        base::append_json_string(out, description);
    }
    return out.append(", \"parameters\": ").append(spaced(schema)).append("}}\n");
}

std::string call_text(std::string_view name, json::dom::element input) {
    std::string out(kCallOpen);
    out += "\n{\"name\": ";
    base::append_json_string(out, name);
    out.append(", \"arguments\": ").append(spaced(input));
    return out.append("}\n").append(kCallClose);
}

std::string result_text(std::string_view text, bool is_error) {
    std::string out = "<tool_response>\n";
    if (is_error) out += "Error: ";
    return out.append(text).append("\n</tool_response>");
}

std::optional<CallPairs::Offence> CallPairs::message(Role role) {
    if (role == Role::system || role == role_) return std::nullopt;
    std::optional<Offence> wrong;
    if (role == Role::assistant) {
        wrong = unanswered();
        calls_.clear();
    }
    role_ = role;
    results_over_ = false;
    return wrong;
}

std::optional<CallPairs::Offence> CallPairs::call(std::string_view id, const std::string& path) {
    if (!ids_.emplace(id).second) return Offence{path, "`tool_use` ids must be unique"};
    // "messages.N.content.M": the offence is the message's.
    const size_t from = path.find('.') + 1;
    calls_.push_back({std::string(id), std::stoll(path.substr(from)), false});
    return std::nullopt;
}

std::optional<CallPairs::Offence> CallPairs::result(std::string_view id, const std::string& path) {
    const auto call = std::find_if(calls_.begin(), calls_.end(),
                                   [&](const Call& each) { return each.id == id; });
    if (call == calls_.end() || call->answered)
        return Offence{path, "unexpected `tool_use_id` found in `tool_result` blocks: " +
                                 std::string(id) +
                                 ". Each `tool_result` block must have a corresponding `tool_use` "
                                 "block in the previous message."};
    if (results_over_) return unanswered();
    call->answered = true;
    return std::nullopt;
}

std::optional<CallPairs::Offence> CallPairs::end() { return unanswered(); }

std::optional<CallPairs::Offence> CallPairs::unanswered() {
    std::string ids;
    int64_t message = -1;
    for (const Call& call : calls_) {
        if (call.answered || (message >= 0 && call.message != message)) continue;
        message = call.message;
        ids += (ids.empty() ? "" : ", ") + call.id;
    }
    if (message < 0) return std::nullopt;
    return Offence{"messages." + std::to_string(message),
                   "`tool_use` ids were found without `tool_result` blocks immediately after: " +
                       ids +
                       ". Each `tool_use` block must have a corresponding `tool_result` block in "
                       "the next message."};
}

}  // namespace parley::messages
