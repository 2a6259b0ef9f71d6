#include "messages/tools.hpp"

#include <algorithm>

#include "base/json.hpp"

namespace parley::messages {

bool tool_name(std::string_view name) {
    return !name.empty() && name.size() <= 128 &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-';
           });
}

std::string tool_line(std::string_view name, std::string_view description,
                      json::dom::element schema) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("name", name);
    if (!description.empty()) w.field("description", description);
    w.key("parameters").raw(simdjson::minify(schema)).end();
    return out + "\n";
}

std::string call_text(std::string_view name, json::dom::element input) {
    std::string out = "[Call ";
    return out.append(name).append(": ").append(simdjson::minify(input)).append("]\n");
}

std::string result_text(std::string_view text, bool is_error) {
    std::string out = is_error ? "[Error]\n" : "[Result]\n";
    out.append(text);
    return out.append(is_error ? "\n[End of error]\n" : "\n[End of result]\n");
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
