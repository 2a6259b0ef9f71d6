#include "filter/filter.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "messages/events.hpp"

namespace parley::filter {
namespace {

constexpr uint32_t kGrantLeast = 16;  // credit goes back in handfuls

std::string joined(const std::vector<std::string>& rules) {
    std::string out;
    for (const std::string& rule : rules) out += (out.empty() ? "" : ",") + rule;
    return out;
}

int64_t left(int64_t ms, int64_t spent_ms) {
    return ms == 0 ? 0 : std::max<int64_t>(1, ms - spent_ms);
}

}  // namespace

Filter::Filter(std::shared_ptr<const safety::Judge> judge, stamp::Key key, FilterOptions options,
               std::function<void()> wake, std::function<void(const Notice&)> notice)
    : options_(options),
      key_(std::move(key)),
      notice_(std::move(notice)),
      judges_(std::move(judge), options.threads, options.judging_max, std::move(wake)) {}
Filter::~Filter() = default;

void Filter::connect(pipe::Answerer& askers, pipe::Asker& router) {
    askers_ = &askers;
    router_ = &router;
}

void Filter::set_judge(std::shared_ptr<const safety::Judge> judge) {
    judges_.set_judge(std::move(judge));
}

void Filter::drain() { askers_->drain(); }

void Filter::on_ask(pipe::Ask ask) {
    Live live;
    live.ticket = ++last_ticket_;
    live.attempt = ask.envelope.attempt;
    live.asked_ms = base::system_clock().mono_ms();
    live.deadline_ms = live.asked_ms + judges_.bound_ms(ask.body.size());
    live.envelope = std::move(ask.envelope);
    live.body = std::move(ask.body);
    const auto row = live_.insert_or_assign(ask.id, std::move(live)).first;
    ++judging_;
    if (auto queued = judges_.submit(row->second.ticket, row->second.body); !queued)
        return fail(row, "overloaded_error", "queue_full", "Overloaded", true, 1);
    tickets_[row->second.ticket] = ask.id;
}

void Filter::work() {
    for (Outcome& one : judges_.take()) outcome(std::move(one));
}

void Filter::outcome(Outcome outcome) {
    const auto ticket = tickets_.find(outcome.ticket);
    if (ticket == tickets_.end()) return;  // cancelled, replaced or given up meanwhile
    const auto row = live_.find(ticket->second);
    tickets_.erase(ticket);
    if (row == live_.end() || row->second.ticket != outcome.ticket) return;
    Live& live = row->second;
    if (outcome.refused) {
        const messages::ApiError& error = *outcome.refused;
        return fail(row, std::string(messages::name(error.type)), "invalid_body", error.message,
                    false);
    }
    if (outcome.error) {
        using base::Errc;
        const base::Error& error = *outcome.error;
        if (error.code == Errc::too_large)
            return fail(row, "request_too_large", "text_too_large", error.what, false);
        if (error.code == Errc::invalid)
            return fail(row, "invalid_request_error", "invalid_text", error.what, false);
        notice_({Notice::Kind::late,
                 row->first,
                 0,
                 {},
                 "",
                 outcome.judge->policy().name(),
                 error.what,
                 outcome.took_ns});
        if (error.code == Errc::timeout)
            return fail(row, "overloaded_error", "filter_late", "Overloaded", true, 1);
        return fail(row, "api_error", "filter_failed", "the safety filter failed", true, 1);
    }
    live.judge = outcome.judge;
    live.judging = false;
    --judging_;
    const safety::Verdict& verdict = outcome.verdict;
    const bool block = verdict.action == safety::Action::block;
    notice_({block ? Notice::Kind::blocked_input : Notice::Kind::judged, row->first, verdict.score,
             verdict.action, joined(verdict.rules), live.judge->policy().name(), verdict.reason,
             outcome.took_ns});
    live.chain = std::make_unique<stamp::Chain>(key_, row->first, live.attempt);
    if (block) return refuse(row, outcome);
    pass_on(row, outcome);
}

void Filter::refuse(Row row, const Outcome& outcome) {
    Live& live = row->second;
    const std::string details =
        refusal_details(live.judge->policy().input_message(), outcome.verdict.hazard);
    if (live.envelope.continuation) {
        // The reader has had the start of an answer: it gets the rest of a refusal, not a second start.
        live.answer =
            std::make_unique<Answer>(live.judge->policy_ptr(), "", live.envelope.continuation);
        std::vector<OutEvent> out;
        live.answer->refuse_now(details, out);
        for (OutEvent& event : out) live.outbox.push_back(std::move(event));
    } else {
        for (std::string& body :
             messages::refusal_events("msg_" + row->first, outcome.model, {}, details))
            live.outbox.push_back(OutEvent{{}, std::move(body)});
    }
    live.end = pipe::EndMeta{};
    live.end->reason = "refused_input";
    live.end->usage = pipe::Usage{};
    flush(row);
}

void Filter::pass_on(Row row, Outcome& outcome) {
    Live& live = row->second;
    live.answer = std::make_unique<Answer>(live.judge->policy_ptr(), outcome.question,
                                           live.envelope.continuation);
    if (live.answer->verdict().action == safety::Action::block) {
        std::vector<OutEvent> out;
        live.answer->refuse_now("", out);
        for (OutEvent& event : out) live.outbox.push_back(std::move(event));
        live.end = pipe::EndMeta{};
        live.end->reason = "refused_output";
        return flush(row);
    }
    pipe::Envelope envelope = live.envelope;
    const int64_t spent = base::system_clock().mono_ms() - live.asked_ms;
    envelope.ttft_ms = left(envelope.ttft_ms, spent);
    envelope.stall_ms = left(envelope.stall_ms, spent);
    envelope.total_ms = left(envelope.total_ms, spent);
    envelope.credit = options_.upstream_credit;
    live.asked_router = true;
    auto asked = router_->ask(row->first, envelope, std::move(live.body));
    live.body.clear();
    if (asked) return;
    live.asked_router = false;
    if (asked.error().code == base::Errc::again)
        return fail(row, "overloaded_error", "queue_full", "Overloaded", true, 1);
    fail(row, "api_error", "peer_gone", asked.error().what, true);
}

void Filter::on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) {
    const auto row = live_.find(id);
    if (row == live_.end() || row->second.attempt != meta.attempt) return;
    Live& live = row->second;
    if (live.cancelled || live.end || !live.answer) return;
    std::vector<OutEvent> out;
    pipe::EventMeta plain;
    plain.ids = meta.ids;
    plain.stamp_ns = meta.stamp_ns;
    auto done = live.answer->event(std::move(plain), std::move(body), out);
    if (!done) {
        const bool late = done.error().code == base::Errc::timeout;
        notice_({late ? Notice::Kind::late : Notice::Kind::malformed,
                 id,
                 0,
                 {},
                 "",
                 live.judge->policy().name(),
                 done.error().what,
                 0});
        router_->cancel(id, late ? "filter_late" : "malformed");
        return fail(row, "api_error", late ? "filter_late" : "malformed", done.error().what, true);
    }
    for (OutEvent& event : out) live.outbox.push_back(std::move(event));
    if (live.answer->refused()) {
        const safety::Verdict& verdict = live.answer->verdict();
        notice_({Notice::Kind::blocked_output, id, verdict.score, verdict.action,
                 joined(verdict.rules), live.judge->policy().name(), verdict.reason, 0});
        live.end = pipe::EndMeta{};
        live.end->reason = "refused_output";
        live.end->usage = pipe::Usage{live.answer->input_tokens(), 0, live.answer->output_tokens()};
        router_->cancel(id, "refused");
        return flush(row);
    }
    ++live.owed;
    if (live.owed >= kGrantLeast && live.outbox.size() < options_.outbox_events_max) {
        router_->grant(id, live.owed);
        live.owed = 0;
    }
    flush(row);
}

