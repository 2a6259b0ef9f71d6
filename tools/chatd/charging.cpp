#include "charging.hpp"

#include "app.hpp"

namespace parley::chatd {

void charge(App& app, store::Charge who, const chat::Answer& answer, const chat::Outcome& outcome) {
    if (outcome.attempts == 0 ||
        (outcome.usage.prompt_tokens() == 0 && outcome.usage.output_tokens == 0))
        return;
    who.request_id = answer.id();
    who.model = outcome.version.empty() ? answer.options().model : outcome.version;
    who.service_class = std::string(pipe::name(answer.options().envelope.cls));
    who.status = std::string(chat::name(outcome.status));
    who.input_tokens = outcome.usage.prompt_tokens();
    who.output_tokens = outcome.usage.output_tokens;
    who.cached_tokens = outcome.usage.cache_read_input_tokens;
    who.compute_us = static_cast<uint64_t>(outcome.cost_s * 1e6);
    app.charging->add(std::move(who));
}

Charging::Charging(App& app)
    : app_(app),
      lost_(app.metrics.counter("chatd_charges_lost_total",
                                "usage rows that the store did not take")),
      timer_(app.loop) {}

void Charging::add(store::Charge charge) {
    if (waiting_.empty()) timer_.after(kChargeWaitMs, [this] { flush(); });
    waiting_.push_back(std::move(charge));
    if (waiting_.size() >= kChargesMax) flush();
}

void Charging::flush() {
    timer_.cancel();
    if (waiting_.empty()) return;
    const size_t count = waiting_.size();
    const std::string json = count == 1 ? waiting_.front().json() : store::charges_json(waiting_);
    waiting_.clear();
    const auto sent = app_.store->submit(
        json,
        [&lost = lost_, count](const store::CommandReply& reply) {
            if (!reply.ok()) lost.add(count);
        },
        0);
    if (!sent) lost_.add(count);
}

void UsageSum::add(const App& app, const store::UsageTotal& total) {
    requests += total.requests;
    input_tokens += total.input_tokens;
    output_tokens += total.output_tokens;
    compute_us += total.compute_us;
    cost_micro += app.gate->cost_of(total.model, total.input_tokens, total.output_tokens);
}

void UsageSum::write(base::JsonWriter& w) const {
    w.field("requests", requests).field("input_tokens", input_tokens);
    w.field("output_tokens", output_tokens);
    w.field("compute_seconds", static_cast<double>(compute_us) / 1e6);
    w.field("cost", static_cast<double>(cost_micro) / 1e6);
}

}  // namespace parley::chatd
