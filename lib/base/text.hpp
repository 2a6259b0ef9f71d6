// Text: the small conversions that every tool needs one way of.
//
// Threads  pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::base {

std::string hex(std::string_view bytes);
Result<std::string> unhex(std::string_view text);
std::string base64url(std::string_view bytes);  // no padding
Result<std::string> unbase64url(std::string_view text);

// Length of the longest prefix of `bytes` that ends on a whole UTF-8 character; what follows is an
// incomplete tail of at most 3 bytes. Invalid bytes count as whole (they are not ours to hold).
size_t utf8_complete_prefix(std::string_view bytes);
bool utf8_valid(std::string_view bytes);  // RFC 3629: no surrogates, no overlong forms

// "250ms", "10s", "5m", "24h", "0" → milliseconds. A bare number other than 0 is refused: say the
// unit.
Result<int64_t> parse_duration_ms(std::string_view text);
// "64KiB", "32MB", "1GiB", "4096" → bytes. KB/MB/GB are powers of 1000, KiB/MiB/GiB of 1024.
Result<uint64_t> parse_size(std::string_view text);
std::string show_duration_ms(int64_t ms);

bool equal_constant_time(std::string_view a, std::string_view b);
// SHA-256, 32 raw bytes.
std::string sha256(std::string_view bytes);
// CRC-32C (Castagnoli), hardware where there is some.
uint32_t crc32c(std::string_view bytes, uint32_t seed = 0);

}  // namespace parley::base
