// Service: requests in, events and ENDs out, over one model: what `infer-worker serve` and `run` share.
//
// It reads the body, renders and tokenises the prompt, submits it to the engine, and turns what comes
// out into events. Where they go is the outlet's business (a socket, a pipe). Bodies are read inside
// step(), so long per iteration as read_budget_ms says: a flood of requests delays neither those that
// run nor the heartbeat. A body of read_aside_bytes and more takes seconds to tokenise: a thread of
// its own reads such bodies, one after the other. It also compiles the schemas that the cache of
// grammars lacks (engine/grammar_cache.hpp).
//
// Promise  every ask() is followed by its events and exactly one end() on the outlet, message_stop
//          before it where the answer was whole. After cancel() come no more events.
// Credit   ask() gives the first grant, credit() says what is available now. Events that find none
//          wait here, a handful at most: the engine holds that sequence meanwhile. END needs none.
// Errors   by END: invalid_request_error (body, sampling, prompt too long: the exact text),
//          not_found_error (another version was meant), overloaded_error/queue_full, timeout_error/
//          deadline, api_error.
// Threads  one calls; bodies that are large are read in another.
#pragma once

#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/answer.hpp"
#include "engine/engine.hpp"
#include "engine/grammar_cache.hpp"
#include "model/artifact.hpp"
#include "pipe/message.hpp"

namespace parley::engine {

class Outlet {
  public:
    virtual ~Outlet() = default;
    // False: no credit; nothing was sent, it is offered again after credit().
    virtual bool event(const std::string& id, uint32_t attempt, const OutEvent& event) = 0;
    virtual void end(const std::string& id, pipe::EndMeta meta) = 0;
};

struct ServiceOptions {
    EngineOptions engine;
    uint32_t stop_bytes_max = 16 * 1024;  // of all stop sequences of a request
    int64_t read_budget_ms = 10;          // one body is read even if it takes longer
    size_t read_aside_bytes = 64 * 1024;  // bodies of this size and more are read in a thread
    bool compile_aside = true;            // the same for schemas not seen before
    uint32_t grammars_kept = 64;          // compiled schemas, the last used
};

struct ServiceCounters {
    uint64_t asked = 0, finished = 0, cancelled = 0, refused = 0, failed = 0;
    uint64_t input_tokens = 0, output_tokens = 0, replayed_tokens = 0;
};

class Service final : private Sink {
  public:
    Service(Forward& forward, const model::Artifact& artifact, const ServiceOptions& options,
            Outlet& outlet, const base::Clock& clock = base::system_clock());
    ~Service() override;

    // (id, attempt) is not live here; a live one of the same id is cancelled first. What is to be
    // said of it is said from step() on.
    void ask(const std::string& id, pipe::Envelope envelope, std::string body);
    // Ends it with status cancelled; nothing when it is not live.
    void cancel(const std::string& id, const std::string& reason);
    // What the reader takes now, over all.
    void credit(const std::string& id, uint32_t available);
    // The tag of its flow, as the router has it now.
    void tag(const std::string& id, double tag);
    // Ends all that is left, retryable: another worker may go on.
    void abandon(const std::string& why);

    // Reads what was asked, then one iteration. False when there was nothing to do.
    bool step();
    bool empty() const { return live_.empty(); }
    size_t live() const { return live_.size(); }
    const Engine& engine() const { return engine_; }
    const ServiceCounters& counters() const { return counters_; }
    // Charges: what each flow's live requests have cost so far.
    pipe::StatusMeta status();

  private:
    struct Arrival {
        pipe::Envelope envelope;
        std::string body;
        int64_t at_ns = 0;
    };
    struct Live {
        std::string id;
        uint32_t attempt = 1;
        std::string flow;
        std::optional<Arrival> arrival;  // until its body is read
        uint64_t ticket = 0;             // tells an attempt from the one that it replaced
        Handle handle = 0;
        std::unique_ptr<Answer> answer;
        int64_t credit = 0;                // as the engine knows it
        std::deque<OutEvent> waiting;      // for credit
        std::optional<pipe::EndMeta> end;  // sent once `waiting` is empty
        int64_t last_stamp_ns = 0;
    };

    void admitted(Handle handle, uint32_t prompt_tokens) override;
    void text(Handle handle, const Piece& piece, int64_t stamp_ns) override;
    void finished(Handle handle, const Finished& finished) override;
    void failed(Handle handle, const Failed& failed) override;

    // A body that was read: what the engine gets, or why it gets nothing.
    struct Reading {
        base::Result<Job> job;
        AnswerStart start;
        bool compile = false;  // not read: its schema is to be compiled aside
    };
    // The one body that is being read aside; what it yields may be wanted no more by then.
    struct Aside {
        std::string id;
        uint64_t ticket = 0;
        std::future<Reading> reading;
    };

    bool read_arrivals();
    bool read_aside();
    // Any thread.
    Reading read(const std::string& id, const Arrival& arrival, bool may_compile);
    base::Result<Job> job_of(const Arrival& arrival, bool may_compile, Reading& reading);
    void submit(const std::string& id, Reading reading);
    void refuse(const std::string& id, const base::Error& error);
    void send(Live& live, std::vector<OutEvent>& events);
    void flush(Live& live);
    void close(const std::string& id);  // END now; the entry is gone
    Live* of(Handle handle);

    const model::Artifact& artifact_;
    ServiceOptions options_;
    Outlet& outlet_;
    const base::Clock& clock_;
    std::unique_ptr<Vocabulary> vocabulary_;
    GrammarCache grammars_;
    Engine engine_;
    std::unordered_map<std::string, Live> live_;
    std::unordered_map<Handle, std::string> ids_;
    std::deque<std::string> arrivals_;  // ids in order; some may be over already
    std::deque<std::string> large_;     // the same, of bodies that are read aside
    std::optional<Aside> aside_;
    uint64_t tickets_ = 0;
    std::vector<OutEvent> events_;
    ServiceCounters counters_;
    int64_t window_started_ns_ = 0;
    int64_t longest_ns_[2] = {};  // of the last window and of this one
};

}  // namespace parley::engine
