// TraceContext: the W3C traceparent header (Trace Context level 1,
// https://www.w3.org/TR/trace-context).
//
//   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//   version, trace id (16 bytes), parent span id (8 bytes), flags; lower-case hex.
//
// Errors   parse() gives nothing for what the standard forbids: upper case, version ff, an id of
//          zeros, a version 00 of another length. A receiver then starts a trace of its own.
//          A higher version is read by its first four fields, as the standard asks.
// Threads  values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace parley::telemetry {

struct TraceContext {
    std::array<uint8_t, 16> trace_id{};
    std::array<uint8_t, 8> span_id{};
    uint8_t flags = 0;

    bool operator==(const TraceContext&) const = default;
    bool sampled() const { return flags & 1; }
    std::string text() const;    // always version 00
    TraceContext child() const;  // the same trace, a new span id

    static std::optional<TraceContext> parse(std::string_view header);
    static TraceContext fresh(bool sampled);  // random ids from the kernel
};

}  // namespace parley::telemetry
