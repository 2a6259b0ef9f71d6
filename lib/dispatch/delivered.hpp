// Delivered: what an asker has of a stream, so that another worker can go on behind it.
//
// Hold     content_block_stop is held back until the next event: a block whose end the asker has not
//          seen can still be continued. add() says what to pass on.
// Bounds   grows with the answer: ids and a few counters, no text.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipe/message.hpp"

namespace parley::dispatch {

class Delivered {
  public:
    struct Event {
        pipe::EventMeta meta;
        std::string body;
    };
    Delivered() = default;
    explicit Delivered(const pipe::Envelope& envelope);  // what the ASK itself continues

    // Events to pass on now, in order: none (held back, or the asker has it already), one or two.
    std::vector<Event> add(Event event);
    // The worker is lost: what it said and was held back is said again by the next one.
    void cut();
    // Where the next worker goes on; nullopt: from the beginning (its message_start is not passed on).
    std::optional<pipe::Continuation> continuation() const;
    bool begun() const { return begun_; }  // the asker has some event
    bool complete() const {
        return complete_;
    }  // it has the stop reason: nothing is to be continued

  private:
    std::vector<int32_t> ids_;
    int32_t block_ = -1;
    uint64_t bytes_ = 0;  // of that block's text
    std::optional<Event> held_;
    bool begun_ = false, started_ = false, complete_ = false, swallow_start_ = false;
};

}  // namespace parley::dispatch
