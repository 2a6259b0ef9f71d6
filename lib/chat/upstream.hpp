// Upstream: where answers come from: the hop to the filters, or a script in a test.
//
// Promise  as pipe::Asker's: after an ask() that returned a value come events with dense seq and then
//          exactly one on_end for (id, attempt). ask() with a higher attempt drops the lower one.
// Threads  one; sink calls come from within the loop's turn, or from within ask().
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "pipe/message.hpp"

namespace parley::chat {

class UpstreamSink {
  public:
    virtual ~UpstreamSink() = default;
    virtual void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) = 0;
    virtual void on_end(const std::string& id, const pipe::EndMeta& meta) = 0;
};

class Upstream {
  public:
    virtual ~Upstream() = default;
    // Errc::unavailable: nobody is there; Errc::again: over our own bound.
    virtual base::Result<void> ask(const std::string& id, const pipe::Envelope& envelope,
                                   std::string body) = 0;
    virtual void cancel(const std::string& id, const std::string& reason) = 0;
    virtual void grant(const std::string& id, uint32_t credit) = 0;
    virtual bool up() const = 0;
};

}  // namespace parley::chat