void Filter::on_end(const std::string& id, const pipe::EndMeta& meta) {
    const auto row = live_.find(id);
    if (row == live_.end() || row->second.attempt != meta.attempt) return;
    Live& live = row->second;
    live.asked_router = false;
    if (live.cancelled) {
        pipe::EndMeta end = meta;
        end.status = "cancelled";
        end.retryable = false;
        return finish(row, std::move(end));
    }
    if (live.end) return;  // a refusal is on its way; what the router says of the rest is no news
    if (meta.ok() && !(live.answer && live.answer->finished())) {
        notice_({Notice::Kind::malformed,
                 id,
                 0,
                 {},
                 "",
                 live.judge->policy().name(),
                 "the answer ended before message_stop",
                 0});
        return fail(row, "api_error", "malformed", "the answer ended before message_stop", true);
    }
    live.end = meta;
    flush(row);
}

void Filter::flush(Row row) {
    Live& live = row->second;
    const std::string& policy = live.judge->policy().name();
    while (!live.outbox.empty() && askers_->credit(row->first) > 0) {
        OutEvent event = std::move(live.outbox.front());
        live.outbox.pop_front();
        event.meta.policy = policy;
        event.meta.stamp = live.chain->next(askers_->next_seq(row->first), policy, event.body);
        // A peer that is gone shows as on_cancel in a moment.
        if (!askers_->event(row->first, std::move(event.meta), std::move(event.body))) return;
    }
    if (live.outbox.empty() && live.end) {
        pipe::EndMeta end = std::move(*live.end);
        return finish(row, std::move(end));
    }
    if (live.asked_router && live.owed >= kGrantLeast &&
        live.outbox.size() < options_.outbox_events_max) {
        router_->grant(row->first, live.owed);
        live.owed = 0;
    }
}

