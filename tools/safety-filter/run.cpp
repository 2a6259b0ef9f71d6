// run: JSON Lines in, verdicts out; with --filter a stage of a pipe.
#include <fmt/format.h>
#include <simdjson.h>

#include <cstdio>
#include <map>

#include "base/clock.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "base/ulid.hpp"
#include "filter/answer.hpp"
#include "filter/stages.hpp"
#include "options.hpp"
#include "policy_source.hpp"
#include "safety/judge.hpp"

namespace parley::safety_filter {
namespace {

constexpr const char* kTool = "safety-filter";
constexpr size_t kLineBytesMax = 80u << 20;  // as a message on a socket
constexpr int kBlocked = 1;
constexpr int kBadInput = 65;

// Lines of a file, one at a time; a longer one than kLineBytesMax is an error.
class Lines {
  public:
    static base::Result<Lines> open(const std::string& path) {
        FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
        if (!file)
            return base::fail(base::errno_error(errno, fmt::format("cannot open '{}'", path)));
        return Lines(file);
    }
    // False at the end.
    base::Result<bool> next(std::string& line) {
        line.clear();
        int c = 0;
        while ((c = getc_unlocked(file_)) != EOF && c != '\n') {
            line += static_cast<char>(c);
            if (line.size() > kLineBytesMax)
                return base::fail(base::Errc::too_large,
                                  fmt::format("line {} is over 80 MiB", number_ + 1));
        }
        if (c == EOF && std::ferror(file_))
            return base::fail(base::Errc::io, "cannot read the input");
        if (c == EOF && line.empty()) return false;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        ++number_;
        return true;
    }
    uint64_t number() const { return number_; }

  private:
    explicit Lines(FILE* file) : file_(file) {}
    FILE* file_;
    uint64_t number_ = 0;
};

bool put_line(const std::string& line) {
    return std::fwrite(line.data(), 1, line.size(), stdout) == line.size() &&
           std::putc('\n', stdout) != EOF && std::fflush(stdout) == 0;
}

struct Counts {
    bool blocked = false, bad = false, broken_pipe = false;
    int status() const { return bad ? kBadInput : blocked ? kBlocked : 0; }
};

// ---- plain run: one verdict a line ------------------------------------------------------------

class Verdicts {
  public:
    Verdicts(const Options& options, std::shared_ptr<const safety::Policy> policy)
        : options_(options), judge_(std::move(policy)) {}

    void line(const std::string& line, uint64_t number) {
        simdjson::dom::element root;
        simdjson::dom::object object;
        if (!base::utf8_valid(line) || parser_.parse(line).get(root) != simdjson::SUCCESS ||
            root.get(object) != simdjson::SUCCESS)
            return bad("null", number, "not a JSON object");
        if (root["parley"].error() == simdjson::SUCCESS) return protocol_line(line, number);
        std::string_view text, type;
        const bool has_text = root["text"].get(text) == simdjson::SUCCESS;
        if (has_text) return plain_text(root, text, number);
        if (options_.output && root["type"].get(type) == simdjson::SUCCESS)
            return stream_event(std::string(), {}, line, number);
        request(id_of(root), line, number);
    }

    // Answers that were cut: judged as far as they go.
    void finish() {
        while (!streams_.empty()) end_stream(streams_.begin()->first);
    }
    Counts counts;

  private:
    static std::string id_of(simdjson::dom::element root) {
        const auto id = root["id"];
        return id.error() == simdjson::SUCCESS ? simdjson::minify(id.value_unsafe()) : "null";
    }

    void bad(const std::string& id, uint64_t number, std::string_view why) {
        counts.bad = true;
        std::string out;
        base::JsonWriter(out)
            .object()
            .key("id")
            .raw(id)
            .field("line", number)
            .field("error", why)
            .end();
        counts.broken_pipe |= !put_line(out);
    }

    void verdict(const std::string& id, const safety::Verdict& v, safety::Voice voice,
                 int64_t start_ns) {
        counts.blocked |= v.action == safety::Action::block;
        std::string out;
        base::JsonWriter w(out);
        w.object()
            .key("id")
            .raw(id)
            .field("verdict", safety::name(v.action))
            .field("score", v.score);
        w.key("heads").object();
        for (size_t h = 0; h < safety::kHeads; ++h) {
            const auto head = static_cast<safety::Head>(h);
            if (judge_.policy().uses(voice, head)) w.field(safety::name(head), v.heads[h]);
        }
        w.end().key("rules").array();
        for (const std::string& rule : v.rules) w.string(rule);
        w.end().field("policy", judge_.policy().name());
        if (!v.hazard.empty()) w.field("hazard", v.hazard);
        const auto ms = static_cast<double>(base::system_clock().mono_ns() - start_ns) / 1e6;
        w.field("ms", ms).end();
        counts.broken_pipe |= !put_line(out);
    }

    void plain_text(simdjson::dom::element root, std::string_view text, uint64_t number) {
        const int64_t start = base::system_clock().mono_ns();
        std::string_view side = options_.output ? "output" : "input";
        const auto given = root["side"];
        if (given.error() == simdjson::SUCCESS && given.get(side) != simdjson::SUCCESS)
            return bad(id_of(root), number, "'side' is not a string");
        if (side != "input" && side != "output")
            return bad(id_of(root), number, "'side' is neither input nor output");
        const auto voice = side == "output" ? safety::Voice::output : safety::Voice::user;
        auto meter = safety::Meter::unlimited();
        auto v = judge_.judge(voice, text, meter);
        if (!v) return bad(id_of(root), number, v.error().what);
        verdict(id_of(root), *v, voice, start);
    }

