#include "base/text.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <sodium.h>

#include <array>
#include <charconv>
#include <cmath>

namespace parley::base {

std::string hex(std::string_view bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    out.reserve(bytes.size() * 2);
    for (char c : bytes) {
        const auto byte = static_cast<uint8_t>(c);
        out += kDigits[byte >> 4];
        out += kDigits[byte & 15];
    }
    return out;
}

Result<std::string> unhex(std::string_view text) {
    const auto value = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    };
    if (text.size() % 2 != 0) return fail(Errc::invalid, "hex text has an odd length");
    std::string out;
    for (size_t i = 0; i < text.size(); i += 2) {
        const int high = value(text[i]);
        const int low = value(text[i + 1]);
        if (high < 0 || low < 0) return fail(Errc::invalid, "not hex text");
        out += static_cast<char>(high << 4 | low);
    }
    return out;
}

std::string base64url(std::string_view bytes) {
    constexpr int kVariant = sodium_base64_VARIANT_URLSAFE_NO_PADDING;
    std::string out(sodium_base64_encoded_len(bytes.size(), kVariant), '\0');
    sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(bytes.data()),
                      bytes.size(), kVariant);
    out.pop_back();  // its NUL
    return out;
}

Result<std::string> unbase64url(std::string_view text) {
    std::string out(text.size(), '\0');
    size_t size = 0;
    if (sodium_base642bin(reinterpret_cast<unsigned char*>(out.data()), out.size(), text.data(),
                          text.size(), nullptr, &size, nullptr,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
        return fail(Errc::invalid, "not base64url text");
    out.resize(size);
    return out;
}

size_t utf8_complete_prefix(std::string_view bytes) {
    const size_t n = bytes.size();
    for (size_t back = 1; back <= 3 && back <= n; ++back) {
        const auto byte = static_cast<uint8_t>(bytes[n - back]);
        if ((byte & 0xC0) == 0x80) continue;  // a continuation: look further back for its lead
        size_t need = 1;
        if ((byte & 0xE0) == 0xC0) need = 2;
        if ((byte & 0xF0) == 0xE0) need = 3;
        if ((byte & 0xF8) == 0xF0) need = 4;
        return need > back ? n - back : n;
    }
    return n;
}

bool utf8_valid(std::string_view bytes) {
    return simdjson::validate_utf8(bytes.data(), bytes.size());
}

Result<int64_t> parse_duration_ms(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const std::string_view unit(end, text.data() + text.size() - end);
    double scale = 0;
    if (unit == "ms") scale = 1;
    if (unit == "s") scale = 1000;
    if (unit == "m" || unit == "min") scale = 60'000;
    if (unit == "h") scale = 3'600'000;
    if (unit == "d") scale = 86'400'000;
    if (unit.empty() && value == 0) scale = 1;
    if (error != std::errc{} || scale == 0 || !(value >= 0) || value * scale > 9e15)
        return fail(Errc::usage,
                    fmt::format("'{}' is not a duration such as 250ms, 10s, 5m, 24h", text));
    return static_cast<int64_t>(std::llround(value * scale));
}

Result<uint64_t> parse_size(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const std::string_view unit(end, text.data() + text.size() - end);
    double scale = 0;
    if (unit.empty() || unit == "B") scale = 1;
    if (unit == "KB" || unit == "kB") scale = 1e3;
    if (unit == "MB") scale = 1e6;
    if (unit == "GB") scale = 1e9;
    if (unit == "KiB") scale = 1024.0;
    if (unit == "MiB") scale = 1024.0 * 1024;
    if (unit == "GiB") scale = 1024.0 * 1024 * 1024;
    if (unit == "TiB") scale = 1024.0 * 1024 * 1024 * 1024;
    if (error != std::errc{} || scale == 0 || !(value >= 0) || value * scale > 9e18)
        return fail(Errc::usage, fmt::format("'{}' is not a size such as 4096, 64KiB, 32MB", text));
    return static_cast<uint64_t>(std::llround(value * scale));
}

std::string show_duration_ms(int64_t ms) {
    if (ms != 0 && ms % 3'600'000 == 0) return fmt::format("{}h", ms / 3'600'000);
    if (ms != 0 && ms % 60'000 == 0) return fmt::format("{}m", ms / 60'000);
    if (ms % 1000 == 0) return fmt::format("{}s", ms / 1000);
    return fmt::format("{}ms", ms);
}

bool equal_constant_time(std::string_view a, std::string_view b) {
    return a.size() == b.size() && sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string sha256(std::string_view bytes) {
    std::string out(crypto_hash_sha256_BYTES, '\0');
    crypto_hash_sha256(reinterpret_cast<unsigned char*>(out.data()),
                       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    return out;
}

namespace {

uint32_t crc32c_table(std::string_view bytes, uint32_t crc) {
    static const auto kTable = [] {
        std::array<uint32_t, 256> table{};
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t value = i;
            for (int k = 0; k < 8; ++k) value = value & 1 ? value >> 1 ^ 0x82F63B78u : value >> 1;
            table[i] = value;
        }
        return table;
    }();
    for (char c : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ crc >> 8;
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(std::string_view bytes, uint32_t crc) {
    const char* p = bytes.data();
    size_t n = bytes.size();
    uint64_t wide = crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        __builtin_memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; n > 0; ++p, --n) crc = __builtin_ia32_crc32qi(crc, static_cast<uint8_t>(*p));
    return crc;
}
#endif

}  // namespace

uint32_t crc32c(std::string_view bytes, uint32_t seed) {
    uint32_t crc = ~seed;
#if defined(__x86_64__)
    static const bool fast = __builtin_cpu_supports("sse4.2");
    if (fast) return ~crc32c_sse42(bytes, crc);
#endif
    return ~crc32c_table(bytes, crc);
}

}  // namespace parley::base
