#include "base/clock.hpp"

#include <fmt/format.h>
#include <time.h>

namespace parley::base {
namespace {

int64_t read_ns(clockid_t id) {
    timespec ts{};
    clock_gettime(id, &ts);
    return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

std::string render(int64_t wall_ms, bool with_ms) {
    int64_t seconds = wall_ms / 1000;
    int64_t ms = wall_ms % 1000;
    if (ms < 0) {
        ms += 1000;
        --seconds;
    }
    const time_t when = seconds;
    tm parts{};
    gmtime_r(&when, &parts);
    auto text =
        fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                    parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    return with_ms ? fmt::format("{}.{:03}Z", text, ms) : text + "Z";
}

}  // namespace

int64_t SystemClock::mono_ns() const { return read_ns(CLOCK_MONOTONIC); }
int64_t SystemClock::wall_ms() const { return read_ns(CLOCK_REALTIME) / 1'000'000; }

SystemClock& system_clock() {
    static SystemClock clock;
    return clock;
}

int64_t thread_cpu_ns() { return read_ns(CLOCK_THREAD_CPUTIME_ID); }
std::string rfc3339(int64_t wall_ms) { return render(wall_ms, false); }
std::string rfc3339_ms(int64_t wall_ms) { return render(wall_ms, true); }

}  // namespace parley::base
