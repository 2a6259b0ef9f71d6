#include "store/server.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <thread>
#include <zmq.hpp>

#include "pipe/answerer.hpp"

namespace parley::store {
namespace {

// The Messages API's name for a refusal, and whether the same command may succeed later.
std::pair<const char*, bool> status_of(Errc code) {
    switch (code) {
        case Errc::not_found:
            return {"not_found_error", false};
        case Errc::conflict:
            return {"conflict_error", false};
        case Errc::too_large:
            return {"request_too_large", false};
        case Errc::denied:
            return {"permission_error", false};
        case Errc::again:
        case Errc::unavailable:
            return {"overloaded_error", true};
        case Errc::invalid:
        case Errc::unsupported:
            return {"invalid_request_error", false};
        default:
            return {"api_error", false};
    }
}

struct Waiting {
    std::string id;
    std::string body;
    std::string boot;
    uint64_t seq = 0;
};

// BOOT-SEQ; anything else has no boot.
void split_id(Waiting& one) {
    const size_t dash = one.id.rfind('-');
    if (dash == std::string::npos || dash == 0 || dash > 64) return;
    uint64_t seq = 0;
    const char* end = one.id.data() + one.id.size();
    const auto got = std::from_chars(one.id.data() + dash + 1, end, seq);
    if (got.ec != std::errc{} || got.ptr != end || seq == 0) return;
    one.boot = one.id.substr(0, dash);
    one.seq = seq;
}

}  // namespace

struct Server::Impl final : pipe::AnswererHandler {
    ServerOptions options;
    pipe::Loop& loop;
    std::unique_ptr<Writer> writer;
    zmq::context_t context;
    std::optional<zmq::socket_t> changes;
    std::deque<Waiting> waiting;
    std::string gc_streams, gc_feed, gc_boots, gc_idle, gc_batches;
    bool gc_due = false;
    int64_t longest_ns = 0;
    size_t expected =
        0;  // askers that may ask again at once: those just answered and those that waited
    int64_t commit_ns = 0;    // of the last commit
    int64_t answered_ns = 0;  // when its answers had gone out
    std::unique_ptr<pipe::Answerer> answerer;

    telemetry::Counter& commands_ok;
    telemetry::Counter& commands_refused;
    telemetry::Counter& commands_resent;
    telemetry::Counter& commits;
    telemetry::Counter& published;
    telemetry::Counter& readers_freed;
    telemetry::Histogram& commit_time;
    telemetry::Histogram& group_size;
    telemetry::Gauge& queue;
    telemetry::Gauge& last_change;
    telemetry::Gauge& map_used;
    telemetry::Gauge& map_size;
    telemetry::Gauge& readers;
    telemetry::Gauge& reader_lag;

    Impl(ServerOptions o, pipe::Loop& l, telemetry::Registry& m)
        : options(std::move(o)),
          loop(l),
          commands_ok(
              m.counter("convstore_commands_total", "commands answered", {{"result", "ok"}})),
          commands_refused(
              m.counter("convstore_commands_total", "commands answered", {{"result", "refused"}})),
          commands_resent(
              m.counter("convstore_commands_total", "commands answered", {{"result", "resent"}})),
          commits(m.counter("convstore_commits_total", "groups of commands applied")),
          published(m.counter("convstore_changes_total", "changes published")),
          readers_freed(m.counter("convstore_dead_readers_total",
                                  "reader slots taken back from dead processes")),
          commit_time(m.histogram("convstore_commit_seconds",
                                  "from the first command of a group to its durable commit")),
          group_size(m.histogram("convstore_group_commands", "commands in a commit", {},
                                 {1.0, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}})),
          queue(m.gauge("convstore_queue_commands", "commands that wait")),
          last_change(m.gauge("convstore_last_change", "newest sequence number of the change log")),
          map_used(
              m.gauge("convstore_map_used_bytes", "pages of the store's file, free ones included")),
          map_size(m.gauge("convstore_map_size_bytes", "address space reserved for the store")),
          readers(m.gauge("convstore_readers", "reader slots in use or kept")),
          reader_lag(m.gauge("convstore_oldest_reader_lag",
                             "transactions that the oldest reader is behind")) {}

