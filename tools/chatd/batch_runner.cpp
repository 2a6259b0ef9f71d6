#include "batch_runner.hpp"

#include <simdjson.h>

#include <algorithm>
#include <deque>

#include "asking.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "batches/shown.hpp"
#include "chat/body.hpp"
#include "chat/context.hpp"
#include "store_errors.hpp"
#include "turns.hpp"

namespace parley::chatd {

using messages::ApiError;
using store::BatchOutcome;

namespace {

constexpr size_t kOpenBatchesMax = 1000;
constexpr size_t kPageEntries = 16;
constexpr size_t kPageBytes = 1u << 20;
constexpr int64_t kPauseMs = 1000;
constexpr int64_t kPauseMaxMs = 60'000;

Caller caller_of(const store::MessageBatchRow& row, bool& newest) {
    Caller caller;
    caller.org = row.org;
    caller.user = row.user;
    caller.key_id = row.key_id;
    caller.service_class = "batch";
    simdjson::dom::parser parser;
    simdjson::dom::object params;
    if (parser.parse(row.params).get(params)) return caller;
    std::string_view text;
    if (!params["user_name"].get(text)) caller.user_name = text;
    double weight = 1;
    if (!params["weight"].get(weight) && weight > 0) caller.weight = weight;
    bool flag = true;
    if (!params["newest"].get(flag)) newest = flag;
    simdjson::dom::array models;
    if (!params["models"].get(models))
        for (const auto model : models)
            if (!model.get(text)) caller.models.emplace_back(text);
    return caller;
}

bool no_room(const ApiError& error) {
    return error.status == 429 || error.status == 503 || error.status == 529;
}

}  // namespace

std::string BatchRunner::params_of(const Caller& caller, bool newest_version) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("user_name", caller.user_name).field("weight", caller.weight);
    w.field("newest", newest_version).key("models").array();
    for (const std::string& model : caller.models) w.string(model);
    w.end().end();
    return out;
}

struct BatchRunner::Job {
    std::string id;
    store::MessageBatchRow row;
    Caller caller;
    bool newest = true;
    uint32_t next = 0;  // pending entries from this index on were not read
    bool read_all = false;
    std::deque<store::BatchItemRow> page;
    std::map<uint32_t, std::shared_ptr<Item>> items;  // in memory, until their result is stored
    bool sweeping = false;
    bool limits_known = false;  // nothing is started by limits that cannot be read
};

// One entry, from its start to its stored result.
class BatchRunner::Item final : public chat::AnswerHost, public std::enable_shared_from_this<Item> {
  public:
    Item(BatchRunner& runner, Job& job, store::BatchItemRow row)
        : runner_(runner),
          app_(runner.app_),
          alive_(runner.alive_),
          batch_(job.id),
          row_(std::move(row)) {}

    void start() {
        Job& job = *runner_.jobs_.at(batch_);
        state_ = State::running;
        auto options = parse_options(app_, job.caller, job.newest);
        auto parsed = messages::parse_request(row_.params, options);
        if (!parsed) {
            if (no_room(parsed.error())) return again(false);
            return errored(parsed.error());
        }
        if (parsed->stream) return errored(ApiError::invalid("stream", "not supported in a batch"));
        if (auto error = check_schema(*parsed)) return errored(*error);
        if (app_.cannot_ask()) return again(false);
        const auto request = std::make_shared<const messages::Request>(std::move(*parsed));
        const auto named = app_.catalog->find(request->model);
        const bool counts = named && named->artifact && wants_count(app_, *request) &&
                            text_bytes(*request) <= kCountOnLoopMax;
        const Routed routed = route_by_size(
            app_, *request, counts ? chat::count_prompt(*request, *named->artifact) : 0);
        const auto& model = routed.model;
        const bool counted = routed.prompt_tokens > 0;
        if (!admit(*request, routed, counted ? routed.prompt_tokens : count(*request, *model)))
            return;
        Ask ask;
        ask.id = new_message_id();
        ask.model = routed.said;
        ask.body = row_.params;
        if (routed.below != request->model) ask.body = chat::with_model(ask.body, routed.below);
        ask.max_tokens = request->max_tokens;
        ask.stream = false;
        ask.seed = draw_seed();
        auto answering = answer_options(app_, job.caller, std::move(ask));
        answering.envelope.cls = pipe::Class::batch;
        answering.stream.keep_frames = false;
        answering.ttft_ms = 0;
        answering.total_ms = std::max<int64_t>(1, job.row.expires_ms - app_.clock.wall_ms());
        if (model->artifact)
            answering.count_prompt = [request, artifact = model->artifact] {
                return chat::count_prompt(*request, *artifact);
            };
        answer_ =
            std::make_shared<chat::Answer>(std::move(answering), *app_.hop, *this, app_.clock);
        if (!app_.answers.add(answer_, shared_from_this(), 0)) {
            answer_.reset();
            std::exchange(ticket_, nullptr)->undo();
            return again(false);
        }
        answer_->start();
    }

