// Server: the writer behind its sockets. What convstore serve runs.
//
// Turn       reads the commands that wait (at most batch_max), applies them in one commit, publishes its
//            changes, then answers. While a commit waits for the disk the next group gathers, and for at most
//            an eighth of a commit's time after it: the busier, the larger the groups, and an idle store
//            answers at once.
// Names      an ASK's id BOOT-SEQ names a command for good (protocol: commands); any other id is a
//            command that a resend would run again.
// Replies    EVENT with the reply object, END with status ok or the error's type (reason "refused") and
//            the newest change.
// Publishes  each change on a PUB socket: parley/1 | EVENT | changes | {"seq":N} | change.
// Bounds     commands_max wait at once; further ones are ended overloaded_error by pipe::Answerer.
// Errors     run_once() fails when the disk does: stop, and start again.
// Threads    one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "pipe/context.hpp"
#include "pipe/loop.hpp"
#include "store/writer.hpp"
#include "telemetry/registry.hpp"

namespace parley::store {

struct ServerOptions {
    WriterOptions writer;
    std::string endpoint;          // ROUTER for askers
    std::string changes_endpoint;  // PUB
    size_t batch_max = 512;        // commands a commit
    uint32_t commands_max = 65'536;
    int64_t status_interval_ms = 100;
    int64_t gc_interval_ms = 5000;
};

class Server {
  public:
    // The writer's lock is taken before any socket is bound.
    static Result<std::unique_ptr<Server>> open(pipe::Context& context, pipe::Loop& loop,
                                                ServerOptions options,
                                                telemetry::Registry& metrics);
    ~Server();

    // One turn; waits at most timeout_ms for something to do.
    Result<void> run_once(int timeout_ms);
    // Says BYE and takes nothing new.
    void drain();
    bool drained() const;  // nothing waits any more
    Writer& writer();
    std::string changes_endpoint() const;

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::store
