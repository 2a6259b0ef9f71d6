// What routers leave to each other.
#include "store/batch.hpp"

namespace parley::store {

namespace {
constexpr std::string_view kFlowsKey = "router.flows";
constexpr size_t kFlowsMax = 4u << 20;
}  // namespace

Step do_router_flows_put(Batch& batch, Fields& f) {
    std::string flows;
    f.raw("flows", flows, RawKind::object);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (flows.empty()) return refuse(Errc::invalid, "flows should be an object");
    if (flows.size() > kFlowsMax) return refuse(Errc::too_large, "flows are at most 4 MiB");
    if (auto done = batch.put(Table::meta, kFlowsKey, flows); !done) return refuse(done.error());
    return Said{};
}

Step do_router_flows_get(Batch& batch, Fields& f) {
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    auto flows = batch.find_text(Table::meta, kFlowsKey);
    if (!flows) return refuse(flows.error());
    // A resend is told nothing old: whoever asks again wants what is there now.
    return Said{member_raw("flows", *flows ? **flows : "{}"), member_raw("flows", "{}")};
}

}  // namespace parley::store
