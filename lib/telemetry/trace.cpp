#include "telemetry/trace.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <span>

#include "base/text.hpp"

namespace parley::telemetry {
namespace {

bool lower_hex(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

uint8_t nibble(char c) { return static_cast<uint8_t>(c <= '9' ? c - '0' : c - 'a' + 10); }

// True when the bytes are not all zero.
bool read_hex(std::string_view text, std::span<uint8_t> out) {
    uint8_t any = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<uint8_t>(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
        any |= out[i];
    }
    return any != 0;
}

void fill_random(std::span<uint8_t> out) {
    do {
        size_t done = 0;
        while (done < out.size()) {
            const ssize_t n = ::getrandom(out.data() + done, out.size() - done, 0);
            if (n > 0)
                done += static_cast<size_t>(n);
            else if (errno != EINTR)
                std::abort();  // no randomness: nothing here is safe any more
        }
    } while (std::all_of(out.begin(), out.end(), [](uint8_t b) { return b == 0; }));
}

std::string_view bytes_of(std::span<const uint8_t> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::optional<TraceContext> TraceContext::parse(std::string_view header) {
    constexpr size_t kSize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
    if (header.size() < kSize || header[2] != '-' || header[35] != '-' || header[52] != '-')
        return std::nullopt;
    const std::string_view version = header.substr(0, 2);
    const std::string_view flags = header.substr(53, 2);
    if (!lower_hex(version) || version == "ff" || !lower_hex(flags)) return std::nullopt;
    if (!lower_hex(header.substr(3, 32)) || !lower_hex(header.substr(36, 16))) return std::nullopt;
    if (header.size() > kSize && (version == "00" || header[kSize] != '-')) return std::nullopt;
    TraceContext out;
    if (!read_hex(header.substr(3, 32), out.trace_id)) return std::nullopt;
    if (!read_hex(header.substr(36, 16), out.span_id)) return std::nullopt;
    out.flags = static_cast<uint8_t>(nibble(flags[0]) << 4 | nibble(flags[1]));
    return out;
}

std::string TraceContext::text() const {
    const uint8_t flag_byte[] = {flags};
    return "00-" + base::hex(bytes_of(trace_id)) + '-' + base::hex(bytes_of(span_id)) + '-' +
           base::hex(bytes_of(flag_byte));
}

TraceContext TraceContext::child() const {
    TraceContext out = *this;
    fill_random(out.span_id);
    return out;
}

TraceContext TraceContext::fresh(bool sampled) {
    TraceContext out;
    fill_random(out.trace_id);
    fill_random(out.span_id);
    out.flags = sampled ? 1 : 0;
    return out;
}

}  // namespace parley::telemetry
