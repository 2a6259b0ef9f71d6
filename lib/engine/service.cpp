#include "engine/service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>

#include "grammar/answer.hpp"
#include "messages/request.hpp"

namespace parley::engine {
namespace {

constexpr int64_t kWindowNs = 1'000'000'000;
constexpr size_t kChargesMax = 256;  // flows named in one STATUS

class TokenizerVocabulary final : public Vocabulary {
  public:
    explicit TokenizerVocabulary(const model::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    std::string_view bytes(model::Token token) const override { return tokenizer_.bytes(token); }
    bool ends_answer(model::Token token) const override {
        return tokenizer_.is_end_of_generation(token);
    }

  private:
    const model::Tokenizer& tokenizer_;
};

uint64_t random_seed() {
    std::random_device device;
    return static_cast<uint64_t>(device()) << 32 | device();
}

// Stays the same over attempts: a reader never sees it change.
std::string message_id_of(const std::string& id, const pipe::Envelope& envelope) {
    if (!envelope.message.empty()) return envelope.message;
    const std::string_view bare(id);
    return "msg_" + std::string(bare.substr(0, 4) == "req_" ? bare.substr(4) : bare);
}

// 0 (none) stays 0; what a peer may send must not overflow.
int64_t deadline_ns(int64_t from_ns, int64_t ms) {
    constexpr int64_t kMostMs = 30ll * 24 * 3600 * 1000;
    return ms <= 0 ? 0 : from_ns + std::min(ms, kMostMs) * 1'000'000;
}

std::string_view status_of(base::Errc code) {
    switch (code) {
        case base::Errc::invalid:
        case base::Errc::too_large:
        case base::Errc::unsupported:
            return "invalid_request_error";
        case base::Errc::not_found:
            return "not_found_error";
        case base::Errc::again:
            return "overloaded_error";
        case base::Errc::timeout:
            return "timeout_error";
        case base::Errc::cancelled:
            return "cancelled";
        default:
            return "api_error";
    }
}

// What a request used: `Summary` is Finished or Failed.
template <class Summary>
void measured(const Summary& summary, pipe::EndMeta& meta) {
    pipe::Usage usage;
    usage.input_tokens = summary.prompt_tokens;
    usage.cache_read_input_tokens = summary.reuse.read_tokens;
    usage.output_tokens = summary.output_tokens;
    meta.usage = usage;
    meta.cost_s = summary.cost_s;
    meta.drafted_tokens = summary.drafted_tokens;
    meta.accepted_tokens = summary.accepted_tokens;
}

EngineOptions of_model(EngineOptions options, const model::Artifact& artifact) {
    options.model_hash = artifact.hash();
    return options;
}

messages::CallReader::Mode calls_of(const messages::Request& request) {
    using Mode = messages::CallReader::Mode;
    if (request.tool_choice == messages::ToolChoice::forced) return Mode::forced;
    // An answer that is JSON by a schema may well hold the marker in a string.
    if (request.tool_choice == messages::ToolChoice::none || request.schema_json) return Mode::none;
    return Mode::free;
}

// Tokens of `prompt` up to a mark, as many as are the same whatever follows the mark. The template's
// tokens that close a turn belong to a mark at its end.
uint32_t tokens_before(const messages::CacheMark& mark, const std::vector<model::Turn>& turns,
                       std::span<const model::Token> prompt, const model::Artifact& artifact) {
    if (mark.turn >= turns.size()) return 0;
    std::vector<model::Turn> before(turns.begin(),
                                    turns.begin() + static_cast<ptrdiff_t>(mark.turn) + 1);
    std::string& last = before.back().text;
    last.resize(std::min(mark.offset, last.size()));
    const auto cut = artifact.chat_template().render(artifact.tokenizer(), before);
    const size_t most = std::min(cut.size(), prompt.size());
    const auto differs =
        std::mismatch(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(most), cut.begin());
    return static_cast<uint32_t>(differs.first - prompt.begin());
}

// Where the prompt's marks end, in tokens. Bodies without marks cost nothing.
Marks marks_of(const messages::Request& request, const std::vector<model::Turn>& turns,
               std::span<const model::Token> prompt, const model::Artifact& artifact) {
    Marks marks;
    if (request.cache_marks.empty()) return marks;
    const auto& all = request.cache_marks;
    marks.tokens = tokens_before(all.back(), turns, prompt, artifact);
    const auto hour = std::find_if(all.rbegin(), all.rend(), [](const messages::CacheMark& mark) {
        return mark.ttl == messages::Ttl::one_hour;
    });
    if (hour == all.rbegin())
        marks.hour_tokens = marks.tokens;
    else if (hour != all.rend())
        marks.hour_tokens = tokens_before(*hour, turns, prompt, artifact);
    return marks;
}

}  // namespace

Service::Service(Forward& forward, const model::Artifact& artifact, const ServiceOptions& options,
                 Outlet& outlet, const base::Clock& clock)
    : artifact_(artifact),
      options_(options),
      outlet_(outlet),
      clock_(clock),
      vocabulary_(std::make_unique<TokenizerVocabulary>(artifact.tokenizer())),
      grammars_(artifact.tokenizer(), std::max(options.grammars_kept, 1u)),
      engine_(forward, *vocabulary_, of_model(options.engine, artifact), *this, clock) {}

Service::~Service() = default;

base::Result<Job> Service::job_of(const Arrival& arrival, bool may_compile, Reading& reading) {
    AnswerStart& start = reading.start;
    const pipe::Envelope& envelope = arrival.envelope;
    if (!envelope.version.empty() && envelope.version != artifact_.hash())
        return base::fail(base::Errc::not_found,
                          fmt::format("version {} is not served here", envelope.version));
    const auto request = messages::parse_request(arrival.body);
    if (!request) return base::fail(base::Errc::invalid, request.error().message);

    Job job;
    if (const std::string key = grammar::answer_key(*request); !key.empty()) {
        job.grammar = grammars_.find(key);
        if (!job.grammar && !may_compile) {
            reading.compile = true;
            return job;
        }
        if (!job.grammar) {
            auto made = grammars_.get(key, [&] { return grammar::compile_answer(*request); });
            if (!made)
                return base::fail(made.error().code == base::Errc::internal ? base::Errc::internal
                                                                            : base::Errc::invalid,
                                  made.error().what);
            job.grammar = std::move(*made);
        }
        job.may_cut = request->tool_choice == messages::ToolChoice::free && !request->schema_json;
    }
    const auto turns = messages::turns_as<model::Turn>(*request);
    job.prompt = artifact_.chat_template().render(artifact_.tokenizer(), turns);
    start.marks = marks_of(*request, turns, job.prompt, artifact_);
    job.tenant = envelope.org;
    job.flow = envelope.flow.empty() ? envelope.org : envelope.flow;
    job.weight = envelope.weight;
    job.tag = envelope.tag;
    job.max_tokens = request->max_tokens;
    if (const uint64_t most = artifact_.limits().output_tokens_max; most > 0)
        job.max_tokens = std::min(job.max_tokens, most);
    // A forced call has no text that they could be in.
    if (request->tool_choice != messages::ToolChoice::forced) {
        job.stops = request->stop_sequences;
        for (const std::string& stop : envelope.sampling.stops)
            if (!stop.empty()) job.stops.push_back(stop);
    }
    size_t stop_bytes = 0;
    for (const std::string& stop : job.stops) stop_bytes += stop.size();
    if (stop_bytes > options_.stop_bytes_max)
        return base::fail(base::Errc::invalid, fmt::format("stop_sequences: {} bytes > {} maximum",
                                                           stop_bytes, options_.stop_bytes_max));
    job.sampling.temperature = static_cast<float>(
        envelope.sampling.temperature.value_or(request->temperature.value_or(1.0)));
    job.sampling.top_p = static_cast<float>(request->top_p.value_or(1.0));
    job.sampling.top_k =
        static_cast<uint32_t>(std::min<uint64_t>(request->top_k.value_or(0), UINT32_MAX));
    job.sampling.min_p = static_cast<float>(envelope.sampling.min_p);
    job.sampling.repetition_penalty = static_cast<float>(envelope.sampling.repetition_penalty);
    job.sampling.presence_penalty = static_cast<float>(envelope.sampling.presence_penalty);
    job.sampling.frequency_penalty = static_cast<float>(envelope.sampling.frequency_penalty);
    job.sampling.seed = envelope.seed ? *envelope.seed : random_seed();
    job.priority = static_cast<Priority>(envelope.cls);
    job.start_deadline_ns = deadline_ns(arrival.at_ns, envelope.ttft_ms);
    job.total_deadline_ns = deadline_ns(arrival.at_ns, envelope.total_ms);

    start.model = request->model;
    if (envelope.cls == pipe::Class::batch) start.service_tier = "batch";
    if (envelope.continuation) {
        const pipe::Continuation& c = *envelope.continuation;
        job.produced.assign(c.produced.begin(), c.produced.end());
        start.continued = true;
        start.block = c.block;
        start.released = c.released;
    }
    start.call_key = job.sampling.seed;
    start.calls = calls_of(*request);
    if (start.calls != messages::CallReader::Mode::none)
        for (const messages::Tool& tool : request->tools) start.tools.push_back(tool.name);
    start.parallel_calls = request->parallel_calls;
    return job;
}

void Service::ask(const std::string& id, pipe::Envelope envelope, std::string body) {
    ++counters_.asked;
    cancel(id, "replaced");
    Live& live = live_[id];
    live.id = id;
    live.attempt = envelope.attempt;
    live.flow = envelope.flow;
    live.credit = envelope.credit;
    live.ticket = ++tickets_;
    const bool large = body.size() >= options_.read_aside_bytes;
    live.arrival = Arrival{std::move(envelope), std::move(body), clock_.mono_ns()};
    (large ? large_ : arrivals_).push_back(id);
}

bool Service::step() {
    const bool aside = read_aside();
    const bool read = read_arrivals();
    return engine_.step() || read || aside;
}

bool Service::read_arrivals() {
    if (arrivals_.empty()) return false;
    const int64_t until_ns = clock_.mono_ns() + options_.read_budget_ms * 1'000'000;
    do {
        const std::string id = std::move(arrivals_.front());
        arrivals_.pop_front();
        const auto found = live_.find(id);
        if (found == live_.end() || !found->second.arrival) continue;
        Reading reading = read(id, *found->second.arrival, !options_.compile_aside);
        if (reading.compile) {
            large_.push_back(id);
            continue;
        }
        found->second.arrival.reset();
        submit(id, std::move(reading));
    } while (!arrivals_.empty() && clock_.mono_ns() < until_ns);
    return true;
}

bool Service::read_aside() {
    bool worked = false;
    if (aside_) {
        if (aside_->reading.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
            return false;
        Reading reading = aside_->reading.get();
        const auto found = live_.find(aside_->id);
        if (found != live_.end() && found->second.ticket == aside_->ticket)
            submit(aside_->id, std::move(reading));
        aside_.reset();
        worked = true;
    }
    while (!large_.empty() && !aside_) {
        const std::string id = std::move(large_.front());
        large_.pop_front();
        const auto found = live_.find(id);
        if (found == live_.end() || !found->second.arrival) continue;
        auto arrival = std::make_shared<const Arrival>(std::move(*found->second.arrival));
        found->second.arrival.reset();
        aside_ = Aside{id, found->second.ticket,
                       std::async(std::launch::async, [this, id, arrival = std::move(arrival)] {
                           return read(id, *arrival, true);
                       })};
        worked = true;
    }
    return worked;
}

Service::Reading Service::read(const std::string& id, const Arrival& arrival, bool may_compile) {
    Reading out{Job{}, {}};
    out.start.message_id = message_id_of(id, arrival.envelope);
    out.job = job_of(arrival, may_compile, out);
    return out;
}

void Service::submit(const std::string& id, Reading reading) {
    Live& live = live_.at(id);
    if (!reading.job) return refuse(id, reading.job.error());
    counters_.replayed_tokens += reading.job->produced.size();
    reading.job->credit = live.credit;
    auto handle = engine_.submit(std::move(*reading.job));
    if (!handle) return refuse(id, handle.error());
    live.handle = *handle;
    live.answer = std::make_unique<Answer>(std::move(reading.start));
    ids_[*handle] = id;
}

void Service::refuse(const std::string& id, const base::Error& error) {
    ++counters_.refused;
    Live& live = live_.at(id);
    pipe::EndMeta meta;
    meta.attempt = live.attempt;
    meta.status = status_of(error.code);
    meta.message = error.what;
    meta.model = artifact_.hash();
    if (error.code == base::Errc::again) {
        meta.message = "Overloaded";
        meta.retryable = true;
        meta.retry_after_s = 1;
        meta.reason = "queue_full";
    } else if (error.code == base::Errc::not_found) {
        meta.retryable = true;  // by way of the router, to a worker that has it
        meta.reason = "no_worker";
    }
    live.end = std::move(meta);
    close(id);
}

Service::Live* Service::of(Handle handle) {
    const auto id = ids_.find(handle);
    if (id == ids_.end()) return nullptr;
    return &live_.at(id->second);
}

void Service::close(const std::string& id) {
    const auto found = live_.find(id);
    ids_.erase(found->second.handle);
    pipe::EndMeta meta = std::move(*found->second.end);
    const std::string own = std::move(found->second.id);
    live_.erase(found);
    outlet_.end(own, std::move(meta));
}

void Service::send(Live& live, std::vector<OutEvent>& events) {
    live.credit -= static_cast<int64_t>(events.size());
    engine_.grant(live.handle, -static_cast<int64_t>(events.size()));
    for (OutEvent& event : events) {
        if (event.stamp_ns != 0) live.last_stamp_ns = event.stamp_ns;
        live.waiting.push_back(std::move(event));
    }
    events.clear();
    flush(live);
}

// Invalidates `live` when its END goes out.
void Service::flush(Live& live) {
    while (!live.waiting.empty()) {
        if (!outlet_.event(live.id, live.attempt, live.waiting.front())) return;
        live.waiting.pop_front();
    }
    if (live.end) close(live.id);
}

void Service::credit(const std::string& id, uint32_t available) {
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    Live& live = found->second;
    const int64_t now = static_cast<int64_t>(available) - static_cast<int64_t>(live.waiting.size());
    engine_.grant(live.handle, now - live.credit);
    live.credit = now;
    flush(live);
}

void Service::tag(const std::string& id, double tag) {
    const auto found = live_.find(id);
    if (found != live_.end()) engine_.correct(found->second.handle, tag);
}

void Service::cancel(const std::string& id, const std::string& reason) {
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    Live& live = found->second;
    ++counters_.cancelled;
    pipe::EndMeta meta;
    if (live.end) meta = *live.end;  // it had finished, and waited for credit
    meta.attempt = live.attempt;
    meta.status = "cancelled";
    meta.message = "the request was cancelled";
    meta.reason = reason;
    meta.model = artifact_.hash();
    if (const auto summed = engine_.cancel(live.handle)) {
        measured(*summed, meta);
    }
    live.end = std::move(meta);
    close(id);
}

void Service::abandon(const std::string& why) {
    std::vector<std::string> ids;
    for (const auto& [id, live] : live_) ids.push_back(id);
    std::sort(ids.begin(), ids.end());
    for (const std::string& id : ids) {
        Live& live = live_.at(id);
        ++counters_.failed;
        pipe::EndMeta meta;
        meta.attempt = live.attempt;
        meta.status = "api_error";
        meta.message = "the worker stopped before the answer was complete";
        meta.reason = why;
        meta.retryable = true;
        meta.model = artifact_.hash();
        if (const auto summed = engine_.cancel(live.handle)) {
            measured(*summed, meta);
        }
        live.end = std::move(meta);
        close(id);
    }
}

void Service::admitted(Handle handle, uint32_t prompt_tokens) {
    Live* live = of(handle);
    if (live == nullptr) return;
    counters_.input_tokens += prompt_tokens;
    live->answer->begin(prompt_tokens, engine_.reuse(handle), events_);
    send(*live, events_);
}

void Service::text(Handle handle, const Piece& piece, int64_t stamp_ns) {
    Live* live = of(handle);
    if (live == nullptr) return;
    live->answer->text(piece, stamp_ns, events_);
    if (!live->answer->complete()) return send(*live, events_);
    // Forced, the grammar has an end of its own, a byte from here; the one call of an answer that may have no
    // second one is followed by nothing that anybody wants.
    if (auto summed = engine_.cancel(handle)) finished(handle, *summed);
}

void Service::finished(Handle handle, const Finished& finished) {
    Live* live = of(handle);
    if (live == nullptr) return;
    ++counters_.finished;
    counters_.output_tokens += finished.output_tokens;
    live->answer->finish(finished, live->last_stamp_ns, events_);
    pipe::EndMeta meta;
    meta.attempt = live->attempt;
    measured(finished, meta);
    meta.model = artifact_.hash();
    live->end = std::move(meta);
    send(*live, events_);
}

void Service::failed(Handle handle, const Failed& failed) {
    Live* live = of(handle);
    if (live == nullptr) return;
    ++counters_.failed;
    counters_.output_tokens += failed.output_tokens;
    pipe::EndMeta meta;
    meta.attempt = live->attempt;
    meta.status = status_of(failed.error.code);
    meta.message = failed.error.what;
    if (failed.error.code == base::Errc::timeout) meta.reason = "deadline";
    measured(failed, meta);
    meta.model = artifact_.hash();
    live->end = std::move(meta);
    live->waiting.clear();  // what the reader has not seen of a failed answer is of no use
    close(live->id);
}

pipe::StatusMeta Service::status() {
    const EngineStats stats = engine_.stats();
    pipe::StatusMeta meta;
    meta.running = stats.running;
    meta.waiting =
        stats.waiting + static_cast<uint32_t>(arrivals_.size() + large_.size() + (aside_ ? 1 : 0));
    meta.slots = stats.slots_max;
    meta.kv_free = stats.kv_blocks_free;
    meta.kv_total = stats.kv_blocks;
    meta.queue_s = static_cast<double>(stats.waiting_tokens) * stats.prefill_row_s;
    meta.drafted_tokens = stats.drafted_tokens;
    meta.accepted_tokens = stats.accepted_tokens;

    const int64_t now_ns = clock_.mono_ns();
    if (now_ns - window_started_ns_ >= kWindowNs) {
        window_started_ns_ = now_ns;
        longest_ns_[0] = longest_ns_[1];
        longest_ns_[1] = 0;
    }
    longest_ns_[1] = std::max(longest_ns_[1], engine_.take_longest_ns());
    meta.longest_ms = static_cast<double>(std::max(longest_ns_[0], longest_ns_[1])) * 1e-6;

    std::map<std::string_view, double> by_flow;
    for (const auto& [id, live] : live_) by_flow[live.flow] += engine_.cost_s(live.handle);
    for (const auto& [flow, cost_s] : by_flow) {
        if (meta.charges.size() == kChargesMax) break;
        if (cost_s > 0) meta.charges.push_back({std::string(flow), cost_s});
    }
    return meta;
}

}  // namespace parley::engine
