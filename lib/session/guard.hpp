// Guard: how often a password may be tried: by name and by address.
//
// Count    an attempt counts as a failure from its start, so that many at once gain nothing; success
//          takes it back.
// Rule     the first `free` failures of a name (or an address) cost nothing; each one after makes the
//          next try wait, 1 s doubling to wait_max_ms. A success forgets the failures of its name, not
//          those of its address; forget_ms without a failure forgets both.
// Waiting  a try that comes too early is refused before any password is looked at, and does not count:
//          nobody can lock another out for longer than wait_max_ms after his last failure.
// Addresses  an IPv6 one counts by its /64, which one machine may own whole.
// Bounds   entries_max names and addresses each; beyond it the oldest failure is forgotten.
// Kept     in memory: a restart forgets, and every process counts for itself.
// Threads  one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace parley::session {

struct GuardOptions {
    uint32_t name_free = 5;
    uint32_t address_free = 20;
    int64_t wait_max_ms = 15 * 60'000;
    int64_t forget_ms = 60 * 60'000;
    size_t entries_max = 10'000;
};

class Guard {
  public:
    explicit Guard(GuardOptions options = {}) : options_(options) {}

    // Milliseconds to wait before this may be tried; 0: now.
    int64_t wait_ms(std::string_view name, std::string_view address, int64_t now_ms) const;
    void attempt(std::string_view name, std::string_view address, int64_t now_ms);
    void succeeded(std::string_view name, std::string_view address);
    size_t names() const { return names_.size(); }

  private:
    struct Entry {
        uint32_t failures = 0;
        int64_t last_ms = 0;
    };
    using Table = std::unordered_map<std::string, Entry>;
    int64_t wait_of(const Table& table, const std::string& key, uint32_t free,
                    int64_t now_ms) const;
    void count(Table& table, const std::string& key, int64_t now_ms);

    GuardOptions options_;
    Table names_, addresses_;
};

// What an address counts as.
std::string address_key(std::string_view address);

}  // namespace parley::session
