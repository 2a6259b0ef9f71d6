// Handover: listening sockets that outlive a process: taken from the service manager, or passed from a
// predecessor to its successor over a socket in run/ (SCM_RIGHTS).
//
//   successor                                predecessor
//   connects to run/chatd-BOOT.listen
//   "take ADDRESS"                       →   same --bind, not draining: "ok" and its sockets
//   (opens everything, accepts)
//   "go"                                 →   stops accepting and drains; "gone"
//
// Between "ok" and "gone" both accept from the same socket, so that no connection is refused and none
// waits. A successor that dies before "go" has changed nothing: its end of the connection closes.
// Trust    run/ is 0700; besides, both sides must be of one user.
// Bounds   kTakersMax connections at once; messages of kMessageMax; a successor waits kWaitMs.
// Threads  offer: the loop's. take() and go() wait, and are for a start.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/result.hpp"
#include "http/loop.hpp"

namespace parley::chatd {

class Handover {
  public:
    static constexpr size_t kTakersMax = 8;
    static constexpr size_t kMessageMax = 512;
    static constexpr int kWaitMs = 3000;
    static constexpr size_t kSocketsMax = 8;

    // What a predecessor offers until this is destroyed. `sockets`: those that are listened on, none
    // while it drains. `on_go`: somebody else accepts now.
    static base::Result<std::unique_ptr<Handover>> offer(http::Loop& loop, std::string path,
                                                         std::string address,
                                                         std::function<std::vector<int>()> sockets,
                                                         std::function<void()> on_go);
    ~Handover();
    static std::string path_of(const base::Places& places, const std::string& boot);

    // What a successor has got.
    struct Taken {
        std::vector<int> sockets;  // owned by the caller
        int connection = -1;       // for go(), which closes it
    };
    // From the oldest chatd of this state that listens at `address`; nothing when there is none.
    static std::optional<Taken> take(const base::Places& places, const std::string& address);
    // True: the predecessor has stopped accepting.
    static bool go(Taken& taken);

    // LISTEN_FDS of systemd.socket(5), if they are for this process; each is returned once.
    static std::vector<int> from_manager();

  private:
    struct Taker;
    Handover(http::Loop& loop, std::string path, std::string address,
             std::function<std::vector<int>()> sockets, std::function<void()> on_go);
    void accept_takers();
    void hear(const std::shared_ptr<Taker>& taker);

    http::Loop& loop_;
    std::string path_;
    std::string address_;
    std::function<std::vector<int>()> sockets_;
    std::function<void()> on_go_;
    int fd_ = -1;
    std::unique_ptr<http::FdWatch> watch_;
    std::list<std::shared_ptr<Taker>> takers_;
};

uint16_t port_of(int fd);  // 0: none
// Whether a listening socket is reached from this machine alone.
bool socket_is_loopback(int fd);

}  // namespace parley::chatd
