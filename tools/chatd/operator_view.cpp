#include "operator_view.hpp"

#include <algorithm>
#include <charconv>
#include <map>

#include "app.hpp"
#include "base/json.hpp"
#include "charging.hpp"
#include "page.hpp"
#include "routes.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr int64_t kDayMs = 86'400'000;
constexpr size_t kWaitingMax = 64;

struct OrgUse {
    std::string name, id;
    UsageSum sum;
    std::map<std::string, uint64_t> models;  // requests of each
};

// The newest percentiles of a histogram, in milliseconds.
void write_times(base::JsonWriter& w, const char* key, const telemetry::Histogram& times) {
    const auto ms = [&](double share) { return static_cast<double>(times.percentile(share)) / 1e6; };
    w.key(key).object().field("count", times.count());
    w.field("p50", ms(0.5)).field("p90", ms(0.9)).field("p99", ms(0.99)).end();
}

}  // namespace

OperatorView::~OperatorView() { watch_.reset(); }

bool OperatorView::may_look(const Caller& caller) const {
    if (app_.options.operator_orgs.empty()) return false;
    store::Reader* reader = app_.store->reader();
    if (!reader) return false;
    const auto org = reader->org(caller.org);
    return org && std::find(app_.options.operator_orgs.begin(), app_.options.operator_orgs.end(),
                            org->name) != app_.options.operator_orgs.end();
}

void OperatorView::answer(const ExchangePtr& exchange, int64_t days) {
    if (waiting_.size() >= kWaitingMax)
        return exchange->error(ApiError::overloaded(1));
    const int64_t now = app_.clock.mono_ms();
    const bool fresh = router_ms_ >= 0 && now - router_ms_ < kRouterMs;
    if (fresh) return say({exchange, days});
    waiting_.push_back({exchange, days});
    if (asked_.empty()) ask_router();
}

void OperatorView::ask_router() {
    asking_since_ms_ = app_.clock.mono_ms();
    asked_ = "operator-" + std::to_string(++asks_);
    if (!asker_) {
        pipe::AskerOptions options;
        options.link.endpoint = app_.places.router_asker_endpoint();
        options.link.hello.name = "chatd-operator";
        auto opened = pipe::Asker::open(context_, options, *this);
        if (!opened) return router_done(opened.error().what);
        asker_ = std::move(*opened);
        watch_ = app_.watch(asker_->link());
    }
    if (!asker_->up()) return;  // tick() asks once it is there
    if (auto sent = asker_->ask(asked_, {}, R"({"command":"status"})"); !sent)
        router_done(sent.error().what);
}

void OperatorView::tick() {
    if (asker_) {
        asker_->link().step();
        asker_->tick();
    }
    if (asked_.empty()) return;
    if (asker_ && asker_->up() && asker_->live() == 0) {
        if (auto sent = asker_->ask(asked_, {}, R"({"command":"status"})"); !sent)
            return router_done(sent.error().what);
    }
    if (!asked_.empty() && app_.clock.mono_ms() - asking_since_ms_ > kRouterWaitMs) {
        if (asker_) asker_->cancel(asked_, "late");
        router_done("the router does not answer");
    }
}

void OperatorView::on_event(const std::string& id, const pipe::EventMeta&, std::string body) {
    if (id == asked_) router_ = std::move(body);
}

void OperatorView::on_end(const std::string& id, const pipe::EndMeta& meta) {
    if (id == asked_) router_done(meta.ok() ? "" : "the router refused: " + meta.reason);
}

void OperatorView::router_done(std::string error) {
    asked_.clear();
    if (!error.empty()) router_.clear();
    router_error_ = std::move(error);
    router_ms_ = app_.clock.mono_ms();
    for (const Waiting& one : std::exchange(waiting_, {})) say(one);
}

std::string OperatorView::usage(int64_t days) {
    const int64_t now = app_.clock.mono_ms();
    if (usage_days_ == days && now - usage_ms_ < kUsageMs) return usage_;
    std::vector<OrgUse> uses;
    store::Reader* reader = app_.store->reader();
    const auto today = static_cast<uint32_t>(app_.clock.wall_ms() / kDayMs);
    const uint32_t first = today - static_cast<uint32_t>(days - 1);
    if (reader) {
        const auto orgs = reader->orgs();
        for (const store::OrgRow& org : orgs ? *orgs : std::vector<store::OrgRow>()) {
            OrgUse use;
            use.name = org.name;
            use.id = store::show_id(store::kOrg, org.id);
            if (const auto totals = reader->usage(org.id, first, today))
                for (const store::UsageTotal& total : *totals) {
                    use.sum.add(app_, total);
                    use.models[app_.catalog->name_of_version(total.model)] += total.requests;
                }
            uses.push_back(std::move(use));
        }
    }
    std::stable_sort(uses.begin(), uses.end(), [](const OrgUse& a, const OrgUse& b) {
        return std::tie(a.sum.cost_micro, a.sum.compute_us) >
               std::tie(b.sum.cost_micro, b.sum.compute_us);
    });
    const bool more = uses.size() > kOrgsMax;
    if (more) uses.resize(kOrgsMax);
    usage_.clear();
    base::JsonWriter w(usage_);
    w.object().field("days", days);
    w.field("from", base::rfc3339(int64_t{first} * kDayMs).substr(0, 10));
    w.field("to", base::rfc3339(int64_t{today} * kDayMs).substr(0, 10));
    w.key("orgs").array();
    for (const OrgUse& use : uses) {
        w.object().field("org", use.name).field("org_id", use.id);
        use.sum.write(w);
        w.key("models").object();
        for (const auto& [model, requests] : use.models) w.field(model, requests);
        w.end().end();
    }
    w.end().field("orgs_more", more).end();
    usage_days_ = days;
    usage_ms_ = now;
    return usage_;
}

void OperatorView::say(const Waiting& one) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "operator_view").field("at", base::rfc3339_ms(app_.clock.wall_ms()));
    const char* missing = app_.not_ready();
    w.key("server").object().field("ready", missing == nullptr);
    if (missing) w.field("not_ready", missing);
    w.field("answers", uint64_t{app_.answers.live()});
    w.field("filters_up", uint64_t{app_.hop->count_up()});
    w.field("store_pending", uint64_t{app_.store->pending()});
    write_times(w, "ttft_ms",
                app_.metrics.histogram("chatd_ttft_seconds", "request received to the first delta"));
    w.end();
    w.key("router");
    if (router_.empty())
        w.null().field("router_error", router_error_);
    else
        w.raw(router_);
    w.key("usage").raw(usage(one.days)).end();
    http::Response response = json_response(200, std::move(out), one.exchange->request_id);
    response.header("cache-control", "no-store");
    one.exchange->reply(std::move(response));
}

void get_operator(const ExchangePtr& exchange) {
    OperatorView& view = *exchange->app.operator_view;
    if (!view.may_look(exchange->caller))
        return exchange->error(ApiError::of(
            ErrorType::permission_error,
            "this is for members of an operator's organisation: chatd --operator-org names them"));
    int64_t days = 1;
    if (const auto text = exchange->request.query_value("days")) {
        const auto read = std::from_chars(text->data(), text->data() + text->size(), days);
        if (read.ec != std::errc() || read.ptr != text->data() + text->size() || days < 1 ||
            days > OperatorView::kDaysMax)
            return exchange->error(ApiError::invalid("days: Input should be 1 to 92"));
    }
    view.answer(exchange, days);
}

void get_operator_page(const ExchangePtr& exchange) { serve_page_file(exchange, "operator.html"); }

}  // namespace parley::chatd
