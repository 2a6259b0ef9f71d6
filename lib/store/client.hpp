// Client: the asker's side of the store's commands, for a poll loop (chatd, router, the admin
// verbs).
//
// Order     commands are sent in the order of submit() and each gets exactly one reply. After a
// broken
//           connection or a restarted convstore the unconfirmed ones are sent again under the same
//           (boot, seq): the writer answers a resend with the first reply, so none runs twice.
// Bounds    at most `queue_max` commands wait in all (submit: Errc::again beyond), at most 1,024 of
// them
//           are unconfirmed on the wire; a command is at most `command_bytes_max`
//           (Errc::too_large).
// Waiting   a command waits for as long as convstore is away, unless its deadline passes: then it
// is
//           reported once as Errc::timeout and its outcome is unknown (ask by idempotency key).
// Threads   one, with the callbacks called from step(); a callback may submit().
// Loop      wait until fd() is readable or wait_ms() has passed, then step().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace parley::store {

struct ClientOptions {
    std::string endpoint;  // base::Places::store_endpoint()
    std::string name = "asker";
    size_t queue_max = 4096;
    size_t command_bytes_max = 8u << 20;
};

struct CommandReply {
    // Of a refusal: code and words, `reason` of commands.hpp. Of a lost wait: timeout, cancelled.
    std::optional<base::Error> error;
    std::string reason;
    std::string json;         // the whole reply object, also of a refusal; "" after timeout
    uint64_t change_seq = 0;  // a read begun now sees at least this change
    bool ok() const { return !error; }
};

class Client {
  public:
    using Done = std::function<void(const CommandReply&)>;

    // Connecting never waits: connected() tells. Errc::invalid for a bad endpoint.
    static base::Result<std::unique_ptr<Client>> connect(ClientOptions options);
    ~Client();  // replies still due are dropped without a call
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    // deadline_ms: how long from now on a reply is waited for; 0 = for ever.
    base::Result<void> submit(std::string command_json, Done done, int64_t deadline_ms = 0);

    int fd() const;
    // Called, at most once until the next step(), when a submit() outside of step() has used up the edge
    // of fd(): post a step(). Without it a reply may wait for wait_ms().
    void set_wake(std::function<void()> wake);
    int64_t wait_ms() const;  // until step() is due without any event
    void step();              // never waits

    bool connected() const;  // convstore said HELLO and is heard
    size_t pending() const;  // submitted, without reply

    // For programs without a loop: submit and step until the reply. Errc::unavailable when nobody
    // answers within `wait_ms`.
    base::Result<CommandReply> call(std::string command_json, int64_t wait_ms);

  private:
    struct Impl;
    explicit Client(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::store
