// infer-worker run: the engine as a filter of JSON Lines.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <unordered_map>

#include "base/log.hpp"
#include "base/ulid.hpp"
#include "load.hpp"
#include "messages/events.hpp"

namespace parley::infer_worker {
namespace {

constexpr size_t kLineBytesMax = 80u << 20;
constexpr size_t kOutBytesMax = 64 * 1024;

// Lines of a descriptor, without ever waiting longer than asked for.
class LineReader {
  public:
    explicit LineReader(int fd) : fd_(fd) {}

    bool ended() const { return eof_ && buffer_.size() == at_; }
    // The next whole line; nullopt when there is none yet. Waits only if `wait`.
    std::optional<std::string> next(bool wait) {
        for (;;) {
            const size_t end = buffer_.find('\n', searched_);
            if (end != std::string::npos || (eof_ && at_ < buffer_.size())) {
                const size_t stop = end == std::string::npos ? buffer_.size() : end;
                std::string line = buffer_.substr(at_, stop - at_);
                at_ = end == std::string::npos ? stop : stop + 1;
                searched_ = at_;
                ++lines_;
                return line;
            }
            searched_ = buffer_.size();
            if (eof_ || buffer_.size() - at_ > kLineBytesMax) return std::nullopt;
            pollfd ready{fd_, POLLIN, 0};
            if (poll(&ready, 1, wait ? -1 : 0) <= 0) return std::nullopt;
            buffer_.erase(0, at_);
            searched_ -= at_;
            at_ = 0;
            const size_t old = buffer_.size();
            buffer_.resize(old + 64 * 1024);
            const ssize_t n = ::read(fd_, buffer_.data() + old, 64 * 1024);
            buffer_.resize(old + static_cast<size_t>(std::max<ssize_t>(n, 0)));
            if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) eof_ = true;
        }
    }
    bool too_long() const { return buffer_.size() - at_ > kLineBytesMax; }
    uint64_t lines() const { return lines_; }

  private:
    int fd_;
    std::string buffer_;
    size_t at_ = 0;
    size_t searched_ = 0;
    bool eof_ = false;
    uint64_t lines_ = 0;
};

class Writer final : public engine::Outlet {
  public:
    explicit Writer(bool text) : text_(text) {}

    bool event(const std::string& id, uint32_t attempt, const engine::OutEvent& event) override {
        if (text_) {
            const auto read = messages::parse_event(event.body);
            if (read && read->type == messages::EventType::content_block_delta) out_ += read->text;
            return true;
        }
        pipe::EventMeta meta;
        meta.attempt = attempt;
        meta.seq = next_seq_[id]++;
        meta.ids.assign(event.ids.begin(), event.ids.end());
        meta.stamp_ns = event.stamp_ns;
        line({pipe::Verb::event, id, pipe::to_meta(meta), event.body});
        return true;
    }
    void end(const std::string& id, pipe::EndMeta meta) override {
        if (meta.status == "invalid_request_error")
            bad_ = true;
        else if (!meta.ok())
            failed_ = true;
        if (text_) {
            if (meta.ok())
                out_ += '\n';
            else
                base::log(base::Level::error, "request.failed",
                          {{"id", id}, {"status", meta.status}, {"message", meta.message}});
            return;
        }
        const auto seq = next_seq_.find(id);
        if (seq != next_seq_.end()) {
            meta.seq = seq->second;
            next_seq_.erase(seq);
        }
        line({pipe::Verb::end, id, pipe::to_meta(meta), {}});
    }
    void line(const pipe::Message& message) {
        out_ += pipe::to_line(message);
        out_ += '\n';
    }
    void raw(const std::string& text) { (out_ += text) += '\n'; }
    bool quiet() const { return text_; }

    base::Result<void> flush() {
        for (size_t at = 0; at < out_.size();) {
            const ssize_t n = ::write(STDOUT_FILENO, out_.data() + at, out_.size() - at);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0)
                return base::fail(base::errno_error(errno, "cannot write to standard output"));
            at += static_cast<size_t>(n);
        }
        out_.clear();
        if (out_.capacity() > kOutBytesMax) out_.shrink_to_fit();
        return {};
    }
    bool bad() const { return bad_; }
    bool failed() const { return failed_; }

  private:
    bool text_;
    bool bad_ = false;
    bool failed_ = false;
    std::string out_;
    std::unordered_map<std::string, uint64_t> next_seq_;
};

void refuse(Writer& writer, const std::string& id, const std::string& what) {
    pipe::EndMeta meta;
    meta.status = "invalid_request_error";
    meta.message = what;
    writer.end(id, std::move(meta));
}

void take(engine::Service& service, Writer& writer, const Options& o, const std::string& line,
          uint64_t number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) return;
    auto message = pipe::from_line(line, base::random_id("req_"));
    if (!message)
        return refuse(writer, fmt::format("line-{}", number),
                      fmt::format("line {}: {}", number, message.error().what));
    if (message->verb != pipe::Verb::ask) {  // an answer already, or none of our business
        if (!writer.quiet()) writer.raw(line);
        return;
    }
    if (!writer.quiet()) writer.line(*message);
    auto envelope = pipe::parse_envelope(message->meta);
    if (!envelope) return refuse(writer, message->id, envelope.error().what);
    if (!envelope->seed && o.seed >= 0) envelope->seed = static_cast<uint64_t>(o.seed);
    envelope->credit = 1u << 30;  // a pipe has its own back-pressure
    service.ask(message->id, std::move(*envelope), std::move(message->body));
}

}  // namespace

int run(const Options& options) {
    Options o = options;
    o.nice = 0;
    int fd = STDIN_FILENO;
    if (o.input != "-") {
        fd = ::open(o.input.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return base::report("infer-worker",
                                base::errno_error(errno, "cannot open '" + o.input + "'"));
    }
    auto loaded = load(o);
    if (!loaded) return base::report("infer-worker", loaded.error());
    o.service.engine.queue_max = o.service.engine.slots_max;
    o.service.engine.prefill_target_ms = 0;      // nobody reads along: whole prompts at once
    o.service.read_aside_bytes = SIZE_MAX;       // nor is there a heartbeat to keep
    o.service.compile_aside = false;
    if (o.text) o.service.engine.slots_max = 1;  // one answer after the other
    Writer writer(o.text);
    engine::Service service(*loaded->forward, *loaded->artifact, o.service, writer);
    LineReader lines(fd);
    for (;;) {
        while (service.live() < o.service.engine.slots_max) {
            auto line = lines.next(service.empty());
            if (!line) break;
            take(service, writer, o, *line, lines.lines());
            if (auto written = writer.flush(); !written)
                return base::report("infer-worker", written.error());
        }
        if (lines.too_long())
            return base::report("infer-worker", {base::Errc::too_large,
                                                 fmt::format("line {}: longer than {} bytes",
                                                             lines.lines() + 1, kLineBytesMax)});
        if (service.empty() && lines.ended()) break;
        service.step();
        if (auto written = writer.flush(); !written)
            return base::report("infer-worker", written.error());
    }
    if (writer.bad()) return base::exit_status(base::Errc::invalid);
    return writer.failed() ? base::exit_status(base::Errc::internal) : 0;
}

}  // namespace parley::infer_worker
