#include "base/ulid.hpp"

#include <sodium.h>

namespace parley::base {
namespace {

constexpr char kAlphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    for (int i = 10; i < 32; ++i) {
        if (kAlphabet[i] == c) return i;
    }
    return -1;
}

Ulid fresh(uint64_t ms) {
    Ulid id;
    for (int i = 0; i < 6; ++i) id.bytes[i] = static_cast<uint8_t>(ms >> (40 - 8 * i));
    randombytes_buf(id.bytes.data() + 6, 10);
    return id;
}

}  // namespace

uint64_t Ulid::ms() const {
    uint64_t value = 0;
    for (int i = 0; i < 6; ++i) value = value << 8 | bytes[i];
    return value;
}

std::string Ulid::text() const {
    // 130 bits in 26 digits: two zero bits, then the 128.
    std::string out(26, '0');
    unsigned __int128 value = 0;
    for (uint8_t byte : bytes) value = value << 8 | byte;
    for (int i = 25; i >= 0; --i) {
        out[i] = kAlphabet[static_cast<unsigned>(value & 31)];
        value >>= 5;
    }
    return out;
}

std::optional<Ulid> Ulid::parse(std::string_view text) {
    if (text.size() != 26) return std::nullopt;
    if (const int first = digit(text[0]); first < 0 || first > 7) return std::nullopt;
    unsigned __int128 value = 0;
    for (char c : text) {
        const int d = digit(c);
        if (d < 0) return std::nullopt;
        value = value << 5 | static_cast<unsigned>(d);
    }
    Ulid id;
    for (int i = 15; i >= 0; --i) {
        id.bytes[i] = static_cast<uint8_t>(value & 0xff);
        value >>= 8;
    }
    return id;
}

std::optional<Ulid> Ulid::from_bytes(std::string_view bytes) {
    if (bytes.size() != 16) return std::nullopt;
    Ulid id;
    for (size_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<uint8_t>(bytes[i]);
    return id;
}

Ulid UlidSource::next() {
    const auto now = static_cast<uint64_t>(clock_.wall_ms());
    if (now > last_.ms()) {
        last_ = fresh(now);
        return last_;
    }
    for (int i = 15; i >= 0; --i) {
        if (++last_.bytes[i] != 0) break;
    }
    return last_;
}

void UlidSource::raise_to(const Ulid& last) {
    if (last > last_) last_ = last;
}

std::string random_id(std::string_view prefix) {
    return std::string(prefix) + fresh(static_cast<uint64_t>(system_clock().wall_ms())).text();
}

}  // namespace parley::base
