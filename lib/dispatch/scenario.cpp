// The scenario file: JSON Lines.
#include <fmt/format.h>
#include <simdjson.h>

#include <set>

#include "dispatch/simulation.hpp"

namespace parley::dispatch {

using base::Errc;
using base::fail;
using base::Result;
namespace dom = simdjson::dom;

namespace {

constexpr double kSecondsMax = 86'400, kCountMax = 100'000;
constexpr size_t kTraceMax = 10'000'000;

// The members of one line, each known and of the right type, or the reason why not.
class Line {
  public:
    explicit Line(dom::object object) : object_(object) {}
    bool has(const char* key) const { return object_.at_key(key).error() == simdjson::SUCCESS; }
    template <class T>
    void number(const char* key, T& value, double least, double most) {
        known_.insert(key);
        dom::element element;
        if (object_.at_key(key).get(element) != simdjson::SUCCESS) return;
        double read = 0;
        if (element.get(read) != simdjson::SUCCESS || !(read >= least && read <= most))
            return wrong(fmt::format("'{}' is a number from {:g} to {:g}", key, least, most));
        value = static_cast<T>(read);
    }
    void text(const char* key, std::string& value) {
        known_.insert(key);
        dom::element element;
        if (object_.at_key(key).get(element) != simdjson::SUCCESS) return;
        std::string_view read;
        if (element.get(read) != simdjson::SUCCESS || read.empty() || read.size() > 128)
            return wrong(fmt::format("'{}' is a string of 1 to 128 bytes", key));
        value = read;
    }
    void texts(const char* key, std::vector<std::string>& values) {
        known_.insert(key);
        dom::element element;
        if (object_.at_key(key).get(element) != simdjson::SUCCESS) return;
        dom::array list;
        values.clear();
        if (element.get(list) == simdjson::SUCCESS)
            for (const auto item : list) {
                std::string_view read;
                if (item.get(read) == simdjson::SUCCESS) values.emplace_back(read);
            }
        if (values.empty()) wrong(fmt::format("'{}' is an array of strings", key));
    }
    void cls(pipe::Class& value) {
        std::string name;
        text("class", name);
        if (name == "interactive")
            value = pipe::Class::interactive;
        else if (name == "streaming")
            value = pipe::Class::streaming;
        else if (name == "batch")
            value = pipe::Class::batch;
        else if (!name.empty())
            wrong("'class' is interactive, streaming or batch");
    }
    std::string done() {
        for (const auto field : object_)
            if (known_.count(std::string(field.key)) == 0)
                wrong(fmt::format("'{}' is not known here", field.key));
        return error_;
    }

  private:
    void wrong(std::string what) {
        if (error_.empty()) error_ = std::move(what);
    }
    dom::object object_;
    std::set<std::string> known_;
    std::string error_;
};

std::string read_line(dom::object object, Scenario& out) {
    Line line(object);
    if (line.has("workers")) {
        WorkerKind kind;
        line.number("workers", kind.count, 1, kCountMax);
        line.text("zone", kind.zone);
        line.number("slots", kind.slots, 1, 8192);
        line.number("queue", kind.queue, 0, 8192);
        line.texts("models", kind.models);
        line.number("step_us", kind.step_us, 1, 1e8);
        line.number("row_us", kind.row_us, 0, 1e8);
        line.number("prefill_us", kind.prefill_us, 0, 1e8);
        line.number("speed", kind.speed, 1e-3, 1e6);
        out.workers.push_back(std::move(kind));
    } else if (line.has("orgs")) {
        OrgKind kind;
        line.number("orgs", kind.count, 1, kCountMax);
        line.text("name", kind.name);
        line.number("weight", kind.weight, 1e-3, 1e6);
        line.cls(kind.cls);
        line.text("model", kind.model);
        line.number("rate", kind.rate, 0, 1e6);
        line.number("streams", kind.streams, 0, 1e5);
        line.number("think_s", kind.think_s, 0, kSecondsMax);
        line.number("prompt_tokens", kind.prompt_tokens, 1, 1e7);
        line.number("output_tokens", kind.output_tokens, 1, 1e7);
        line.number("max_tokens", kind.max_tokens, 0, 1e8);
        line.number("ttft_ms", kind.ttft_ms, 0, 1e9);
        line.number("from_s", kind.from_s, 0, kSecondsMax);
        line.number("to_s", kind.to_s, 0, kSecondsMax);
        if (auto wrong = line.done(); !wrong.empty()) return wrong;
        if ((kind.rate > 0) == (kind.streams > 0)) return "give 'rate' or 'streams', one of them";
        out.orgs.push_back(std::move(kind));
    } else if (line.has("at")) {
        Happening happening;
        line.number("at", happening.at_s, 0, kSecondsMax);
        line.text("lose_zone", happening.lose_zone);
        line.text("restore_zone", happening.restore_zone);
        line.number("kill", happening.kill, 0, kCountMax);
        line.number("load", happening.load, 0, 1e4);
        out.happenings.push_back(std::move(happening));
    } else if (line.has("t")) {
        TraceRequest request;
        line.number("t", request.at_s, 0, kSecondsMax);
        line.text("org", request.org);
        line.cls(request.cls);
        line.text("model", request.model);
        line.number("prompt_tokens", request.prompt_tokens, 1, 1e7);
        line.number("output_tokens", request.output_tokens, 1, 1e7);
        line.number("ttft_ms", request.ttft_ms, 0, 1e9);
        if (out.trace.size() >= kTraceMax) return "a trace has at most 10,000,000 requests";
        out.trace.push_back(std::move(request));
    } else if (line.has("scenario")) {
        line.text("scenario", out.name);
        line.number("seconds", out.seconds, 0.1, kSecondsMax);
        line.number("warmup_s", out.warmup_s, 0, kSecondsMax);
        line.number("seed", out.seed, 0, 1e15);
    } else {
        return "it begins none of: scenario, workers, orgs, at, t";
    }
    return line.done();
}

}  // namespace

Result<Scenario> parse_scenario(std::string_view text) {
    Scenario out;
    dom::parser parser;
    size_t number = 0;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        ++number;
        const size_t first = line.find_first_not_of(" \t\r");
        if (first == std::string_view::npos || line[first] == '#') continue;
        dom::object object;
        std::string wrong = "it is no JSON object";
        if (parser.parse(simdjson::padded_string(line)).get(object) == simdjson::SUCCESS)
            wrong = read_line(object, out);
        if (!wrong.empty()) return fail(Errc::invalid, fmt::format("line {}: {}", number, wrong));
    }
    if (out.workers.empty()) return fail(Errc::invalid, "it has no line of workers");
    if (out.orgs.empty() && out.trace.empty())
        return fail(Errc::invalid, "it has no line of orgs and no trace");
    if (out.warmup_s >= out.seconds)
        return fail(Errc::invalid, "'warmup_s' is not below 'seconds'");
    return out;
}

}  // namespace parley::dispatch
