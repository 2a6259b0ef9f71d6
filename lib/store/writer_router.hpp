// The handlers of router_state.hpp's commands.
#pragma once

#include "store/batch.hpp"

namespace parley::store {

Step do_router_flows_put(Batch&, Fields&);
Step do_router_flows_get(Batch&, Fields&);

}  // namespace parley::store
