// Straight to a stage's socket, as one asker of parley/1 (man/parley-protocol.7): what chatd does, less
// HTTP, keys and the store.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/ulid.hpp"
#include "load/transport.hpp"
#include "pipe/asker.hpp"

namespace parley::load {
namespace {

using base::Errc;
using base::Result;

constexpr uint32_t kCredit = 256;  // events a stage may be ahead of us; granted again by halves
constexpr int64_t kScanNs = 25'000'000;
constexpr int64_t kMs = 1'000'000;

class PipeTransport final : public Transport, Watcher, pipe::AskerHandler {
  public:
    PipeTransport(Loop& loop, PipeOptions options, TransportSink& sink)
        : loop_(loop), options_(std::move(options)), sink_(sink), slots_(options_.slots) {}

    Result<void> open() {
        pipe::AskerOptions asker;
        asker.link.endpoint = options_.endpoint;
        asker.link.hello.name = "loadgen";
        // Cancelled requests count until their END: more than there are slots.
        asker.requests_max = std::max(asker.requests_max, 4 * options_.slots);
        auto opened = pipe::Asker::open(context_, std::move(asker), *this);
        if (!opened) return base::fail(opened.error());
        asker_ = std::move(*opened);
        return loop_.add(asker_->link().fd(), true, false, *this);
    }

    Result<void> probe() override {
        const int64_t deadline = clock_.mono_ns() + options_.connect_timeout_ms * kMs;
        while (!asker_->up()) {
            step();
            if (asker_->up()) break;
            if (clock_.mono_ns() >= deadline)
                return base::fail(
                    Errc::unavailable,
                    fmt::format("no stage of parley/1 answers at '{}'{}", options_.endpoint,
                                down_.empty() ? "" : ": " + down_));
            loop_.wait(clock_.mono_ns() + kScanNs);
        }
        return {};
    }

    void start(uint32_t slot, const std::string& body) override {
        Slot& s = slots_[slot];
        s = Slot();
        s.busy = true;
        s.id = base::random_id("req_");
        const int64_t now = clock_.mono_ns();
        s.idle_deadline_ns = now + options_.read_timeout_ms * kMs;
        s.total_deadline_ns = now + options_.request_timeout_ms * kMs;
        pipe::Envelope envelope;
        envelope.credit = kCredit;
        envelope.org = options_.org;
        envelope.flow = options_.org;
        envelope.cls = options_.cls == "interactive" ? pipe::Class::interactive
                       : options_.cls == "batch"     ? pipe::Class::batch
                                                     : pipe::Class::streaming;
        envelope.total_ms = options_.request_timeout_ms;
        by_id_[s.id] = slot;
        if (auto asked = asker_->ask(s.id, envelope, body); !asked) {
            by_id_.erase(s.id);
            const bool gone = asked.error().code == Errc::unavailable;
            finish(slot, {.error = gone ? "peer_gone" : "refused_locally",
                          .detail = safe_detail(asked.error().what),
                          .http_status = 0,
                          .reached = false});
        }
        stepping_ = true;
    }

    void cancel(uint32_t slot) override {
        if (slots_[slot].busy)
            give_up(slot, {.error = "cancelled", .detail = {}, .http_status = 0, .reached = true});
    }

    void tick(int64_t now_ns) override {
        // Sends consume the edge of ZeroMQ's descriptor: step after them, not only when it is readable.
        if (stepping_ || now_ns >= next_scan_ns_) step();
        if (now_ns >= next_scan_ns_) {
            next_scan_ns_ = now_ns + kScanNs;
            for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
                const Slot& s = slots_[slot];
                if (!s.busy || (now_ns < s.idle_deadline_ns && now_ns < s.total_deadline_ns))
                    continue;
                give_up(slot, {.error = now_ns >= s.total_deadline_ns ? "request_timeout"
                                                                      : "read_timeout",
                               .detail = {},
                               .http_status = 0,
                               .reached = true});
            }
        }
        std::vector<uint32_t> ended;
        ended.swap(ended_);
        for (const uint32_t slot : ended) {
            const Outcome outcome = std::move(slots_[slot].outcome);
            sink_.on_done(slot, outcome);
        }
    }

