// SearchDesk: searches of all callers, made in one thread beside the loop, so that a long one holds up no
// stream. The index is opened when it is first asked for, and again after it was broken.
//
// Bounds   queue_max searches wait; run() is false beyond: answer 529.
// Errors   those of search::Index: unavailable (no index yet), corrupt (a rebuild was asked for)
// Threads  run() from the loop's; `done` is called on the loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "counter_thread.hpp"
#include "search/searcher.hpp"

namespace parley::chatd {

class SearchDesk {
  public:
    SearchDesk(http::Loop& loop, std::string dir, size_t queue_max = 64)
        : dir_(std::move(dir)), thread_(loop, queue_max) {}

    // The index as of now, in the thread.
    using Work = std::function<void(base::Result<search::Index*>)>;
    bool run(Work work, std::function<void()> done);

  private:
    base::Result<search::Index*> open();

    std::string dir_;
    std::unique_ptr<search::Index> index_;  // the thread's
    CounterThread thread_;                  // ends before the index goes
};

}  // namespace parley::chatd