    void on_checked(chat::Answer& answer, const chat::Checked& checked) override {
        if (ticket_ && checked.event.type == messages::EventType::message_start)
            ticket_->begun(answer.folder().usage().prompt_tokens());
    }

    void on_outcome(chat::Answer& answer, const chat::Outcome& outcome) override {
        using Status = chat::Outcome::Status;
        if (const auto ticket = std::exchange(ticket_, nullptr); ticket && *alive_)
            ticket->end(outcome.usage.prompt_tokens(), outcome.usage.output_tokens);
        if (!*alive_ || !runner_.jobs_.contains(batch_)) return;  // dropped: stays pending
        result_.model = outcome.version.empty() ? answer.options().model : outcome.version;
        result_.input_tokens = outcome.usage.prompt_tokens();
        result_.output_tokens = outcome.usage.output_tokens;
        result_.cached_tokens = outcome.usage.cache_read_input_tokens;
        result_.compute_us = static_cast<uint64_t>(outcome.cost_s * 1e6);
        switch (outcome.status) {
            case Status::done:
            case Status::blocked:
                answer.close();
                result_.outcome = BatchOutcome::succeeded;
                result_.result = batches::succeeded_json(answer.message_json());
                return save();
            case Status::failed:
                answer.fail(outcome.error);
                // An entry's one deadline is its batch's end: what surely misses it will expire.
                if (outcome.error.status == 504) return again(false);
                return errored(outcome.error);
            case Status::interrupted:
                answer.fail(outcome.error);
                if (outcome.error.status == 504) return again(false);
                if (!no_room(outcome.error) && ++tries_ >= kTriesMax) return errored(outcome.error);
                return again(!no_room(outcome.error));
            case Status::cancelled:
                answer.close();
                return gone();  // the sweep takes it
        }
    }

    void tick(int64_t now_ms) {
        if (ticket_ && answer_) ticket_->produced(answer_->produced().size());
        if (due_ms_ == 0 || now_ms < due_ms_) return;
        due_ms_ = 0;
        if (state_ == State::waiting) start();
        if (state_ == State::saving) save();
    }
    // No longer wanted; false while its result is on the way to the store.
    bool stop() {
        if (state_ == State::saving) return false;
        if (answer_ && !answer_->over())
            answer_->cancel("batch");
        else if (state_ == State::waiting)
            gone();
        return true;
    }
    void break_off() {
        if (answer_ && !answer_->over())
            answer_->abandon(ApiError::unavailable("this server is draining", 1));
    }

  private:
    enum class State : uint8_t { running, waiting, saving };

    // Of its prompt, where a limit asks; else an estimate that nobody is held to.
    uint64_t count(const messages::Request& request, const Model& model) const {
        const auto& limits = *runner_.jobs_.at(batch_)->caller.limits;
        if (!app_.gate->counts_input(limits) || !model.artifact) return text_bytes(request) / 3;
        return chat::count_prompt(request, *model.artifact);
    }
    // False: it waits, or has its result.
    bool admit(const messages::Request& request, const Routed& routed, uint64_t prompt_tokens) {
        const Caller& caller = runner_.jobs_.at(batch_)->caller;
        const uint64_t window = routed.model->context_tokens();
        auto ticket = app_.gate->admit_entry(
            caller, caller.user, routed.below, prompt_tokens,
            window > 0 ? std::min(request.max_tokens, window) : request.max_tokens);
        if (ticket) {
            ticket_ = std::move(*ticket);
            return true;
        }
        if (!ticket.error().waits) {
            errored(ticket.error().error);
            return false;
        }
        again(false);
        due_ms_ = app_.clock.mono_ms() + ticket.error().wait_ms;
        return false;
    }