    void ready() override { step(); }
    bool busy() const override { return stepping_ || !ended_.empty(); }

  private:
    struct Slot {
        std::string id;
        bool busy = false;
        Verdict verdict = Verdict::go_on;
        uint32_t used = 0;  // events since the last grant
        int64_t idle_deadline_ns = 0;
        int64_t total_deadline_ns = 0;
        Outcome outcome;
    };

    void step() {
        stepping_ = false;
        // Bounded, so that a flood cannot keep us from our deadlines; what is left keeps the flag.
        for (int i = 0; i < 16; ++i) {
            if (!asker_->link().step()) {
                asker_->tick();
                return;
            }
        }
        asker_->tick();
        stepping_ = true;
    }

    void finish(uint32_t slot, Outcome outcome) {
        slots_[slot].busy = false;
        slots_[slot].outcome = std::move(outcome);
        ended_.push_back(slot);
    }

    // We stop listening at once; the stage hears CANCEL, and its END is swallowed.
    void give_up(uint32_t slot, Outcome outcome) {
        const std::string id = slots_[slot].id;
        by_id_.erase(id);
        asker_->cancel(id, "loadgen");
        stepping_ = true;
        finish(slot, std::move(outcome));
    }

    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override {
        const auto found = by_id_.find(id);
        if (found == by_id_.end()) return;
        Slot& s = slots_[found->second];
        const int64_t now = clock_.mono_ns();
        s.idle_deadline_ns = now + options_.read_timeout_ms * kMs;
        if (++s.used >= kCredit / 2) {
            asker_->grant(id, s.used);
            s.used = 0;
            stepping_ = true;
        }
        if (s.verdict != Verdict::go_on) return;
        const uint32_t slot = found->second;
        s.verdict = sink_.on_event(slot, body, meta.stamp_ns > 0 ? meta.stamp_ns : -1, now);
        if (s.verdict == Verdict::failed)
            give_up(slot, {.error = "failed", .detail = {}, .http_status = 0, .reached = true});
    }

    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        const auto found = by_id_.find(id);
        if (found == by_id_.end()) return;
        const uint32_t slot = found->second;
        by_id_.erase(found);
        Outcome out;
        out.reached = meta.reason != "peer_gone";
        if (!meta.ok()) {
            // What the link itself says about a peer that is gone is no error type of the stage's.
            out.error = safe_name(meta.reason == "peer_gone" ? meta.reason : meta.status);
            out.detail = safe_detail(meta.message);
        } else if (slots_[slot].verdict != Verdict::complete) {
            out.error = "ended_early";
            out.detail = "END before message_stop";
        }
        finish(slot, std::move(out));
    }

    void on_peer_down(pipe::Peer, const std::string& why) override { down_ = safe_detail(why); }

    Loop& loop_;
    PipeOptions options_;
    TransportSink& sink_;
    const base::Clock& clock_ = base::system_clock();
    std::vector<Slot> slots_;
    std::unordered_map<std::string, uint32_t> by_id_;
    std::vector<uint32_t> ended_;
    std::string down_;
    int64_t next_scan_ns_ = 0;
    bool stepping_ = false;
    pipe::Context context_;
    std::unique_ptr<pipe::Asker> asker_;  // last: goes before the context
};

}  // namespace

Result<std::unique_ptr<Transport>> make_pipe_transport(Loop& loop, PipeOptions options,
                                                       TransportSink& sink) {
    auto out = std::make_unique<PipeTransport>(loop, std::move(options), sink);
    if (auto opened = out->open(); !opened) return base::fail(opened.error());
    return std::unique_ptr<Transport>(std::move(out));
}

}  // namespace parley::load