void Filter::finish(Row row, pipe::EndMeta meta) {
    const std::string id = row->first;
    if (row->second.judging) {
        --judging_;
        tickets_.erase(row->second.ticket);
    }
    live_.erase(row);
    askers_->end(id, std::move(meta));
}

void Filter::fail(Row row, std::string status, std::string reason, std::string what, bool retryable,
                  uint32_t retry_after_s) {
    pipe::EndMeta meta;
    meta.status = std::move(status);
    meta.reason = std::move(reason);
    meta.message = std::move(what);
    meta.retryable = retryable;
    meta.retry_after_s = retry_after_s;
    // The end does not wait for a slow reader: what was judged and waits for credit comes again with
    // the next attempt.
    row->second.outbox.clear();
    finish(row, std::move(meta));
}

void Filter::on_cancel(const std::string& id, uint32_t attempt, pipe::Cancel why) {
    if (why == pipe::Cancel::refused) why = pipe::Cancel::asked;  // by a filter before this one
    const auto row = live_.find(id);
    if (row == live_.end() || row->second.attempt != attempt) return;
    Live& live = row->second;
    const bool running = live.asked_router && !live.end;
    if (running) router_->cancel(id, why == pipe::Cancel::asked ? "cancelled" : "gone");
    if (why == pipe::Cancel::asked && running) {
        // END comes with what was used; the asker's own timeout bounds the wait.
        live.cancelled = true;
        live.outbox.clear();
        return;
    }
    pipe::EndMeta meta;
    meta.status = "cancelled";
    finish(row, std::move(meta));
}

void Filter::on_credit(const std::string& id, uint32_t /*available*/) {
    const auto row = live_.find(id);
    if (row != live_.end() && row->second.judge && !row->second.cancelled) flush(row);
}

void Filter::on_tag(const std::string& /*id*/, double /*tag*/) {}

void Filter::tick() {
    router_->tick();
    if (judging_ == 0) return;
    const int64_t now = base::system_clock().mono_ms();
    std::vector<std::string> late;
    for (const auto& [id, live] : live_)
        if (live.judging && live.deadline_ms < now) late.push_back(id);
    for (const std::string& id : late) {
        const auto row = live_.find(id);
        notice_({Notice::Kind::late,
                 id,
                 0,
                 {},
                 "",
                 judges_.judge()->policy().name(),
                 "no verdict within its wall clock bound",
                 0});
        fail(row, "overloaded_error", "filter_late", "Overloaded", true, 1);
    }
}

void Filter::on_peer_up(pipe::Peer, const pipe::HelloMeta& hello) {
    if (hello.role == pipe::Role::answerer)
        notice_({Notice::Kind::router_up, "", 0, {}, "", "", hello.name, 0});
}

void Filter::on_peer_down(pipe::Peer, const std::string&) {}

}  // namespace parley::filter
