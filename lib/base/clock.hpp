// Clock: time as a value that is passed in, so that a test can own it.
//
// Units    monotonic times in nanoseconds (steady, comparable between processes of one boot); wall
//          times in milliseconds since 1970 UTC.
// Threads  SystemClock may be used from any; ManualClock from one.
#pragma once

#include <cstdint>
#include <string>

namespace parley::base {

class Clock {
  public:
    virtual ~Clock() = default;
    virtual int64_t mono_ns() const = 0;
    virtual int64_t wall_ms() const = 0;
    int64_t mono_ms() const { return mono_ns() / 1'000'000; }
};

class SystemClock final : public Clock {
  public:
    int64_t mono_ns() const override;  // CLOCK_MONOTONIC
    int64_t wall_ms() const override;
};

class ManualClock final : public Clock {
  public:
    int64_t mono_ns() const override { return mono_ns_; }
    int64_t wall_ms() const override { return wall_ms_; }
    void advance_ms(int64_t ms) {
        mono_ns_ += ms * 1'000'000;
        wall_ms_ += ms;
    }
    void set_wall_ms(int64_t ms) { wall_ms_ = ms; }

  private:
    int64_t mono_ns_ = 1'000'000'000;
    int64_t wall_ms_ = 1'767'225'600'000;
};

SystemClock& system_clock();

// CPU time of the calling thread.
int64_t thread_cpu_ns();
// "2026-11-01T10:00:00Z" (whole seconds, as the wire contracts show it).
std::string rfc3339(int64_t wall_ms);
// "2026-11-01T10:00:00.123Z".
std::string rfc3339_ms(int64_t wall_ms);

}  // namespace parley::base