    void on_ask(pipe::Ask ask) override {
        Waiting one;
        one.id = std::move(ask.id);
        one.body = std::move(ask.body);
        split_id(one);
        waiting.push_back(std::move(one));
    }
    // A command that was taken is run, whoever is still there to hear of it: its asker may have promised
    // it on to a client, and asks again under the same number.
    void on_cancel(const std::string&, uint32_t, pipe::Cancel) override {}

    void publish() {
        for (const Change& change : writer->published()) {
            const std::string seq = fmt::format(R"({{"seq":{}}})", change.seq);
            try {
                for (const std::string_view frame :
                     {pipe::kProtocol, std::string_view("EVENT"), std::string_view("changes"),
                      std::string_view(seq)})
                    changes->send(zmq::buffer(frame), zmq::send_flags::sndmore);
                changes->send(zmq::buffer(change.json), zmq::send_flags::none);
            } catch (const zmq::error_t&) {
                return;  // followers read the log: they lose time, not changes
            }
        }
        published.add(writer->published().size());
    }

    Result<void> apply_waiting() {
        const size_t count = std::min(waiting.size(), options.batch_max);
        if (count == 0) return {};
        const int64_t begun = base::system_clock().mono_ns();
        std::vector<Command> commands;
        commands.reserve(count);
        for (size_t i = 0; i < count; ++i)
            commands.push_back({waiting[i].boot, waiting[i].seq, waiting[i].body});
        auto outcomes = writer->apply(commands);
        if (!outcomes) return fail(outcomes.error());
        const int64_t spent = base::system_clock().mono_ns() - begun;
        longest_ns = std::max(longest_ns, spent);
        commit_ns = spent;
        commit_time.record(spent);
        group_size.record(static_cast<int64_t>(count));
        commits.add();
        publish();
        for (size_t i = 0; i < count; ++i) {
            Outcome& outcome = (*outcomes)[i];
            pipe::EndMeta end;
            end.change = outcome.change_seq;
            if (outcome.refused) {
                std::tie(end.status, end.retryable) = status_of(outcome.code);
                end.reason = "refused";
            }
            (outcome.resent    ? commands_resent
             : outcome.refused ? commands_refused
                               : commands_ok)
                .add();
            (void)answerer->event(waiting[i].id, {}, std::move(outcome.json));
            answerer->end(waiting[i].id, std::move(end));
        }
        waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(count));
        expected = std::min(count + waiting.size(), options.batch_max);
        answered_ns = base::system_clock().mono_ns();
        return {};
    }

    // Those just answered ask again a moment later than those that waited: together they are one commit, apart
    // two half-empty ones. Waits for them at most an eighth of what a commit costs, and never for a single one.
    void gather() {
        while (waiting.size() < options.batch_max && answerer->link().step()) {
        }
        const int64_t until = answered_ns + commit_ns / 8;
        while (!waiting.empty() && waiting.size() < expected &&
               base::system_clock().mono_ns() < until) {
            std::this_thread::sleep_for(std::chrono::microseconds(10));
            while (waiting.size() < options.batch_max && answerer->link().step()) {
            }
        }
        expected = 0;
    }

    Result<void> collect() {
        gc_due = false;
        auto outcome = writer->apply_one(fmt::format(
            R"({{"command":"gc","streams":"{}","feed":"{}","boots":"{}","idle":"{}","batches":"{}"}})",
            gc_streams, gc_feed, gc_boots, gc_idle, gc_batches));
        if (!outcome) return fail(outcome.error());
        publish();
        if (outcome->refused) return {};  // a full disk, or a bad row that check will name
        simdjson::dom::parser parser;
        const simdjson::padded_string reply(outcome->json);
        const auto take = [&](const char* name, std::string& out) {
            std::string_view text;
            if (parser.parse(reply)[name].get(text) == simdjson::SUCCESS) out = text;
        };
        take("streams", gc_streams);
        take("feed", gc_feed);
        take("boots", gc_boots);
        take("idle", gc_idle);
        take("batches", gc_batches);
        return {};
    }

    void watch_over() {
        readers_freed.add(static_cast<uint64_t>(writer->env()->reader_check()));
        const Env::Info info = writer->env()->info();
        map_used.set(static_cast<double>(info.used_bytes));
        map_size.set(static_cast<double>(info.map_bytes));
        readers.set(info.readers);
        reader_lag.set(static_cast<double>(info.oldest_reader_lag));
        last_change.set(static_cast<double>(writer->last_change()));
    }

    pipe::StatusMeta status() {
        pipe::StatusMeta meta;
        meta.waiting = static_cast<uint32_t>(waiting.size());
        meta.slots = options.commands_max;
        meta.longest_ms = static_cast<double>(longest_ns) / 1e6;
        longest_ns = longest_ns * 9 / 10;  // "recent": a slow disk is forgotten in a few seconds
        meta.draining = answerer && answerer->draining();
        return meta;
    }
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::open(pipe::Context& context, pipe::Loop& loop,
                                             ServerOptions options, telemetry::Registry& metrics) {
    auto impl = std::make_unique<Impl>(std::move(options), loop, metrics);
    const ServerOptions& o = impl->options;
    auto writer = Writer::open(o.writer);
    if (!writer) return fail(writer.error());
    impl->writer = std::move(*writer);
    try {
        impl->changes.emplace(impl->context, zmq::socket_type::pub);
        impl->changes->set(zmq::sockopt::linger, 200);
        impl->changes->set(zmq::sockopt::sndhwm, 10'000);
        impl->changes->bind(o.changes_endpoint);
    } catch (const zmq::error_t& error) {
        return fail(Errc::io,
                    fmt::format("cannot publish at '{}': {}", o.changes_endpoint, error.what()));
    }
    pipe::AnswererOptions answerer;
    answerer.link.endpoint = o.endpoint;
    answerer.link.bind = true;
    answerer.link.hello.name = "convstore";
    answerer.link.hello.slots = o.commands_max;
    answerer.link.status_interval_ms = o.status_interval_ms;
    answerer.link.message_bytes_max = o.writer.command_bytes_max + (1u << 20);
    answerer.requests_max = o.commands_max;
    auto opened = pipe::Answerer::open(context, answerer, *impl);
    if (!opened) return fail(opened.error());
    impl->answerer = std::move(*opened);
    impl->answerer->set_status([raw = impl.get()] { return raw->status(); });
    loop.add(impl->answerer->link());
    loop.every(1000, [raw = impl.get()] { raw->watch_over(); });
    loop.every(o.gc_interval_ms, [raw = impl.get()] { raw->gc_due = true; });
    impl->watch_over();
    return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<void> Server::run_once(int timeout_ms) {
    impl_->loop.run_once(impl_->waiting.empty() ? timeout_ms : 0);
    // What has arrived meanwhile joins this commit.
    impl_->gather();
    if (auto done = impl_->apply_waiting(); !done) return done;
    impl_->queue.set(static_cast<double>(impl_->waiting.size()));
    if (impl_->gc_due && impl_->waiting.empty()) return impl_->collect();
    return {};
}

void Server::drain() { impl_->answerer->drain(); }
bool Server::drained() const { return impl_->waiting.empty() && impl_->answerer->live() == 0; }
Writer& Server::writer() { return *impl_->writer; }
std::string Server::changes_endpoint() const { return impl_->options.changes_endpoint; }

}  // namespace parley::store
