// router rollout: an operator's commands to the running router, and what it shows of rollouts.
#include <fmt/format.h>
#include <simdjson.h>

#include <cstdio>

#include "admin.hpp"
#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace parley::router {
namespace {

constexpr int64_t kStatusMs = 3000, kStartMs = 120'000;  // golden prompts take their time
constexpr uint64_t kGoldenBytesMax = 4u << 20;

base::Result<std::string> golden(const std::string& path) {
    auto lines = base::read_file(path, kGoldenBytesMax);
    if (!lines) return base::fail(lines.error());
    std::string out = "[";
    size_t number = 0;
    for (size_t from = 0; from < lines->size(); ++number) {
        const size_t end = std::min(lines->find('\n', from), lines->size());
        const std::string line = lines->substr(from, end - from);
        from = end + 1;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        simdjson::dom::parser parser;
        simdjson::dom::element each;
        std::string_view member;
        if (parser.parse(simdjson::padded_string(line)).get(each) != simdjson::SUCCESS ||
            each["prompt"].get(member) != simdjson::SUCCESS ||
            each["expect"].get(member) != simdjson::SUCCESS)
            return base::fail(base::Errc::invalid,
                              fmt::format("'{}' line {}: an object with prompt and expect is "
                                          "wanted",
                                          path, number + 1));
        if (out.size() > 1) out += ",";
        out += simdjson::minify(each);
    }
    if (out.size() == 1)
        return base::fail(base::Errc::invalid, fmt::format("'{}' holds no golden prompt", path));
    return out + "]";
}

}  // namespace

int rollout_command(const Options& o, const std::string& verb) {
    std::string command;
    base::JsonWriter w(command);
    w.object().field("command", "rollout_" + verb).field("alias", o.name);
    w.field("who", operator_name()).field("why", o.why);
    if (verb == "start") {
        w.field("canary", o.target).field("stages", o.stages);
        if (!o.golden.empty()) {
            auto prompts = golden(o.golden);
            if (!prompts) return base::report("router", prompts.error());
            w.key("golden").raw(*prompts);
        }
    }
    w.end();
    auto done = ask_router(o, command, verb == "start" ? kStartMs : kStatusMs);
    return done ? 0 : base::report("router", done.error());
}

std::string rollout_table(simdjson::dom::element status, bool history, const std::string& alias) {
    simdjson::dom::array rollouts;
    if (status["rollouts"].get(rollouts) != simdjson::SUCCESS) return {};
    std::string out;
    for (const auto rollout : rollouts) {
        if (!alias.empty() && text(rollout, "alias") != alias) continue;
        simdjson::dom::array steps;
        std::string last, all;
        if (rollout["steps"].get(steps) == simdjson::SUCCESS)
            for (const auto step : steps) {
                last = text(step, "why");
                all += fmt::format("{}  {:<12} {:<11} {:>5.4g} %  {:<12} {}\n",
                                   base::rfc3339(static_cast<int64_t>(number(step, "at_ms"))),
                                   text(rollout, "alias"), text(step, "what"),
                                   100 * number(step, "share"), text(step, "who"), last);
            }
        if (history) {
            out += all;
            continue;
        }
        if (out.empty())
            out = fmt::format("{:<20} {:<13} {:<13} {:<11} {:>6} {:>9} {:>9}  {}\n", "ROLLOUT",
                              "STABLE", "NEW", "STATE", "SHARE", "REQUESTS", "OF NEW", "WHY");
        simdjson::dom::element canary, stable;
        const bool both = rollout["of_canary"].get(canary) == simdjson::SUCCESS &&
                          rollout["of_stable"].get(stable) == simdjson::SUCCESS;
        const std::string holds = text(rollout, "holds");
        out += fmt::format("{:<20} {:<13} {:<13} {:<11} {:>4.4g} % {:>9.0f} {:>9.0f}  {}\n",
                           text(rollout, "alias"), text(rollout, "stable").substr(0, 12),
                           text(rollout, "canary").substr(0, 12), text(rollout, "state"),
                           100 * number(rollout, "share"),
                           both ? number(canary, "requests") + number(stable, "requests") : 0,
                           both ? number(canary, "requests") : 0, holds.empty() ? last : holds);
    }
    return out;
}

int show_rollouts(const Options& o, bool history) {
    auto json = ask_router(o, R"({"command":"status"})", kStatusMs);
    if (!json) return base::report("router", json.error());
    simdjson::dom::parser parser;
    simdjson::dom::element status;
    if (parser.parse(simdjson::padded_string(*json)).get(status) != simdjson::SUCCESS)
        return base::report("router", {base::Errc::corrupt, "the router's answer is not JSON"});
    std::string out;
    simdjson::dom::array rollouts;
    if (!o.json) {
        out = rollout_table(status, history, o.name);
    } else if (status["rollouts"].get(rollouts) == simdjson::SUCCESS) {
        for (const auto rollout : rollouts)
            if (o.name.empty() || text(rollout, "alias") == o.name)
                out += simdjson::minify(rollout) + "\n";
    }
    std::fwrite(out.data(), 1, out.size(), stdout);
    return 0;
}

}  // namespace parley::router
