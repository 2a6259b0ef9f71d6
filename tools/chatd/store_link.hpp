// StoreLink: the store as chatd sees it: one reader, one client of commands, on the loop.
//
// chatd starts before the store may exist: reader() is null until it can be opened, and is tried again
// each second.
// Threads  the loop's.
#pragma once

#include <memory>
#include <string>

#include "chat/journal.hpp"
#include "http/loop.hpp"
#include "store/client.hpp"
#include "store/reader.hpp"

namespace parley::chatd {

class StoreLink final : public chat::StoreCommands {
  public:
    static base::Result<std::unique_ptr<StoreLink>> open(http::Loop& loop, std::string store_dir,
                                                         store::ClientOptions options);

    store::Reader* reader();
    bool connected() const { return client_->connected(); }
    size_t pending() const { return client_->pending(); }
    base::Result<void> submit(std::string command_json, Done done, int64_t deadline_ms) override;
    // Each second.
    void retry();

  private:
    StoreLink(http::Loop& loop, std::string store_dir)
        : loop_(loop), store_dir_(std::move(store_dir)), timer_(loop) {}
    void step();

    http::Loop& loop_;
    std::string store_dir_;
    std::unique_ptr<store::Client> client_;
    std::unique_ptr<store::Reader> reader_;
    http::Timer timer_;
    std::unique_ptr<http::FdWatch> watch_;
    std::shared_ptr<bool> step_posted_ = std::make_shared<bool>(false);
};

}  // namespace parley::chatd
