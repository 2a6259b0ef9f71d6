// Lease: one follower of several does the work; another takes over when it dies or stands still.
//
// How       PATH says who holds it, by which epoch, until when (monotonic time of this boot). It is renewed
//           by guard(); a holder whose process has died is noticed at once (it held a file lock), one that
//           has stopped after its time to live. Who was overtaken meets a higher epoch in guard() and may
//           not go on: what guard() runs is run by the present holder only.
// Limit     a process that is stopped (not killed) in the moment of guard()'s work keeps the lease until it is
//           continued or killed: nobody could take its half-done work out of its hands.
// Files     PATH, PATH.lock (held for moments), PATH.alive (held while the holder lives). Local disk.
// Errors    Errc::conflict   another has taken over; say so and end, or try_take() again
// Threads   one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace parley::store {

class Lease {
  public:
    // Empty while another holds it. `clock` outlives the lease.
    static base::Result<std::optional<Lease>> try_take(const std::string& path, int64_t ttl_ms,
                                                       const base::Clock& clock = base::system_clock());
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&&) = delete;
    ~Lease();  // gives it up, unless it was lost

    // Renews, then runs `work` while nobody can take over. Work is short: it holds up a taker.
    base::Result<void> guard(const std::function<base::Result<void>()>& work);
    base::Result<void> renew() {
        return guard([] { return base::Result<void>{}; });
    }
    uint64_t epoch() const { return epoch_; }
    int64_t ttl_ms() const { return ttl_ms_; }

  private:
    Lease(std::string path, int64_t ttl_ms, const base::Clock& clock)
        : path_(std::move(path)), ttl_ms_(ttl_ms), clock_(&clock) {}
    base::Result<void> write(int64_t until_ms);
    void hold_alive();

    std::string path_;
    int64_t ttl_ms_;
    const base::Clock* clock_;
    uint64_t epoch_ = 0;
    int alive_ = -1;
    bool held_ = false;
};

}  // namespace parley::store
