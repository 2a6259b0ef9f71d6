// Turn: which of the routers on one state folder serves. One does, one waits beside it, others behind that.
//
// Lock     bytes of run/router.turn, by fcntl: byte 0 is the one that serves, byte 1 the next. The kernel gives
//          them back when a process ends, however it ends, and says who has them.
// Beat     beat() counts up in the file; who waits and sees no beat for hung_ms of its own time (ticks that it
//          itself lived through, so that a machine that stands still condemns nobody) kills the one that
//          serves: on one machine that is the only fence that holds, and its streams go on with the successor.
// Threads  one.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace parley::router {

class Turn {
  public:
    static constexpr int64_t kTickMs = 50;  // how often try_take() and beat() are to be called

    // Errc::io where the file cannot be made. `hung_ms` 0: nobody is killed.
    static base::Result<Turn> open(const std::string& path, int64_t hung_ms);
    ~Turn();  // gives back what it has
    Turn(Turn&& other) noexcept;
    Turn& operator=(Turn&&) = delete;

    // True: ours from now on. Else this process is the next, if no other is.
    bool try_take();
    void beat();
    int holder() const;      // pid of the one that serves, 0: none, or we
    bool successor() const;  // somebody waits
    int killed() const {
        return killed_;
    }  // pid of the hung one that try_take() has killed; 0: none

  private:
    Turn(int fd, int64_t hung_ms) : fd_(fd), hung_ms_(hung_ms) {}
    bool lock(int64_t at) const;
    int locked_by(int64_t at) const;
    uint64_t beats() const;

    int fd_ = -1;
    int64_t hung_ms_ = 0;
    int64_t silent_ms_ = 0;  // own time without a beat
    uint64_t seen_ = 0, own_ = 0;
    int watched_ = 0;  // whose beats these are
    int killed_ = 0;
};

}  // namespace parley::router
