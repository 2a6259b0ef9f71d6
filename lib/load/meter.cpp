#include "load/meter.hpp"

#include <simdjson.h>

#include <algorithm>

#include "base/text.hpp"

namespace parley::load {

struct EventReader::Impl {
    simdjson::dom::parser parser;
};

EventReader::EventReader() : impl_(std::make_unique<Impl>()) {}
EventReader::~EventReader() = default;

EventReader::Event EventReader::read(std::string_view json) {
    using simdjson::dom::element;
    Event out;
    element root;
    if (impl_->parser.parse(json.data(), json.size()).get(root)) return out;
    std::string_view type;
    if (root["type"].get(type)) return out;
    const auto usage = [&out](simdjson::simdjson_result<element> of) {
        element found;
        if (of.get(found)) return;
        int64_t n = 0;
        if (!found["input_tokens"].get(n)) {
            out.input_tokens = n;
            for (const char* cached : {"cache_creation_input_tokens", "cache_read_input_tokens"})
                if (!found[cached].get(n)) out.input_tokens += n;
        }
        if (!found["output_tokens"].get(n)) out.output_tokens = n;
    };
    if (type == "content_block_delta") {
        out.kind = Kind::delta;
        const auto delta = root["delta"];
        for (const char* field : {"text", "partial_json", "thinking"})
            if (!delta[field].get(out.text)) {
                out.has_text = !out.text.empty();
                break;
            }
    } else if (type == "message_start") {
        out.kind = Kind::start;
        usage(root["message"]["usage"]);
    } else if (type == "message_delta") {
        out.kind = Kind::stop_delta;
        [[maybe_unused]] const auto absent = root["delta"]["stop_reason"].get(out.text);
        usage(root["usage"]);
    } else if (type == "message_stop") {
        out.kind = Kind::stop;
    } else if (type == "error") {
        out.kind = Kind::error;
        if (root["error"]["type"].get(out.text)) out.text = "api_error";
        [[maybe_unused]] const auto absent = root["error"]["message"].get(out.detail);
    } else {
        out.kind = Kind::other;  // ping, block start and stop, what a later version adds
    }
    return out;
}

void Meter::begin(int64_t intended_ns) {
    *this = Meter();
    intended_ns_ = intended_ns;
}

MeterStep Meter::broken(const char* what) {
    error_type_ = "bad_stream";
    error_detail_ = what;
    return {.verdict = Verdict::failed};
}

MeterStep Meter::event(EventReader& reader, std::string_view json, int64_t stamp_ns,
                       int64_t now_ns) {
    const auto seen = reader.read(json);
    using Kind = EventReader::Kind;
    if (seen.kind == Kind::bad) return broken("an event that is not a JSON object with a type");
    if (seen.kind == Kind::error) {
        error_type_ = safe_name(seen.text);
        error_detail_ = safe_detail(seen.detail);
        return {.verdict = Verdict::failed};
    }
    if (seen.kind == Kind::other) return {};
    if (!started_ && seen.kind != Kind::start) return broken("an event before message_start");
    if (started_ && seen.kind == Kind::start) return broken("a second message_start");
    started_ = true;
    if (seen.input_tokens >= 0) input_tokens_ = static_cast<uint64_t>(seen.input_tokens);
    if (seen.output_tokens >= 0) output_tokens_ = static_cast<uint64_t>(seen.output_tokens);
    MeterStep step;
    if (seen.kind == Kind::delta && seen.has_text) {
        if (first_ns_ < 0) {
            first_ns_ = now_ns;
            if (stamp_ns >= 0) step.chain_overhead_ns = now_ns - stamp_ns;
        } else {
            step.itl_ns = now_ns - last_ns_;
            itl_max_ns_ = std::max(itl_max_ns_, step.itl_ns);
        }
        last_ns_ = now_ns;
    } else if (seen.kind == Kind::stop_delta) {
        has_usage_ = seen.output_tokens >= 0;
        stop_reason_ = safe_name(seen.text);
    } else if (seen.kind == Kind::stop) {
        if (!has_usage_ || stop_reason_.empty())
            return broken("message_stop without usage and stop_reason before it");
        end_ns_ = now_ns;
        step.verdict = Verdict::complete;
    }
    return step;
}

double Meter::tpot_ns() const {
    if (end_ns_ < 0 || first_ns_ < 0 || output_tokens_ < 2) return -1;
    return static_cast<double>(end_ns_ - first_ns_) / static_cast<double>(output_tokens_ - 1);
}

std::string safe_name(std::string_view name) {
    if (name.empty() || name.size() > 48) return "other";
    for (const char c : name)
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '.' || c == '-'))
            return "other";
    return std::string(name);
}

std::string safe_detail(std::string_view text) {
    std::string_view cut = text.substr(0, 200);
    cut = cut.substr(0, base::utf8_complete_prefix(cut));
    if (!base::utf8_valid(cut)) return "(not UTF-8)";
    std::string out(cut);
    for (char& c : out)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    return out;
}

}  // namespace parley::load
