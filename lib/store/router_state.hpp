// RouterState: what a router leaves to its successor: what each flow has used, by organization and level.
//
// One row (table meta), replaced as a whole: routers take turns, only the one that serves writes. It makes no
// entry in the change log: nobody follows it, and it changes every second.
// Bounds   4 MiB; conflict never, the last word counts.
#pragma once

#include <string>

namespace parley::store {

// → {}.
struct RouterFlowsPut {
    std::string flows = "{}";  // raw JSON object, the router's own
    std::string json() const;
};
// → {"flows":{…}}, {} where there was never one.
struct RouterFlowsGet {
    std::string json() const { return R"({"command":"router_flows_get"})"; }
};

}  // namespace parley::store
