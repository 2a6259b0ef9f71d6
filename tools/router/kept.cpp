#include "kept.hpp"

#include <simdjson.h>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "store/commands.hpp"

namespace parley::router {

using base::Level;

void Kept::restore() {
    restore_rollouts();
    (void)client_.submit(store::RouterFlowsGet{}.json(), [this](const store::CommandReply& reply) {
        flows_known_ = true;
        if (reply.ok()) return use_flows(reply.json);
        base::log(Level::error, "flows.unreadable", {{"why", reply.error->what}});
    });
}

void Kept::save() {
    save_flows();
    save_rollouts();
}

void Kept::save_flows() {
    if (!flows_known_ || pending_) return;
    store::RouterFlowsPut put;
    put.flows.clear();
    base::JsonWriter w(put.flows);
    w.object().key("flows").array();
    for (const auto& flow : router_.scheduler().queue().save()) {
        w.object().field("org", flow.org).field("batch", flow.level == dispatch::Level::batch);
        w.field("beyond_s", flow.beyond).field("used_s", flow.used_s).end();
    }
    w.end().end();
    if (put.flows == last_flows_) return;
    last_flows_ = put.flows;
    const auto sent = client_.submit(put.json(), [this](const store::CommandReply& reply) {
        pending_ = false;
        if (reply.ok()) return;
        last_flows_.clear();
        base::log(Level::error, "flows.failed", {{"why", reply.error->what}});
    });
    pending_ = sent.has_value();
}

void Kept::use_flows(const std::string& json) {
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    simdjson::dom::array flows;
    if (parser.parse(simdjson::padded_string(json)).get(document) != simdjson::SUCCESS ||
        document["flows"]["flows"].get(flows) != simdjson::SUCCESS)
        return;  // none yet
    std::vector<dispatch::FairQueue::Saved> saved;
    for (const auto flow : flows) {
        dispatch::FairQueue::Saved each;
        std::string_view org;
        bool batch = false;
        if (flow["org"].get(org) != simdjson::SUCCESS ||
            flow["beyond_s"].get(each.beyond) != simdjson::SUCCESS)
            continue;
        if (flow["batch"].get(batch) != simdjson::SUCCESS) batch = false;
        if (flow["used_s"].get(each.used_s) != simdjson::SUCCESS) each.used_s = 0;
        each.org = org;
        each.level = batch ? dispatch::Level::batch : dispatch::Level::online;
        saved.push_back(std::move(each));
    }
    router_.scheduler().queue().restore(saved);
    base::log(Level::info, "flows.restored", {{"flows", saved.size()}});
}

void Kept::save_rollouts() {
    std::string json;
    for (const auto& [alias, rollout] : router_.rollouts().all()) json += rollout.save() + "\n";
    if (json == last_rollouts_) return;
    if (auto written = base::write_file(rollouts_, json, 0600); !written)
        return base::log(Level::error, "rollouts.failed", {{"why", written.error().what}});
    last_rollouts_ = std::move(json);
}

void Kept::restore_rollouts() {
    auto lines = base::read_file(rollouts_, 64u << 20);
    if (!lines) return;  // none yet
    for (size_t from = 0; from < lines->size();) {
        const size_t end = std::min(lines->find('\n', from), lines->size());
        if (auto known = router_.rollouts().restore(lines->substr(from, end - from), false); !known)
            base::log(Level::warn, "rollouts.unreadable",
                      {{"path", rollouts_}, {"why", known.error().what}});
        from = end + 1;
    }
}

}  // namespace parley::router