    void again(bool counted) {
        state_ = State::waiting;
        answer_.reset();
        const int64_t pause = counted
                                  ? std::min(kPauseMaxMs, kPauseMs << std::min<uint32_t>(tries_, 6))
                                  : 2 * kPauseMs;
        due_ms_ = app_.clock.mono_ms() + pause;
    }
    void errored(const ApiError& error) {
        result_.outcome = BatchOutcome::errored;
        result_.result = batches::errored_json(error);
        save();
    }
    void save() {
        state_ = State::saving;
        Job& job = *runner_.jobs_.at(batch_);
        result_.batch = job.row.id;
        result_.owner = app_.owner;
        result_.index = row_.index;
        auto sent = app_.store->submit(
            result_.json(),
            [self = shared_from_this()](const store::CommandReply& reply) { self->saved(reply); },
            0);
        if (!sent) due_ms_ = app_.clock.mono_ms() + kPauseMs;
    }
    void saved(const store::CommandReply& reply) {
        if (!*alive_) return;
        if (reply.ok()) {
            app_.metrics
                .counter("chatd_batch_entries_total", "entries of batches that have their result",
                         {{"outcome", std::string(store::name(result_.outcome))}})
                .add();
            return gone();
        }
        if (reply.error->code == base::Errc::again || reply.error->code == base::Errc::io) {
            due_ms_ = app_.clock.mono_ms() + kPauseMs;
            return;
        }
        base::log(base::Level::warn, "chatd.batch_lost",
                  {{"batch", batch_}, {"reason", reply.reason}, {"error", reply.error->what}});
        runner_.drop(batch_);  // another owns it, or it is gone
    }
    void gone() {
        const auto found = runner_.jobs_.find(batch_);
        if (found != runner_.jobs_.end()) {
            const auto self = shared_from_this();
            runner_.in_flight_ -= found->second->items.erase(row_.index);
        }
    }

    BatchRunner& runner_;
    App& app_;
    std::shared_ptr<bool> alive_;
    std::string batch_;
    store::BatchItemRow row_;
    std::shared_ptr<chat::Answer> answer_;
    std::shared_ptr<Ticket> ticket_;
    store::MessageBatchResult result_;
    State state_ = State::waiting;
    uint32_t tries_ = 0;
    int64_t due_ms_ = 0;
};

BatchRunner::BatchRunner(App& app) : app_(app) {}
BatchRunner::~BatchRunner() { *alive_ = false; }

void BatchRunner::own(const store::MessageBatchRow& row) {
    if (stopped_ || row.state == "ended" || row.state == "creating" || row.owner != app_.owner)
        return;
    const std::string id = store::show_id(store::kBatch, row.id);
    auto& job = jobs_[id];
    if (!job) {
        job = std::make_unique<Job>();
        job->id = id;
        job->caller = caller_of(row, job->newest);
    }
    job->row = row;
    store::Reader* reader = app_.store->reader();
    if (!reader) return;
    auto limits = Auth::limits_of(row.org, row.key_id, *reader);
    job->limits_known = limits.has_value();
    if (limits)
        job->caller.limits = std::move(*limits);
    else
        base::log(base::Level::error, "chatd.batch_limits",
                  {{"batch", id}, {"error", limits.error().message}});
}

void BatchRunner::each_second() {
    store::Reader* reader = app_.store->reader();
    if (stopped_ || !reader || !app_.store->connected()) return;
    auto open = reader->open_batches(kOpenBatchesMax);
    if (!open) return;
    std::map<std::string, bool> lives;
    for (const store::MessageBatchRow& row : *open) {
        if (row.owner == app_.owner) {
            own(row);
            continue;
        }
        auto known = lives.find(row.owner);
        if (known == lives.end())
            known = lives.emplace(row.owner, app_.turns->owner_lives(row.owner)).first;
        if (known->second) continue;
        if (row.state == "creating")
            clear_away(row);  // its client never heard of it
        else
            claim(row);
    }
    app_.metrics.gauge("chatd_batches_open", "message batches that this process runs")
        .set(static_cast<double>(jobs_.size()));
    app_.metrics.gauge("chatd_batch_entries_running", "entries of batches that are under way")
        .set(static_cast<double>(in_flight_));
}

void BatchRunner::claim(const store::MessageBatchRow& row) {
    store::MessageBatchClaim command;
    command.batch = row.id;
    command.owner = app_.owner;
    command.from = row.owner;
    const std::string id = store::show_id(store::kBatch, row.id);
    (void)app_.store->submit(
        command.json(),
        [id](const store::CommandReply& reply) {
            base::log(base::Level::info, "chatd.batch_claimed",
                      {{"batch", id}, {"ok", reply.ok()}, {"reason", reply.reason}});
        },
        kCommandWaitMs);  // the row says so within a second
}

void BatchRunner::clear_away(const store::MessageBatchRow& row) {
    store::MessageBatchDelete command;
    command.org = row.org;
    command.user = row.user;
    command.batch = row.id;
    command.owner = row.owner;
    (void)app_.store->submit(
        command.json(), [](const store::CommandReply&) {}, kCommandWaitMs);
}

