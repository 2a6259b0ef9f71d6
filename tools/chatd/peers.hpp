// Peers: the other chatd of this state folder, whose streams can be followed from here.
//
// Each serves its own streams at run/chatd-BOOT.sock. Who they are is read from run/ each second; a link to
// one is kept while it lives.
// follow()  asks all of them, or the one that is known to have it; the first that has the stream is
//           read to its end. Nobody has it: 404.
// Bounds    kPeersMax links; one more is not asked.
// Threads   the loop's.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "chat/followers.hpp"
#include "exchange.hpp"
#include "pipe/asker.hpp"

namespace parley::chatd {

class Peers {
  public:
    static constexpr size_t kPeersMax = 32;

    static base::Result<std::unique_ptr<Peers>> open(App& app, pipe::Context& context);
    ~Peers();
    // Answers the exchange with the stream's events after `after` (of `epoch`), or from its start.
    // `boot`: who has it; "": anybody. `none` is called when nobody has.
    void follow(const ExchangePtr& exchange, const std::string& id, const std::string& boot,
                std::optional<std::pair<uint32_t, uint64_t>> after, std::function<void()> none);
    void tick();
    void each_second();

  private:
    struct Peer;
    class Following;
    Peers(App& app, pipe::Context& context);
    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body);
    void on_end(const std::string& id, const pipe::EndMeta& meta);

    App& app_;
    pipe::Context& context_;
    std::unique_ptr<chat::Followers> followers_;
    std::shared_ptr<void> followers_watch_;
    std::map<std::string, std::unique_ptr<Peer>> peers_;         // by boot id
    std::map<std::string, std::weak_ptr<Following>> following_;  // by request id
    uint64_t asked_ = 0;
};

}  // namespace parley::chatd
