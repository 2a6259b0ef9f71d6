#include "grammar/answer.hpp"

#include <algorithm>
#include <vector>

#include "messages/calls.hpp"

namespace parley::grammar {
namespace {

using messages::Request;
using messages::Tool;
using messages::ToolChoice;

constexpr std::string_view kSomeObject = R"({"type":"object"})";

bool strict_calls(const Request& request) {
    return request.tool_choice == ToolChoice::free && !request.schema_json &&
           std::any_of(request.tools.begin(), request.tools.end(),
                       [](const Tool& tool) { return !tool.schema_json.empty(); });
}

}  // namespace

// A schema's own text begins with '{'.
std::string answer_key(const Request& request) {
    const bool forced = request.tool_choice == ToolChoice::forced;
    if (!forced && !strict_calls(request)) return request.schema_json.value_or("");
    std::string key = forced ? "forced" : "strict";
    for (const Tool& tool : request.tools)
        key.append("\n").append(tool.name).append(" ").append(tool.schema_json);
    return key;
}

base::Result<Automaton> compile_answer(const Request& request, const Limits& limits) {
    const bool forced = request.tool_choice == ToolChoice::forced;
    if (!forced && !strict_calls(request)) {
        auto made = compile_schema(*request.schema_json, {.limits = limits, .spaces = false});
        if (!made) return base::fail(request.schema_path, made.error());
        return made;
    }
    std::vector<Framed> calls;
    for (const Tool& tool : request.tools) {
        Framed& call = calls.emplace_back();
        call.before = messages::forced_call_open(tool.name);
        if (!forced) call.before.erase(0, messages::kCallOpen.size());
        call.schema = tool.schema_json.empty() ? kSomeObject : std::string_view(tool.schema_json);
        call.after = messages::kForcedCallClose;
        if (!forced) call.after.append("\n").append(messages::kCallClose);
        call.path = tool.path;
    }
    const SchemaOptions options{.limits = limits, .spaces = true};
    return forced ? compile_framed(calls, options)
                  : compile_marked(messages::kCallOpen, calls, options);
}

}  // namespace parley::grammar