void BatchRunner::drop(const std::string& batch) {
    const auto found = jobs_.find(batch);
    if (found == jobs_.end()) return;
    const auto job = std::move(found->second);
    jobs_.erase(found);
    in_flight_ -= job->items.size();
    for (const auto& [index, item] : job->items) item->break_off();
}

void BatchRunner::tick(int64_t now_ms) {
    if (stopped_) return;
    const int64_t wall_ms = app_.clock.wall_ms();
    std::vector<std::string> ids;
    for (const auto& [id, job] : jobs_) ids.push_back(id);
    for (const std::string& id : ids) {
        const auto found = jobs_.find(id);
        if (found == jobs_.end()) continue;
        const auto items = found->second->items;
        for (const auto& [index, item] : items) item->tick(now_ms);
    }
    for (const std::string& id : ids)
        if (const auto found = jobs_.find(id); found != jobs_.end())
            wind_up(*found->second, wall_ms);
    start_some();
}

// A batch that is to end: stops what runs, then has the store sweep what is left.
void BatchRunner::wind_up(Job& job, int64_t wall_ms) {
    const bool expired = job.row.expires_ms <= wall_ms;
    if (job.row.state != "canceling" && !expired) return;
    job.page.clear();
    const auto items = job.items;
    for (const auto& [index, item] : items) item->stop();
    if (!job.items.empty() || job.sweeping) return;
    sweep(job,
          expired && job.row.state != "canceling" ? BatchOutcome::expired : BatchOutcome::canceled);
}

void BatchRunner::sweep(Job& job, BatchOutcome outcome) {
    store::MessageBatchSweep command;
    command.batch = job.row.id;
    command.owner = app_.owner;
    command.outcome = outcome;
    auto sent = app_.store->submit(
        command.json(),
        [this, alive = alive_, id = job.id, outcome](const store::CommandReply& reply) {
            if (!*alive || stopped_) return;
            const auto found = jobs_.find(id);
            if (found == jobs_.end()) return;
            found->second->sweeping = false;  // after a failure: again with the next tick
            simdjson::dom::parser parser;
            bool ended = false;
            if (!reply.ok()) return reply.reason == "fenced" ? drop(id) : void();
            if (!parser.parse(reply.json)["ended"].get(ended) && ended) return drop(id);
            sweep(*found->second, outcome);
        },
        kCommandWaitMs);
    job.sweeping = sent.has_value();
}

// False when nothing of it is left to be started.
bool BatchRunner::refill(Job& job) {
    if (!job.page.empty()) return true;
    store::Reader* reader = app_.store->reader();
    if (job.read_all || !reader) return false;
    auto rows = reader->batch_items(job.row.id, false, job.next, kPageEntries, kPageBytes);
    if (!rows) {
        base::log(base::Level::error, "chatd.batch_unreadable",
                  {{"batch", job.id}, {"error", rows.error().what}});
        return false;
    }
    for (store::BatchItemRow& row : *rows) {
        job.next = row.index + 1;
        job.page.push_back(std::move(row));
    }
    job.read_all = job.page.empty();
    return !job.page.empty();
}

void BatchRunner::start_some() {
    if (in_flight_ >= app_.options.batch_concurrency || jobs_.empty() || app_.not_ready()) return;
    const int64_t wall_ms = app_.clock.wall_ms();
    size_t idle = 0;  // jobs in a row that had nothing to start
    while (in_flight_ < app_.options.batch_concurrency && idle < jobs_.size()) {
        auto next = jobs_.upper_bound(turn_);
        if (next == jobs_.end()) next = jobs_.begin();
        turn_ = next->first;
        Job& job = *next->second;
        if (job.row.state == "canceling" || job.row.expires_ms <= wall_ms || !job.limits_known ||
            !refill(job)) {
            ++idle;
            // All stored: it has ended, and is not among the open ones.
            if (job.read_all && job.items.empty() && job.row.state == "running") {
                drop(next->first);
                idle = 0;
            }
            continue;
        }
        idle = 0;
        store::BatchItemRow row = std::move(job.page.front());
        job.page.pop_front();
        const uint32_t index = row.index;
        const auto item = std::make_shared<Item>(*this, job, std::move(row));
        job.items.emplace(index, item);
        ++in_flight_;
        item->start();
    }
}

void BatchRunner::stop() {
    if (stopped_) return;
    stopped_ = true;
    const auto jobs = std::move(jobs_);
    jobs_.clear();
    in_flight_ = 0;
    for (const auto& [id, job] : jobs)
        for (const auto& [index, item] : job->items) item->break_off();
}

}  // namespace parley::chatd
