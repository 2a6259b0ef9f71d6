// Notifier: the follower that tells users who are away that answers wait.
//
// When       an answer ends, and delay_ms later (email_delay_ms for mail) its user has not read it and no
//            device of his is connected (unless he wants to be told all the same). All that waits for him by
//            then goes out as one.
// Delivery   at least once, per channel (the webhook, the address, each browser) by itself; the same delivery
//            has the same id however often it is tried. Back-off doubles from retry_ms to retry_max_ms,
//            Retry-After is kept, attempts_max ends it. What was read meanwhile is not sent. An endpoint that
//            answers 404 or 410 is taken out of the user's settings. Other 4xx and refusals of the guard are
//            not tried again.
// Cursor     `cursor_path`: the change up to which all is delivered, and what is delivered after it.
//            Without the file it begins at the log's end.
// Bounds     pending_max deliveries wait; at that the log is not read on: it keeps them. 100 conversations
//            are named in one.
// Content    titles and counts, never a message's text.
// Errors     those of the store and of the cursor's disk; a delivery that fails is told and no error
// Threads    one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "notify/outgoing.hpp"
#include "store/client.hpp"
#include "store/follower.hpp"

namespace parley::notify {

struct NotifierOptions {
    OutgoingOptions outgoing;
    std::string changes_endpoint;
    std::string cursor_path;
    std::string vapid_path;
    std::string run_dir;
    std::string contact = "mailto:root@localhost";  // what push services are told of us
    store::Partition partition;
    int64_t delay_ms = 30'000;
    int64_t email_delay_ms = 900'000;
    int64_t retry_ms = 5'000;
    int64_t retry_max_ms = 3'600'000;
    uint32_t attempts_max = 8;
    size_t pending_max = 10'000;
    std::function<void(std::string_view event, std::string_view channel, const std::string& detail)>
        tell = [](std::string_view, std::string_view, const std::string&) {};
};

// Errc::config with what is wrong of what an operator has said, before anything is sent.
base::Result<void> check(const NotifierOptions& options);

class Notifier {
  public:
    // Reader, client and clock outlive it.
    static base::Result<std::unique_ptr<Notifier>> open(store::Reader& reader,
                                                        store::Client& client,
                                                        NotifierOptions options,
                                                        const base::Clock& clock);
    ~Notifier();
    // Reads on in the log, sends what is due, takes answers; waits at most wait_ms for extra_fd or a change.
    base::Result<void> step(int wait_ms, int extra_fd);
    // The position may be kept: call it where no other follower can have taken over (Lease::guard).
    base::Result<void> save();
    size_t pending() const;
    size_t running() const;

  private:
    struct Impl;
    explicit Notifier(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::notify
