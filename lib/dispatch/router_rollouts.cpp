// What the router does for rollouts: commands of an operator, probes, shadow copies, outcomes, and what
// waits for a version that is taken back.
#include <fmt/format.h>

#include <algorithm>

#include "base/clock.hpp"
#include "base/json.hpp"
#include "base/ulid.hpp"
#include "dispatch/probe.hpp"

namespace parley::dispatch {

using rollout::Rollout;
using rollout::State;

namespace {

constexpr size_t kGoldenMax = 256;
constexpr uint32_t kProbeCredit = 1024, kProbeTokensMax = 512;

std::string text_at(simdjson::dom::element body, const char* key) {
    std::string_view text;
    return body[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

pipe::EndMeta failed(const std::string& message) {
    pipe::EndMeta end;
    end.status = "invalid_request_error";
    end.reason = "rollout";
    end.message = message;
    return end;
}

}  // namespace

void Router::Probe::read(const std::string& event) {
    thread_local simdjson::dom::parser parser(16u << 20);
    simdjson::dom::element document;
    std::string_view piece;
    if (parser.parse(simdjson::padded_string(event)).get(document) == simdjson::SUCCESS &&
        document["delta"]["text"].get(piece) == simdjson::SUCCESS)
        text += piece;
}

bool Router::command(const pipe::Ask& ask, simdjson::dom::element body) {
    // Requests of clients carry an organisation: their bodies command nothing.
    if (!ask.envelope.org.empty()) return false;
    const std::string verb = text_at(body, "command");
    if (verb == "status") {
        (void)askers_->event(ask.id, {}, status_json());
        askers_->end(ask.id, {});
        return true;
    }
    if (verb.rfind("rollout_", 0) != 0) return false;
    rollout_command(ask.id, verb, body);
    return true;
}

void Router::rollout_command(const std::string& id, const std::string& verb,
                             simdjson::dom::element body) {
    const int64_t now = options_.clock->wall_ms();
    const std::string alias = text_at(body, "alias"), who = text_at(body, "who"),
                      why = text_at(body, "why");
    if (verb != "rollout_start") {
        Rollout* const rollout = rollouts_.find(alias);
        if (rollout == nullptr)
            return askers_->end(id, failed("no rollout of '" + alias + "' is known"));
        if (verb != "rollout_promote" && verb != "rollout_abort")
            return askers_->end(id, failed("'" + verb + "' is no command"));
        auto done = verb == "rollout_promote" ? rollout->promote(who, why, now)
                                              : rollout->abort(who, why, now);
        if (!done) return askers_->end(id, failed(done.error().what));
        rollouts_.note(alias);
        take_steps(now);
        return askers_->end(id, {});
    }
    auto probe = std::make_unique<Probe>();
    rollout::Spec& spec = probe->spec;
    spec.id = base::random_id("rollout_");
    spec.alias = alias;
    spec.who = who;
    spec.why = why;
    spec.gates = options_.gates;
    const std::string target = text_at(body, "canary"), wanted = text_at(body, "stages");
    auto stages = rollout::parse_stages(wanted.empty() ? options_.stages : wanted);
    if (!stages) return askers_->end(id, failed(stages.error().what));
    spec.stages = std::move(*stages);
    const auto stable = catalogue_.resolve(alias), canary = catalogue_.resolve(target);
    if (!stable || catalogue_.way(alias).size() < 2)
        return askers_->end(id, failed("'" + alias + "' is no alias of a model"));
    if (!canary) return askers_->end(id, failed("no model version is called '" + target + "'"));
    spec.stable = *stable;
    spec.canary = *canary;
    if (auto may = rollouts_.may_start(spec); !may)
        return askers_->end(id, failed(may.error().what));
    if (probe_) return askers_->end(id, failed("another version is being probed: try again"));
    for (const auto& [peer, worker] : workers().all())
        if (!worker.draining && std::count(worker.models.begin(), worker.models.end(), *canary) > 0)
            probe->worker = peer;
    if (probe->worker == 0)
        return askers_->end(id, failed("no worker serves version " + canary->substr(0, 12)));
    simdjson::dom::array golden;
    if (body["golden"].get(golden) == simdjson::SUCCESS)
        for (const auto each : golden) {
            Golden one{text_at(each, "prompt"), text_at(each, "expect"), 32, false};
            if (each["max_tokens"].get(one.max_tokens) != simdjson::SUCCESS) one.max_tokens = 32;
            if (one.prompt.empty() || one.max_tokens == 0 || one.max_tokens > kProbeTokensMax ||
                probe->golden.size() >= kGoldenMax)
                return askers_->end(
                    id, failed(fmt::format("golden prompts: at most {}, each with a prompt, expect "
                                           "and max_tokens from 1 to {}",
                                           kGoldenMax, kProbeTokensMax)));
            probe->golden.push_back(std::move(one));
        }
    if (probe->golden.empty()) probe->golden.push_back({"Hello", "", 8, true});
    probe->operator_id = id;
    probe_ = std::move(probe);
    probe_next();
}

void Router::probe_next() {
    Probe& probe = *probe_;
    if (probe.at == probe.golden.size()) {
        const auto done = std::move(probe_);
        const int64_t now = options_.clock->wall_ms();
        Rollout& rollout = rollouts_.start(done->spec, now);
        rollout.golden(done->wrong, static_cast<uint32_t>(done->golden.size()), now,
                       done->first_wrong);
        take_steps(now);
        return askers_->end(done->operator_id, rollout.running()
                                                   ? pipe::EndMeta{}
                                                   : failed(rollout.steps().back().why));
    }
    const Golden& golden = probe.golden[probe.at];
    probe.text.clear();
    probe.id = base::random_id("probe_");
    pipe::Envelope envelope;
    envelope.org = "golden";
    envelope.version = probe.spec.canary;
    envelope.credit = kProbeCredit;
    envelope.seed = 1;
    std::string body;
    base::JsonWriter w(body);
    w.object().field("model", probe.spec.canary).field("max_tokens", golden.max_tokens);
    w.field("temperature", 0).key("messages").array().object().field("role", "user");
    w.field("content", golden.prompt).end().end().end();
    const auto asked = workers_->ask(probe.worker, probe.id, envelope, std::move(body));
    if (asked) return;
    pipe::EndMeta end;
    end.status = "api_error";
    end.message = asked.error().what;
    probe_ended(end);
}

void Router::probe_ended(const pipe::EndMeta& end) {
    Probe& probe = *probe_;
    if (!end.ok()) {  // says nothing of the version's answers: nothing was begun
        const auto lost = std::move(probe_);
        return askers_->end(lost->operator_id,
                            failed(fmt::format("prompt {} of {} ended with {}: {}", lost->at + 1,
                                               lost->golden.size(), end.status, end.message)));
    }
    const Golden& golden = probe.golden[probe.at++];
    if (!golden.warm_up && probe.text != golden.expect && probe.wrong++ == 0)
        probe.first_wrong =
            fmt::format("'{}' gave '{}'", golden.prompt.substr(0, 80), probe.text.substr(0, 80));
    probe_next();
}

void Router::count(const std::string& id, const Running& running, const pipe::EndMeta& end) {
    const Job& job = running.job;
    if (job.alias.empty()) return;
    Rollout* const rollout = rollouts_.find(job.alias);
    if (rollout == nullptr) return;
    rollout::Outcome outcome;
    const bool empty = end.ok() && end.usage && end.usage->output_tokens == 0;
    outcome.error = end.status == "api_error" || empty;
    outcome.filtered = job.filtered;
    // What the client, its asker or the load ended says nothing of the version.
    if (!outcome.error && !outcome.filtered && !end.ok()) return;
    // A stream that went on elsewhere or had begun before has no first token here.
    if (running.first_ms > 0 && job.moves == 0 && !job.ask.envelope.continuation) {
        outcome.ttft_ms = static_cast<double>(running.first_ms - running.started_ms);
        constexpr uint32_t kEventsLeast = 8;
        if (running.events >= kEventsLeast)
            outcome.itl_ms = static_cast<double>(running.last_ms - running.first_ms) /
                             static_cast<double>(running.events - 1);
    }
    outcome.prompt_bytes = job.ask.body.size();
    rollout->outcome(job.assigned, outcome);
    if (outcome.error || outcome.filtered || job.shadow) return;
    if (!counted_.insert_or_assign(id, Counted{job.alias, job.assigned}).second) return;
    counted_order_.push_back(id);
    if (counted_order_.size() <= kCountedKept) return;
    counted_.erase(counted_order_.front());
    counted_order_.pop_front();
}

// The filter judges behind the stream: its word on the last tokens comes after our END.
void Router::refused_late(const std::string& id) {
    const auto at = counted_.find(id);
    if (at == counted_.end()) return;
    const Counted counted = std::move(at->second);
    at->second.alias.clear();  // once
    if (rollout::Rollout* const rollout = rollouts_.find(counted.alias))
        rollout->filtered(counted.assigned);
}

void Router::shadow(const Job& of) {
    if (shadows_ >= kShadowsMax) return;
    Job job;
    job.model = rollouts_.find(of.alias)->spec().canary;
    job.alias = of.alias;
    job.assigned = {true, of.assigned.stage};
    job.shadow = true;
    job.max_tokens = of.max_tokens;
    job.ask.id = "shadow-" + of.ask.id;
    job.ask.body = of.ask.body;
    job.ask.envelope.org = "shadow";
    job.ask.envelope.cls = pipe::Class::batch;
    job.ask.envelope.seed = of.ask.envelope.seed;
    job.ask.envelope.sampling = of.ask.envelope.sampling;
    if (waiting_.count(job.ask.id) != 0 || running_.count(job.ask.id) != 0) return;
    if (!admit(std::move(job))) ++shadows_;
}

// New requests go to the stable version from now on; so does what waits and has not begun.
void Router::reroute(const std::string& alias) {
    const Rollout& rollout = *rollouts_.find(alias);
    std::vector<std::string> ids;
    for (const auto& [id, job] : waiting_)
        if (job.alias == alias && job.model == rollout.spec().canary && !job.delivered.begun() &&
            !job.ask.envelope.continuation)
            ids.push_back(id);
    std::sort(ids.begin(), ids.end());
    for (const std::string& id : ids) {
        Job job = take_waiting(id);
        scheduler_.cancel(job.ticket);
        if (job.shadow) {
            --shadows_;
            continue;
        }
        job.model = rollout.spec().stable;
        job.alias.clear();
        versions_.erase(id);
        if (const auto refusal = admit(std::move(job))) refuse(id, *refusal);
    }
}

void Router::take_steps(int64_t now_ms) {
    rollouts_.look(now_ms);
    for (const std::string& alias : rollouts_.take_changes()) {
        const Rollout& rollout = *rollouts_.find(alias);
        if (rollout.state() == State::rolled_back || rollout.state() == State::aborted)
            reroute(alias);
        models_.on_rollout(rollout);
    }
}

void Router::remember(const std::string& id, const std::string& hash) {
    if (!versions_.insert_or_assign(id, hash).second) return;
    versions_order_.push_back(id);
    if (versions_order_.size() <= kVersionsKept) return;
    versions_.erase(versions_order_.front());
    versions_order_.pop_front();
}

}  // namespace parley::dispatch
