// Ulid: 128-bit ids whose order is time order: 48 bits of milliseconds, 80 bits of randomness.
//
// Text     26 characters of upper-case Crockford base 32 (https://github.com/ulid/spec).
// Order    UlidSource never repeats and never goes back, whatever the clock does: within one
//          millisecond, or when the clock steps back, it adds one to the last id.
// Threads  UlidSource belongs to one thread.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.hpp"

namespace parley::base {

struct Ulid {
    std::array<uint8_t, 16> bytes{};  // big-endian: memcmp order is time order

    auto operator<=>(const Ulid&) const = default;
    uint64_t ms() const;
    std::string text() const;
    std::string_view view() const {
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    static std::optional<Ulid> parse(std::string_view text);  // nullopt unless 26 valid characters
    static std::optional<Ulid> from_bytes(std::string_view bytes);  // exactly 16
};

class UlidSource {
  public:
    explicit UlidSource(const Clock& clock = system_clock()) : clock_(clock) {}
    Ulid next();
    // Everything drawn from now on is greater than `last` (the greatest id known to be durable).
    void raise_to(const Ulid& last);

  private:
    const Clock& clock_;
    Ulid last_{};
};

// "req_" + 26 characters; unguessable (80 random bits drawn anew each time, no counter).
std::string random_id(std::string_view prefix);

}  // namespace parley::base