    void request(const std::string& id, std::string_view body, uint64_t number) {
        const int64_t start = base::system_clock().mono_ns();
        messages::ParseOptions lenient;
        lenient.count_tokens = true;
        auto parsed = messages::parse_request(body, lenient);
        if (!parsed) return bad(id, number, parsed.error().message);
        auto meter = safety::Meter::unlimited();
        auto v = judge_.judge(*parsed, meter);
        if (!v) return bad(id, number, v.error().what);
        verdict(id, *v, safety::Voice::user, start);
        questions_[id] = filter::question_of(*parsed);
    }

    void protocol_line(const std::string& line, uint64_t number) {
        auto message = pipe::from_line(line, "");
        if (!message) return bad("null", number, message.error().what);
        const std::string id = base::json_string(message->id);
        if (message->verb == pipe::Verb::ask) {
            if (!options_.output) return request(id, message->body, number);
            auto parsed = messages::parse_request(message->body);
            if (!parsed) return bad(id, number, parsed.error().message);
            questions_[id] = filter::question_of(*parsed);
        } else if (message->verb == pipe::Verb::event && options_.output) {
            auto meta = pipe::parse_event_meta(message->meta);
            if (!meta) return bad(id, number, meta.error().what);
            stream_event(id, std::move(*meta), message->body, number);
        } else if (message->verb == pipe::Verb::end && options_.output && streams_.count(id) != 0) {
            end_stream(id);
        }
    }

    struct Stream {
        safety::OutputJudge judge;
        std::string message_id;
        int64_t start_ns;
        filter::JsonWords words;  // of the input of a call
    };

    void stream_event(std::string id, pipe::EventMeta meta, const std::string& body,
                      uint64_t number) {
        auto event = messages::parse_event(body);
        if (!event) return bad(id.empty() ? "null" : id, number, event.error().what);
        auto found = streams_.find(id);
        if (found == streams_.end()) {
            found =
                streams_
                    .emplace(id, Stream{safety::OutputJudge(judge_.policy_ptr(), questions_[id]),
                                        "", base::system_clock().mono_ns(), {}})
                    .first;
            questions_.erase(id);
        }
        Stream& stream = found->second;
        if (event->type == messages::EventType::message_start)
            stream.message_id = event->message_id;
        const bool text =
            event->type == messages::EventType::content_block_delta && !event->signature;
        if (event->type == messages::EventType::content_block_start) stream.words = {};
        if (text && event->block == messages::BlockType::tool_use)
            event->text = stream.words.feed(event->text);
        auto step =
            stream.judge.push(text ? event->text : "",
                              meta.ids.empty() ? text : static_cast<uint32_t>(meta.ids.size()));
        if (!step) {
            streams_.erase(found);
            return bad(id.empty() ? "null" : id, number, step.error().what);
        }
        if (event->type == messages::EventType::message_stop) end_stream(id);
    }

    void end_stream(const std::string& id) {
        auto found = streams_.find(id);
        Stream stream = std::move(found->second);
        streams_.erase(found);
        const std::string shown = !id.empty() ? id
                                  : stream.message_id.empty()
                                      ? "null"
                                      : base::json_string(stream.message_id);
        auto step = stream.judge.finish();
        if (!step) return bad(shown, 0, step.error().what);
        verdict(shown, stream.judge.verdict(), safety::Voice::output, stream.start_ns);
    }

    const Options& options_;
    safety::Judge judge_;
    simdjson::dom::parser parser_;
    std::map<std::string, Stream> streams_;  // by id as JSON; "" for bare events
    std::map<std::string, std::string> questions_;
};

}  // namespace

int run(const Options& options) {
    auto policy = load_policy(options.policy);
    if (!policy) return base::report(kTool, policy.error());
    auto lines = Lines::open(options.file);
    if (!lines) return base::report(kTool, lines.error());
    std::string line;
    auto each = [&](auto&& take) -> base::Result<void> {
        while (true) {
            auto more = lines->next(line);
            if (!more) return base::fail(more.error());
            if (!*more) return {};
            if (line.find_first_not_of(" \t") == std::string::npos) continue;
            if (!take()) return {};
        }
    };
    if (!options.filter) {
        Verdicts verdicts(options, std::move(*policy));
        auto read = each([&] {
            verdicts.line(line, lines->number());
            return !verdicts.counts.broken_pipe;
        });
        if (!read) return base::report(kTool, read.error());
        verdicts.finish();
        return verdicts.counts.status();
    }
    bool pipe_broken = false;
    auto put = [&](const std::string& text) {
        if (!put_line(text)) pipe_broken = true;
    };
    if (options.output) {
        filter::OutputStage stage(std::move(*policy), put);
        auto read = each([&] {
            stage.line(line, lines->number());
            return !pipe_broken;
        });
        stage.finish();
        if (!read) return base::report(kTool, read.error());
        return stage.bad() ? kBadInput : stage.blocked() ? kBlocked : 0;
    }
    filter::InputStage stage(std::move(*policy), put);
    auto read = each([&] {
        stage.line(line, lines->number());
        return !pipe_broken;
    });
    if (!read) return base::report(kTool, read.error());
    return stage.bad() ? kBadInput : stage.blocked() ? kBlocked : 0;
}

}  // namespace parley::safety_filter
